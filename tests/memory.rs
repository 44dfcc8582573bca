//! What the program holds in memory, as its settings say.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;
#[path = "common/serving.rs"]
mod serving;

use std::io::Write;

use common::soon;
use serving::{Reading, Serving};

/// A history of short lines, read by viewers of every format over both transports: the worst that a history is
/// made of. `crates/feed/tests/history.rs` has other sizes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_of_short_lines_in_three_formats() {
    const HISTORY: u64 = 8 << 20;
    /// Send buffers of the viewers, and what two workers' allocators keep.
    const BUFFERS: u64 = 6 << 20;
    const LINES: usize = 80_000;
    let mut serving = Serving::start(|_| vec!["-", "--history", "8M", "--lag", "block", "--workers", "2"]);
    let connection = serving.connect().await;
    let mut viewers = Vec::new();
    for (path, webtransport) in [
        ("/stream", false),
        ("/stream?format=sse", false),
        ("/stream?format=frames", false),
        ("/stream?format=sse", true),
        ("/stream?format=frames", true),
    ] {
        let mut reading = Reading::open(&connection, &serving.uri(path), webtransport).await;
        viewers.push(tokio::spawn(async move {
            // The server stops at the end, and ends some of them in the middle.
            while let Ok(Some(_)) = reading.next().await {}
        }));
    }
    let viewing = viewers.len() as u64;
    serving.until(&connection, "viewers", |viewers| viewers == viewing).await;
    let idle = serving.memory();
    let mut stdin = serving.stdin.take().unwrap();
    let fed = tokio::task::spawn_blocking(move || {
        for number in 0..LINES {
            writeln!(stdin, "{number:015}").unwrap();
        }
        stdin
    });
    let stdin = fed.await.unwrap();
    serving.until(&connection, "chunks", |chunks| chunks == LINES as u64).await;
    let kept = serving.feeds(&connection).await[0]["kept_bytes"].as_u64().unwrap();
    let grown = serving.memory().saturating_sub(idle);
    println!("idle {} KiB, {} KiB are charged, grown by {} KiB", idle >> 10, kept >> 10, grown >> 10);
    assert!((HISTORY / 2..=HISTORY / 8 * 9).contains(&kept), "{kept} bytes are charged");
    assert!(grown <= HISTORY * 3 / 2 + BUFFERS, "grew by {grown} bytes for a history of {HISTORY}");
    drop(stdin);
    for viewer in viewers {
        soon("the end", viewer).await.unwrap();
    }
    serving.stop();
}
