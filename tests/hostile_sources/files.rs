//! Followed files that are rotated and truncated while they are written.

use std::io::Write;

use crate::{
    ALONE,
    common::soon,
    serving::{Reading, Serving},
};

/// A log that is written to without a pause, while it is rotated again and again: every line comes once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_continuous_writing() {
    let _alone = ALONE.lock().await;
    const ROTATIONS: u64 = 20;
    /// How far the writer may be ahead, in lines.
    const AHEAD: u64 = 5_000;
    let serving = Serving::start(|dir| {
        std::fs::write(dir.join("log"), "").unwrap();
        vec!["tail:log", "--lag", "block"]
    });
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream?from=start"), true).await;
    let log = serving.dir().join("log");
    // How many lines the viewer has seen.
    let (seen_tx, seen_rx) = tokio::sync::watch::channel(0_u64);
    let writing = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Handle::current();
        let open = || std::fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        let (mut file, mut number, mut begun, mut rotations, mut seen_rx) = (open(), 0_u64, 0, 0, seen_rx);
        while rotations < ROTATIONS {
            runtime.block_on(seen_rx.wait_for(|seen| seen + AHEAD > number)).unwrap();
            let lines: String = (number..number + 50).map(|number| format!("line {number}\n")).collect();
            file.write_all(lines.as_bytes()).unwrap();
            number += 50;
            // Once something of this file has been seen: who follows a name loses a file that comes and
            // goes before the one before it has been read.
            if *seen_rx.borrow() > begun && number - begun > 1000 {
                std::fs::rename(&log, log.with_extension(rotations.to_string())).unwrap();
                (file, begun, rotations) = (open(), number, rotations + 1);
            }
        }
        file.write_all(b"the end\n").unwrap();
        number
    });
    let (mut text, mut seen) = (String::new(), 0_u64);
    'reading: loop {
        text += &reading.line().await;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        for line in text.drain(..whole).as_str().lines() {
            if line == "the end" {
                break 'reading;
            }
            assert_eq!(line, format!("line {seen}"));
            seen += 1;
        }
        seen_tx.send_replace(seen);
    }
    assert_eq!(seen, soon("the writer ends", writing).await.unwrap());
    println!("{seen} lines through {ROTATIONS} rotations");
    serving.stop();
}

/// copytruncate: what was read before the cut comes once, and what is written behind it too. What is
/// written between the copy and the cut is lost to everybody, so nothing is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncation_again_and_again() {
    let _alone = ALONE.lock().await;
    let serving = Serving::start(|dir| {
        std::fs::write(dir.join("log"), "").unwrap();
        vec!["tail:log"]
    });
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream?from=start"), false).await;
    let log = serving.dir().join("log");
    let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    for round in 0..10 {
        // Shorter each time, so that what is there after the cut is always less than before it.
        let lines: String = (0..1000 - 100 * round).map(|number| format!("round {round} line {number}\n")).collect();
        file.write_all(lines.as_bytes()).unwrap();
        let mut got = String::new();
        while got.len() < lines.len() {
            got += &reading.line().await;
        }
        assert_eq!(got, lines);
        file.set_len(0).unwrap();
    }
    serving.stop();
}
