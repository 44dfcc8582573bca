//! What a history costs in memory, whatever the size of its chunks and the formats of its viewers. Each case
//! has a process of its own, since an allocator keeps what earlier cases used.
#![cfg(target_os = "linux")]

use std::process::Command;

use bytes::Bytes;
use futures_util::StreamExt;
use h3cast_feed::{
    End, Feed, Lag, Start,
    format::{Format, Framing, Writer},
};

/// Tells the child which case to run.
const CASE: &str = "HISTORY_CASE";
const HISTORY: usize = 4 << 20;
/// What the child uses besides the history: stacks, tasks, the latest chunk on its way in each format, and the
/// allocator's own.
const MARGIN: u64 = 2 << 20;
/// As `h3cast` publishes: a byte, a line, a long line, a read of a pipe, and what a client sent at once.
const SIZES: [usize; 5] = [1, 16, 1 << 10, 64 << 10, 1 << 20];

/// The resident memory of this process, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of memory");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_history_costs_at_most_half_more_than_it_says() {
    if let Ok(case) = std::env::var(CASE) {
        return child(&case);
    }
    let mut failed = Vec::new();
    for case in ["1", "16", "1024", "65536", "1048576", "mixed"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "a_history_costs_at_most_half_more_than_it_says", "--nocapture"]).env(CASE, case);
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.starts_with("chunks of ")).unwrap_or("nothing was measured");
        println!("{line}");
        if !output.status.success() {
            failed.push(format!("{line}\n{}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn child(case: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let (grown, kept) = runtime.block_on(fill(case));
    println!("chunks of {case}: grown by {} KiB, {} KiB are charged", grown >> 10, kept >> 10);
    // Encodings that viewers have just read are charged until the next chunk makes room.
    assert!(kept <= HISTORY / 8 * 9, "{kept} bytes are charged");
    let largest = case.parse().unwrap_or(SIZES[SIZES.len() - 1]);
    let limit = HISTORY as u64 * 3 / 2 + MARGIN + 2 * largest as u64;
    assert!(grown <= limit, "chunks of {case}: {grown} bytes for a history of {HISTORY}");
}

/// Publishes twice the history to viewers of every format and framing; how many bytes are resident then,
/// and how many are charged.
async fn fill(case: &str) -> (u64, usize) {
    let sizes = case.parse().map_or(SIZES.to_vec(), |size| vec![size]);
    let before = memory();
    let (feed, publisher) = Feed::live("default", HISTORY, Lag::Block);
    let mut viewers = tokio::task::JoinSet::new();
    for format in [Format::Raw, Format::Sse, Format::Frames] {
        for framing in [Framing::Plain, Framing::Prefixed] {
            let mut stream = Box::pin(Writer::new(feed.view(Start::Now, None), format, framing).into_stream());
            viewers.spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
        }
    }
    let (mut published, mut number) = (0, 0);
    while published < 2 * HISTORY {
        let size = sizes[number % sizes.len()];
        let text: Vec<u8> =
            (0..size).map(|at| if at % 64 == 63 { b'\n' } else { b'a' + (number % 26) as u8 }).collect();
        publisher.publish(Bytes::from(text)).await.unwrap();
        // A small chunk costs more than its bytes.
        published += size + 100;
        number += 1;
    }
    // The last chunk is published to viewers that have everything else.
    tokio::task::yield_now().await;
    publisher.end(End::Clean);
    while let Some(viewer) = viewers.join_next().await {
        viewer.unwrap();
    }
    (memory().saturating_sub(before), feed.status().kept_bytes)
}
