//! `h3cast get` through losses, and to files; and the viewer that it uses.
#![cfg(all(feature = "cli", unix))]

#[path = "../common/mod.rs"]
mod common;
mod downloads;
mod hostile;
mod lines;
mod losses;
mod parts;
#[path = "../common/program.rs"]
mod program;
mod stalls;
mod usage;
mod viewer;

use std::{path::Path, sync::Arc, time::Duration};

use program::soon;

fn demo(count: usize) -> String {
    (0..count).map(|number| format!("data chunk #{number}\n")).collect()
}

fn noise(len: usize) -> Arc<Vec<u8>> {
    Arc::new((0..len as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect())
}

async fn until_len(path: &Path, len: usize) {
    soon("the part grows", async {
        while std::fs::metadata(path).map_or(0, |there| there.len()) < len as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Leaves a part and its mark, as an earlier run does.
fn leave(part: &Path, content: Option<&[u8]>, mut mark: serde_json::Value) {
    if let Some(content) = content {
        std::fs::write(part, content).unwrap();
    }
    let there = std::fs::metadata(part).unwrap();
    let created = there.created().ok().map(|at| at.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64);
    mark["created_by"] = "h3cast get".into();
    mark["file"] = serde_json::json!({ "inode": std::os::unix::fs::MetadataExt::ino(&there), "created": created });
    std::fs::write(part.with_extension("part.json"), mark.to_string()).unwrap();
}
