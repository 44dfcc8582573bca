//! Feeds that are kept elsewhere, for any number of servers: one of them has what came lately in a
//! ring, and asks for what is older.

use std::{
    collections::VecDeque,
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use crate::{
    Chunk, Cursor, End, Epoch, Event, FeedError, From, Gap, Lag,
    feed::Counters,
    log,
    ring::{Ring, RingViewer},
    viewer::RESTARTED,
};

/// How long a viewer waits before it asks again where it could not be answered.
const RETRY: Duration = Duration::from_secs(1);

/// Where the chunks of a feed are kept.
pub trait Keeper: Send + Sync + 'static {
    /// Whether clients may write the feed.
    fn is_writable(&self) -> bool;

    /// Whether numbers are left out between the feed's chunks, so that a jump is no loss.
    fn is_sparse(&self) -> bool;

    /// Publishes a chunk, and says so when it is kept. With an `id`, one that is kept already is not
    /// kept again.
    fn publish(&self, bytes: Bytes, id: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>>;

    /// Reads some of the chunks from the number `next` on, in their order. Dropping the future leaves
    /// off.
    fn read(self: Arc<Self>, epoch: Epoch, next: u64) -> BoxFuture<'static, Result<Past, FeedError>>;
}

/// What has been published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The chunk's cursor.
    pub cursor: Cursor,
    /// The size of the chunk that is kept, in bytes: not that of the one given, when another one had
    /// its id before.
    pub size: usize,
}

/// Why a chunk was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The feed has ended.
    #[error("the feed has ended")]
    Ended,
    /// It is too large for where the feed is kept.
    #[error("a chunk of {size} bytes is longer than the {max} that the feed takes")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// What would be taken, in bytes.
        max: usize,
    },
    /// Where the feed is kept does not answer. It may have been kept nevertheless.
    #[error("the feed cannot be written now: {0}")]
    Unavailable(String),
}

/// A part of what is kept.
#[derive(Debug, Default)]
pub struct Past {
    /// The oldest number that is kept.
    pub first: u64,
    /// Chunks, the oldest first.
    pub chunks: Vec<Chunk>,
    /// The number to go on with: before it, nothing is left out.
    pub next: u64,
}

/// The ring of a feed that is kept elsewhere; another one when the feed is made anew there.
#[derive(Clone)]
pub(crate) struct Kept {
    ring: Arc<Mutex<Arc<Ring>>>,
    pub(crate) keeper: Arc<dyn Keeper>,
    history: usize,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Kept {
    pub(crate) fn new(keeper: Arc<dyn Keeper>, history: usize, epoch: Epoch, next: u64, now: u64) -> Self {
        let ring = Arc::new(Ring::starting_at(epoch, history, Lag::Skip, next, now));
        Self { ring: Arc::new(Mutex::new(ring)), keeper, history }
    }

    pub(crate) fn ring(&self) -> Arc<Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn view(&self, from: From) -> KeptViewer {
        let ring = self.ring();
        let viewer = |next| At::Ring(ring.view_at(next, false));
        let at = match from {
            From::Start => At::past(0, false, false),
            From::Now => viewer(ring.now()),
            // Which numbers the feed has is known for what the ring has; before it, if none are left out.
            From::Last(many) => match ring.now().saturating_sub(many) {
                _ if self.keeper.is_sparse() => viewer(ring.last(many).unwrap_or_else(|| ring.floor())),
                first if first < ring.floor() => At::past(first, false, false),
                first => viewer(first),
            },
            From::After(cursor) if cursor.epoch == ring.epoch() => match cursor.seq.saturating_add(1) {
                next if next < ring.floor() => At::past(next, true, false),
                next => viewer(next),
            },
            From::End(epoch) if epoch == ring.epoch() => viewer(ring.now()),
            // Of another run: nothing of what there is now has been seen.
            From::After(_) | From::End(_) => At::past(0, false, true),
        };
        KeptViewer { keeper: self.keeper.clone(), ring, at, stalled: false }
    }
}

/// Fills the ring of a feed that is stored externally. When the last clone is dropped before the feed has
/// ended or its server stops, the feed has failed: nothing would come any more.
#[derive(Debug, Clone)]
pub struct Filler {
    kept: Arc<FailOnDrop>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct FailOnDrop {
    name: Arc<str>,
    kept: Kept,
}

impl Deref for FailOnDrop {
    type Target = Kept;

    fn deref(&self) -> &Kept {
        &self.kept
    }
}

impl Drop for FailOnDrop {
    fn drop(&mut self) {
        let end = End::Failed(FeedError("nothing fills the feed any more: its task is gone".into()));
        // Changes nothing when the feed has ended.
        if self.kept.ring().end(end.clone()) {
            log::ended(&self.name, &end);
        }
    }
}

impl Filler {
    pub(crate) fn new(name: Arc<str>, kept: Kept, counters: Arc<Counters>) -> Self {
        Self { kept: Arc::new(FailOnDrop { name, kept }), counters }
    }

    /// The number of the next chunk that is wanted.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.kept.ring().next()
    }

    /// The run of numbers that it has.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.kept.ring().epoch()
    }

    /// Adds a chunk that came. One that has come before is left out.
    pub fn add(&self, chunk: Chunk) {
        let size = chunk.bytes.len();
        if self.kept.ring().add(chunk) {
            self.counters.count(size);
        }
    }

    /// Goes on at `next`: what is before is not kept any more, or was never seen.
    pub fn skip_to(&self, next: u64) {
        self.kept.ring().skip_to(next);
    }

    /// Tells viewers that nothing can come now, or that it can again.
    pub fn stall(&self, stalled: bool) {
        self.kept.ring().stall(stalled);
    }

    /// The feed was made anew: its viewers are cut off, and come again to another run of numbers. The ring
    /// begins at `next` of it; what comes before `now` is there already.
    pub fn renew(&self, epoch: Epoch, next: u64, now: u64) {
        let ring = Arc::new(Ring::starting_at(epoch, self.kept.history, Lag::Skip, next, now));
        let old = std::mem::replace(&mut *self.kept.ring.lock().unwrap_or_else(PoisonError::into_inner), ring);
        old.end(End::Stopped);
    }
}

/// A viewer of a feed that is kept elsewhere.
pub(crate) struct KeptViewer {
    keeper: Arc<dyn Keeper>,
    ring: Arc<Ring>,
    at: At,
    /// It has been told that nothing can come.
    stalled: bool,
}

enum At {
    Ring(RingViewer),
    /// Before all that the ring has.
    Past {
        next: u64,
        asked: Option<BoxFuture<'static, Result<Past, FeedError>>>,
        chunks: VecDeque<Chunk>,
        /// It had the chunk before `next`, and is told of what is missing.
        known: bool,
        /// Its cursor was of another epoch, and that has not been told yet.
        restarted: bool,
    },
}

impl At {
    fn past(next: u64, known: bool, restarted: bool) -> Self {
        Self::Past { next, asked: None, chunks: VecDeque::new(), known, restarted }
    }
}

impl KeptViewer {
    pub(crate) fn epoch(&self) -> Epoch {
        self.ring.epoch()
    }

    pub(crate) fn is_sparse(&self) -> bool {
        self.keeper.is_sparse()
    }

    /// Only what is known without asking where the feed is kept.
    pub(crate) fn gap(&self) -> Option<Gap> {
        matches!(self.at, At::Past { restarted: true, .. }).then_some(RESTARTED)
    }

    pub(crate) fn next_seq(&self) -> Option<u64> {
        match &self.at {
            At::Ring(viewer) => viewer.next_seq(),
            At::Past { next, known, .. } => known.then_some(*next),
        }
    }

    pub(crate) fn is_behind(&self) -> bool {
        match &self.at {
            At::Ring(viewer) => viewer.is_behind(),
            At::Past { chunks, .. } => !chunks.is_empty(),
        }
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            let (next, known) = match &mut self.at {
                At::Ring(viewer) => match ready!(viewer.poll_next(cx)) {
                    // It was too slow for the ring, and not for what is kept elsewhere.
                    Some(Event::Gap(gap)) if !gap.restarted => (gap.from, true),
                    event => {
                        if let Some(Event::Stalled(stalled)) = event {
                            self.stalled = stalled;
                        }
                        return Poll::Ready(event);
                    }
                },
                // It was made anew, or the server stops.
                At::Past { .. } if self.ring.has_ended() => {
                    self.at = At::Ring(self.ring.view_at(self.ring.next(), self.stalled));
                    continue;
                }
                At::Past { restarted, .. } if *restarted => {
                    *restarted = false;
                    return Poll::Ready(Some(Event::Gap(RESTARTED)));
                }
                At::Past { next, asked, chunks, known, .. } => {
                    if let Some(chunk) = chunks.pop_front() {
                        (*next, *known) = (chunk.seq + 1, true);
                        return Poll::Ready(Some(Event::Chunk(Arc::new(chunk))));
                    }
                    if *next >= self.ring.floor() && asked.is_none() {
                        self.at = At::Ring(self.ring.view_at(*next, self.stalled));
                        continue;
                    }
                    let asking = asked.get_or_insert_with(|| self.keeper.clone().read(self.ring.epoch(), *next));
                    let read = match ready!(asking.as_mut().poll(cx)) {
                        // What the ring has had is not there: asked again at once, it would be no other.
                        Ok(past) if past.chunks.is_empty() && past.next.max(past.first) <= *next => Err(()),
                        Ok(past) => Ok(past),
                        Err(error) => {
                            tracing::debug!(%error, "what is older than the ring cannot be read");
                            Err(())
                        }
                    };
                    match read {
                        Ok(past) => {
                            *asked = None;
                            *chunks = past.chunks.into();
                            let gap = Gap { from: *next, missing: past.first.saturating_sub(*next), restarted: false };
                            // The last of them says where it goes on; without any, nothing is there before that.
                            *next = past.first.max(*next);
                            if chunks.is_empty() {
                                *next = past.next.max(*next);
                            }
                            if gap.missing > 0 && *known {
                                self.ring.skipped(gap.missing);
                                return Poll::Ready(Some(Event::Gap(gap)));
                            }
                            if std::mem::take(&mut self.stalled) {
                                return Poll::Ready(Some(Event::Stalled(false)));
                            }
                        }
                        Err(_) if self.ring.has_ended() => {}
                        Err(()) => {
                            let (keeper, epoch, next) = (self.keeper.clone(), self.ring.epoch(), *next);
                            *asked = Some(Box::pin(async move {
                                sleep(RETRY).await;
                                keeper.read(epoch, next).await
                            }));
                            if !std::mem::replace(&mut self.stalled, true) {
                                return Poll::Ready(Some(Event::Stalled(true)));
                            }
                        }
                    }
                    continue;
                }
            };
            self.at = At::past(next, known, false);
        }
    }
}
