//! Publishing to a feed on disk, and reading it, as ratios to a feed in memory in the same run:
//! `cargo bench -p h3cast-store`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt;
use h3cast_feed::{Event, Feed, Lag, NewChunk, Publisher, Start};
use h3cast_store::{Fsync, Store, StoreOptions, StoredFeed};

const CHUNKS: u64 = 200_000;
const SIZE: usize = 200;
const HISTORY: usize = 8 << 20;
const ROUNDS: usize = 5;

fn stored(store: &Store, name: &str) -> (StoredFeed, Feed, Publisher) {
    let stored = store.feed(name).expect("it opens");
    let (epoch, next) = (stored.epoch(), stored.next());
    let (feed, filler, publisher) = Feed::stored(name, Arc::new(stored.clone()), HISTORY, epoch, next);
    stored.fill(filler);
    (stored, feed, publisher)
}

async fn publish(publisher: &Publisher, batch: usize) -> Duration {
    let bytes = Bytes::from(vec![b'x'; SIZE]);
    let began = Instant::now();
    match batch {
        1 => {
            for _ in 0..CHUNKS {
                publisher.publish(bytes.clone()).await.expect("published");
            }
        }
        _ => {
            for _ in 0..CHUNKS / batch as u64 {
                let chunks = vec![NewChunk { bytes: bytes.clone(), id: None }; batch];
                assert_eq!(publisher.publish_all(chunks).await.receipts.len(), batch);
            }
        }
    }
    began.elapsed()
}

async fn read(feed: &Feed, chunks: u64) -> Duration {
    let began = Instant::now();
    let mut viewer = feed.view(Start::Start, Some(chunks));
    let mut got = 0;
    while let Some(Event::Chunk(_)) = viewer.next().await {
        got += 1;
    }
    assert_eq!(got, chunks);
    began.elapsed()
}

fn median(mut of: Vec<Duration>) -> Duration {
    of.sort();
    of[of.len() / 2]
}

fn print(what: &str, spent: Duration, chunks: u64, memory: Duration) {
    let (each, ratio) = (spent.as_nanos() as f64 / chunks as f64, spent.as_secs_f64() / memory.as_secs_f64());
    println!("{what:34} {each:8.0} ns a chunk {:10.0} chunks/s {ratio:6.2} x memory", 1e9 / each);
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), StoreOptions::default()).expect("it opens");
    for batch in [1, 64] {
        let (mut memory, mut disk) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let (_feed, publisher) = Feed::live("memory", HISTORY, Lag::Skip);
            memory.push(publish(&publisher, batch).await);
            let name = format!("{batch} {round}");
            let (_, _feed, publisher) = stored(&store, &name);
            disk.push(publish(&publisher, batch).await);
        }
        let memory = median(memory);
        print(&format!("publish, {batch} at a time, memory"), memory, CHUNKS, memory);
        print(&format!("publish, {batch} at a time, disk"), median(disk), CHUNKS, memory);
    }
    // In memory there is only as much as the history holds.
    let (feed, publisher) = Feed::live("memory", HISTORY, Lag::Skip);
    publish(&publisher, 1).await;
    let status = feed.status();
    let held = status.chunks - status.oldest.map_or(0, |oldest| oldest.seq);
    let mut memory = Vec::new();
    for _ in 0..ROUNDS {
        memory.push(read(&feed, held).await * (CHUNKS / held) as u32);
    }
    let memory = median(memory);
    print("read, memory", memory, CHUNKS, memory);
    for batch in [1, 64] {
        let mut disk = Vec::new();
        for round in 0..ROUNDS {
            let (_, feed, _publisher) = stored(&store, &format!("{batch} {round}"));
            disk.push(read(&feed, CHUNKS).await);
        }
        print(&format!("read, written {batch} at a time"), median(disk), CHUNKS, memory);
    }
    drop(store);
    let mut options = StoreOptions::default();
    options.fsync = Fsync::Always;
    let store = Store::open(folder.path(), options).expect("it opens");
    let (_, _feed, publisher) = stored(&store, "always");
    let began = Instant::now();
    for _ in 0..1000 {
        publisher.publish(Bytes::from(vec![b'x'; SIZE])).await.expect("published");
    }
    println!("publish, 1 at a time, synced each: {:.0} µs a chunk", began.elapsed().as_secs_f64() * 1e3);
    let began = Instant::now();
    let publishers = (0..64).map(|_| async {
        for _ in 0..100 {
            publisher.publish(Bytes::from(vec![b'x'; SIZE])).await.expect("published");
        }
    });
    futures_util::future::join_all(publishers).await;
    println!("publish, 64 publishers, synced each: {:.1} µs a chunk", began.elapsed().as_secs_f64() * 1e6 / 6400.0);
}
