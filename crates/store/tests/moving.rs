//! A store that one process releases and the next one opens, while writers write on.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{new, open, options};
use futures_util::FutureExt;
use h3cast_feed::{Keeper, PublishError};
use h3cast_store::{Fsync, Store, StoreError, StoredFeed};

const EACH: [Fsync; 3] = [Fsync::Always, Fsync::Every(Duration::from_millis(20)), Fsync::Never];

/// Whether another process has it.
fn is_locked(dir: &std::path::Path) -> bool {
    matches!(Store::open(dir, options(Fsync::Never)), Err(StoreError::Locked { .. }))
}

/// All chunks of a feed.
async fn all(feed: &StoredFeed) -> Vec<String> {
    let (mut chunks, mut next) = (Vec::new(), 0);
    while next < feed.next() {
        let past = Arc::new(feed.clone()).read(feed.epoch(), next).await.unwrap();
        assert_eq!(past.first.max(next), next, "numbers were left out");
        chunks.extend(past.chunks.iter().map(|chunk| String::from_utf8(chunk.bytes.to_vec()).unwrap()));
        next = past.next;
    }
    chunks
}

/// Writes until the store has moved: what was confirmed.
fn writing(feed: &StoredFeed, who: usize) -> tokio::task::JoinHandle<Vec<(u64, String)>> {
    let feed = feed.clone();
    tokio::spawn(async move {
        let mut confirmed = Vec::new();
        for number in 0.. {
            let text = format!("{who} {number}");
            match feed.publish(text.clone().into(), None).await {
                Ok(receipt) => confirmed.push((receipt.cursor.seq, text)),
                Err(PublishError::Ended) => break,
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
        confirmed
    })
}

async fn blocking<T: Send + 'static>(store: &Arc<Store>, work: impl FnOnce(&Store) -> T + Send + 'static) -> T {
    let store = store.clone();
    tokio::task::spawn_blocking(move || work(&store)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_is_there_and_nothing_else() {
    for fsync in EACH {
        let folder = tempfile::tempdir().unwrap();
        let old = Arc::new(open(folder.path(), fsync));
        let feed = old.feed("a").unwrap();
        let writers: Vec<_> = (0..4).map(|who| writing(&feed, who)).collect();
        while feed.next() < 100 {
            tokio::task::yield_now().await;
        }
        assert!(is_locked(folder.path()));
        blocking(&old, Store::release).await.unwrap();
        let next = Arc::new(open(folder.path(), fsync));
        assert!(matches!(blocking(&old, Store::reclaim).await, Err(StoreError::Locked { .. })));
        next.hold();
        let continued = next.feed("a").unwrap();
        assert_eq!((continued.epoch(), continued.next()), (feed.epoch(), feed.next()));
        let mut first = Box::pin(continued.publish("new".into(), None));
        assert!(first.as_mut().now_or_never().is_none(), "{fsync:?}: written before the old one has given up");
        // Readers of the old one are still there.
        let past = all(&feed).await;
        blocking(&old, Store::close).await.unwrap();
        let mut confirmed = Vec::new();
        for writer in writers {
            confirmed.extend(writer.await.unwrap());
        }
        confirmed.sort_unstable();
        let expected: Vec<_> = past.iter().cloned().enumerate().map(|(seq, text)| (seq as u64, text)).collect();
        assert_eq!(confirmed, expected, "{fsync:?}");
        next.resume();
        assert_eq!(first.await.unwrap().cursor.seq, past.len() as u64);
        assert_eq!(all(&continued).await, [&past[..], &["new".into()]].concat());
        // What the old one has does not touch it any more.
        assert!(matches!(old.feed("b").map(drop), Err(StoreError::Closed)));
        drop((old, feed));
        assert!(is_locked(folder.path()));
        blocking(&next, Store::close).await.unwrap();
        assert_eq!(all(&open(folder.path(), fsync).feed("a").unwrap()).await.len(), past.len() + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_reclaimed_continues_as_if_nothing_had_happened() {
    for fsync in EACH {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(open(folder.path(), fsync));
        let feed = store.feed("a").unwrap();
        let writer = writing(&feed, 0);
        let stops = Arc::new(AtomicBool::new(false));
        let noting = {
            let (feed, stops) = (feed.clone(), stops.clone());
            tokio::spawn(async move {
                while !stops.load(Ordering::Relaxed) {
                    assert_eq!(feed.publish_noted(vec![new("noted")], |_| Vec::new()).await.error, None);
                }
            })
        };
        for round in 0..6 {
            let before = feed.next();
            while feed.next() < before + 10 {
                tokio::task::yield_now().await;
            }
            blocking(&store, Store::release).await.unwrap();
            let released = feed.next();
            if round % 2 == 0 {
                let other = open(folder.path(), fsync);
                other.hold();
                assert_eq!(other.feed("a").unwrap().next(), released);
                if round % 4 == 0 {
                    other.close().unwrap();
                }
            }
            assert_eq!(feed.next(), released, "{fsync:?}: written after it was released");
            blocking(&store, Store::reclaim).await.unwrap();
        }
        stops.store(true, Ordering::Relaxed);
        noting.await.unwrap();
        blocking(&store, Store::release).await.unwrap();
        blocking(&store, Store::close).await.unwrap();
        let confirmed = writer.await.unwrap();
        let store = open(folder.path(), fsync);
        let kept = all(&store.feed("a").unwrap()).await;
        let of_writer: Vec<_> = kept.iter().filter(|text| *text != "noted").cloned().collect();
        assert_eq!(of_writer, confirmed.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>(), "{fsync:?}");
        assert!(confirmed.iter().all(|(seq, text)| kept[*seq as usize] == *text));
    }
}

/// Nothing can be created where the new state is to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_released_is_written_on() {
    for fsync in EACH {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(open(folder.path(), fsync));
        let feed = store.feed("a").unwrap();
        feed.publish("before".into(), None).await.unwrap();
        let in_the_way = folder.path().join("state.new");
        std::fs::create_dir(&in_the_way).unwrap();
        blocking(&store, Store::release).await.unwrap_err();
        blocking(&store, Store::reclaim).await.unwrap();
        let writing = tokio::time::timeout(Duration::from_secs(10), feed.publish("after".into(), None));
        assert_eq!(writing.await.expect("it does not wait").unwrap().cursor.seq, 1, "{fsync:?}");
        std::fs::remove_dir(&in_the_way).unwrap();
        blocking(&store, Store::release).await.unwrap();
        assert_eq!(all(&open(folder.path(), fsync).feed("a").unwrap()).await, ["before", "after"]);
    }
}

/// How many folders of feeds there are.
fn folders(dir: &std::path::Path) -> usize {
    std::fs::read_dir(dir.join("feeds")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_goes_meanwhile_is_removed_if_the_store_stays() {
    for (moves, held) in [(false, false), (false, true), (true, false)] {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(open(folder.path(), Fsync::Never));
        let feed = store.feed("a").unwrap();
        feed.publish("old".into(), None).await.unwrap();
        match held {
            true => store.hold(),
            false => blocking(&store, Store::release).await.unwrap(),
        }
        blocking(&store, |store| store.remove("a")).await.unwrap();
        assert!(store.feeds().is_empty());
        // The next one of that name has nothing of it.
        let next = store.feed("a").unwrap();
        assert_eq!((next.next(), folders(folder.path())), (0, 1), "it may be another process's");
        if moves {
            blocking(&store, Store::close).await.unwrap();
            assert_eq!(open(folder.path(), Fsync::Never).feed("a").unwrap().next(), 1);
            continue;
        }
        match held {
            true => store.resume(),
            false => blocking(&store, Store::reclaim).await.unwrap(),
        }
        assert!(feed.publish("late".into(), None).await.is_err());
        assert_eq!(next.publish("new".into(), None).await.unwrap().cursor.seq, 0);
        blocking(&store, Store::close).await.unwrap();
        assert_eq!(all(&open(folder.path(), Fsync::Never).feed("a").unwrap()).await, ["new"]);
        assert_eq!(folders(folder.path()), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_cannot_be_read_any_more_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(folder.path(), Fsync::Every(Duration::from_millis(1))));
    let [broken, whole] = ["broken", "whole"].map(|name| store.feed(name).unwrap());
    for feed in [&broken, &whole] {
        feed.publish("0".into(), None).await.unwrap();
    }
    blocking(&store, Store::release).await.unwrap();
    let mark = folder.path().join("feeds/0/mark.json");
    let was = std::fs::read(&mark).unwrap();
    std::fs::write(&mark, "{").unwrap();
    blocking(&store, Store::reclaim).await.unwrap();
    assert_eq!(whole.publish("1".into(), None).await.unwrap().cursor.seq, 1);
    assert!(matches!(broken.publish("1".into(), None).await, Err(PublishError::Keeper(_))));
    std::fs::write(&mark, was).unwrap();
    let again = async {
        loop {
            match broken.publish("1".into(), None).await {
                Ok(receipt) => break receipt.cursor.seq,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), again).await.expect("it is read again"), 1);
    assert_eq!(all(&broken).await, ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_flushed_before_is_not_held() {
    for fsync in EACH {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(open(folder.path(), fsync));
        let feed = store.feed("a").unwrap();
        feed.publish("0".into(), None).await.unwrap();
        let before = store.syncs().0;
        blocking(&store, Store::flush).await.unwrap();
        assert!(fsync == Fsync::Always || store.syncs().0 > before, "{fsync:?}");
        feed.publish("1".into(), None).await.unwrap();
        blocking(&store, Store::release).await.unwrap();
        assert!(matches!(blocking(&store, Store::flush).await, Err(StoreError::Moved)));
    }
}
