//! Files torn by a crash or a power loss, on a disk too full to repair them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use h3cast_feed::{PublishError, Start};
use h3cast_store::{Fsync, Retain, StoreError};

use crate::{
    common::{self, feed, open, view},
    dir, fill, inside, line, until_mended,
};

/// Leaves so much room.
fn fill_but(path: &Path, bytes: u64) -> fs::File {
    let rest = fill(path);
    rest.set_len(rest.metadata().unwrap().len() - bytes).unwrap();
    rest
}

/// All files of a store, but the one with the number of its process.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(files(&entry)),
            false if entry.ends_with("lock") => {}
            false => _ = found.insert(entry.clone(), fs::read(&entry).unwrap()),
        }
    }
    found
}

/// The beginning of a record of 200,000 bytes.
fn broken() -> Vec<u8> {
    [&b"H3R1\0\0\0\0"[..], &200_000_u32.to_le_bytes(), &1_u32.to_le_bytes(), &[1; 100_000]].concat()
}

/// A store with the feeds `a` and `b`, as a process leaves it that is killed while it writes to `a`. With `another` boot
/// it was a power loss, and with another place it is a copy. What broke off.
async fn torn(path: &Path, fsync: Fsync, another: Option<&str>) -> Vec<u8> {
    let store = open(path, fsync);
    for name in ["a", "b"] {
        let (_, feed, publisher) = feed(&store, name, 1000);
        for number in 0..100 {
            publisher.publish(line(number)).await.unwrap();
        }
        feed.stop();
    }
    // Read before the close, so that it says open.
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(path.join("state.json")).unwrap()).unwrap();
    store.close().unwrap();
    drop(store);
    if let Some(what) = another {
        state[what] = "another".into();
    }
    fs::write(path.join("state.json"), state.to_string()).unwrap();
    let broken = broken();
    let records = path.join(format!("feeds/0/{:020}.records", 0));
    let whole = fs::read(&records).unwrap();
    fs::write(&records, [&*whole, &*broken].concat()).unwrap();
    broken
}

#[test]
fn what_a_power_loss_tore_is_read_where_the_disk_is_full_and_mended_once_there_is_room() {
    inside("torn::torn_and_full");
}

#[tokio::test]
#[ignore = "run by another test"]
async fn torn_and_full() {
    for (fsync, another) in
        [(Fsync::default(), "boot"), (Fsync::Always, "boot"), (Fsync::Never, "boot"), (Fsync::default(), "place")]
    {
        // Viewers may have seen numbers that are lost.
        let is_lost = another == "boot" && fsync != Fsync::Always;
        let dir = dir().join(format!("{fsync:?}-{another}"));
        let path = dir.join("store");
        let broken = torn(&path, fsync, Some(another)).await;
        let ballast = dir.join("ballast");
        let rest = fill(&ballast);
        let before = files(&path);
        let expected = |end| (0..end).map(|number| Ok((number, line(number))));
        // Another start finds the same.
        for _ in 0..2 {
            let store = open(&path, fsync);
            assert!(store.is_full() && store.is_failing());
            for name in ["a", "b"] {
                let (stored, feed, publisher) = common::feed(&store, name, 1000);
                assert!(view(&feed, Start::Start, 100).await.into_iter().eq(expected(100)), "{name}");
                for _ in 0..3 {
                    let refused = publisher.publish(line(100)).await;
                    assert!(matches!(refused, Err(PublishError::Full(_))), "{refused:?}");
                }
                stored.create().unwrap();
                assert!(matches!(store.feed("c").unwrap().create(), Err(StoreError::Full(_))));
                feed.stop();
            }
            assert!(matches!(store.release(), Err(StoreError::Full(_))));
            store.close().unwrap();
            drop(store);
            assert!(files(&path) == before, "something was written");
        }

        let store = open(&path, fsync);
        let (stored, feed, publisher) = common::feed(&store, "a", 1000);
        let (_, other, other_publisher) = common::feed(&store, "b", 1000);
        publisher.publish(line(100)).await.unwrap_err();
        drop(rest);
        fs::remove_file(&ballast).unwrap();
        until_mended(&store).await;
        let seq = publisher.publish(line(100)).await.unwrap().seq;
        assert_eq!(seq > 100, is_lost, "{seq}");
        assert!(!store.is_full() && !store.is_failing());
        assert_eq!(fs::read(path.join(format!("feeds/0/{:020}.torn", 0))).unwrap(), broken);
        let later = other_publisher.publish(line(100)).await.unwrap().seq;
        assert_eq!(later > 100, is_lost, "{later}");
        let gap = (seq > 100).then(|| Err(seq - 100));
        let all: Vec<_> = expected(100).chain(gap).chain([Ok((seq, line(100)))]).collect();
        assert_eq!(view(&feed, Start::Start, seq + 1).await, all);
        feed.stop();
        other.stop();
        store.close().unwrap();
        drop((store, stored));
        let store = open(&path, fsync);
        let (_, feed, _publisher) = common::feed(&store, "a", 1000);
        assert_eq!(view(&feed, Start::Start, seq + 1).await, all);
        drop((feed, store));
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn what_a_killed_process_tore_is_read_where_there_is_no_room_to_move_it_aside() {
    inside("torn::torn_with_little_room");
}

#[tokio::test]
#[ignore = "run by another test"]
async fn torn_with_little_room() {
    let (fsync, dir) = (Fsync::default(), dir());
    let path = dir.join("store");
    let broken = torn(&path, fsync, None).await;
    let ballast = dir.join("ballast");
    // It can be noted that the store is open.
    let rest = fill_but(&ballast, 65_536);
    let records = path.join(format!("feeds/0/{:020}.records", 0));
    let torn = fs::read(&records).unwrap();
    let expected: Vec<_> = (0..100).map(|number| Ok((number, line(number)))).collect();
    for _ in 0..2 {
        let store = open(&path, fsync);
        let (_, other, other_publisher) = common::feed(&store, "b", 1000);
        assert!(!store.is_full() && !store.is_failing());
        let (stored, feed, publisher) = common::feed(&store, "a", 1000);
        // The store as a whole waits.
        assert!(store.is_full() && store.is_failing());
        for (feed, publisher) in [(&feed, &publisher), (&other, &other_publisher)] {
            assert_eq!(view(feed, Start::Start, 100).await, expected);
            let refused = publisher.publish(line(100)).await;
            assert!(matches!(refused, Err(PublishError::Full(_))), "{refused:?}");
        }
        // What is stored already is.
        stored.create().unwrap();
        assert!(matches!(store.feed("c").unwrap().create(), Err(StoreError::Full(_))));
        assert!(matches!(store.release(), Err(StoreError::Full(_))));
        feed.stop();
        other.stop();
        store.close().unwrap();
        drop((store, stored));
        assert!(fs::read(&records).unwrap() == torn);
        assert!(!files(&path).keys().any(|file| file.extension().is_some_and(|ending| ending == "torn")));
    }
    let store = open(&path, fsync);
    let (_, feed, publisher) = common::feed(&store, "a", 1000);
    drop(rest);
    fs::remove_file(&ballast).unwrap();
    until_mended(&store).await;
    assert_eq!(publisher.publish(line(100)).await.unwrap().seq, 100);
    assert!(!store.is_failing());
    assert_eq!(fs::read(path.join(format!("feeds/0/{:020}.torn", 0))).unwrap(), broken);
    assert_eq!(view(&feed, Start::Start, 101).await[..100], expected);
}

#[test]
fn a_store_that_is_closed_stays_in_doubt() {
    inside("torn::closed_in_doubt");
}

#[tokio::test]
#[ignore = "run by another test"]
async fn closed_in_doubt() {
    let (fsync, dir) = (Fsync::default(), dir());
    let path = dir.join("store");
    torn(&path, fsync, Some("boot")).await;
    // There is room for everything but for what has to be moved aside.
    let _rest = fill_but(&dir.join("ballast"), 65_536);
    let state = fs::read_to_string(path.join("state.json")).unwrap();
    let mut marks = Vec::new();
    for _ in 0..3 {
        let store = open(&path, fsync);
        let stored = ["a", "b", "c"].map(|name| store.feed(name).unwrap());
        // What could be settled is flushed.
        store.flush().unwrap();
        assert!(store.is_full());
        store.close().unwrap();
        // It may have waited for room meanwhile.
        stored.iter().for_each(|stored| _ = stored.create());
        assert_eq!(fs::read_to_string(path.join("state.json")).unwrap(), state);
        drop(store);
        assert_eq!(fs::read_to_string(path.join("state.json")).unwrap(), state);
        marks.push(fs::read_to_string(path.join("feeds/1/mark.json")).unwrap());
    }
    // No start leaves out more numbers than the one before.
    assert_eq!(marks[1], marks[2]);
}

#[test]
fn files_after_a_torn_one_wait_for_room_too() {
    inside("torn::torn_in_the_middle");
}

#[tokio::test]
#[ignore = "run by another test"]
async fn torn_in_the_middle() {
    let retain = |bytes| Retain { bytes: Some(bytes), age: None };
    // All of the file is broken, or what follows in it.
    for is_whole in [false, true] {
        let dir = dir().join(is_whole.to_string());
        let path = dir.join("store");
        let store = open(&path, Fsync::default());
        let (stored, feed, publisher) = common::feed(&store, "a", 1000);
        stored.set_retain(retain(1 << 20));
        for number in 0..2000 {
            publisher.publish(line(number)).await.unwrap();
        }
        let state = fs::read_to_string(path.join("state.json")).unwrap();
        feed.stop();
        store.close().unwrap();
        drop((store, stored));
        let feed_dir = path.join("feeds/0");
        fs::write(path.join("state.json"), state.replace("\"boot\":\"", "\"boot\":\"another")).unwrap();
        fs::write(feed_dir.join("mark.json"), "{\"reserved\":5000,\"synced\":0}").unwrap();
        let records: Vec<_> = files(&feed_dir)
            .into_iter()
            .filter(|(file, _)| file.extension().is_some_and(|ending| ending == "records"))
            .collect();
        assert!(records.len() > 4, "{}", records.len());
        let (torn, before) = &records[2];
        let broken = broken();
        fs::write(torn, [if is_whole { before } else { &[][..] }, &*broken].concat()).unwrap();
        let first = |at: usize| records[at].0.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
        let last = first(if is_whole { 3 } else { 2 });

        let ballast = dir.join("ballast");
        let rest = fill_but(&ballast, 16_384);
        let store = open(&path, Fsync::default());
        assert!(store.is_full());
        let (stored, feed, publisher) = common::feed(&store, "a", 1000);
        let expected = |from| (from..last).map(|number| Ok((number, line(number))));
        assert!(view(&feed, Start::Start, last).await.into_iter().eq(expected(0)));
        // What is given up meanwhile goes.
        stored.set_retain(retain(if is_whole { 128 << 10 } else { 64 << 10 }));
        while records[0].0.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let kept = stored.first();
        assert!(kept > 0 && store.is_full());
        assert!(torn.exists());
        stored.set_retain(Retain::default());
        drop(rest);
        fs::remove_file(&ballast).unwrap();
        until_mended(&store).await;
        assert_eq!(publisher.publish(line(7)).await.unwrap().seq, 5000);
        let all: Vec<_> = expected(kept).chain([Err(5000 - last), Ok((5000, line(7)))]).collect();
        assert!(view(&feed, Start::Start, 5001).await == all);
        assert_eq!(fs::read(torn.with_extension("torn")).unwrap(), broken);
        assert_eq!(torn.exists(), is_whole);
        for (file, bytes) in &records[3..] {
            assert!(!file.exists() && fs::read(file.with_extension("torn")).unwrap() == *bytes);
        }
        feed.stop();
        store.close().unwrap();
        drop((store, stored));
        let store = open(&path, Fsync::default());
        let (_, feed, _publisher) = common::feed(&store, "a", 1000);
        assert!(view(&feed, Start::Start, 5001).await == all);
        drop((feed, store));
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn what_another_process_tore_is_read_by_the_one_that_takes_it_back() {
    inside("torn::torn_and_reclaimed");
}

#[tokio::test]
#[ignore = "run by another test"]
async fn torn_and_reclaimed() {
    let path = dir().join("store");
    let store = open(&path, Fsync::default());
    let (_, feed, publisher) = feed(&store, "a", 1000);
    publisher.publish(line(0)).await.unwrap();
    store.release().unwrap();
    let other = open(&path, Fsync::default());
    let (_, others, others_publisher) = common::feed(&other, "a", 1000);
    others_publisher.publish(line(1)).await.unwrap();
    others.stop();
    drop(other);
    let records = path.join(format!("feeds/0/{:020}.records", 0));
    let broken = broken();
    fs::write(&records, [fs::read(&records).unwrap(), broken.clone()].concat()).unwrap();
    let ballast = dir().join("ballast");
    let rest = fill_but(&ballast, 65_536);
    store.reclaim().unwrap();
    assert!(store.is_full());
    let expected = |end| (0..end).map(|number| Ok((number, line(number))));
    assert!(view(&feed, Start::Start, 2).await.into_iter().eq(expected(2)));
    assert!(matches!(publisher.publish(line(2)).await, Err(PublishError::Full(_))));
    assert!(matches!(store.release(), Err(StoreError::Full(_))));
    drop(rest);
    fs::remove_file(&ballast).unwrap();
    until_mended(&store).await;
    assert_eq!(publisher.publish(line(2)).await.unwrap().seq, 2);
    assert_eq!(fs::read(records.with_extension("torn")).unwrap(), broken);
    store.release().unwrap();
    store.reclaim().unwrap();
    feed.stop();
    store.close().unwrap();
    let store = open(&path, Fsync::default());
    let (_, feed, _publisher) = common::feed(&store, "a", 1000);
    assert!(view(&feed, Start::Start, 3).await.into_iter().eq(expected(3)));
}
