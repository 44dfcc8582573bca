//! Feeds on disk: published, read, continued.

mod common;

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use common::{after, copy, feed, new, open, options, seqs, view};
use futures_util::{Stream, StreamExt};
use h3cast_feed::{
    Keeper, NewChunk, Past, PublishError, Start,
    format::{Format, Framing, Writer},
};
use h3cast_store::{Fsync, Note, Retain, Store, StoreError, StoreOptions};

fn line(number: u64) -> Bytes {
    format!("{number:0199}\n").into()
}

#[tokio::test]
async fn a_feed_continues_where_it_was() {
    for fsync in [Fsync::Always, Fsync::default(), Fsync::Never] {
        let folder = tempfile::tempdir().unwrap();
        let mut epoch = None;
        for run in 0..3 {
            let store = open(folder.path(), fsync);
            let (stored, feed, publisher) = feed(&store, "news", 4000);
            assert_eq!(*epoch.get_or_insert(stored.epoch()), stored.epoch());
            assert_eq!((stored.first(), stored.next(), stored.total_bytes()), (0, run * 100, run * 20_000));
            for number in run * 100..run * 100 + 50 {
                assert_eq!(publisher.publish(line(number)).await.unwrap().seq, number);
            }
            let rest = (run * 100 + 50..run * 100 + 100).map(|number| new(line(number))).collect();
            let published = publisher.publish_all(rest).await;
            assert_eq!(seqs(&published), (run * 100 + 50..run * 100 + 100).collect::<Vec<_>>());
            let end = run * 100 + 100;
            let all: Vec<_> = (0..end).map(|number| Ok((number, line(number)))).collect();
            assert_eq!(view(&feed, Start::Start, end).await, all);
            assert_eq!(view(&feed, after(&stored, 41), end).await, all[42..]);
            assert_eq!(view(&feed, Start::Last(70), end).await, all[end as usize - 70..]);
            assert_eq!(view(&feed, Start::Last(3), end).await, all[end as usize - 3..]);
            assert_eq!(feed.status().chunks, end);
            feed.stop();
            store.close().unwrap();
            assert!(matches!(publisher.publish("late".into()).await, Err(PublishError::Ended)));
            let late = stored.publish("late".into(), None).await;
            assert!(matches!(late, Err(PublishError::Keeper(_))), "{late:?}");
            assert!(matches!(store.feed("news"), Err(StoreError::Closed)));
        }
    }
}

#[tokio::test]
async fn times_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    let before = SystemTime::now() - Duration::from_millis(1);
    let (stored, ..) = feed(&store, "a", 1000);
    stored.publish("x".into(), None).await.unwrap();
    let past = std::sync::Arc::new(stored.clone()).read(stored.epoch(), 0).await.unwrap();
    assert!(past.chunks[0].time > before && past.chunks[0].time <= SystemTime::now());
}

#[tokio::test]
async fn a_chunk_with_a_known_id_is_not_stored_again() {
    let folder = tempfile::tempdir().unwrap();
    let with_id = |bytes: &'static str, id: &str| NewChunk { bytes: bytes.into(), id: Some(id.into()) };
    {
        let store = open(folder.path(), Fsync::default());
        let (stored, ..) = feed(&store, "a", 1000);
        let published = stored.publish_all(vec![with_id("x", "1"), with_id("y", "2"), with_id("x", "1")]).await;
        assert_eq!(seqs(&published), [0, 1, 0]);
    }
    let store = open(folder.path(), Fsync::default());
    let (stored, ..) = feed(&store, "a", 1000);
    // Cut otherwise: the caller has to look before the rest is published.
    let published =
        stored.publish_all(vec![with_id("y", "2"), with_id("z", "3"), with_id("longer", "1"), new("b")]).await;
    assert_eq!(seqs(&published), [1, 2, 0]);
    assert_eq!(published.receipts[2].size, 1);
    assert_eq!(stored.next(), 3);
}

#[tokio::test]
async fn notes_are_stored_with_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let note = |key: &'static str, value: Option<String>| Note {
        key: key.into(),
        value: value.map(Bytes::from),
        expires: None,
    };
    {
        let store = open(folder.path(), Fsync::default());
        let (stored, ..) = feed(&store, "a", 1000);
        stored.set_created_by("somebody");
        let published = stored
            .publish_noted(vec![new("x"), new("y")], move |receipts| {
                vec![note("position", Some(receipts[1].cursor.seq.to_string())), note("gone", Some("x".into()))]
            })
            .await;
        assert_eq!(seqs(&published), [0, 1]);
        // Without chunks.
        stored.publish_noted(Vec::new(), move |_| vec![note("gone", None), note("key/1", Some("k".into()))]).await;
        stored.set_created_by("somebody else");
        assert_eq!(stored.next(), 2);
        // Many files later they are there.
        stored.set_retain(Retain { bytes: Some(100_000), age: None });
        for number in 0..4000 {
            stored.publish(line(number), None).await.unwrap();
        }
        assert!(stored.first() > 2000, "{}", stored.first());
    }
    let store = open(folder.path(), Fsync::default());
    let (stored, ..) = feed(&store, "a", 1000);
    let found = |prefix: &[u8]| -> Vec<_> {
        stored.notes(prefix).into_iter().map(|note| (note.key, note.value.unwrap())).collect()
    };
    assert_eq!(found(b""), [("key/1".into(), "k".into()), ("position".into(), Bytes::from("1"))]);
    assert_eq!(found(b"pos").len(), 1);
    assert_eq!(store.feeds()[0].created_by.as_deref(), Some("somebody"));
    assert_eq!(stored.created_by().as_deref(), Some("somebody"));
}

#[tokio::test]
async fn a_key_that_is_too_long_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    let (stored, ..) = feed(&store, "a", 1000);
    let note = Note { key: vec![7; 65_535].into(), value: Some("x".into()), expires: None };
    let refused = stored.publish_noted(vec![new("x")], move |_| vec![note]).await;
    assert!(matches!(refused.error, Some(PublishError::Keeper(_))), "{refused:?}");
    assert_eq!(seqs(&stored.publish_all(vec![new("y")]).await), [0]);
}

#[tokio::test]
async fn feeds_are_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let names = |store: &Store| store.feeds().into_iter().map(|feed| feed.name).collect::<Vec<_>>();
    let store = open(folder.path(), Fsync::default());
    let (stored, ..) = feed(&store, "b/ö c", 1000);
    // Nothing is stored of a feed that was only looked at.
    assert!(names(&store).is_empty() && fs::read_dir(folder.path().join("feeds")).unwrap().next().is_none());
    stored.publish("x".into(), None).await.unwrap();
    feed(&store, "a", 1000).0.publish("x".into(), None).await.unwrap();
    assert_eq!(names(&store), ["a", "b/ö c"]);
    let epoch = stored.epoch();
    store.remove("b/ö c").unwrap();
    store.remove("never").unwrap();
    assert!(stored.publish("y".into(), None).await.is_err());
    assert_eq!(names(&store), ["a"]);
    let (again, ..) = feed(&store, "b/ö c", 1000);
    assert_eq!(again.next(), 0);
    assert!(again.epoch() != epoch);
    again.publish("z".into(), None).await.unwrap();
    drop(store);
    let store = open(folder.path(), Fsync::default());
    assert_eq!(names(&store), ["a", "b/ö c"]);
    assert_eq!(fs::read_dir(folder.path().join("feeds")).unwrap().count(), 2);
}

#[tokio::test]
async fn only_one_process_has_it_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("it is open") };
    let words = format!(
        "{} is in use by process {}: stop that process, or choose another folder",
        folder.path().display(),
        std::process::id()
    );
    assert_eq!(error.to_string(), words);
    store.close().unwrap();
    // Also while something of the closed one is still there.
    Store::open(folder.path(), StoreOptions::default()).unwrap();
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("it is foreign") };
    assert!(matches!(&error, StoreError::Foreign { found, .. } if found == "notes.txt"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), Fsync::default()));
    fs::write(folder.path().join("h3cast-store.json"), r#"{"format":2,"more":true}"#).unwrap();
    let state = fs::read(folder.path().join("state.json")).unwrap();
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("it is newer") };
    assert!(matches!(error, StoreError::Newer { format: 2, .. }), "{error}");
    assert_eq!(fs::read(folder.path().join("state.json")).unwrap(), state);
}

/// The ids that are known are written again at the beginning of each file. They take no room from the chunks, and the
/// disk takes no more than as much again for them.
#[tokio::test]
async fn ids_take_nothing_from_what_is_kept() {
    for (limit, many) in [(64 << 10, 4500), (1 << 20, 12_000)] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), Fsync::default());
        let (stored, ..) = feed(&store, "a", 1000);
        stored.set_retain(Retain { bytes: Some(limit), age: None });
        for number in 0..many {
            stored.publish(line(number), Some(format!("the publication {number}/0"))).await.unwrap();
        }
        let files = || {
            let files = fs::read_dir(folder.path().join("feeds/0")).unwrap().map(|file| file.unwrap());
            files.filter(|file| file.path().extension().is_some_and(|extension| extension == "records"))
        };
        let kept = |first: u64| (many - first) * line(0).len() as u64;
        // A record of a chunk and its id takes at most twice what the chunk does.
        assert!(kept(stored.first()) >= limit / 3, "{} of {limit}", kept(stored.first()));
        store.close().unwrap();
        drop((store, stored));
        let on_disk: u64 = files().map(|file| file.metadata().unwrap().len()).sum();
        let ids = 4096 * 80;
        assert!(on_disk <= 2 * limit + 3 * ids, "{on_disk} bytes in {} files for {limit}", files().count());
        let store = open(folder.path(), Fsync::default());
        let (stored, ..) = feed(&store, "a", 1000);
        stored.set_retain(Retain { bytes: Some(limit), age: None });
        assert!(kept(stored.first()) >= limit / 3, "{} of {limit} after a restart", kept(stored.first()));
        store.close().unwrap();
    }
}

#[tokio::test]
async fn old_chunks_go_by_size_and_age() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    let (stored, feed, publisher) = feed(&store, "a", 1000);
    let retain = Retain { bytes: Some(1 << 20), age: None };
    stored.set_retain(retain);
    for first in (0..20_000).step_by(100) {
        let published = publisher.publish_all((first..first + 100).map(|number| new(line(number))).collect()).await;
        assert_eq!(published.receipts.len(), 100);
        let kept = stored.stored().unwrap().bytes;
        assert!(kept <= (1 << 20) + (1 << 17), "{kept}");
    }
    let first = stored.first();
    let kept = (20_000 - first) * 200;
    assert!((900_000..1 << 20).contains(&kept), "{kept}");
    // A viewer is told what it misses.
    let got = view(&feed, after(&stored, 99), 20_000).await;
    assert_eq!(got[0], Err(first - 100));
    assert_eq!(got[1], Ok((first, line(first))));
    assert_eq!(got.len() as u64, 20_000 - first + 1);
    // What is not read any more is soon not on the disk either.
    let on_disk = || {
        let files = fs::read_dir(folder.path().join("feeds/0")).unwrap();
        // One may be removed meanwhile.
        files.flat_map(|file| file?.metadata()).map(|file| file.len()).sum::<u64>()
    };
    while on_disk() > (1 << 20) + (1 << 17) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stored.set_retain(Retain { age: Some(Duration::from_millis(1)), bytes: None });
    while stored.first() < stored.next() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What is in memory can be read until newer chunks take its place.
    let in_memory = [19_998, 19_999].map(|number| Ok((number, line(number))));
    assert_eq!(view(&feed, after(&stored, 19_000), 20_000).await, [&[Err(997)], &in_memory[..]].concat());
    while on_disk() > 1000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(publisher.publish("next".into()).await.unwrap().seq, 20_000);
}

#[tokio::test]
async fn what_is_larger_than_a_piece_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), options(Fsync::default())).unwrap();
    let (stored, feed, publisher) = feed(&store, "a", 1000);
    let sizes = [0, 1, 300_000, 7, 5 << 20, 0, 20 << 20, 3, 65_536, 9];
    for (number, size) in sizes.into_iter().enumerate() {
        publisher.publish(vec![number as u8; size].into()).await.unwrap();
    }
    let expected: Vec<_> =
        sizes.iter().zip(0_u64..).map(|(size, seq)| Ok((seq, vec![seq as u8; *size].into()))).collect();
    for start in 0..sizes.len() {
        let got =
            view(&feed, if start == 0 { Start::Start } else { after(&stored, start as u64 - 1) }, sizes.len() as u64)
                .await;
        assert!(got == expected[start..], "{start}");
    }
    let large = publisher.publish(vec![0; (256 << 20) + 1].into()).await;
    assert!(matches!(large, Err(PublishError::TooLarge { .. })), "{large:?}");
}

/// What these bytes keep in memory.
fn capacity(bytes: Bytes) -> usize {
    let len = bytes.len();
    // Nobody else has it any more: all that it was read with is seen.
    let Ok(buffer) = bytes.try_into_mut() else { panic!("{len} bytes are a part of others'") };
    buffer.capacity()
}

/// A large chunk is passed on to a slow client as it is.
#[tokio::test]
async fn a_chunk_does_not_keep_what_was_read_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    let feed = store.feed("a").unwrap();
    let sizes = [Past::SHARED + 1, 10, 9 << 10, 20_000, 10, 60_000];
    for size in sizes {
        feed.publish(vec![7; size].into(), None).await.unwrap();
    }
    seqs(&feed.publish_all((0..300).map(|number| new(line(number))).collect()).await);
    let past = Arc::new(feed.clone()).read(feed.epoch(), 0).await.unwrap();
    let mut met = 0;
    for chunk in past.chunks.into_iter().filter(|chunk| chunk.bytes.len() > Past::SHARED) {
        met += 1;
        let len = chunk.bytes.len();
        let kept = capacity(chunk.bytes);
        assert!(kept <= 4 * len, "{kept} for {len}");
    }
    assert!(met >= 3, "{met}");
}

/// Most of what was read is none of a viewer's that continues near the end of what was written together.
#[tokio::test]
async fn a_few_small_chunks_do_not_keep_what_was_read_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    let feed = store.feed("a").unwrap();
    seqs(&feed.publish_all((0..300).map(|number| new(line(number))).collect()).await);
    let past = Arc::new(feed.clone()).read(feed.epoch(), 290).await.unwrap();
    assert_eq!(past.chunks.len(), 10);
    for chunk in past.chunks {
        assert_eq!(capacity(chunk.bytes), 200);
    }
}

/// Whatever waits for a slow client keeps little more in memory than what it is charged for.
#[tokio::test]
async fn what_a_viewer_of_the_past_is_given_is_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    for (at, size) in [20, 200, 1025, 3000, 4096, 6000, 8 << 10, (8 << 10) + 1, 20_000].into_iter().enumerate() {
        let (stored, feed, _publisher) = feed(&store, &format!("of-{at}"), 1000);
        // Of large ones, fewer are taken at once.
        while stored.next() < 200 {
            seqs(&stored.publish_all((0..50).map(|_| new(Bytes::from(vec![7; size]))).collect()).await);
        }
        for framing in [Framing::Plain, Framing::Prefixed] {
            let mut writer = Writer::new(feed.view(Start::Start, Some(190)), Format::Raw, framing);
            let (mut out, mut got) = (Vec::new(), 0);
            while writer.next(&mut out).await.unwrap() {
                for buffer in out.drain(..) {
                    got += buffer.len();
                    let len = buffer.len();
                    let kept = capacity(buffer);
                    assert!(kept <= len + len / 6 + 16, "{kept} for {len}, chunks of {size}");
                }
            }
            assert!(got >= 190 * size, "{got}");
        }
    }
}

/// Viewers ask ahead, and may not take it for as long as they like: others read meanwhile.
#[tokio::test]
async fn slow_viewers_keep_nobody_from_the_past() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    let (_stored, feed, publisher) = feed(&store, "a", 1000);
    let large = |number: u64| vec![number as u8; 300_000];
    for number in 0..4 {
        publisher.publish(large(number).into()).await.unwrap();
    }
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut viewer = feed.view(Start::Start, None);
        // It has the first one, and what follows is asked for.
        let first = tokio::time::timeout(Duration::from_secs(30), viewer.next()).await.expect("it reads");
        assert!(matches!(first, Some(h3cast_feed::Event::Chunk(chunk)) if chunk.seq == 0));
        slow.push(viewer);
    }
    let got = tokio::time::timeout(Duration::from_secs(30), view(&feed, Start::Start, 4)).await.expect("it reads");
    assert!(got.into_iter().eq((0..4).map(|number| Ok((number, large(number).into())))));
    for mut viewer in slow {
        assert!(matches!(viewer.next().await, Some(h3cast_feed::Event::Chunk(chunk)) if chunk.seq == 1));
    }
}

/// There is always something that waits for the disk. Files end all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_begun_while_publishers_wait_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::Always);
    let (stored, feed, publisher) = feed(&store, "a", 1000);
    stored.set_retain(Retain { bytes: Some(256 << 10), age: None });
    let mut publishing = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let publisher = publisher.clone();
        publishing.spawn(async move {
            for _ in 0..150 {
                publisher.publish(vec![7; 1000].into()).await.unwrap();
            }
        });
    }
    let mut largest = 0;
    while publishing.join_next().await.is_some() {
        let files = fs::read_dir(folder.path().join("feeds/0")).unwrap();
        largest = files.flat_map(|file| file?.metadata()).map(|file| file.len()).max().max(Some(largest)).unwrap();
    }
    assert!((10_000..24_000).contains(&largest), "{largest}");
    let kept = stored.stored().unwrap();
    assert!(kept.bytes <= 288 << 10 && kept.first > 300, "{kept:?}");
    assert_eq!(view(&feed, after(&stored, kept.first), 600).await.len() as u64, 599 - kept.first);
}

struct Panics;

impl std::task::Wake for Panics {
    fn wake(self: std::sync::Arc<Self>) {
        panic!("a viewer's waker panics");
    }
}

/// What would not reach the disk any more is not confirmed, nor waited for.
#[tokio::test]
async fn publishing_is_refused_when_the_thread_that_syncs_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::Always);
    let (_, feed, publisher) = feed(&store, "a", 1000);
    let mut viewer = std::pin::pin!(feed.view(Start::Now, None));
    let waker = std::sync::Arc::new(Panics).into();
    assert!(viewer.as_mut().poll_next(&mut std::task::Context::from_waker(&waker)).is_pending());
    for _ in 0..2 {
        let refused = publisher.publish("x".into()).await;
        assert!(matches!(refused, Err(PublishError::Keeper(_))), "{refused:?}");
    }
}

/// A power loss may leave the name of a file and nothing in it. What is published next must not go where it cannot be
/// read.
#[tokio::test]
async fn an_empty_last_file_leaves_the_one_before_it_whole() {
    for first in [1_u64, 900_000] {
        let (folder, after_crash) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = open(folder.path(), Fsync::default());
        let feed = store.feed("a").unwrap();
        let note = || vec![Note { key: "place".into(), value: Some("7".into()), expires: None }];
        assert_eq!(seqs(&feed.publish_noted(vec![new(line(0))], move |_| note()).await), [0]);
        copy(folder.path(), after_crash.path());
        std::fs::write(after_crash.path().join(format!("feeds/0/{first:020}.records")), "").unwrap();
        for _ in 0..3 {
            let store = open(after_crash.path(), Fsync::default());
            let feed = store.feed("a").unwrap();
            let next = feed.next();
            assert!(next >= first, "{next}");
            assert_eq!(feed.notes(b"place").len(), 1);
            assert_eq!(feed.publish(line(next), None).await.unwrap().cursor.seq, next);
            let past = Arc::new(feed.clone()).read(feed.epoch(), 0).await.unwrap();
            assert_eq!(past.chunks[0].seq, 0);
            store.close().unwrap();
        }
    }
}
