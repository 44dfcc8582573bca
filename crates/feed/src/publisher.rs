//! Publishing to a feed.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::{
    Cursor, End, FeedError, Keeper, NewChunk, Progress, PublishError, PublishedAll, Receipt, TryPublishError,
    kept::Kept,
    log,
    ring::{Full, Note, Ring},
    status::FeedCounters,
};

/// How long a publisher may be held up before that is logged, each time.
const LONG: Duration = Duration::from_secs(10);

/// Publishes to a live feed. Clones publish to the same one. [`end`](Self::end) ends it; if the last clone is
/// dropped before that, the feed has failed: its source may have panicked, and a feed that is cut short must not
/// look complete. A feed that is stored externally ([`Feed::kept`](crate::Feed::kept)) continues.
///
/// ```
/// use h3cast_feed::{End, Feed, Lag};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), h3cast_feed::PublishError> {
/// let (feed, publisher) = Feed::live("log", 1_000_000, Lag::Block);
/// let cursor = publisher.publish("a line".into()).await?;
/// assert_eq!(cursor.seq, 0);
/// publisher.end(End::Clean);
/// # drop(feed);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Publisher {
    to: To,
    lease: Lease,
}

/// Whether it counts as one that may publish yet.
#[derive(Debug, Clone)]
enum Lease {
    Held(Arc<()>),
    /// It is only there to be listed.
    Listed(Weak<()>),
}

#[derive(Clone)]
enum To {
    Ring(Arc<PublisherGuard>),
    /// Stored externally, where others may write it too.
    Kept(Arc<Kept>),
    /// Stored for this process.
    Stored(Arc<StoredGuard>),
}

impl fmt::Debug for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(ring) => f.debug_tuple("Ring").field(ring).finish(),
            Self::Kept(kept) => kept.fmt(f),
            Self::Stored(stored) => stored.fmt(f),
        }
    }
}

#[derive(Debug)]
struct PublisherGuard {
    name: Arc<str>,
    ring: Arc<Ring>,
    counters: Arc<FeedCounters>,
}

#[derive(Debug)]
struct StoredGuard {
    name: Arc<str>,
    kept: Kept,
}

/// How a feed ends whose publishers are gone. It changes nothing if the feed has ended.
fn lost() -> End {
    let reason = match std::thread::panicking() {
        true => "the feed's source panicked",
        false => "the feed's source went away without ending the feed",
    };
    End::Failed(FeedError(reason.into()))
}

impl Drop for PublisherGuard {
    fn drop(&mut self) {
        log::end(&self.name, &self.ring, lost());
    }
}

impl Drop for StoredGuard {
    fn drop(&mut self) {
        log::end(&self.name, &self.kept.ring(), lost());
    }
}

impl StoredGuard {
    /// What stores the feed, unless it has ended.
    async fn keeper(&self) -> Result<&dyn Keeper, PublishError> {
        match self.kept.ring().is_open().await {
            true => Ok(&*self.kept.keeper),
            false => Err(PublishError::Ended),
        }
    }
}

impl Publisher {
    pub(crate) fn new(name: Arc<str>, ring: Arc<Ring>, counters: Arc<FeedCounters>) -> Self {
        Self::to(To::Ring(Arc::new(PublisherGuard { name, ring, counters })))
    }

    pub(crate) fn kept(kept: Kept) -> Self {
        Self::to(To::Kept(Arc::new(kept)))
    }

    pub(crate) fn stored(name: Arc<str>, kept: Kept) -> Self {
        Self::to(To::Stored(Arc::new(StoredGuard { name, kept })))
    }

    fn to(to: To) -> Self {
        Self { to, lease: Lease::Held(Arc::new(())) }
    }

    /// A clone that does not count in [`is_shared_here`](Self::is_shared_here).
    pub(crate) fn for_list(&self) -> Self {
        let lease = match &self.lease {
            Lease::Held(lease) => Arc::downgrade(lease),
            Lease::Listed(lease) => lease.clone(),
        };
        Self { to: self.to.clone(), lease: Lease::Listed(lease) }
    }

    /// Publishes a chunk and returns its cursor. With [`Lag::Block`](crate::Lag::Block), waits until no viewer
    /// loses a chunk by that; if the feed is stored, until the chunk is.
    ///
    /// # Errors
    ///
    /// If the feed has ended, or does not accept the chunk.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, nothing is published. But if the feed is stored, the chunk may
    /// have been stored.
    ///
    /// # Panics
    ///
    /// If it has to wait and there is no Tokio runtime with timers.
    pub async fn publish(&self, bytes: Bytes) -> Result<Cursor, PublishError> {
        Ok(self.publish_as(bytes, || None).await?.cursor)
    }

    /// Publishes a chunk without waiting and returns its cursor. Needs no runtime, so it can be called from any
    /// thread; it never blocks for longer than it takes to add the chunk.
    ///
    /// ```
    /// use h3cast_feed::{Feed, Lag, TryPublishError};
    ///
    /// let (feed, publisher) = Feed::live("samples", 1 << 20, Lag::Block);
    /// match publisher.try_publish("21.5".into()) {
    ///     Ok(cursor) => assert_eq!(cursor.seq, 0),
    ///     // A viewer is too slow: drop the sample, or keep it for later.
    ///     Err(TryPublishError::Full) => {}
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// If the chunk could only be published after waiting (the chunk is not published: a clone of `bytes` is
    /// cheap to keep), or the feed has ended.
    pub fn try_publish(&self, bytes: Bytes) -> Result<Cursor, TryPublishError> {
        let To::Ring(to) = &self.to else { return Err(TryPublishError::External) };
        let cursor = to.ring.publish_now(&bytes, &mut |_| {}).map_err(|full| match full {
            Full::Wait => TryPublishError::Full,
            Full::Ended => TryPublishError::Ended,
        })?;
        to.counters.count(bytes.len());
        Ok(cursor)
    }

    /// Like [`publish`](Self::publish). If the feed is stored, a chunk whose `id` is stored already is
    /// not stored again, and the receipt is for the stored one; otherwise `id` is not called.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn publish_as(&self, bytes: Bytes, id: impl FnOnce() -> Option<String>) -> Result<Receipt, PublishError> {
        self.publish_noted(bytes, id, |_| {}).await
    }

    /// Like [`publish_as`](Self::publish_as), and calls `note` with the receipt. If the feed is in memory, that is while
    /// nothing else can happen to it: a feed that is [held](crate::Feeds::hold) has no chunk that was not noted. So
    /// `note` must not block, nor use the feed.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn publish_noted(
        &self,
        bytes: Bytes,
        id: impl FnOnce() -> Option<String>,
        mut note: impl FnMut(Receipt) + Send,
    ) -> Result<Receipt, PublishError> {
        let size = bytes.len();
        match &self.to {
            // It is counted when it comes back, like those of other servers.
            To::Kept(kept) => kept.keeper.publish(bytes, id()).await.inspect(|receipt| note(*receipt)),
            // Boxed to keep the future of every publisher small.
            To::Stored(to) => {
                let keeper = Box::pin(to.keeper()).await?;
                keeper.publish(bytes, id()).await.inspect(|receipt| note(*receipt))
            }
            To::Ring(to) => {
                let mut note = |cursor| note(Receipt { cursor, size });
                let published = match to.ring.publish_now(&bytes, &mut note) {
                    Ok(cursor) => Some(cursor),
                    Err(Full::Ended) => None,
                    // Rare, and large: boxed to keep every publisher's future small.
                    Err(Full::Wait) => Box::pin(to.publish_later(&bytes, &mut note)).await,
                };
                let cursor = published.ok_or(PublishError::Ended)?;
                to.counters.count(size);
                Ok(Receipt { cursor, size })
            }
        }
    }

    /// Publishes chunks in their order, as [`publish_as`](Self::publish_as) does each; a feed that is stored
    /// stores them together if it can, which is faster. With fewer receipts than chunks and no error, the rest is to be
    /// published again: the keeper takes no more at once, or the last receipt is for a chunk that was stored before, of
    /// another size than the one given.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe, but how many of the chunks were published is not known then.
    pub async fn publish_all(&self, chunks: Vec<NewChunk>) -> PublishedAll {
        match &self.to {
            To::Ring(_) => {}
            To::Kept(kept) => return kept.keeper.publish_all(chunks).await,
            To::Stored(to) => match to.keeper().await {
                Ok(keeper) => return keeper.publish_all(chunks).await,
                Err(error) => return PublishedAll { receipts: Vec::new(), error: Some(error) },
            },
        }
        let mut published = PublishedAll::default();
        for chunk in chunks {
            match self.publish_as(chunk.bytes, || chunk.id).await {
                Ok(receipt) => published.receipts.push(receipt),
                Err(error) => {
                    published.error = Some(error);
                    break;
                }
            }
        }
        published
    }

    /// Publishes chunks of a source, as [`publish_all`](Self::publish_all) does. If the feed is [stored](crate::Feed::stored),
    /// the source's `place` after them is stored in the same write: what continues the feed later finds it as
    /// [`place`](Self::place), and neither repeats a chunk nor leaves one out.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn publish_from(&self, chunks: Vec<NewChunk>, place: impl FnOnce() -> Bytes) -> PublishedAll {
        match &self.to {
            To::Stored(to) => match to.keeper().await {
                Ok(keeper) => keeper.publish_from(chunks, place()).await,
                Err(error) => PublishedAll { receipts: Vec::new(), error: Some(error) },
            },
            To::Ring(_) | To::Kept(_) => self.publish_all(chunks).await,
        }
    }

    /// The place of the feed's source after the chunk that was stored last.
    #[must_use]
    pub fn place(&self) -> Option<Bytes> {
        match &self.to {
            To::Stored(to) => to.kept.keeper.place(),
            To::Ring(_) | To::Kept(_) => None,
        }
    }

    /// How far a publication has come, where the feed is stored: see [`Keeper::progress`].
    pub async fn progress(&self, publication: &str) -> Option<Progress> {
        match &self.to {
            To::Ring(_) => None,
            To::Kept(kept) => kept.keeper.progress(publication).await,
            To::Stored(to) => to.kept.keeper.progress(publication).await,
        }
    }

    /// Tells the viewers of a live feed that its source cannot be reached, or that it can again. Does nothing
    /// if the feed is stored for several servers: its [`Filler`](crate::Filler) knows.
    pub fn stall(&self, stalled: bool) {
        match &self.to {
            To::Ring(to) => to.ring.stall(stalled),
            To::Stored(to) => to.kept.ring().stall(stalled),
            To::Kept(_) => {}
        }
    }

    /// Reports that many chunks as missing, which the source of a live feed has lost: their numbers are left out, and
    /// viewers get a gap. Does nothing if the feed is stored.
    pub fn leave_out(&self, missing: u64) {
        if let To::Ring(to) = &self.to {
            to.ring.leave_out(missing);
        }
    }

    /// Whether what is published is stored before it is confirmed: then a chunk may have been stored although
    /// [`publish`](Self::publish) was dropped, or failed.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        !matches!(self.to, To::Ring(_))
    }

    /// Whether the feed is stored externally, where other servers may publish to it too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.to, To::Kept(_))
    }

    /// Whether there are clones besides one, those of its feed's clones included, but not those for lists.
    pub(crate) fn is_shared_here(&self) -> bool {
        match &self.lease {
            Lease::Held(lease) => Arc::strong_count(lease) > 1,
            Lease::Listed(lease) => lease.strong_count() > 1,
        }
    }

    /// Waits until the feed has ended; one that is stored externally, until its server stops or it is recreated
    /// there.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn ended(&self) {
        match &self.to {
            To::Ring(to) => to.ring.ended().await,
            To::Kept(kept) => kept.ring().ended().await,
            To::Stored(to) => to.kept.ring().ended().await,
        }
    }

    /// Ends the feed; the first end counts. A feed that is stored externally continues.
    pub fn end(&self, end: End) {
        match &self.to {
            To::Ring(to) => log::end(&to.name, &to.ring, end),
            To::Stored(to) => log::end(&to.name, &to.kept.ring(), end),
            To::Kept(_) => {}
        }
    }

    /// Whether [`end`](Self::end) ends the feed.
    pub(crate) fn ends_it(&self) -> bool {
        !matches!(self.to, To::Kept(_))
    }
}

impl PublisherGuard {
    /// Publishes when it can, and logs it if that takes long: one viewer that does not read is enough for
    /// that. While the feed is held, viewers are not the reason.
    async fn publish_later(&self, bytes: &Bytes, note: &mut Note<'_>) -> Option<Cursor> {
        let mut publishing = pin!(self.ring.publish(bytes, note));
        let mut since = Instant::now();
        loop {
            let was_held = self.ring.is_held();
            let waited = timeout(LONG, publishing.as_mut()).await;
            let by_viewers = !was_held && !self.ring.is_held();
            if by_viewers {
                self.counters.blocked(since.elapsed());
            }
            since = Instant::now();
            match waited {
                Ok(published) => return published,
                Err(_) if by_viewers => {
                    warn!(feed = &*self.name, "a viewer that does not read holds up publishers")
                }
                Err(_) => {}
            }
        }
    }
}
