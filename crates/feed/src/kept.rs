//! Feeds that something stores: externally for any number of servers, or on this machine for one. Each server has the
//! latest chunks in a ring, and reads older ones from what stores them.

mod viewer;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    Chunk, Cursor, End, Epoch, FeedError, Keeper, Lag, Start, Status, Stored, Trouble, budget::Charged, log,
    ring::Ring, status::FeedCounters,
};
use viewer::At;
pub(crate) use viewer::KeptViewer;

/// The ring of a feed that is stored; replaced when the feed is recreated there.
#[derive(Debug, Clone)]
struct Rings {
    now: Arc<Mutex<Arc<Ring>>>,
    history: usize,
}

impl Rings {
    fn ring(&self) -> Arc<Ring> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A feed that is stored, with its ring.
#[derive(Clone)]
pub(crate) struct Kept {
    rings: Rings,
    pub(crate) keeper: Arc<dyn Keeper>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Kept {
    pub(crate) fn new(keeper: Arc<dyn Keeper>, history: usize, epoch: Epoch, next: u64, now: u64) -> Self {
        Self::with(keeper, history, Ring::starting_at(epoch, history, Lag::Skip, next, now))
    }

    /// One that this process alone writes: the numbers before `next` were chunks of it, but for those that its keeper
    /// has left out.
    pub(crate) fn stored(keeper: Arc<dyn Keeper>, history: usize, epoch: Epoch, next: u64) -> Self {
        let count = next.saturating_sub(keeper.left_out());
        Self::with(keeper, history, Ring::continuing_at(epoch, history, next, count))
    }

    fn with(keeper: Arc<dyn Keeper>, history: usize, ring: Ring) -> Self {
        Self { rings: Rings { now: Arc::new(Mutex::new(Arc::new(ring))), history }, keeper }
    }

    pub(crate) fn charged(&self) -> Charged {
        Charged::Kept(Arc::downgrade(&self.rings.now))
    }

    pub(crate) fn ring(&self) -> Arc<Ring> {
        self.rings.ring()
    }

    /// Adds what it knows of the feed's status.
    pub(crate) fn report(&self, status: &mut Status) {
        let ring = self.ring();
        ring.report(status);
        if let Some(Stored { bytes, first }) = self.keeper.stored() {
            status.stored = Some(bytes);
            status.oldest = (first < ring.next()).then(|| Cursor { epoch: ring.epoch(), seq: first });
        }
    }

    pub(crate) fn view(&self, start: Start) -> KeptViewer {
        let ring = self.ring();
        let viewer = |next| At::Ring(ring.view_at(next, false));
        let at = match start {
            Start::Start => At::past(0, false, false),
            Start::Now => viewer(ring.now()),
            // The numbers of the last chunks are known within the ring; its keeper knows those before it, unless the
            // numbering has gaps.
            Start::Last(many) if self.keeper.is_sparse() => viewer(ring.last(many).unwrap_or_else(|| ring.floor())),
            Start::Last(many) => {
                let (floor, now) = (ring.floor(), ring.now());
                match many.checked_sub(now.saturating_sub(floor)) {
                    Some(older) if older > 0 => At::past(self.keeper.last_before(floor, older), false, false),
                    _ => viewer(now - many),
                }
            }
            Start::After(cursor) if cursor.epoch == ring.epoch() => match cursor.seq.saturating_add(1) {
                next if next < ring.floor() => At::past(next, true, false),
                next => viewer(next),
            },
            Start::End(epoch) if epoch == ring.epoch() => viewer(ring.now()),
            // Of another run: all of this one is new.
            Start::After(_) | Start::End(_) => At::past(0, false, true),
        };
        KeptViewer::new(self.keeper.clone(), ring, at)
    }
}

/// Fills the ring of a feed that is stored. If the last clone is dropped before the feed has ended
/// or its server stops, the feed has failed: no chunk would arrive any more.
#[derive(Debug, Clone)]
pub struct Filler {
    filled: Arc<Filled>,
    counters: Arc<FeedCounters>,
}

/// Without the keeper: it may be the keeper that has it.
#[derive(Debug)]
struct Filled {
    name: Arc<str>,
    rings: Rings,
}

impl Drop for Filled {
    fn drop(&mut self) {
        // Changes nothing when the feed has ended.
        let end = End::Failed(FeedError("nothing fills the feed: its task is gone".into()));
        log::end(&self.name, &self.rings.ring(), end);
    }
}

impl Filler {
    pub(crate) fn new(name: Arc<str>, kept: &Kept, counters: Arc<FeedCounters>) -> Self {
        Self { filled: Arc::new(Filled { name, rings: kept.rings.clone() }), counters }
    }

    fn ring(&self) -> Arc<Ring> {
        self.filled.rings.ring()
    }

    /// The number of the next chunk that it expects.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.ring().next()
    }

    /// The run of numbers of its chunks.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.ring().epoch()
    }

    /// Adds a chunk that was published. One that was added before is ignored.
    pub fn add(&self, chunk: Chunk) {
        let size = chunk.bytes.len();
        if self.ring().add(chunk) {
            self.counters.count(size);
        }
    }

    /// Adds chunks that were published, in their order. This takes less than to [`add`](Self::add) each of them.
    pub fn add_all(&self, chunks: impl IntoIterator<Item = Chunk>) {
        let (many, bytes) = self.ring().add_all(chunks);
        if many > 0 {
            self.counters.count_all(many, bytes);
        }
    }

    /// Continues at `next`: what is before is not stored any more, or was never seen.
    pub fn skip_to(&self, next: u64) {
        self.ring().skip_to(next);
    }

    /// Drops the chunks of the run `epoch` before the number `first`, which are not stored any more: what was deleted is
    /// not to be read here either. Viewers who are behind it get a gap. Whether the ring has come that far:
    /// chunks before `first` that are added later stay.
    pub fn forget_before(&self, epoch: Epoch, first: u64) -> bool {
        let ring = self.ring();
        ring.epoch() != epoch || ring.forget_before(first)
    }

    /// Tells viewers that new chunks cannot be received or stored, or that they can again.
    pub fn stall(&self, stalled: bool) {
        self.ring().stall(stalled);
    }

    /// Notes why the feed cannot be served as it should be, as [`Feed::set_trouble`](crate::Feed::set_trouble).
    pub fn set_trouble(&self, why: Option<Trouble>) {
        self.counters.set_trouble(why);
    }

    /// The feed was recreated: its viewers are disconnected, and reconnect to another run of numbers. The ring
    /// begins at `next` of it; chunks before `now` are not new.
    pub fn renew(&self, epoch: Epoch, next: u64, now: u64) {
        let ring = Arc::new(Ring::starting_at(epoch, self.filled.rings.history, Lag::Skip, next, now));
        let old = std::mem::replace(&mut *self.filled.rings.now.lock().unwrap_or_else(PoisonError::into_inner), ring);
        old.end(End::Stopped);
    }
}
