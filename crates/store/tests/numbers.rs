//! No number is given twice, even where they are used up.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{new, open};
use h3cast_feed::Keeper;
use h3cast_store::{Fsync, Store, StoreError, StoreOptions};

/// A feed gives none from this one on.
const END: u64 = 1 << 61;

/// A store whose feed `a` has one chunk, and a file that begins with that number. That file.
async fn with_file(dir: &Path, first: u64) -> PathBuf {
    let store = open(dir, Fsync::default());
    store.feed("a").unwrap().publish("one".into(), None).await.unwrap();
    store.close().unwrap();
    let file = dir.join(format!("feeds/0/{first:020}.records"));
    fs::write(&file, "").unwrap();
    file
}

#[tokio::test]
async fn a_file_of_a_number_that_no_feed_reaches() {
    for first in [END + 1, (1 << 62) - 2, (1 << 62) - 1] {
        let folder = tempfile::tempdir().unwrap();
        let file = with_file(folder.path(), first).await;
        let store = open(folder.path(), Fsync::default());
        let error = store.feed("a").map(drop).unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { file: found, .. } if *found == file), "{first}: {error}");
        assert!(file.exists(), "{first}: something was changed");
    }
}

#[tokio::test]
async fn a_feed_whose_numbers_are_used_up() {
    for fsync in [Fsync::Always, Fsync::default(), Fsync::Never] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        with_file(dir, END - 3).await;
        let store = open(dir, fsync);
        let feed = store.feed("a").unwrap();
        for expected in [END - 3, END - 2] {
            assert_eq!(feed.publish("late".into(), None).await.unwrap().cursor.seq, expected, "{fsync:?}");
        }
        let published = feed.publish_all(vec![new("more"), new("than fit")]).await;
        assert!(published.receipts.is_empty() && published.error.is_some(), "{fsync:?}: {published:?}");
        assert_eq!(feed.publish("last".into(), None).await.unwrap().cursor.seq, END - 1, "{fsync:?}");
        for _ in 0..2 {
            let error = feed.publish("too late".into(), None).await.unwrap_err();
            let error = std::error::Error::source(&error).unwrap().to_string();
            assert!(error.contains("the feed `a` has used up its numbers"), "{error}");
        }
        // What a process has written that was killed can be read, too.
        let copy = tempfile::tempdir().unwrap();
        copy_all(dir, copy.path());
        assert_eq!(next(copy.path()), END, "{fsync:?}");
        store.close().unwrap();
        assert_eq!(next(dir), END, "{fsync:?}");
    }
}

fn next(dir: &Path) -> u64 {
    Store::open(dir, StoreOptions::default()).unwrap().feed("a").unwrap().next()
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match from.is_dir() {
            true => {
                fs::create_dir(&to).unwrap();
                copy_all(&from, &to);
            }
            false => drop(fs::copy(&from, &to).unwrap()),
        }
    }
}

/// The folder of a feed with such a number: the next one would get a name that no start finds.
#[tokio::test]
async fn a_folder_of_a_number_that_no_feed_reaches() {
    for id in [END, (1 << 62) - 1] {
        let folder = tempfile::tempdir().unwrap();
        let feeds = folder.path().join("feeds");
        with_file(folder.path(), 1).await;
        fs::rename(feeds.join("0"), feeds.join(id.to_string())).unwrap();
        for error in
            [Store::check(folder.path()).map(drop), Store::open(folder.path(), StoreOptions::default()).map(drop)]
        {
            let error = error.unwrap_err();
            assert!(matches!(&error, StoreError::Foreign { found, .. } if *found == id.to_string()), "{error}");
        }
    }
}
