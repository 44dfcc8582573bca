//! `h3cast serve --take-over`: a new server takes over from an old one, and no viewer loses a chunk.
#![cfg(all(feature = "cli", unix))]

#[cfg(feature = "store")]
mod again;
mod faults;
mod feeds;
mod overdue;
mod process;
mod publishers;
mod stops;
#[cfg(feature = "store")]
mod stored;
#[cfg(feature = "store")]
mod stored_feeds;
mod users;
mod viewers;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h3cast::source::chunker::Chunking;
use h3cast::{
    chunk::Epoch,
    client::{
        Publication, Published, Viewer,
        viewer::{Event, Transport},
    },
};
use process::{Place, Process, soon};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use viewers::{Seen, over_tcp, over_viewer};

/// Viewers on each of three transports: GET over HTTP/3, WebTransport, GET over HTTP/1.1.
const EACH: usize = 67;
/// How many chunks there are.
const CHUNKS: u64 = 240;

/// What is published, piece by piece: each of another length.
fn piece(number: u64) -> Bytes {
    let length = (number * 37 % 500) as usize;
    format!("{number} {}\n", "x".repeat(length)).into()
}

/// The hash of all of it.
fn whole() -> Vec<u8> {
    (0..CHUNKS).fold(Sha256::new(), |hash, number| hash.chain_update(piece(number))).finalize().to_vec()
}

/// Publishes a piece every few milliseconds, to the end; the number says how many were given to the client.
fn publish(place: &Arc<Place>) -> (tokio::task::JoinHandle<Published>, watch::Receiver<u64>) {
    publish_up_to(place, watch::channel(CHUNKS).1)
}

/// The same, of which only the first ones are given to the client until more are allowed.
fn publish_up_to(
    place: &Arc<Place>,
    mut allowed: watch::Receiver<u64>,
) -> (tokio::task::JoinHandle<Published>, watch::Receiver<u64>) {
    let (given_tx, given) = watch::channel(0);
    let (pieces_tx, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        for number in 0..CHUNKS {
            // What is published throughout is the point here.
            tokio::time::sleep(Duration::from_millis(10)).await;
            if allowed.wait_for(|allowed| *allowed > number).await.is_err() {
                return;
            }
            if pieces_tx.send(Ok(piece(number))).await.is_err() {
                return;
            }
            given_tx.send_replace(number + 1);
        }
    });
    let mut publication = Publication::new(place.uri("/stream"), place.trust()).chunking(Chunking::Lines);
    let pieces = futures_util::stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
    (tokio::spawn(async move { publication.run(pieces, |_| {}).await.unwrap() }), given)
}

/// Waits until so many pieces were given to the publisher.
async fn reaches(given: &mut watch::Receiver<u64>, number: u64) {
    soon("the pieces", given.wait_for(|given| *given >= number)).await.unwrap();
}

/// What the server that serves counts.
async fn published_so_far(place: &Place) -> String {
    let metrics = process::get(place, "/metrics").await;
    let mut lines = metrics.lines().filter(|line| line.starts_with("h3cast_feed_chunks_total{"));
    lines.next().expect("the feed is counted").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_viewer_loses_a_chunk_in_two_hand_overs() {
    let (place, mut first) = Process::first(&["publish", "--connections-per-address", "2000"]).await;
    let (many_tx, mut many) = mpsc::unbounded_channel::<Seen>();
    let mut viewers = tokio::task::JoinSet::new();
    for _ in 0..EACH {
        for transport in [Transport::Get, Transport::WebTransport] {
            viewers.spawn(over_viewer(place.clone(), transport, many_tx.clone()));
        }
        viewers.spawn(over_tcp(place.clone(), many_tx.clone()));
    }
    let (allow, allowed) = watch::channel(160);
    let (published, mut given) = publish_up_to(&place, allowed);
    // All of them read.
    for _ in 0..3 * EACH {
        soon("the viewers", many.recv()).await.unwrap();
    }
    reaches(&mut given, 60).await;

    // It stands still when it has the feeds and has not said so: what is published meanwhile has to wait.
    let mut second = place.stopped_at("take-over", &["publish", "--connections-per-address", "2000"]).await;
    // Not kept while it waits: who publishes would wait for that.
    let before = *given.borrow();
    let published_before = published_so_far(&place).await;
    reaches(&mut given, before + 20).await;
    assert_eq!(published_so_far(&place).await, published_before, "published by a server whose feeds were taken");
    second.go_on();
    second.ready().await;
    first.ended(0).await;
    reaches(&mut given, 160).await;
    // All of them are at the second one before it ends.
    for _ in 0..3 * EACH {
        soon("the viewers", many.recv()).await.unwrap();
    }

    // What comes at the end is only at the third one.
    allow.send_replace(CHUNKS - 10);
    let mut third = place.next(&["publish", "--connections-per-address", "2000"]);
    third.ready().await;
    second.ended(0).await;
    allow.send_replace(CHUNKS);

    let published = tokio::time::timeout(process::PATIENCE, published).await.expect("published").unwrap();
    assert_eq!(published.bytes, (0..CHUNKS).map(|number| piece(number).len() as u64).sum::<u64>());
    let mut epochs = std::collections::BTreeSet::<Epoch>::new();
    let mut connections = 0;
    while let Some(viewed) = soon("the viewers", viewers.join_next()).await {
        let viewed = viewed.unwrap();
        assert_eq!(viewed.hash, whole(), "{viewed:?}");
        epochs.insert(viewed.epoch);
        connections += viewed.connections;
    }
    assert_eq!(epochs.len(), 1, "cursors stayed valid: {epochs:?}");
    assert!(connections >= 3 * 3 * EACH, "each viewer came back twice: {connections}");
    first.says("has taken over");
    second.says("took over from process");
    third.stop().await;
}

/// What only the old process has ends there, as when it stops.
#[tokio::test]
async fn a_feed_of_a_command_starts_over() {
    let args = ["exec:echo begin; exec sleep 1000"];
    let (place, first) = Process::first(&args).await;
    let mut viewer = Viewer::new(&place.uri("/stream?from=start"), place.trust()).unwrap();
    let mut begun = 0;
    let mut second = None;
    while begun < 2 {
        let (bytes, cursor) = soon("a chunk", async {
            loop {
                match viewer.next().await.unwrap() {
                    Some(Event::Chunk { bytes, cursor, .. }) => return (bytes, cursor),
                    event => assert!(event.is_some(), "the feed has ended: {}", first.said()),
                }
            }
        })
        .await;
        assert_eq!((bytes, cursor.seq), ("begin\n".into(), 0));
        begun += 1;
        if begun == 1 {
            let mut process = place.next(&args);
            process.ready().await;
            second = Some(process);
        }
    }
    assert_eq!(viewer.restarts(), 1);
    drop((first, second));
}
