//! What the tests share.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::{fs, io::ErrorKind, path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::StreamExt;
use h3cast_feed::{Cursor, Event, Feed, NewChunk, PublishedAll, Publisher, Start};
use h3cast_store::{Fsync, Store, StoreOptions, StoredFeed};

pub(crate) fn options(fsync: Fsync) -> StoreOptions {
    let mut options = StoreOptions::default();
    options.fsync = fsync;
    options
}

pub(crate) fn open(dir: &Path, fsync: Fsync) -> Store {
    Store::open(dir, options(fsync)).unwrap()
}

/// A feed with a ring of that many bytes.
pub(crate) fn feed(store: &Store, name: &str, history: usize) -> (StoredFeed, Feed, Publisher) {
    let stored = store.feed(name).unwrap();
    let (feed, filler, publisher) =
        Feed::stored(name, Arc::new(stored.clone()), history, stored.epoch(), stored.next());
    stored.fill(filler);
    (stored, feed, publisher)
}

pub(crate) fn new(bytes: impl Into<Bytes>) -> NewChunk {
    NewChunk { bytes: bytes.into(), id: None }
}

/// The numbers that were given.
pub(crate) fn seqs(published: &PublishedAll) -> Vec<u64> {
    assert_eq!(published.error, None);
    published.receipts.iter().map(|receipt| receipt.cursor.seq).collect()
}

/// What a viewer gets from there on, up to the number `end`: chunks, and how many are missing.
pub(crate) async fn view(feed: &Feed, start: Start, end: u64) -> Vec<Result<(u64, Bytes), u64>> {
    let mut viewer = feed.view(start, None);
    let mut got = Vec::new();
    let mut next = 0;
    while next < end {
        match viewer.next().await.expect("it goes on") {
            Event::Chunk(chunk) => {
                next = chunk.seq + 1;
                got.push(Ok((chunk.seq, chunk.bytes.clone())));
            }
            Event::Gap(gap) => {
                next = gap.from + gap.missing;
                got.push(Err(gap.missing));
            }
            other => panic!("{other:?}"),
        }
    }
    got
}

pub(crate) fn after(stored: &StoredFeed, seq: u64) -> Start {
    Start::After(Cursor { epoch: stored.epoch(), seq })
}

/// Copies a folder, file by file.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let entries = fs::read_dir(from).unwrap();
    for entry in entries.map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        match fs::metadata(entry.path()) {
            Ok(found) if found.is_dir() => copy(&entry.path(), &to),
            Ok(_) => match fs::copy(entry.path(), to) {
                Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            },
            // Removed meanwhile.
            Err(_) => {}
        }
    }
}
