//! What the store's thread does.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use h3cast_feed::{Feed, Keeper, NewChunk, Start};

use super::sync;
use crate::{
    Fsync, Retain, Store, StoreError, StoreOptions,
    append::Batch,
    files::{self, Mark},
    segment,
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
    assert_eq!(refused, disk.into());
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
