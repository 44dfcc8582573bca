//! Feeds of a pattern that are stored on this machine.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, MutexGuard};

use super::{WrittenFeeds, WrittenLimits, made::Made};
use crate::{Account, BadPattern, Feed, FeedError, Lag, OpenError, Provenance, Trouble};

/// Stores feeds that clients create: see [`WrittenFeeds::stored`].
pub trait FeedStore: Send + Sync + 'static {
    /// The feed of that name, which clients write ([`Feed::stored_writable`]): with what is stored of it, if something
    /// is. It is asked for when there is none, and nothing need be stored before it is written.
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Feed, FeedError>>;

    /// Notes whom a feed counts for that was just opened, to be stored with its first chunk. It must not block.
    fn created(&self, name: &str, account: &Account);

    /// Removes what is stored of a feed, which has ended. It must not block; when the feed is opened again, that has been
    /// done.
    fn remove(&self, name: &str);

    /// Whether chunks can be stored now.
    fn is_ready(&self) -> bool {
        true
    }

    /// Why they cannot, if that is known. By default it is not.
    fn trouble(&self) -> Option<Trouble> {
        None
    }
}

/// Where feeds are stored.
pub(super) struct Storage {
    pub(super) store: Arc<dyn FeedStore>,
    /// Held while one is opened or some are removed: two of one name would both number its chunks.
    turn: Mutex<()>,
}

impl WrittenFeeds {
    /// Feeds with names like `pattern` that `store` has. `feeds` are those that exist already, with whom they count for.
    ///
    /// # Errors
    ///
    /// If `pattern` is not one.
    pub fn stored(
        pattern: &str,
        limits: WrittenLimits,
        store: Arc<dyn FeedStore>,
        feeds: impl IntoIterator<Item = (Feed, Provenance)>,
    ) -> Result<Arc<Self>, BadPattern> {
        let mut made = Made::default();
        made.store = Some(store.clone());
        for (feed, provenance) in feeds {
            made.adopt(feed.name(), &provenance, || feed.clone());
        }
        let storage = Storage { store, turn: Mutex::default() };
        Ok(Self::with(pattern.parse()?, (0, Lag::Skip), limits, made, Some(storage)))
    }

    /// While this is kept, no stored feed is opened or removed.
    pub(super) async fn alone(&self) -> Option<MutexGuard<'_, ()>> {
        match &self.storage {
            Some(storage) => Some(storage.turn.lock().await),
            None => None,
        }
    }

    /// For one who only views it.
    pub(super) async fn view_stored(&self, storage: &Storage, name: &str) -> Result<Feed, OpenError> {
        let known = || self.lock().look_up(name);
        if let Some(feed) = known() {
            return Ok(feed);
        }
        let _one = storage.turn.lock().await;
        if let Some(feed) = known() {
            return Ok(feed);
        }
        let feed = storage.store.open(name).await.map_err(OpenError::Unavailable)?;
        let mut made = self.lock();
        feed.hold(made.hold);
        Ok(made.view(name, || feed))
    }

    /// For one who may write it.
    pub(super) async fn open_stored(
        &self,
        storage: &Storage,
        name: &str,
        account: &Account,
    ) -> Result<Feed, OpenError> {
        if let Some(feed) = self.lock().reopen(name) {
            return Ok(feed);
        }
        let _one = storage.turn.lock().await;
        // Of those who only view it.
        let viewed = self.lock().get(name);
        let feed = match &viewed {
            Some(feed) => feed.clone(),
            None => storage.store.open(name).await.map_err(OpenError::Unavailable)?,
        };
        let opened = self.open_with(name, account, |hold| {
            feed.hold(hold);
            feed.clone()
        });
        if opened.is_err() && viewed.is_none() {
            // Nobody has it: not an end that is worth a line in the log.
            feed.stop();
        }
        opened.map_err(OpenError::Exhausted)
    }
}

impl Made {
    /// Whether a feed that is not used any more stays where it is stored.
    pub(super) fn stays(&self, feed: &Feed) -> bool {
        self.store.is_some() && feed.status().oldest.is_some()
    }
}
