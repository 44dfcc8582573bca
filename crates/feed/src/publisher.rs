//! The one who writes a live feed.

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::{
    Cursor, End, FeedError, PublishError, Receipt,
    feed::Counters,
    kept::Kept,
    log,
    ring::{Full, Ring},
};

/// How long a publisher may be held up before the log is told, each time.
const LONG: Duration = Duration::from_secs(10);

/// Publishes to a live feed. Clones publish to the same one. [`end`](Self::end) ends it; when the last
/// clone is dropped before that, the feed has failed: its source may have panicked, and what is cut short
/// must not look whole. A feed that is stored externally continues.
#[derive(Debug, Clone)]
pub struct Publisher(To);

#[derive(Clone)]
enum To {
    Ring(Arc<FailOnDrop>),
    Kept(Kept),
}

impl fmt::Debug for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(ring) => f.debug_tuple("Ring").field(ring).finish(),
            Self::Kept(kept) => kept.fmt(f),
        }
    }
}

#[derive(Debug)]
struct FailOnDrop {
    name: Arc<str>,
    ring: Arc<Ring>,
    counters: Arc<Counters>,
}

impl Drop for FailOnDrop {
    fn drop(&mut self) {
        // Changes nothing when the feed has ended.
        let reason = match std::thread::panicking() {
            true => "the feed's source panicked",
            false => "the feed's source went away without ending the feed",
        };
        self.end(End::Failed(FeedError(reason.into())));
    }
}

impl Publisher {
    pub(crate) fn new(name: Arc<str>, ring: Arc<Ring>, counters: Arc<Counters>) -> Self {
        Self(To::Ring(Arc::new(FailOnDrop { name, ring, counters })))
    }

    pub(crate) fn kept(kept: Kept) -> Self {
        Self(To::Kept(kept))
    }

    /// Publishes a chunk and gives its cursor. With [`Lag::Block`](crate::Lag::Block), waits until no
    /// viewer would lose a chunk by it; when the feed is kept elsewhere, until it is kept there.
    ///
    /// # Errors
    ///
    /// When the feed has ended, or does not take the chunk.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, nothing is published, unless the feed is kept elsewhere: then nobody
    /// knows.
    ///
    /// # Panics
    ///
    /// When it has to wait and there is no Tokio runtime with timers.
    pub async fn publish(&self, bytes: Bytes) -> Result<Cursor, PublishError> {
        Ok(self.publish_as(bytes, || None).await?.cursor)
    }

    /// Like [`publish`](Self::publish). Where a feed is kept elsewhere, a chunk with an `id` that is kept
    /// already is not kept again, and the receipt is of that one; elsewhere it is not asked for.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn publish_as(&self, bytes: Bytes, id: impl FnOnce() -> Option<String>) -> Result<Receipt, PublishError> {
        let size = bytes.len();
        match &self.0 {
            // It is counted when it comes back, as others' are.
            To::Kept(kept) => kept.keeper.publish(bytes, id()).await,
            To::Ring(to) => {
                let published = match to.ring.publish_now(&bytes) {
                    Ok(cursor) => Some(cursor),
                    Err(Full::Ended) => None,
                    // Seldom, and large: it is not to be in every publisher's future.
                    Err(Full::Wait) => Box::pin(to.publish_later(&bytes)).await,
                };
                let cursor = published.ok_or(PublishError::Ended)?;
                to.counters.count(size);
                Ok(Receipt { cursor, size })
            }
        }
    }

    /// Tells the viewers of a live feed that nothing can come now, or that it can again.
    pub fn stall(&self, stalled: bool) {
        if let To::Ring(to) = &self.0 {
            to.ring.stall(stalled);
        }
    }

    /// Whether the feed is kept elsewhere, where others publish to it as well.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.0, To::Kept(_))
    }

    /// Waits until the feed has ended; one that is kept elsewhere, until its server stops or it is made
    /// anew there.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn ended(&self) {
        match &self.0 {
            To::Ring(to) => to.ring.ended().await,
            To::Kept(kept) => kept.ring().ended().await,
        }
    }

    /// Ends the feed; the first end counts. A feed that is stored externally continues.
    pub fn end(&self, end: End) {
        if let To::Ring(to) = &self.0 {
            to.end(end);
        }
    }
}

impl FailOnDrop {
    fn end(&self, end: End) {
        if self.ring.end(end.clone()) {
            log::ended(&self.name, &end);
        }
    }

    /// Publishes when it can, and says so when that takes long: one viewer that does not read is enough
    /// for that.
    async fn publish_later(&self, bytes: &Bytes) -> Option<Cursor> {
        let mut publishing = pin!(self.ring.publish(bytes));
        let mut since = Instant::now();
        loop {
            let waited = timeout(LONG, publishing.as_mut()).await;
            self.counters.blocked(since.elapsed());
            since = Instant::now();
            match waited {
                Ok(published) => return published,
                Err(_) => {
                    warn!(feed = &*self.name, "a viewer that does not read holds up what is published (lag: block)")
                }
            }
        }
    }
}
