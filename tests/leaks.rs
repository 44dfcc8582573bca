//! A thousand sessions and a million broken streams, one after another: nothing stays of them in the program, neither
//! in the transport nor in the feeds.
#![cfg(feature = "cli")]

mod common;

use std::time::Duration;

use common::{process::*, raw::*, sessions::visit};
use futures_util::{StreamExt, stream};

const SESSIONS: usize = 1000;

/// How many sessions each connection has, so that connections come and go too.
const SESSIONS_A_CONNECTION: usize = 20;

/// What the program may hold more after the thousand than after the first tenth of them, in bytes.
/// By then the allocator has what it uses again and again; keeping 1 KiB of each session, or 20 KiB
/// of each connection, would show.
const LEAK: u64 = 900 << 10;

/// How many streams are reset before their first frame, and how many after it, which needs a round
/// trip each: a million in all.
const RESETS_BEFORE: usize = 980_000;
const RESETS_AFTER: usize = 20_000;

/// What the resets may add to the program's memory, in bytes. They come over two connections, each
/// with its share of [`CONNECTION_BUDGET`]; to remember 10 bytes of each stream would
/// take 10 MiB, and 250 bytes of each request 5 MiB.
const RESETS_BUDGET: u64 = 4 << 20;

#[tokio::test]
async fn memory_and_descriptors() {
    let program = Program::start();
    let viewer = Viewer::join(&program).await;
    let uri = format!("https://localhost:{}/stream", program.port).parse().unwrap();
    let before = (program.memory(), program.descriptors());
    let mut warm = before;
    for connections in 0..SESSIONS / SESSIONS_A_CONNECTION {
        let connection = program.connect().await;
        for _ in 0..SESSIONS_A_CONNECTION {
            visit(&connection, &uri).await;
        }
        if connections == SESSIONS / SESSIONS_A_CONNECTION / 10 {
            warm = (program.memory(), program.descriptors());
        }
    }
    let after = (program.memory(), program.descriptors());
    println!("{SESSIONS} sessions: (bytes, descriptors) {before:?} before, {warm:?} warm, {after:?} after");
    assert!(after.0.saturating_sub(warm.0) < LEAK, "memory grew from {} to {}", warm.0, after.0);
    until("all descriptors are closed", || program.descriptors() <= before.1).await;
    viewer.leave().await;
    program.end();
}

#[tokio::test]
async fn streams_that_are_reset() {
    // Both would end connections that do this: a stream that is reset before its first frame is no request.
    let program = Program::start_with(&["--control-frames=0", "--keep-alive=1h"]);
    let viewer = Viewer::join(&program).await;
    // The one that is done first is there until the other one is, and may have long to wait.
    let kept_alive = async || {
        let keep_alive = |transport: &mut quinn::TransportConfig| {
            transport.keep_alive_interval(Some(Duration::from_secs(5)));
        };
        let raw = Raw::open(endpoint(&program.certificate(), keep_alive), program.port).await;
        let control = raw.settings().await;
        (raw, control)
    };
    let (before_frame, _control) = kept_alive().await;
    let (after_frame, _control_too) = kept_alive().await;
    let before = program.memory();
    let head = request("GET", "/stream");
    let cancel = 0x10c_u32.into();
    let resets_before = async {
        for _ in 0..RESETS_BEFORE / 2 {
            // Opening one waits until the server has given a place back.
            let (mut send, mut recv) = before_frame.bi(&[]).await;
            send.reset(cancel).unwrap();
            let _ = recv.stop(cancel);
            let mut uni = before_frame.uni(&[]).await;
            uni.reset(cancel).unwrap();
        }
    };
    let resets_after = stream::iter(0..RESETS_AFTER).for_each_concurrent(50, |_| async {
        let (mut send, mut recv) = after_frame.bi(&head).await;
        assert_eq!(status(&mut recv).await, 200);
        send.reset(cancel).unwrap();
        let _ = recv.stop(cancel);
    });
    // Each stream waits only so long for a place, so that a server that gives none back is noticed.
    tokio::join!(resets_before, resets_after);
    let growth = program.memory().saturating_sub(before);
    println!("a million resets: {} KiB, grown by {} KiB", before / 1024, growth / 1024);
    assert!(growth < RESETS_BUDGET, "grew by {growth} bytes");
    before_frame.assert_alive().await;
    after_frame.assert_alive().await;
    viewer.leave().await;
    program.end();
}
