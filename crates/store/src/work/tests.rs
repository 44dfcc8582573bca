//! What the store's thread does.

use std::{
    io::ErrorKind,
    time::{Duration, Instant, SystemTime},
};

use h3cast_feed::{Feed, FeedError, Keeper, NewChunk, PublishError, Start};

use super::{keep_house, sync, sync_dirty};
use crate::{
    Fsync, Retain, Store, StoreError, StoreOptions, StoredFeed,
    append::{Appended, Batch},
    files::{self, Mark},
    record, segment,
    shared::UNSYNCED,
};

/// Names that clients ask for cost nothing once nobody uses them.
#[tokio::test]
async fn feeds_that_are_not_open_any_more_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    let used = store.feed("used").unwrap();
    for number in 0..1000 {
        store.feed(&format!("made up {number}")).unwrap();
    }
    let common = &used.0.common;
    while common.open_lock().len() > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(common.open_lock().capacity() < 200);
    used.publish("x".into(), None).await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&store.feed("used").unwrap().0, &used.0));
}

/// Each sync lets the files go that were given up before it, though more has been written meanwhile.
#[tokio::test]
async fn files_go_while_others_write() {
    let folder = tempfile::tempdir().unwrap();
    // The thread does nothing by itself for so long.
    let options = StoreOptions { fsync: Fsync::Every(Duration::from_secs(600)) };
    let store = Store::open(folder.path(), options).unwrap();
    let stored = store.feed("a").unwrap();
    stored.set_retain(Retain { bytes: Some(64 << 10), age: None });
    let publish = async |until: u64| {
        while stored.first() < until {
            stored.publish(vec![0; 1000].into(), None).await.unwrap();
        }
    };
    let oldest = || segment::path(&folder.path().join("feeds/0"), 0);
    publish(1).await;
    let shared = &stored.0;
    let written = shared.lock().take_written();
    let given_up = written.doomed.len();
    publish(stored.first() + 1).await;
    assert!(oldest().exists() && shared.lock().dirty && given_up > 0);
    // What replaces it may not be there.
    shared.synced(written, Err(StoreError::Closed));
    assert!(oldest().exists() && shared.lock().doomed.len() > given_up);
    let written = shared.lock().take_written();
    shared.dirty(&mut shared.lock());
    shared.synced(written, Ok(()));
    assert!(!oldest().exists() && shared.lock().dirty);
    publish(stored.first() + 1).await;
}

/// No disk fails on demand: only the failure that the thread sees is made up.
#[tokio::test]
async fn what_did_not_reach_the_disk_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { fsync: Fsync::Always };
    let store = Store::open(folder.path(), options.clone()).unwrap();
    let stored = store.feed("a").unwrap();
    let (feed, filler, _publisher) = Feed::stored("a", std::sync::Arc::new(stored.clone()), 1000, stored.epoch(), 0);
    stored.fill(filler);
    stored.publish("kept".into(), Some("id".into())).await.unwrap();
    let shared = &stored.0;

    // Written, and not yet synced.
    let lost = NewChunk { bytes: "lost".into(), id: Some("lost".into()) };
    let mut batch = Batch { chunks: vec![lost.clone()], noting: None };
    {
        let mut state = shared.lock();
        shared.put_for_test(&mut state, &mut batch);
        assert_eq!((state.next, state.visible), (2, 1));
    }
    let disk = StoreError::io(folder.path(), ErrorKind::Other.into());
    shared.fail_for_test(disk.clone());

    // Nobody has seen it, and its number is free; until the disk works again, nothing is published.
    assert_eq!(stored.next(), 1);
    let refused = stored.publish("late".into(), None).await.unwrap_err();
    assert_eq!(FeedError::of(&refused), FeedError::of(&PublishError::from(disk)));
    sync(&shared.common, vec![shared.clone()]);
    assert_eq!(stored.publish("next".into(), Some("lost".into())).await.unwrap().cursor.seq, 1);
    let mut viewer = feed.view(Start::Start, Some(2));
    for expected in ["kept", "next"] {
        let event = futures_util::StreamExt::next(&mut viewer).await;
        assert!(matches!(event, Some(h3cast_feed::Event::Chunk(chunk)) if chunk.bytes == expected));
    }
    store.close().unwrap();
    let store = Store::open(folder.path(), options).unwrap();
    assert_eq!(store.feed("a").unwrap().next(), 2);
}

/// What is on the disk is not read before the store serves, nor taken for what a power loss may have torn.
#[tokio::test]
async fn it_is_noted_with_each_file_what_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions { fsync: Fsync::Always }).unwrap();
    let stored = store.feed("a").unwrap();
    stored.set_retain(Retain { bytes: Some(256 << 10), age: None });
    let mark = || files::read::<Mark>(&folder.path().join("feeds/0/mark.json")).unwrap();
    let long_ago = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
    let mut synced = 0;
    for _ in 0..2 {
        stored.0.lock().reserved = long_ago;
        for _ in 0..40 {
            stored.publish(vec![0; 1000].into(), None).await.unwrap();
        }
        let mark = mark().expect("it is noted");
        assert!(mark.synced > synced && mark.synced <= stored.next(), "{mark:?}");
        synced = mark.synced;
    }
}

/// Full files stay open until they are synced.
#[tokio::test]
async fn many_files_are_synced_before_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { fsync: Fsync::Every(Duration::from_secs(600)) };
    let store = Store::open(folder.path(), options).unwrap();
    let stored = store.feed("a").unwrap();
    stored.set_retain(Retain { bytes: Some(256 << 10), age: None });
    for _ in 0..400 {
        stored.publish(vec![0; 1000].into(), None).await.unwrap();
    }
    while store.syncs().0 == 0 || stored.0.lock().unsynced.len() > UNSYNCED {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What was removed goes, though something waits long for its sync.
#[tokio::test]
async fn a_long_interval_between_syncs_holds_nothing_else_up() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { fsync: Fsync::Every(Duration::from_secs(60)) };
    let store = Store::open(folder.path(), options).unwrap();
    for name in ["a", "b"] {
        store.feed(name).unwrap().publish("x".into(), None).await.unwrap();
    }
    store.remove("b").unwrap();
    let removed = folder.path().join("feeds/1.removed");
    let begun = Instant::now();
    while removed.exists() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(store.syncs().0, 0);
}

/// What a write left that broke off is looked for at the end of the last file only.
#[tokio::test]
async fn a_file_with_a_torn_end_is_repaired_before_the_next_begins() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    let stored = store.feed("a").unwrap();
    stored.publish("x".into(), None).await.unwrap();
    let mut state = stored.0.lock();
    let (path, len) = (stored.0.path(0), state.segments[0].len);
    std::io::Write::write_all(&mut &*state.file.clone().unwrap(), b"H3R1 and no more").unwrap();
    state.torn = true;
    stored.0.roll(&mut state, true).unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().len(), len);
    assert_eq!(state.segments.len(), 2);
}

/// Nothing is published before what did not reach the disk has been taken back.
#[tokio::test]
async fn what_cannot_be_taken_back_is_later() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions { fsync: Fsync::Always }).unwrap();
    let stored = store.feed("a").unwrap();
    stored.publish("kept".into(), None).await.unwrap();
    let shared = &stored.0;
    let mut batch = Batch { chunks: vec![NewChunk { bytes: "lost".into(), id: None }], noting: None };
    shared.put_for_test(&mut shared.lock(), &mut batch);
    let (path, aside) = (shared.path(0), folder.path().join("aside"));
    std::fs::rename(&path, &aside).unwrap();
    shared.fail_for_test(StoreError::io(folder.path(), ErrorKind::Other.into()));
    for _ in 0..2 {
        stored.publish("late".into(), None).await.unwrap_err();
        sync(&shared.common, vec![shared.clone()]);
    }
    std::fs::rename(&aside, &path).unwrap();
    sync(&shared.common, vec![shared.clone()]);
    assert_eq!(stored.publish("next".into(), None).await.unwrap().cursor.seq, 1);
    let past = std::sync::Arc::new(stored.clone()).read(stored.epoch(), 0).await.unwrap();
    let chunks: Vec<_> = past.chunks.into_iter().map(|chunk| chunk.bytes).collect();
    assert_eq!(chunks, ["kept", "next"]);
}

/// With `Fsync::Never` too: after a power loss, what has been on the disk for long is neither read nor moved aside.
#[tokio::test]
async fn full_files_reach_the_disk_though_nothing_is_synced_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { fsync: Fsync::Never };
    let store = Store::open(folder.path(), options.clone()).unwrap();
    let stored = store.feed("a").unwrap();
    stored.set_retain(Retain { bytes: Some(1 << 20), age: None });
    for _ in 0..200 {
        stored.publish(vec![0; 1000].into(), None).await.unwrap();
    }
    let shared = &stored.0;
    let files: Vec<_> = shared.lock().segments.iter().map(|segment| shared.path(segment.first)).collect();
    assert!(files.len() > 2);
    shared.lock().marked = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    let next = stored.next();
    let mark = || files::read::<Mark>(&folder.path().join("feeds/0/mark.json")).unwrap().unwrap_or_default();
    let begun = Instant::now();
    while mark().synced < next {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing is known to be on the disk: {:?}", mark());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The power goes. One of the files is damaged besides.
    shared.lock().closed = true;
    drop((stored, store));
    let mut bytes = std::fs::read(&files[1]).unwrap();
    bytes[20_000] ^= 1;
    std::fs::write(&files[1], bytes).unwrap();
    std::fs::write(folder.path().join("state.json"), r#"{"closed":false,"boot":"another"}"#).unwrap();
    let store = Store::open(folder.path(), options).unwrap();
    assert!(files.iter().all(|file| file.exists()), "confirmed chunks were moved aside");
    assert!(store.feed("a").unwrap().next() >= next);
}

/// A store whose feed has some files, each of which is as old as that.
async fn aged(dir: &std::path::Path, age: Duration) -> (Store, StoredFeed) {
    let store = Store::open(dir, StoreOptions::default()).unwrap();
    let stored = store.feed("a").unwrap();
    stored.set_retain(Retain { bytes: Some(1 << 20), age: None });
    for _ in 0..300 {
        stored.publish(vec![0; 1000].into(), None).await.unwrap();
    }
    {
        let mut state = stored.0.lock();
        let micros = |time: SystemTime| record::micros(time);
        state.segments.iter_mut().for_each(|segment| segment.newest = micros(SystemTime::now() - age));
        state.found = micros(SystemTime::now());
    }
    (store, stored)
}

const AGE: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn files_after(stored: &StoredFeed) -> usize {
    stored.set_retain(Retain { bytes: None, age: Some(AGE) });
    stored.0.lock().segments.len()
}

#[tokio::test]
async fn a_file_from_the_future_keeps_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, stored) = aged(folder.path(), 2 * AGE).await;
    let future = record::micros(SystemTime::now() + DAY);
    let first = {
        let mut state = stored.0.lock();
        let last = state.segments.len() - 1;
        assert!(last > 3);
        // So are the ones that were written before it was noticed.
        (state.segments[0].newest, state.segments[2].newest) = (future, future);
        state.segments[last].newest = record::micros(SystemTime::now());
        state.segments[last].first
    };
    assert_eq!(files_after(&stored), 1);
    assert_eq!(stored.first(), first);
    // One of which all is from the future goes when it was kept for its time.
    let mut state = stored.0.lock();
    state.segments[0].newest = future;
    (state.newest, state.dirty) = (future, false);
    assert!(!stored.0.has_aged(&state));
    state.used = Instant::now().checked_sub(2 * AGE).unwrap();
    assert!(stored.0.has_aged(&state));
    let last = &state.segments[0];
    assert!(!state.is_full(last));
    let mut last = segment::Segment { oldest: Some(future), ..segment::Segment::default() };
    assert!(state.is_full(&last), "what comes later would be kept with it");
    last.oldest = Some(record::micros(SystemTime::now()));
    assert!(!state.is_full(&last));
}

#[tokio::test]
async fn a_clock_that_was_set_forward_removes_nothing_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (store, stored) = aged(folder.path(), DAY).await;
    let many = stored.0.lock().segments.len();
    let clock = &stored.0.common.clock;
    // It was yesterday just now.
    clock.lock().believed = (SystemTime::now() - DAY, Instant::now());
    assert_eq!(files_after(&stored), many);
    // And stays today.
    clock.lock().ahead = Instant::now().checked_sub(AGE / 8);
    assert_eq!(files_after(&stored), 1);
    drop((store, stored));

    // A process that begins knows of no earlier clock.
    let folder = tempfile::tempdir().unwrap();
    let (_store, stored) = aged(folder.path(), DAY).await;
    stored.0.lock().found = record::micros(SystemTime::now() - DAY);
    assert_eq!(files_after(&stored), many);
    stored.0.common.clock.lock().begun = Instant::now().checked_sub(AGE / 8).unwrap();
    assert_eq!(files_after(&stored), 1);
}

/// Viewers get what they may see, though what comes after it is taken back while they read.
#[tokio::test]
async fn what_nobody_may_see_yet_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions { fsync: Fsync::Always }).unwrap();
    let stored = store.feed("a").unwrap();
    stored.publish("seen".into(), None).await.unwrap();
    let (shared, path) = (&stored.0, stored.0.path(0));
    let seen = std::fs::metadata(&path).unwrap().len();
    let mut batch = Batch { chunks: vec![NewChunk { bytes: "unseen".into(), id: None }], noting: None };
    shared.put_for_test(&mut shared.lock(), &mut batch);
    std::fs::File::options().write(true).open(path).unwrap().set_len(seen + 50).unwrap();
    for _ in 0..2 {
        let past = std::sync::Arc::new(stored.clone()).read(stored.epoch(), 0).await.unwrap();
        let chunks: Vec<_> = past.chunks.into_iter().map(|chunk| chunk.bytes).collect();
        assert_eq!(chunks, ["seen"]);
    }
}

/// Thousands of feeds that nobody uses cost nothing after a power loss.
#[tokio::test]
async fn feeds_that_were_looked_at_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        for number in 0..20 {
            store.feed(&format!("feed {number}")).unwrap().publish("x".into(), None).await.unwrap();
        }
    }
    std::fs::write(folder.path().join("state.json"), r#"{"closed":false,"boot":"another"}"#).unwrap();
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    let used = store.feed("feed 7").unwrap();
    assert_eq!(used.next(), 65_536);
    let begun = Instant::now();
    while used.0.common.open().len() > 1 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} are open", used.0.common.open().len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(store.feed("feed 8").unwrap().next(), 65_536);
}

#[tokio::test]
async fn a_feed_that_cannot_be_removed_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    let stored = store.feed("a").unwrap();
    stored.publish("one".into(), None).await.unwrap();
    let in_the_way = folder.path().join("feeds/0.removed");
    std::fs::create_dir_all(in_the_way.join("x")).unwrap();
    store.remove("a").unwrap_err();
    assert_eq!(stored.publish("two".into(), None).await.unwrap().cursor.seq, 1);
    assert_eq!((store.feeds().len(), store.feed("a").unwrap().next()), (1, 2));
    std::fs::remove_dir_all(in_the_way).unwrap();
    store.remove("a").unwrap();
    assert_eq!((store.feeds().len(), store.feed("a").unwrap().next()), (0, 0));
    stored.publish("three".into(), None).await.unwrap_err();
}

/// The disk has not failed where a feed gives its place to another, and its files are gone before they are synced.
#[tokio::test]
async fn a_feed_that_is_removed_while_it_is_synced_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { fsync: Fsync::Every(Duration::from_secs(600)) };
    let store = Store::open(folder.path(), options).unwrap();
    let stored = store.feed("a").unwrap();
    let shared = &stored.0;
    stored.publish("x".into(), None).await.unwrap();
    let written = shared.lock().take_written();
    store.remove("a").unwrap();
    let synced = shared.sync(&written);
    assert!(matches!(&synced, Err(StoreError::Io { error, .. }) if error.kind() == ErrorKind::NotFound), "{synced:?}");
    shared.synced(written, synced);
    assert!(shared.lock().failed.is_none() && !store.is_failing());
    assert!(!shared.common.doubtful.load(std::sync::atomic::Ordering::Relaxed));
}

/// Nor when the thread tries again what has failed, as it does each second: here it does at once.
#[tokio::test]
async fn the_thread_does_not_create_a_folder_again_that_was_removed() {
    for fsync in [Fsync::Always, Fsync::Every(Duration::from_millis(10)), Fsync::Never] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("s");
        let store = Store::open(&dir, StoreOptions { fsync }).unwrap();
        let feeds = ["a", "b"].map(|name| store.feed(name).unwrap());
        feeds[0].publish("one".into(), None).await.unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let common = &feeds[0].0.common;
        let work = || {
            for feed in &feeds {
                feed.0.dirty(&mut feed.0.lock());
            }
            sync_dirty(common);
            assert!(feeds[0].0.lock().failed.is_some());
            keep_house(common);
            sync_dirty(common);
        };
        work();
        assert!(!dir.exists());
        // Not even where another one is now.
        std::fs::create_dir(&dir).unwrap();
        work();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }
}

/// The folder is looked for before a chunk is written, and not by who holds the feed's lock on a worker.
#[tokio::test]
async fn a_disk_that_does_not_answer_holds_up_no_worker_when_the_folder_is_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("s");
    let options = StoreOptions { fsync: Fsync::Every(Duration::from_secs(600)) };
    let store = Store::open(&dir, options).unwrap();
    let stored = store.feed("a").unwrap();
    stored.publish("one".into(), None).await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    while stored.0.common.is_seen() {
        tokio::task::yield_now().await;
    }
    let mut batch = Batch { chunks: vec![NewChunk { bytes: "two".into(), id: None }], noting: None };
    assert!(matches!(stored.0.append(&mut batch, false), Ok(Appended::Done(_))));
    let refused = stored.publish("three".into(), None).await.unwrap_err();
    assert!(FeedError::of(&refused).0.contains("was removed or moved"), "{refused:?}");
}
