//! Writing again what a failed sync leaves in doubt. A system may take what it could not write for written (Linux does),
//! so that the next sync succeeds though it is not on the disk. What is in doubt is copied to new files, and theirs is
//! the sync that is believed.

use std::{
    fs,
    io::{BufWriter, IntoInnerError, Write},
    sync::Arc,
};

use crate::{StoreError, error::At, files, regular, segment::Records, shared::Shared};

impl Shared {
    /// Does so if a sync has failed. Nothing is appended before one succeeds. Blocks.
    ///
    /// # Errors
    ///
    /// If it cannot be written; if it cannot be read any more as it was written.
    pub(crate) fn write_again(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.lock().unseen {
            self.look_again()?;
        }
        // A copy would not have what is to be moved aside.
        if !self.lock().mends.is_empty() {
            return Err(StoreError::Full(self.dir.clone()));
        }
        let (doubtful, meta) = {
            let mut state = self.lock();
            let Some(error) = state.failed.clone() else { return Ok(()) };
            if let Some(next) = state.owed {
                self.take_back_to(&mut state, next);
                if state.owed.is_some() {
                    return Err(state.failed.clone().unwrap_or(error));
                }
            }
            let last = state.segments.len().saturating_sub(1);
            let segments = state.segments.iter().enumerate();
            let doubtful = segments.filter(|(at, segment)| *at == last || segment.next > state.synced);
            let doubtful: Vec<_> = doubtful.map(|(_, segment)| (segment.first, segment.len)).collect();
            (doubtful, state.new.then(|| state.meta.clone()))
        };
        for (first, len) in doubtful {
            self.copy(first, len)?;
        }
        if let Some(meta) = meta {
            files::create(&self.meta(), &meta)?;
        }
        let mut state = self.lock();
        // Those are the files that it was in.
        state.unsynced.clear();
        state.file = None;
        (state.torn, state.begun) = (false, true);
        Ok(())
    }

    /// Puts a copy in the place of a file, of so many bytes.
    fn copy(&self, first: u64, len: u64) -> Result<(), StoreError> {
        let path = self.path(first);
        let temporary = files::temporary(&path);
        let copied = (|| {
            let mut records = Records::open(&path, self.salt).at(&path)?;
            let mut file = BufWriter::new(regular::create(&temporary).at(&path)?);
            let mut end = 0;
            while end < len
                && let Some(record) = records.next().at(&path)?
            {
                file.write_all(record.bytes()).at(&path)?;
                end += record.bytes().len() as u64;
            }
            // It may have been read from the disk, where it never came.
            if end != len {
                return Err(StoreError::Damaged { file: path.clone(), at: end });
            }
            file.into_inner().map_err(IntoInnerError::into_error).and_then(|file| file.sync_all()).at(&path)
        })();
        if let Err(error) = copied {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        fs::rename(&temporary, &path).at(&path)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        fs,
        io::ErrorKind,
        os::unix::fs::{FileExt, MetadataExt},
        path::Path,
        sync::Arc,
        time::Duration,
    };

    use h3cast_feed::{FeedError, Keeper, PublishError};

    use crate::{Fsync, Store, StoreError, StoreOptions, StoredFeed, work};

    fn open(dir: &Path) -> Store {
        // The thread does nothing before the end of the test.
        Store::open(dir, StoreOptions { fsync: Fsync::Every(Duration::from_secs(60)) }).unwrap()
    }

    /// A feed of three chunks, of which a sync of the last two has failed. That is made up; all else is real.
    async fn failed(store: &Store) -> StoredFeed {
        let stored = store.feed("a").unwrap();
        let shared = &stored.0;
        stored.publish("synced".into(), None).await.unwrap();
        work::sync(&shared.common, vec![shared.clone()]);
        stored.publish("one".into(), None).await.unwrap();
        stored.publish("two".into(), Some("id".into())).await.unwrap();
        let error = StoreError::io(&shared.dir, ErrorKind::Other.into());
        shared.fail_for_test(error.clone());
        let refused = FeedError::of(&stored.publish("late".into(), None).await.unwrap_err());
        assert_eq!(refused, FeedError::of(&PublishError::from(error)));
        stored
    }

    #[tokio::test]
    async fn a_sync_after_one_that_failed_is_of_new_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let stored = failed(&store).await;
        let shared = &stored.0;
        let inode = || fs::metadata(shared.path(0)).unwrap().ino();
        let before = inode();
        assert!(store.is_failing());
        work::sync(&shared.common, vec![shared.clone()]);
        assert!(!store.is_failing());
        assert_ne!(inode(), before, "a file was believed to be on the disk that a sync has failed for");
        assert_eq!(stored.publish("three".into(), None).await.unwrap().cursor.seq, 3);
        // It is written to the new one, which is not written again.
        work::sync(&shared.common, vec![shared.clone()]);
        let after = inode();
        assert_eq!(stored.publish("two".into(), Some("id".into())).await.unwrap().cursor.seq, 2);
        let past = Arc::new(stored.clone()).read(stored.epoch(), 0).await.unwrap();
        let chunks: Vec<_> = past.chunks.into_iter().map(|chunk| chunk.bytes).collect();
        assert_eq!(chunks, ["synced", "one", "two", "three"]);
        assert_eq!(inode(), after);
        store.close().unwrap();
        assert_eq!(open(folder.path()).feed("a").unwrap().next(), 4);
    }

    #[tokio::test]
    async fn what_cannot_be_read_any_more_is_refused_until_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let stored = failed(&store).await;
        let shared = &stored.0;
        // The system has forgotten what it could not write.
        let file = fs::File::options().write(true).open(shared.path(0)).unwrap();
        let len = file.metadata().unwrap().len();
        file.write_all_at(&[0; 40], len - 40).unwrap();
        for _ in 0..2 {
            work::sync(&shared.common, vec![shared.clone()]);
            let refused = stored.publish("late".into(), None).await.unwrap_err();
            let why = std::error::Error::source(&refused).unwrap().to_string();
            assert!(why.contains("is damaged at byte") && store.is_failing(), "{why}");
        }
        store.close().unwrap_err();
        drop((store, stored));
        // Viewers have seen its number: another chunk does not get it.
        let store = open(folder.path());
        let stored = store.feed("a").unwrap();
        assert!(stored.next() > 3, "{}", stored.next());
        let past = Arc::new(stored.clone()).read(stored.epoch(), 0).await.unwrap();
        let chunks: Vec<_> = past.chunks.into_iter().map(|chunk| chunk.bytes).collect();
        assert_eq!(chunks, ["synced", "one"]);
    }
}
