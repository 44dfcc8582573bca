//! Power losses. The store is on a file system of its own, in a file: what is in that file at one moment is what a disk
//! would have then. What the system has not written by then, of chunks, names and journals, is not in it. (A disk may
//! besides forget what it was not told to flush: that is not tried.)
//!
//! That the file is copied as it is at one moment takes another file system around it, which is frozen meanwhile.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    copies::holds_with,
    writing::{Random, Writing},
};

fn sh(dir: &Path, script: &str) -> bool {
    Command::new("sh").args(["-ec", script]).current_dir(dir).status().unwrap().success()
}

/// Longer than it takes with the default interval of 100 ms until an acknowledged chunk is on the disk.
const SINCE: Duration = Duration::from_secs(2);

/// `H3CAST_POWER_LOSSES` of each kind of fsync.
#[test]
#[ignore = "needs the rights of root, for loop devices: run by tests/soak"]
fn what_was_confirmed_is_there_after_a_power_loss() {
    let folder = tempfile::tempdir().unwrap();
    let around = "mkdir around disk lost && truncate -s 1G around.img && mkfs.ext4 -qF around.img && \
                  mount -o loop around.img around";
    let disk =
        "truncate -s 256M around/disk.img && mkfs.ext4 -qF around/disk.img && mount -o loop around/disk.img disk";
    // What is mounted there goes with the process.
    let done = Command::new("unshare")
        .args(["-m", "sh", "-ec", &format!("{around}\n{disk}\nexec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["power::losses", "--exact", "--ignored", "--nocapture"])
        .env("PLACE", folder.path())
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(done.success());
}

#[tokio::test]
#[ignore = "run by another test"]
async fn losses() {
    let place = PathBuf::from(std::env::var_os("PLACE").expect("run by another test"));
    let mut random = Random::new();
    let many: u64 = std::env::var("H3CAST_POWER_LOSSES").ok().and_then(|many| many.parse().ok()).unwrap_or(10);
    for round in 0..many {
        for fsync in ["always", "100ms", "never"] {
            let store = place.join("disk/store");
            let _ = std::fs::remove_dir_all(&store);
            let mut writing = Writing::keeping(&store, fsync, "33554432");
            // Also right after the feed was created.
            for after in [0, 3, random.below(500), random.below(3000)] {
                let old = writing.acknowledged(after);
                std::thread::sleep(SINCE);
                let last = writing.acknowledged(0);
                assert!(last > old);
                let begun = Instant::now();
                // The power is off. All who write wait meanwhile, as if nothing had happened.
                let copied = sh(&place, "fsfreeze -f around && cp --sparse=always around/disk.img lost.img");
                let thawed = sh(&place, "fsfreeze -u around");
                assert!(copied && thawed && begun.elapsed() < Duration::from_secs(60));
                assert!(sh(&place, "mount -o loop lost.img lost"));
                // It is another run of the system.
                let state = place.join("lost/store/state.json");
                let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
                value["boot"] = "another".into();
                std::fs::write(&state, value.to_string()).unwrap();
                println!("round {round}, {fsync}: {last} chunks");
                let sure = match fsync {
                    "always" => Some(last),
                    "100ms" => Some(old),
                    _ => None,
                };
                holds_with(&place.join("lost/store"), last, sure).await;
                assert!(sh(&place, "umount lost"));
            }
            writing.kill(0);
        }
    }
}
