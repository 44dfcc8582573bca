//! Messages that are larger than nats-server takes if it is not told otherwise.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream;
use h3cast::client::{Viewer, viewer::Event};

use crate::{
    cluster::Cluster,
    common::soon,
    edge::Edge,
    past::pulls,
    serving::{Serving, memory},
};

const MIB: usize = 1 << 20;

/// A server that takes messages of so many bytes, with the stream of the feed, and where that is written.
async fn taking(dir: &std::path::Path, most: usize) -> (Cluster, jetstream::Context, std::path::PathBuf) {
    let config = dir.join("large.conf");
    std::fs::write(&config, format!("max_payload: {most}\n")).unwrap();
    let cluster = Cluster::start_with(1, &["-c".into(), config.display().to_string()]);
    let context = cluster.jetstream().await;
    let subjects = vec!["logs.a".to_owned()];
    let stream = jetstream::stream::Config { name: "LOGS".into(), subjects, allow_direct: true, ..Default::default() };
    context.create_stream(stream).await.unwrap();
    (cluster, context, config)
}

async fn publish(context: &jetstream::Context, bytes: Vec<u8>) {
    context.publish("logs.a", bytes.into()).await.unwrap().await.unwrap();
}

/// The next chunk, which follows what came before it.
async fn chunk(viewer: &mut Viewer) -> usize {
    loop {
        match soon("an event", viewer.next()).await.unwrap().unwrap() {
            Event::Chunk { bytes, .. } => return bytes.len(),
            event => assert!(!matches!(event, Event::Gap(_) | Event::End(_)), "{event:?}"),
        }
    }
}

/// Small and large ones reach a viewer in their order, each with few requests, also when the server takes no more of
/// that size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn messages_larger_than_a_request_come_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, context, config) = taking(dir.path(), 8 * MIB).await;
    let feed = format!("logs=nats://{}/logs.a", cluster.addresses());
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![feed]));
    let edge = Edge::of(&serving);
    let requests = pulls(&context, "LOGS").await;
    let mut viewer = Viewer::new(&edge.uri("/stream/logs?from=start"), edge.trust.clone()).unwrap();
    let sizes = [10, 3 * MIB, 7 * MIB, 100, 2 * MIB, MIB, 5 * MIB, 200, 1_900_000, 1_900_000, 4 * MIB, 1];
    for size in sizes {
        publish(&context, vec![b'x'; size]).await;
    }
    for size in sizes {
        assert_eq!(chunk(&mut viewer).await, size);
    }
    // The server takes none of their size any more once they are stored.
    for size in [6 * MIB, 20] {
        publish(&context, vec![b'x'; size]).await;
    }
    std::fs::write(&config, "max_payload: 1000000\n").unwrap();
    cluster.nodes[0].reload();
    for size in [6 * MIB, 20] {
        assert_eq!(chunk(&mut viewer).await, size);
    }
    // An edge that starts then reads all of them.
    let feed = format!("logs=nats://{}/logs.a", cluster.addresses());
    let late = tokio::task::block_in_place(|| Serving::start(|_| vec![feed, "--history=64M".into()]));
    let other = Edge::of(&late);
    let mut viewer = Viewer::new(&other.uri("/stream/logs?from=start"), other.trust.clone()).unwrap();
    for size in sizes.into_iter().chain([6 * MIB, 20]) {
        assert_eq!(chunk(&mut viewer).await, size);
    }
    let count = requests.load(Ordering::Relaxed);
    assert!(count < 200, "{count} requests");
}

/// The most memory that a program takes, until it is asked for.
struct Peak {
    done: Arc<AtomicBool>,
    watching: std::thread::JoinHandle<u64>,
}

impl Peak {
    fn of(pid: u32) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let until = done.clone();
        let watching = std::thread::spawn(move || {
            let mut peak = 0;
            while !until.load(Ordering::Relaxed) {
                peak = memory(pid).max(peak);
                std::thread::sleep(Duration::from_millis(1));
            }
            peak
        });
        Self { done, watching }
    }

    fn bytes(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        self.watching.join().unwrap()
    }
}

/// All that are there are not on their way at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn large_messages_stay_within_the_memory_limit() {
    const LIMIT: u64 = 100_000_000;
    const LARGE: usize = 8_000_000;
    const MANY: usize = 30;
    let dir = tempfile::tempdir().unwrap();
    let (cluster, context, _) = taking(dir.path(), 32 * MIB).await;
    for _ in 0..MANY {
        publish(&context, vec![b'x'; LARGE]).await;
    }
    let feed = format!("logs=nats://{}/logs.a", cluster.addresses());
    let args = [feed, "--memory=100M".into(), "--history=1M".into(), "--workers=2".into()];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let peak = Peak::of(serving.id());
    // It begins with those that are stored.
    let connection = serving.connect().await;
    serving.until(&connection, "chunks", |chunks| chunks == MANY as u64).await;
    let peak = peak.bytes();
    println!("at most {} MB of {}", peak / 1_000_000, LIMIT / 1_000_000);
    // One is there whole some times over while it is copied, beside the program itself (it takes 100 MB and more if the
    // client may hold as many as there are).
    assert!(peak <= 40_000_000 + 4 * LARGE as u64, "{peak} bytes");
}

/// Nor are those that many viewers read of the past at once. Each of them gets all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn nor_are_those_of_the_past_that_many_read() {
    const LARGE: usize = 12_000_000;
    const VIEWERS: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let (cluster, context, _) = taking(dir.path(), 32 * MIB).await;
    let feed = format!("logs=nats://{}/logs.a", cluster.addresses());
    let args = [feed, "--memory=100M".into(), "--history=64K".into(), "--workers=2".into()];
    // It has not seen how large they are.
    for _ in 0..3 {
        publish(&context, vec![b'x'; LARGE]).await;
    }
    // It begins with the last thousand.
    for number in 0..1100 {
        let sent = context.publish("logs.a", format!("{number}").into()).await.unwrap();
        sent.await.unwrap();
    }
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    let connection = serving.connect().await;
    serving.until(&connection, "chunks", |chunks| chunks >= 1000).await;
    let peak = Peak::of(serving.id());
    let viewers = (0..VIEWERS).map(|_| {
        let mut viewer = Viewer::new(&edge.uri("/stream/logs?from=start"), edge.trust.clone()).unwrap();
        tokio::spawn(async move {
            for _ in 0..3 {
                assert_eq!(chunk(&mut viewer).await, LARGE);
            }
            for number in 0..1100 {
                assert_eq!(chunk(&mut viewer).await, number.to_string().len());
            }
        })
    });
    for viewer in viewers.collect::<Vec<_>>() {
        viewer.await.unwrap();
    }
    let peak = peak.bytes();
    println!("at most {} MB of 100", peak / 1_000_000);
    assert!(peak <= 100_000_000, "{peak} bytes");
}
