//! What a crash leaves: of the process, of the system, of the disk.

#[path = "../common/mod.rs"]
mod common;
mod copies;
#[cfg(target_os = "linux")]
mod power;
mod writing;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use common::{after, copy, feed, new, open, seqs, view};
use h3cast_feed::{Keeper, Start};
use h3cast_store::{Fsync, Retain, Store, StoreError, StoreOptions};
use writing::{Random, Writing, line, read_all};

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    let mut random = Random::new();
    let rounds = std::env::var("H3CAST_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10);
    let folder = tempfile::tempdir().unwrap();
    for round in 0..rounds {
        let fsync = if round % 3 == 0 { "always" } else { "100ms" };
        let mut writing = Writing::start(folder.path(), fsync);
        let last = writing.acknowledged(random.below(300));
        let last = writing.kill(last);
        let next = read_all(folder.path(), Fsync::default()).await;
        assert!(next > last, "{last} was acknowledged, and the last one is {}", next - 1);
    }
}

#[test]
fn a_second_process_is_told_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let writing = Writing::start(folder.path(), "100ms");
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("it is open") };
    assert!(matches!(error, StoreError::Locked { pid: Some(pid), .. } if pid == writing.id()), "{error}");
    writing.kill(0);
    Store::open(folder.path(), StoreOptions::default()).unwrap();
}

/// A store with so many chunks, each in its own record, and its only file of records.
async fn written(many: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    let (stored, ..) = feed(&store, "a", 1000);
    for seq in 0..many {
        stored.publish(line(seq).into(), None).await.unwrap();
    }
    // As a crash leaves it.
    let crashed = tempfile::tempdir().unwrap();
    copy(folder.path(), crashed.path());
    // A crash does not make it a copy.
    let state = crashed.path().join("state.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("place").expect("it is noted");
    fs::write(&state, value.to_string()).unwrap();
    let file = crashed.path().join("feeds/0").join(format!("{:020}.records", 0));
    (crashed, file)
}

/// What is on the disk is `len` bytes of the file, after the system has stopped.
fn tear(dir: &Path, file: &Path, len: u64) {
    File::options().write(true).open(file).unwrap().set_len(len).unwrap();
    fs::write(dir.join("state.json"), r#"{"closed":false,"boot":"another"}"#).unwrap();
}

#[tokio::test]
async fn a_torn_end_is_repaired() {
    let (folder, file) = written(30).await;
    let len = fs::metadata(&file).unwrap().len();
    let mut random = Random::new();
    for cut in (1..60).step_by(6).chain((0..8).map(|_| random.below(len))) {
        let to = tempfile::tempdir().unwrap();
        copy(folder.path(), to.path());
        let file = to.path().join(file.strip_prefix(folder.path()).unwrap());
        File::options().write(true).open(&file).unwrap().set_len(len - cut).unwrap();
        let next = read_all(to.path(), Fsync::default()).await;
        assert!(next < 30);
        // It continues after what is there.
        let store = open(to.path(), Fsync::default());
        let (stored, ..) = feed(&store, "a", 1000);
        assert_eq!(seqs(&stored.publish_all(vec![new(line(next))]).await), [next]);
        drop((store, stored));
        assert_eq!(read_all(to.path(), Fsync::default()).await, next + 1);
    }
}

#[tokio::test]
async fn numbers_that_a_power_loss_took_are_not_given_again() {
    let (folder, file) = written(30).await;
    let len = fs::metadata(&file).unwrap().len();
    tear(folder.path(), &file, len * 2 / 3);
    let continues = {
        let store = open(folder.path(), Fsync::default());
        let (stored, feed, publisher) = feed(&store, "a", 1000);
        let next = stored.next();
        assert_eq!(next, 65_536);
        // Viewers who had what is lost are told, and go on.
        let got = view(&feed, after(&stored, 29), next).await;
        assert_eq!(got, [Err(next - 30)]);
        assert!(feed.status().chunks < 30, "{:?}", feed.status());
        assert_eq!(publisher.publish("on".into()).await.unwrap().seq, next);
        next
    };
    // In the next process too.
    let store = open(folder.path(), Fsync::default());
    let (stored, feed, _publisher) = feed(&store, "a", 1000);
    assert_eq!(stored.next(), continues + 1);
    let got = view(&feed, Start::Start, continues + 1).await;
    assert_eq!(got.last(), Some(&Ok((continues, "on".into()))));
    let there = got.iter().take_while(|got| matches!(got, Ok((seq, _)) if *seq < 30)).count() as u64;
    assert!(there > 10 && there < 30, "{there}");
    assert_eq!(got[there as usize], Err(continues - there));
    // Chunks are counted, and not the numbers that were left out.
    assert_eq!(feed.status().chunks, there + 1);
    for many in 1..there + 1 {
        let last = view(&feed, Start::Last(many), continues + 1).await;
        let last: Vec<_> = last.iter().filter_map(|got| got.as_ref().ok()).map(|(seq, _)| *seq).collect();
        let expected: Vec<_> = (there + 1 - many..there).chain([continues]).collect();
        assert_eq!(last, expected, "the last {many}");
    }
    // What was cut off is still there.
    assert!(
        fs::read_dir(folder.path().join("feeds/0")).unwrap().any(|file| file
            .unwrap()
            .path()
            .extension()
            .is_some_and(|it| it == "torn"))
    );
}

#[tokio::test]
async fn what_is_synced_is_not_in_doubt() {
    let (folder, file) = written(30).await;
    let len = fs::metadata(&file).unwrap().len();
    let mark = folder.path().join("feeds/0/mark.json");
    fs::write(&mark, r#"{"reserved":65536,"synced":25}"#).unwrap();
    let before = fs::read(&file).unwrap();
    tear(folder.path(), &file, len / 2);
    let torn = fs::read(&file).unwrap();
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("it is damaged") };
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(fs::read(&file).unwrap(), torn);
    fs::write(&file, before).unwrap();
    open(folder.path(), Fsync::default());
}

#[tokio::test]
async fn damage_in_the_middle_is_refused_and_nothing_is_changed() {
    let (folder, file) = written(30).await;
    let whole = fs::read(&file).unwrap();
    let mut random = Random::new();
    for _ in 0..25 {
        // Not in the last record.
        let at = random.below(whole.len() as u64 - 400) as usize;
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << random.below(8);
        fs::write(&file, &damaged).unwrap();
        let store = open(folder.path(), Fsync::default());
        let Err(error) = store.feed("a") else { panic!("byte {at} is damaged") };
        assert!(
            matches!(&error, StoreError::Damaged { file: found, at: from } if *found == file && *from <= at as u64),
            "{error}"
        );
        drop(store);
        assert_eq!(fs::read(&file).unwrap(), damaged);
    }
    fs::write(&file, whole).unwrap();
    assert_eq!(read_all(folder.path(), Fsync::default()).await, 30);
}

#[tokio::test]
async fn a_feed_that_was_created_when_the_power_went_hides_no_other() {
    let (folder, _) = written(3).await;
    {
        let store = open(folder.path(), Fsync::default());
        store.feed("new").unwrap().publish("x".into(), None).await.unwrap();
    }
    // What was in the file is not on the disk.
    fs::write(folder.path().join("feeds/1/meta.json"), "").unwrap();
    let refused = Store::open(folder.path(), StoreOptions::default());
    assert!(matches!(refused, Err(StoreError::Damaged { .. })));
    fs::write(folder.path().join("state.json"), r#"{"closed":false,"boot":"another"}"#).unwrap();
    let store = open(folder.path(), Fsync::default());
    assert_eq!(store.feeds().len(), 1);
    assert_eq!(store.feed("new").unwrap().next(), 0);
    assert!(folder.path().join("feeds/1.lost").is_dir());
    // Its number is not given again: the folder of the next one may have to be moved aside too.
    drop(store);
    let store = open(folder.path(), Fsync::default());
    store.feed("newer").unwrap().publish("x".into(), None).await.unwrap();
    assert!(folder.path().join("feeds/2").is_dir());
}

#[tokio::test]
async fn chunks_without_what_is_known_of_their_feed_stay() {
    let (folder, file) = written(3).await;
    fs::remove_file(folder.path().join("feeds/0/meta.json")).unwrap();
    let refused = Store::open(folder.path(), StoreOptions::default());
    assert!(matches!(refused, Err(StoreError::Damaged { .. })));
    assert!(file.exists());
}

/// What a later process gives to viewers is on the disk, though the one that wrote it was killed before it was synced.
/// Here it shows that it was synced, not that it is there: only the loss of power would.
#[tokio::test]
async fn what_a_killed_process_wrote_is_synced_before_it_is_shown() {
    let (folder, _) = written(3).await;
    for (fsync, synced) in [(Fsync::Every(Duration::from_secs(60)), 1), (Fsync::Never, 0)] {
        let store = open(folder.path(), fsync);
        assert_eq!(store.syncs().0, synced);
        store.feed("a").unwrap().publish("x".into(), None).await.unwrap();
        store.close().unwrap();
        assert_eq!(store.syncs().0, synced + 1, "a store was closed that is not on the disk");
    }
}

#[tokio::test]
async fn hundreds_of_feeds_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    for number in 0..300 {
        let stored = store.feed(&format!("feed {number}")).unwrap();
        stored.publish_all(vec![new(line(0)), new(line(1))]).await;
    }
    store.close().unwrap();
    let store = open(folder.path(), Fsync::default());
    assert_eq!(store.feeds().len(), 300);
    for number in 0..300 {
        assert_eq!(store.feed(&format!("feed {number}")).unwrap().next(), 2);
    }
}

/// How files of a feed follow each other is not believed where it is damaged.
#[tokio::test]
async fn a_damaged_beginning_of_a_file_in_the_middle_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = open(folder.path(), Fsync::default());
        let stored = store.feed("a").unwrap();
        stored.set_retain(Retain { bytes: Some(256 << 10), age: None });
        for seq in 0..300 {
            stored.publish(line(seq).into(), None).await.unwrap();
        }
    }
    let entries = fs::read_dir(folder.path().join("feeds/0")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it == "records")).collect();
    files.sort();
    assert!(files.len() > 2);
    let whole = fs::read(&files[1]).unwrap();
    // What it states of its checksum, its first number, the size before it, and its time.
    for at in [4, 17, 26, 33] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&files[1], damaged).unwrap();
        let store = open(folder.path(), Fsync::default());
        let Err(error) = store.feed("a") else { panic!("byte {at} is damaged") };
        assert!(matches!(&error, StoreError::Damaged { file, .. } if *file == files[1]), "{error}");
    }
    fs::write(&files[1], whole).unwrap();
    assert_eq!(open(folder.path(), Fsync::default()).feed("a").unwrap().next(), 300);
}

/// Numbers that a store never gives.
#[tokio::test]
async fn names_and_numbers_that_cannot_be_are_no_feed() {
    let (folder, file) = written(3).await;
    let feeds = folder.path().join("feeds");
    for name in ["18446744073709551615", "007", "+7", "18446744073709551615.lost"] {
        fs::create_dir(feeds.join(name)).unwrap();
    }
    fs::write(file.with_file_name("7.records"), "not of this store").unwrap();
    fs::write(file.with_file_name("18446744073709551615.records"), "not of this store").unwrap();
    {
        let store = open(folder.path(), Fsync::default());
        assert_eq!(store.feed("a").unwrap().next(), 3);
        store.feed("new").unwrap().publish("x".into(), None).await.unwrap();
        assert!(feeds.join("1/meta.json").exists() && feeds.join("007").exists());
    }
    let mark = feeds.join("0/mark.json");
    fs::write(&mark, format!(r#"{{"reserved":{},"synced":3}}"#, u64::MAX)).unwrap();
    let store = open(folder.path(), Fsync::default());
    let Err(error) = store.feed("a") else { panic!("there are no numbers left") };
    assert!(matches!(&error, StoreError::Damaged { file, .. } if *file == mark), "{error}");
}
