//! Less is to be kept than before: what is beyond that goes soon, and the rest stays.

mod common;

use std::{fs, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{new, open, seqs};
use h3cast_feed::{Chunk, Keeper};
use h3cast_store::{Fsync, Retain, StoredFeed};

const LIMIT: u64 = 200_000;

fn bytes(bytes: u64) -> Retain {
    Retain { bytes: Some(bytes), age: None }
}

fn line(number: u64) -> Bytes {
    format!("{number:0199}\n").into()
}

/// All that is stored, which is without gaps.
async fn all(feed: &StoredFeed) -> Vec<Chunk> {
    let mut next = feed.first();
    let mut all: Vec<Chunk> = Vec::new();
    while next < feed.next() {
        let past = Arc::new(feed.clone()).read(feed.epoch(), next).await.unwrap();
        all.extend(past.chunks);
        next = past.next;
    }
    assert!(all.iter().map(|chunk| chunk.seq).eq(feed.first()..feed.first() + all.len() as u64));
    all
}

async fn until(feed: &StoredFeed, most: u64) -> u64 {
    let stored = || feed.stored().unwrap().bytes;
    let bounded = async {
        while stored() > most {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), bounded).await.expect("it is kept");
    stored()
}

/// Publishes so many, as many at once as are one record.
async fn fill(feed: &StoredFeed, count: u64) {
    let mut next = 0;
    while next < count {
        next += seqs(&feed.publish_all((next..count).map(|number| new(line(number))).collect()).await).len() as u64;
    }
}

#[tokio::test]
async fn one_large_file_is_trimmed() {
    for (fsync, together) in
        [(Fsync::default(), 1), (Fsync::default(), 300), (Fsync::Always, 4096), (Fsync::Never, 4096)]
    {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), fsync);
        let feed = store.feed("a").unwrap();
        feed.publish(line(0), Some("id".into())).await.unwrap();
        let mut next = 1;
        while next < 12_288 {
            let chunks: Vec<_> = (next..12_288.min(next + together)).map(|number| new(line(number))).collect();
            next += seqs(&feed.publish_noted(chunks, |_| Vec::new()).await).len() as u64;
        }
        let before = all(&feed).await;
        feed.set_retain(bytes(LIMIT));
        let kept = until(&feed, LIMIT).await;
        assert!(kept >= LIMIT * 7 / 8, "{kept} bytes of records of {together} are left");
        let after = all(&feed).await;
        assert_eq!(after.last().map(|chunk| chunk.seq + 1), Some(feed.next()));
        let expected = &before[before.len() - after.len()..];
        let parts = |chunks: &[Chunk]| -> Vec<_> {
            chunks.iter().map(|chunk| (chunk.seq, chunk.bytes.clone(), chunk.micros())).collect()
        };
        assert_eq!(parts(&after), parts(expected));
        let (total, first) = (feed.total_bytes(), feed.first());
        store.close().unwrap();
        drop((store, feed));
        let on_disk: u64 = fs::read_dir(folder.path().join("feeds/0"))
            .unwrap()
            .map(|file| file.unwrap())
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "records"))
            .map(|file| file.metadata().unwrap().len())
            .sum();
        assert!(on_disk <= LIMIT, "{on_disk} bytes are on the disk");
        let store = open(folder.path(), fsync);
        let feed = store.feed("a").unwrap();
        assert_eq!((feed.total_bytes(), feed.first(), feed.next()), (total, first, 12_288));
        assert_eq!(parts(&all(&feed).await), parts(expected));
        assert_eq!(feed.publish("other".into(), Some("id".into())).await.unwrap().cursor.seq, 0);
        store.close().unwrap();
    }
}

/// It was lowered for this process.
#[tokio::test]
async fn a_feed_that_nobody_writes_is_trimmed_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    let feed = store.feed("a").unwrap();
    fill(&feed, 4000).await;
    store.close().unwrap();
    drop((store, feed));
    for limit in [LIMIT, 10_000] {
        let store = open(folder.path(), Fsync::default());
        let feed = store.feed("a").unwrap();
        feed.set_retain(bytes(limit));
        let kept = until(&feed, limit).await;
        assert!(kept >= limit * 7 / 8, "{kept} of {limit} bytes are left");
        all(&feed).await;
        store.close().unwrap();
    }
}

/// A single chunk is larger than what is to be kept.
#[tokio::test]
async fn the_last_chunk_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    let feed = store.feed("a").unwrap();
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    seqs(&feed.publish_all((0..3).map(|_| new(large.clone())).collect()).await);
    feed.set_retain(bytes(LIMIT));
    until(&feed, (1 << 20) + 1000).await;
    assert_eq!(all(&feed).await.len(), 1);
}

/// The system stopped when both files were there.
#[tokio::test]
async fn a_power_loss_in_between_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    let feed = store.feed("a").unwrap();
    fill(&feed, 4000).await;
    let path = folder.path().join(format!("feeds/0/{:020}.records", 0));
    let before = fs::read(&path).unwrap();
    feed.set_retain(bytes(LIMIT));
    until(&feed, LIMIT).await;
    let first = feed.first();
    store.close().unwrap();
    drop((store, feed));
    fs::write(&path, before).unwrap();
    for state in [r#"{"closed":false,"boot":"another"}"#, r#"{"closed":true,"boot":"another"}"#] {
        fs::write(folder.path().join("state.json"), state).unwrap();
        let store = open(folder.path(), Fsync::default());
        let feed = store.feed("a").unwrap();
        let stored = all(&feed).await;
        assert!(stored.len() >= 4000 && stored.iter().all(|chunk| chunk.bytes == line(chunk.seq)));
        store.close().unwrap();
    }
    let store = open(folder.path(), Fsync::default());
    let feed = store.feed("a").unwrap();
    feed.set_retain(bytes(LIMIT));
    until(&feed, LIMIT).await;
    assert!(feed.first() >= first);
    all(&feed).await;
}
