//! What becomes of viewers and publishers when parts of a cluster fail.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use h3cast::client::{
    Viewer,
    viewer::{Event, Transport},
};
use sha2::{Digest, Sha256};
use tokio::{sync::Notify, task::JoinSet, time::sleep};

use crate::{
    cluster::{self, Cluster, Way, healthy},
    common::soon,
    edge::{Edge, publish},
    serving::Serving,
    within,
};

/// What somebody has of a feed, in short.
#[derive(Debug, Clone, Default)]
struct Seen {
    chunks: u64,
    last: Option<u64>,
    hash: Sha256,
}

impl Seen {
    fn add(&mut self, seq: u64, bytes: &[u8]) {
        assert!(self.last.is_none_or(|last| seq > last), "{seq} behind {:?}", self.last);
        self.last = Some(seq);
        self.chunks += 1;
        self.hash.update(seq.to_be_bytes());
        self.hash.update(bytes);
    }

    fn digest(&self) -> (u64, Vec<u8>) {
        (self.chunks, self.hash.clone().finalize().to_vec())
    }
}

/// What all viewers share.
#[derive(Default)]
struct Watch {
    /// Slow ones are slow until then.
    hurry: AtomicBool,
    stalled: AtomicUsize,
    back: AtomicUsize,
    moved: AtomicUsize,
}

const LAST: &[u8] = b"the last\n";

/// Views the feed to its last line: at the next edge when one is lost.
async fn view(edges: Arc<Vec<Edge>>, mut at: usize, transport: Transport, slow: bool, watch: Arc<Watch>) -> Seen {
    let mut seen = Seen::default();
    let mut cursor = None;
    loop {
        let edge = &edges[at % edges.len()];
        let from = cursor.map_or_else(|| "start".to_owned(), |cursor: h3cast::chunk::Cursor| cursor.to_string());
        let uri = edge.uri(&format!("/stream/chat?from={from}"));
        let mut viewer = Viewer::new(&uri, edge.trust.clone()).unwrap().transport(transport);
        loop {
            match viewer.next().await.unwrap().expect("the feed does not end") {
                Event::Chunk { cursor: of, bytes, .. } => {
                    seen.add(of.seq, &bytes);
                    cursor = Some(of);
                    if bytes.as_ref() == LAST {
                        return seen;
                    }
                    if slow && !watch.hurry.load(Ordering::Relaxed) {
                        sleep(Duration::from_millis(200)).await;
                    }
                }
                Event::Stalled(true) => drop(watch.stalled.fetch_add(1, Ordering::Relaxed)),
                Event::Stalled(false) => drop(watch.back.fetch_add(1, Ordering::Relaxed)),
                Event::Lost { .. } => {
                    watch.moved.fetch_add(1, Ordering::Relaxed);
                    at += 1;
                    break;
                }
                Event::Opened { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

const PUBLISHERS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn nothing_is_lost_or_doubled_whatever_fails() {
    let mut cluster = Cluster::start_whole().await;
    let context = cluster.jetstream().await;
    let (mut servings, mut ways) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut own = Vec::new();
        for node in &cluster.nodes {
            own.push(Way::to(node.port).await);
        }
        let servers: Vec<_> = own.iter().map(|way| format!("127.0.0.1:{}", way.port)).collect();
        let engine = format!("--engine=nats://{}", servers.join(","));
        let args = ["chat=publish", engine.as_str(), "--ensure-stream=replicas=3", "--history", "128K"];
        // Blocks until it is ready.
        let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
        servings.push(Some(serving));
        ways.push(own);
    }
    let edges: Arc<Vec<_>> = Arc::new(servings.iter().map(|serving| Edge::of(serving.as_ref().unwrap())).collect());
    let watch = Arc::new(Watch::default());
    let mut viewers = JoinSet::new();
    let ways_of = [Transport::Get, Transport::WebTransport];
    for number in 0..200 {
        viewers.spawn(view(edges.clone(), number, ways_of[number % 2], number % 40 == 0, watch.clone()));
    }

    let acknowledged = Arc::new(AtomicU64::new(0));
    let told = Arc::new(Notify::new());
    // They go on through all that fails.
    let enough = Arc::new(AtomicBool::new(false));
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let (edges, acknowledged, told, enough) = (edges.clone(), acknowledged.clone(), told.clone(), enough.clone());
        publishers.spawn(async move {
            let (mut at, mut connection) = (publisher, None);
            let mut number = 0;
            while !enough.load(Ordering::Relaxed) {
                let line = format!("{publisher} {number} {}\n", "x".repeat(1000));
                publish(&edges, &mut at, &mut connection, &format!("{publisher}-{number}"), &line).await;
                acknowledged.fetch_add(1, Ordering::Relaxed);
                told.notify_one();
                number += 1;
                sleep(Duration::from_millis(60)).await;
            }
            (publisher.to_string(), number)
        });
    }
    let so_many = |wanted: u64| {
        let (acknowledged, told) = (acknowledged.clone(), told.clone());
        async move {
            within("lines are published", async {
                while acknowledged.load(Ordering::Relaxed) < wanted {
                    told.notified().await;
                }
            })
            .await;
        }
    };

    so_many(60).await;
    // An edge, without a word.
    servings[0].take().unwrap().kill();
    so_many(160).await;
    // A node that does not lead the stream, then the one that does.
    let leader = healthy(&context, "h3cast_chat").await;
    let other = cluster.nodes.iter_mut().find(|node| node.name != leader).unwrap();
    other.kill();
    so_many(260).await;
    other.start();
    let leader = healthy(&context, "h3cast_chat").await;
    let leading = cluster.nodes.iter_mut().find(|node| node.name == leader).unwrap();
    leading.kill();
    so_many(360).await;
    leading.start();
    healthy(&context, "h3cast_chat").await;
    // An edge that does not reach NATS any more: its viewers are told, and stay.
    for way in &mut ways[2] {
        way.cut().await;
    }
    soon("its viewers are told", async {
        while watch.stalled.load(Ordering::Relaxed) < 60 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    so_many(acknowledged.load(Ordering::Relaxed) + 60).await;
    for way in &mut ways[2] {
        way.mend().await;
    }
    // All nodes, one after another.
    for node in 0..3 {
        cluster.nodes[node].kill();
        sleep(Duration::from_secs(1)).await;
        cluster.nodes[node].start();
        healthy(&context, "h3cast_chat").await;
    }
    enough.store(true, Ordering::Relaxed);
    let published = within("all is published", publishers.join_all()).await;
    watch.hurry.store(true, Ordering::Relaxed);
    // Who comes late gets all of it too: what is older than the ring from JetStream.
    for number in 0..6 {
        viewers.spawn(view(edges.clone(), 1 + number % 2, ways_of[number % 2], false, watch.clone()));
    }
    publish(&edges, &mut 1, &mut None, "last", std::str::from_utf8(LAST).unwrap()).await;

    // One for each edge, however many viewers: those that read what is old have gone again.
    within("there are few consumers", async {
        while context.get_stream("h3cast_chat").await.unwrap().cached_info().state.consumer_count > 3 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let kept = cluster::kept(&context, "h3cast_chat").await;
    let mut reference = Seen::default();
    let mut of: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (seq, bytes) in &kept {
        reference.add(*seq, bytes);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let mut words = text.split(' ');
        if let (Some(publisher), Some(Ok(number))) = (words.next(), words.next().map(str::parse)) {
            of.entry(publisher.to_owned()).or_default().push(number);
        }
    }
    // Each line once, and those of one publisher in their order.
    assert_eq!(of.len(), PUBLISHERS);
    for (publisher, count) in &published {
        let numbers = &of[publisher];
        assert!(numbers.iter().copied().eq(0..*count), "{publisher}: {count}, {numbers:?}");
    }
    assert_eq!(reference.chunks, acknowledged.load(Ordering::Relaxed) + 1);
    let mut count = 0;
    within("all viewers have all", async {
        while let Some(seen) = viewers.join_next().await {
            assert_eq!(seen.unwrap().digest(), reference.digest());
            count += 1;
        }
    })
    .await;
    assert_eq!(count, 206);
    assert!(watch.moved.load(Ordering::Relaxed) >= 60, "who lost an edge goes on at another");
    assert!(watch.back.load(Ordering::Relaxed) >= 60);
}
