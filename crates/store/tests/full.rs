//! A small file system that fills up, and has room again; one that cannot be written.
#![cfg(target_os = "linux")]

mod common;
#[path = "full/torn.rs"]
mod torn;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use common::{feed, new, open, view};
use h3cast_feed::{PublishError, Start};
use h3cast_store::{Fsync, Store, StoreError, StoreOptions};

const SIZE: usize = 8 << 20;

/// Runs a test of this file in a mount namespace of its own, on a file system of 8 MB.
fn inside(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let run = |how: &[&str]| {
        let script = format!("mount -t tmpfs -o size={SIZE} none \"$DIR\" && exec \"$@\"");
        Command::new("unshare")
            .args(how)
            .args(["sh", "-c", &script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args([test, "--exact", "--ignored", "--nocapture"])
            .env("DIR", folder.path())
            .output()
    };
    // Without the rights of root, in a user namespace, where that is allowed.
    let allowed = |how: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(how).args(["sh", "-c", "mount -t tmpfs none \"$0\""]).arg(folder.path());
        command.status().is_ok_and(|status| status.success())
    };
    let Some(how) = [&["-m"][..], &["-rm"]].into_iter().find(|how| allowed(how)) else {
        println!("skipped: nothing may be mounted here");
        return;
    };
    let done = run(how).unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

fn dir() -> PathBuf {
    std::env::var_os("DIR").expect("run by other tests").into()
}

fn line(number: u64) -> Bytes {
    format!("{number:0199}\n").into()
}

#[test]
fn a_full_disk_refuses_until_it_has_room() {
    inside("full");
}

#[tokio::test]
#[ignore = "run by another test"]
async fn full() {
    for (round, fsync) in [Fsync::default(), Fsync::Always, Fsync::Never].into_iter().enumerate() {
        let dir = dir().join(round.to_string());
        fs::create_dir(&dir).unwrap();
        let ballast = dir.join("ballast");
        fs::write(&ballast, vec![1; SIZE - (4 << 20)]).unwrap();
        let store = open(&dir.join("store"), fsync);
        let (stored, feed, publisher) = feed(&store, "a", 10_000);
        let mut next = 0;
        let many = if fsync == Fsync::Always { 64 } else { 7 };
        let publish =
            async |next| publisher.publish_all((next..next + many).map(|number| new(line(number))).collect()).await;
        let error = loop {
            let published = publish(next).await;
            next += published.receipts.len() as u64;
            if let Some(error) = published.error {
                break error;
            }
        };
        assert!(matches!(error, PublishError::Full(_)), "{error:?}");
        let words = std::error::Error::source(&error).unwrap().to_string();
        assert!(words.starts_with("no room on the disk for "), "{words}");
        // Again and again, and nothing is stored in part.
        for _ in 0..20 {
            assert!(matches!(publish(next).await.error, Some(PublishError::Full(_))));
        }
        assert_eq!(stored.next(), next);
        // Of another feed too: it cannot be created.
        let (_, _feed, other) = common::feed(&store, "b", 1000);
        assert!(matches!(other.publish(vec![0; 100_000].into()).await, Err(PublishError::Full(_))));
        let read = async |end| {
            let got = view(&feed, Start::Start, end).await;
            assert!(got.into_iter().eq((0..end).map(|number| Ok((number, line(number))))));
        };
        // Viewers are not concerned.
        read(next).await;
        fs::remove_file(&ballast).unwrap();
        for _ in 0..20 {
            let published = publish(next).await;
            assert_eq!((published.receipts[0].cursor.seq, published.error), (next, None));
            next += many;
        }
        other.publish("b".into()).await.unwrap();
        read(next).await;
        feed.stop();
        store.close().unwrap();
        let store = open(&dir.join("store"), fsync);
        let (stored, feed, _publisher) = common::feed(&store, "a", 10_000);
        assert_eq!(stored.next(), next);
        assert!(view(&feed, Start::Start, next).await.iter().all(Result::is_ok));
        drop(store);
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn what_is_stored_is_read_where_the_disk_is_full_from_the_start() {
    inside("full_from_the_start");
}

#[tokio::test]
#[ignore = "run by another test"]
async fn full_from_the_start() {
    for (fsync, is_killed) in [(Fsync::default(), false), (Fsync::default(), true), (Fsync::Always, true)] {
        let dir = dir().join(format!("{fsync:?}-{is_killed}"));
        let path = dir.join("store");
        let store = open(&path, fsync);
        let (_, feed, publisher) = feed(&store, "a", 1000);
        for number in 0..100 {
            publisher.publish(line(number)).await.unwrap();
        }
        let while_open = fs::read(path.join("state.json")).unwrap();
        feed.stop();
        store.close().unwrap();
        drop(store);
        if is_killed {
            fs::write(path.join("state.json"), &while_open).unwrap();
        }
        let ballast = dir.join("ballast");
        let rest = fill(&ballast);
        // A new one has nothing to show.
        let refused = Store::open(dir.join("new"), StoreOptions::default());
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");

        let store = open(&path, fsync);
        assert!(store.is_full() && store.is_failing());
        let (_, feed, publisher) = common::feed(&store, "a", 1000);
        let expected = |end| (0..end).map(|number| Ok((number, line(number))));
        assert!(view(&feed, Start::Start, 100).await.into_iter().eq(expected(100)));
        for _ in 0..3 {
            let refused = publisher.publish(line(100)).await;
            assert!(matches!(refused, Err(PublishError::Full(_))), "{refused:?}");
        }
        assert!(store.is_full());
        let before = fs::read(path.join("state.json")).unwrap();
        assert_eq!(before == while_open, is_killed);
        drop(rest);
        fs::remove_file(&ballast).unwrap();
        until_mended(&store).await;
        publisher.publish(line(100)).await.unwrap();
        // Noted before that was written.
        assert!(!store.is_full() && !store.is_failing());
        assert!(String::from_utf8(fs::read(path.join("state.json")).unwrap()).unwrap().contains("\"closed\":false"));
        assert!(view(&feed, Start::Start, 101).await.into_iter().eq(expected(101)));
        feed.stop();
        store.close().unwrap();
        drop(store);
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// Leaves no room at all.
fn fill(path: &Path) -> fs::File {
    let mut rest = fs::File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while std::io::Write::write_all(&mut rest, &vec![0; size]).is_ok() {}
    }
    rest
}

/// Waits until all is done that waited for room.
async fn until_mended(store: &Store) {
    let mended = async {
        while store.is_full() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), mended).await.expect("there is room");
}

#[test]
fn what_cannot_be_written_is_refused_in_words() {
    inside("read_only");
}

#[test]
#[ignore = "run by another test"]
fn read_only() {
    let dir = dir();
    let remount = |how: &str| {
        let status = Command::new("mount").args(["-o", how]).arg(&dir).status().unwrap();
        assert!(status.success());
    };
    drop(open(&dir.join("there"), Fsync::default()));
    remount("remount,ro");
    for name in ["new", "there"] {
        let refused = |dir: &Path| match Store::open(dir, StoreOptions::default()) {
            Err(error) => error,
            Ok(_) => panic!("it cannot be written"),
        };
        let error = refused(&dir.join(name));
        assert!(matches!(error, StoreError::ReadOnly(_)), "{error}");
        assert!(error.to_string().contains("is on a read-only file system: mount that for writing"), "{error}");
    }
    remount("remount,rw");
    open(&dir.join("there"), Fsync::default());
}
