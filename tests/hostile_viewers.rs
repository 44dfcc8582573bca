//! Viewers that never read or vanish, and datagrams that nobody asked for.
#![cfg(feature = "cli")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{TestServer, by_hand, soon};
use common::{process::*, raw::*};
use futures_util::{StreamExt, stream};
use h3cast::{feed::Feed, webtransport::SessionRequest};

/// A chunk that is large, so that windows fill quickly.
const CHUNK: usize = 64 * 1024;

/// How much of the feed may be made for a viewer that reads nothing, in bytes: what its own window
/// takes, what the server keeps of what is not acknowledged (1 MiB), and the chunks on their way
/// from the feed, of which the body, its adapter and the writer have one each.
fn stalled_budget(window: u32) -> u64 {
    u64::from(window) + (1 << 20) + 4 * CHUNK as u64
}

#[tokio::test]
async fn viewers_that_never_read() {
    let window = 256 * 1024_u32;
    let made = Arc::new(AtomicU64::new(0));
    let counted = made.clone();
    let feed = Feed::on_demand("default", move || {
        let counted = counted.clone();
        stream::repeat_with(move || {
            counted.fetch_add(CHUNK as u64, Ordering::Relaxed);
            Ok(Bytes::from(vec![b'x'; CHUNK]))
        })
    });
    let server = TestServer::feed(feed).await;
    let tune = |transport: &mut quinn::TransportConfig| {
        transport.stream_receive_window(window.into()).receive_window(window.into());
    };
    let mut stalled = Vec::new();
    for number in 0..20 {
        let raw = Raw::open(endpoint(&server.certificate(), tune), server.port()).await;
        let control = raw.settings().await;
        let head = if number % 2 == 0 { request("GET", "/stream") } else { connect("/stream") };
        let streams = raw.bi(&head).await;
        stalled.push((raw, control, streams));
    }
    let stalled_made = || made.load(Ordering::Relaxed);
    let count = stalled.len() as u64;
    until("every viewer's window is full", || stalled_made() >= count * u64::from(window)).await;

    // A viewer beside them gets all it asks for, at its own pace.
    let connection = server.connect().await;
    let chunks = 500;
    let before = stalled_made();
    let uri = server.uri(&format!("/stream?limit={chunks}"));
    let mut response = soon("the head", connection.get(&uri)).await.unwrap();
    let mut read = 0;
    while let Some(bytes) = soon("a chunk", response.body.next()).await.unwrap() {
        read += bytes.len();
    }
    assert_eq!(read, chunks * CHUNK);
    let for_them = stalled_made() - (chunks * CHUNK) as u64;
    println!("{count} stalled viewers: {} KiB each, {} before", for_them / count / 1024, before / count / 1024);
    assert!(for_them <= count * stalled_budget(window), "{for_them} bytes were made for viewers that read nothing");
}

/// How many datagrams of 1,000 bytes make a flood. A server that keeps them grows by 100 MB.
const DATAGRAMS: usize = 100_000;

/// What floods of datagrams may add, in bytes. What is kept is small: 256 KiB a connection, and 256
/// datagrams of a session that does not read them. But quinn queues packets between its socket and
/// their connection without a bound of its own, so that the client's congestion window is one: on
/// loopback, with a server in a debug build, some 10 MiB.
const DATAGRAM_BUDGET: u64 = 32 << 20;

/// Sends as fast as the connection takes them, so that none waits at this side and is dropped here.
async fn flood(raw: &Raw, make: impl Fn(usize) -> Vec<u8>) {
    for number in 0..DATAGRAMS {
        soon("room for a datagram", raw.conn.send_datagram_wait(make(number).into())).await.unwrap();
    }
}

#[tokio::test]
async fn floods_of_datagrams() {
    let program = Program::start();
    let viewer = Viewer::join(&program).await;
    let (raw, _control) = program.greeted().await;
    let before = program.memory();
    // For sessions that are not there, each one another.
    let payload = vec![0xdd; 1000];
    flood(&raw, |number| [varint(number as u64), payload.clone()].concat()).await;
    raw.assert_alive().await;
    let first = program.memory().saturating_sub(before);
    // For a session whose application reads none.
    let (_send, mut recv) = raw.bi(&connect("/stream")).await;
    assert_eq!(status(&mut recv).await, 200);
    // The second request of this connection: stream 4, by quarters.
    flood(&raw, |_| [varint(1), payload.clone()].concat()).await;
    raw.assert_alive().await;
    let growth = program.memory().saturating_sub(before);
    println!("{DATAGRAMS} datagrams twice: {} KiB, grown by {} and {} KiB", before >> 10, first >> 10, growth >> 10);
    assert!(growth < DATAGRAM_BUDGET, "grew by {growth} bytes");
    viewer.leave().await;
    program.end();
}

/// A client that reads no datagrams costs the server no more than its send buffer, and stops nobody.
#[tokio::test]
async fn datagrams_that_nobody_reads() {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    let server = TestServer::start(|builder, _| {
        builder.webtransport_fallback(move |request: SessionRequest| {
            let counted = counted.clone();
            async move {
                let Ok(session) = request.accept().await else { return };
                while session.send_datagram(Bytes::from_static(&[0xdd; 1000])).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        })
    })
    .await;
    let (raw, _control) = Raw::greeted(&server).await;
    let _deaf = raw.bi(&connect("/")).await;
    let connection = server.connect().await;
    let session = soon("a session", connection.webtransport(&server.uri("/"), Default::default(), &[])).await.unwrap();
    until("a flood", || sent.load(Ordering::Relaxed) > 10_000).await;
    // Beside them, another one gets its own.
    for _ in 0..100 {
        assert_eq!(soon("a datagram", session.recv_datagram()).await.unwrap().len(), 1000);
    }
}

/// Clients whose process is gone, as far as the server can see: no packet comes any more.
#[tokio::test]
async fn clients_that_vanish() {
    let (feed, mut hands) = by_hand();
    let server = TestServer::feed(feed).await;
    let (certificate, port) = (server.certificate(), server.port());
    for head in [request("GET", "/stream"), connect("/stream")] {
        // The server keeps to the shorter of both sides' idle time-outs; its own is 30 s.
        let idle = |transport: &mut quinn::TransportConfig| {
            transport.max_idle_timeout(Some(Duration::from_secs(2).try_into().unwrap()));
        };
        // On a runtime of its own, which takes everything with it that could still say goodbye.
        let (certificate, runtime) = (certificate.clone(), tokio::runtime::Runtime::new().unwrap());
        let client = runtime.spawn(async move {
            let raw = Raw::open(endpoint(&certificate, idle), port).await;
            let control = raw.settings().await;
            let mut streams = raw.bi(&head).await;
            assert_eq!(status(&mut streams.1).await, 200);
            (raw, control, streams)
        });
        let client = client.await.unwrap();
        let hand = hands.next().await;
        hand.make("nobody reads this").await;
        runtime.shutdown_background();
        // With a chunk on its way or without.
        hand.abandoned().await;
        drop(client);
    }
}

/// Viewers that are there, beside clients that come and vanish without a word, again and again.
#[tokio::test]
async fn a_crowd_that_vanishes() {
    // No more than a busy machine sends to all of them.
    let program = Program::start_every("200ms", &[]);
    let viewer = Viewer::join(&program).await;
    let before = program.memory();
    let mut after = Vec::new();
    // What they leave behind would be more each time. What the allocator keeps for later is more at times.
    let leaks_nothing = loop {
        come_and_vanish(&program).await;
        after.push(program.memory());
        // The first times it still gets what it then uses again.
        let Some(rounds @ 2..) = after.len().checked_sub(2) else { continue };
        match after[rounds + 1].saturating_sub(after[1]) < LEAK * CROWD * rounds as u64 {
            true => break true,
            false if rounds == 8 => break false,
            false => {}
        }
    };
    println!("{CROWD} clients: {before} bytes of memory before, {after:?} after each time");
    assert!(after[0] - before < CROWD * VIEWER_BUDGET);
    assert!(leaks_nothing);
    viewer.leave().await;
    program.end();
}

const CROWD: u64 = 100;

/// What one viewer may cost that does nothing amiss, in bytes: some 40 KiB of QUIC and TLS state,
/// more in a debug build, and the chunks that wait for it.
const VIEWER_BUDGET: u64 = 200 << 10;

/// Less than what stays of a connection, in bytes, if anything of it does.
const LEAK: u64 = 8 << 10;

/// A crowd joins, and the server forgets it some time after its runtime has gone.
async fn come_and_vanish(program: &Program) {
    let (certificate, port) = (program.certificate(), program.port);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let crowd = runtime.spawn(async move {
        let idle = |transport: &mut quinn::TransportConfig| {
            // Chunks come every 200 ms until it vanishes: longer than a busy machine makes them late.
            transport.max_idle_timeout(Some(Duration::from_secs(4).try_into().unwrap()));
        };
        let client = endpoint(&certificate, idle);
        let join = |_| async {
            let raw = Raw::open(client.clone(), port).await;
            let control = raw.settings().await;
            let mut streams = raw.bi(&request("GET", "/stream")).await;
            assert_eq!(status(&mut streams.1).await, 200);
            (raw, control, streams)
        };
        stream::iter(0..CROWD).map(join).buffer_unordered(16).collect::<Vec<_>>().await
    });
    let crowd = crowd.await.unwrap();
    runtime.shutdown_background();
    let connection = program.connect().await;
    let uri = format!("https://localhost:{port}/feeds").parse().unwrap();
    let viewers = async || {
        let mut response = connection.get(&uri).await.unwrap();
        let body = response.body.next().await.unwrap().unwrap();
        let feeds: serde_json::Value = serde_json::from_slice(&body).unwrap();
        feeds["feeds"][0]["viewers"].as_u64().unwrap()
    };
    soon("the server forgets them", async {
        while viewers().await > 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    drop(crowd);
}
