//! Viewers that read on for long in what is older than a server's memory.

use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::{self, stream::Stream};
use futures_util::{StreamExt, future::try_join_all};
use h3cast::client::{Viewer, viewer::Event};

use crate::{cluster::Cluster, common::soon, edge::Edge, presence::text, serving::Serving};

/// Of 1,000 bytes each: more than a connection takes unread.
pub(crate) const CHUNKS: usize = 12_000;

async fn consumers(context: &jetstream::Context) -> usize {
    context.get_stream("LOGS").await.unwrap().cached_info().state.consumer_count
}

/// Waits for a number of consumers, which is soon there.
pub(crate) async fn until(context: &jetstream::Context, what: &str, count: usize) {
    let there = async {
        while consumers(context).await != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), there).await.expect(what);
}

/// Publishes chunks to a new stream, to each of the subjects in turn.
pub(crate) async fn logs(context: &jetstream::Context, subjects: &[&str]) -> Stream {
    let names = subjects.iter().map(ToString::to_string).collect();
    let config =
        jetstream::stream::Config { name: "LOGS".into(), subjects: names, allow_direct: true, ..Default::default() };
    let logs = context.create_stream(config).await.unwrap();
    // In this order, some before they are acknowledged.
    let mut sent = Vec::new();
    for number in 0..CHUNKS {
        let subject = subjects[number % subjects.len()].to_owned();
        sent.push(context.publish(subject, format!("{number:01000}").into()).await.unwrap().into_future());
        if sent.len() == 500 {
            try_join_all(sent.drain(..)).await.unwrap();
        }
    }
    logs
}

/// A viewer has a consumer while it reads on, and none when it has come to the end. What is purged meanwhile is told.
async fn reads_on(subjects: &[&str]) {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    // Before 2.11 each reading of the past has a consumer for a moment.
    if !context.client().is_server_compatible(2, 11, 0) {
        return;
    }
    let logs = logs(&context, subjects).await;
    let feed = format!("logs=nats://{}/logs.a", cluster.addresses());
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![feed]));
    until(&context, "the one that fills the ring", 1).await;
    let edge = Edge::of(&serving);
    let mut viewer = Viewer::new(&edge.uri("/stream/logs?from=start"), edge.trust.clone()).unwrap();
    let (mut next, mut told, mut is_purged) = (0, 0, false);
    while next < CHUNKS {
        match soon("an event", viewer.next()).await.unwrap().unwrap() {
            Event::Chunk { bytes, .. } => {
                let number: usize = std::str::from_utf8(&bytes).unwrap().parse().unwrap();
                if told == 0 {
                    assert_eq!(number, next, "nothing is left out untold");
                }
                assert!(number >= next);
                next = number + subjects.len();
            }
            Event::Gap(_) => told += 1,
            _ => {}
        }
        // It goes on reading meanwhile: on a busy machine, its consumer may come only at the second attempt.
        if next > CHUNKS / 20 && next % 50 < subjects.len() && !is_purged && consumers(&context).await == 2 {
            logs.purge().sequence(CHUNKS as u64 - 1500).await.unwrap();
            is_purged = true;
        }
    }
    assert!(is_purged, "it had a consumer of its own");
    assert_eq!(told, 1);
    // A client finds a hole by the numbers; here it was the server that has told of it.
    let metrics = text(&serving, "/metrics").await;
    let skipped = metrics.lines().find_map(|line| line.strip_prefix("h3cast_feed_skipped_total{feed=\"logs\"} "));
    assert!(skipped.unwrap().parse::<u64>().unwrap() > 0, "{metrics}");
    until(&context, "the viewer's is deleted", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn who_reads_on_is_told_what_is_purged() {
    reads_on(&["logs.a"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn who_reads_one_subject_of_many_on_is_told_what_is_purged() {
    reads_on(&["logs.a", "logs.b"]).await;
}

/// How often messages of that stream have been asked for through consumers since.
pub(crate) async fn pulls(context: &jetstream::Context, stream: &str) -> Arc<AtomicU64> {
    let mut requests = context.client().subscribe(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.>")).await.unwrap();
    context.client().flush().await.unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    // It ends with the test.
    tokio::spawn(async move {
        while requests.next().await.is_some() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    count
}

/// A request that is too small for the next chunk is refused at once, and so is the one after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn large_chunks_make_few_requests() {
    const LARGE: usize = 80;
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let subjects = vec!["logs.a".to_owned()];
    let config = jetstream::stream::Config { name: "LOGS".into(), subjects, allow_direct: true, ..Default::default() };
    context.create_stream(config).await.unwrap();
    for _ in 0..LARGE {
        context.publish("logs.a", vec![b'x'; 500_000].into()).await.unwrap().await.unwrap();
    }
    let requests = pulls(&context, "LOGS").await;
    let feed = format!("logs=nats://{}/logs.a", cluster.addresses());
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![feed, "--history=1B".into()]));
    let edge = Edge::of(&serving);
    let mut viewer = Viewer::new(&edge.uri("/stream/logs?from=start"), edge.trust.clone()).unwrap();
    let mut chunks = 0;
    while chunks < LARGE {
        match soon("an event", viewer.next()).await.unwrap().unwrap() {
            Event::Chunk { bytes, .. } => {
                assert_eq!(bytes.len(), 500_000);
                chunks += 1;
            }
            event => assert!(!matches!(event, Event::Gap(_)), "{event:?}"),
        }
    }
    let count = requests.load(Ordering::Relaxed);
    assert!(count < 4 * LARGE as u64, "{count} requests");
}
