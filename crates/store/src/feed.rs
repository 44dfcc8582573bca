//! A feed of a store.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use h3cast_feed::{
    Cursor, Epoch, FeedError, Filler, Keeper, NewChunk, Past, PublishError, PublishedAll, Receipt, Stored,
};
use tokio::task::JoinSet;

use crate::{Note, Retain, StoreError, append::Batch, shared::Shared};

/// A feed of a [`Store`](crate::Store): a [`Keeper`] for [`Feed::stored`](h3cast_feed::Feed::stored). Clones are the
/// same feed.
///
/// Publishing and reading need a Tokio runtime: what may block is done by its threads for that.
#[derive(Debug, Clone)]
pub struct StoredFeed(pub(crate) Arc<Shared>);

impl StoredFeed {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its run of numbers. It stays the same until the feed is removed.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// The number of the next chunk.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0.lock().next
    }

    /// The oldest number that is stored; that of the next chunk, if none is.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.0.first.load(Ordering::Relaxed)
    }

    /// The size of all chunks that there have been, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.0.lock().total
    }

    /// When its latest chunk was published, if one was.
    #[must_use]
    pub fn newest(&self) -> Option<SystemTime> {
        let micros = self.0.lock().newest;
        (micros > 0).then(|| UNIX_EPOCH + Duration::from_micros(micros))
    }

    /// The cursor of the latest chunk, if there has been one.
    #[must_use]
    pub fn last(&self) -> Option<Cursor> {
        Some(Cursor { epoch: self.epoch(), seq: self.next().checked_sub(1)? })
    }

    /// From now on, gives what is published to viewers by this. Call it before anything is published.
    pub fn fill(&self, filler: Filler) {
        self.0.lock().filler = Some(filler);
    }

    /// Who created it, if that was noted.
    #[must_use]
    pub fn created_by(&self) -> Option<String> {
        self.0.lock().meta.created_by.clone()
    }

    /// Notes who created it, to be stored with its first chunk. Changes nothing if the feed is stored already.
    pub fn set_created_by(&self, who: &str) {
        let mut state = self.0.lock();
        if !state.created {
            state.meta.created_by = Some(who.into());
        }
    }

    /// Stores it if it is not stored yet, so that it keeps its epoch even before its first chunk or note. Does nothing
    /// while the store is [held](crate::Store::hold) or another process's. Blocks.
    ///
    /// # Errors
    ///
    /// If that does not reach the disk, and while the store [is full](crate::Store::is_full). It is tried again with the
    /// first chunk.
    pub fn create(&self) -> Result<(), StoreError> {
        self.0.create_now()
    }

    /// Sets how much of it is kept, until this and all other handles of it are gone: set it whenever you open the feed.
    /// Files beyond that are removed soon, and are not read from now on.
    pub fn set_retain(&self, retain: Retain) {
        let mut state = self.0.lock();
        state.retain = retain;
        state.trims = retain.bytes.is_some();
        self.0.retain(&mut state);
    }

    /// The notes whose keys begin with `prefix`, by key.
    #[must_use]
    pub fn notes(&self, prefix: &[u8]) -> Vec<Note> {
        self.0.lock().notes.with_prefix(prefix)
    }

    /// Like [`Keeper::publish_all`], and stores notes together with the chunks: after a crash, all of them are there or
    /// none. `noting` is called with the receipts once the numbers are known, and before anything is written; it must
    /// not block, nor use the feed. There may be no chunks.
    ///
    /// It may publish fewer chunks than given: the receipts tell how many.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the chunks and notes may have been stored or not, but all of one call or none.
    pub fn publish_noted(
        &self,
        chunks: Vec<NewChunk>,
        noting: impl FnOnce(&[Receipt]) -> Vec<Note> + Send + 'static,
    ) -> BoxFuture<'static, PublishedAll> {
        Box::pin(self.0.clone().publish(Batch { chunks, noting: Some(Box::new(noting)) }))
    }
}

impl Keeper for StoredFeed {
    fn is_writable(&self) -> bool {
        true
    }

    fn is_sparse(&self) -> bool {
        false
    }

    fn publish(&self, bytes: Bytes, id: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        let published = self.publish_all(vec![NewChunk { bytes, id }]);
        Box::pin(async move {
            let PublishedAll { receipts, error } = published.await;
            receipts.first().copied().ok_or_else(|| error.unwrap_or_else(|| StoreError::Closed.into()))
        })
    }

    fn publish_all(&self, chunks: Vec<NewChunk>) -> BoxFuture<'_, PublishedAll> {
        Box::pin(self.0.clone().publish(Batch { chunks, noting: None }))
    }

    fn read(self: Arc<Self>, epoch: Epoch, next: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
        let shared = self.0.clone();
        Box::pin(async move {
            if epoch != shared.epoch {
                return Err(FeedError(format!("the feed of epoch {epoch} is not stored any more")));
            }
            let failed = |error: &dyn std::fmt::Display| FeedError(error.to_string());
            // By a task of its own, which ends with this future: one who asks ahead does not look again before they need
            // it, and must not keep a place from others meanwhile. Not even while waiting for one: the semaphore gives
            // them to those who came first.
            let mut reading = JoinSet::new();
            reading.spawn(async move {
                let place = shared.common.reads.clone().acquire_owned().await.map_err(|error| failed(&error))?;
                let read = move || {
                    let read = shared.read(next);
                    drop(place);
                    read
                };
                tokio::task::spawn_blocking(read).await.map_err(|error| failed(&error))
            });
            let gone = || Err(failed(&StoreError::Closed));
            let read = reading.join_next().await.map_or_else(gone, |read| read.unwrap_or_else(|_| gone()))?;
            read.map_err(|error| {
                tracing::error!(%error, "cannot read older chunks of a feed");
                failed(&error)
            })
        })
    }

    fn last_before(&self, before: u64, many: u64) -> u64 {
        self.0.left_out.last_before(before, many)
    }

    fn left_out(&self) -> u64 {
        self.0.left_out.total()
    }

    fn stored(&self) -> Option<Stored> {
        Some(Stored { bytes: self.0.bytes.load(Ordering::Relaxed), first: self.first() })
    }
}
