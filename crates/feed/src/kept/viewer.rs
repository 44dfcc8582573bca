//! One viewer of a feed that is stored: it reads older chunks from the keeper until it has reached the ring.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt, MaybeDone, maybe_done};
use tokio::time::sleep;

use crate::{
    Budget, Charge, Chunk, Epoch, Event, FeedError, Gap, Keeper, Past,
    cost::buffer,
    ring::{Ring, RingViewer},
    viewer::RESTARTED,
};

/// How long a viewer waits before it asks a keeper again that could not answer.
const RETRY: Duration = Duration::from_secs(1);

/// A viewer of a feed that is stored.
pub(crate) struct KeptViewer {
    keeper: Arc<dyn Keeper>,
    ring: Arc<Ring>,
    at: At,
    /// Whether numbers may be left out between its chunks, as it was told when it began.
    sparse: bool,
    /// It has been told that new chunks cannot be received or stored.
    stalled: bool,
    /// That of its feed, which what is read for it alone is charged to.
    budget: Option<Budget>,
}

/// With what it is charged.
type Reading = BoxFuture<'static, (Result<Past, FeedError>, Option<Charge>)>;

/// What is charged for a piece of the past until it is there, in bytes: what keepers read at once, and its chunks. It may
/// have been read before its viewer asks again.
const PIECE: u64 = 256 << 10;

/// Where it is.
pub(super) enum At {
    Ring(RingViewer),
    /// Before everything in the ring.
    Past {
        next: u64,
        /// What comes after `chunks`, asked for while those are taken: one reading ahead, no more.
        asked: Option<MaybeDone<Reading>>,
        chunks: VecDeque<Chunk>,
        /// For those, if there is a budget.
        charge: Option<Charge>,
        /// It has the chunk before `next`, and is told what it misses from there on.
        known: bool,
        /// Its cursor was of another epoch, and that has not been told yet.
        restarted: bool,
    },
}

impl At {
    pub(super) fn past(next: u64, known: bool, restarted: bool) -> Self {
        Self::Past { next, asked: None, chunks: VecDeque::new(), charge: None, known, restarted }
    }
}

/// The charge for a chunk of that many bytes or more ends when it is taken; for smaller ones, when the whole piece is,
/// since they may share what they were read into.
const LARGE: usize = 16 << 10;

/// Nothing is read ahead of a chunk of that many bytes: it is as much as may be on its way.
const ALONE: usize = 1 << 20;

/// What a chunk costs that was read for one viewer, in bytes.
fn cost(chunk: &Chunk) -> u64 {
    (size_of::<Chunk>() + buffer(chunk.bytes.len())) as u64
}

/// Reads from there on, after a pause.
fn read(
    keeper: Arc<dyn Keeper>,
    epoch: Epoch,
    next: u64,
    pause: Duration,
    budget: Option<Budget>,
) -> MaybeDone<Reading> {
    let reading = async move {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let mut charge = budget.map(|budget| budget.charge(PIECE));
        let read = keeper.read(epoch, next).await;
        if let (Some(charge), Ok(past)) = (&mut charge, &read) {
            charge.set(past.chunks.iter().map(cost).sum());
        }
        (read, charge)
    };
    maybe_done(reading.boxed())
}

impl KeptViewer {
    pub(super) fn new(keeper: Arc<dyn Keeper>, ring: Arc<Ring>, at: At) -> Self {
        let sparse = keeper.is_sparse();
        Self { keeper, ring, at, sparse, stalled: false, budget: None }
    }

    /// Charges that for what is read for it.
    pub(crate) fn charge(&mut self, budget: &Budget) {
        self.budget = Some(budget.clone());
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.ring.epoch()
    }

    pub(crate) fn is_sparse(&self) -> bool {
        self.sparse
    }

    /// Only what is known without asking the keeper.
    pub(crate) fn gap(&self) -> Option<Gap> {
        match self.at {
            At::Past { restarted: true, .. } => Some(RESTARTED),
            At::Past { next, known: true, .. } if !self.sparse => {
                // The ring may have more than is stored.
                let first = self.keeper.stored()?.first.min(self.ring.floor());
                let missing = first.saturating_sub(next);
                (missing > 0).then_some(Gap { from: next, missing, restarted: false })
            }
            _ => None,
        }
    }

    pub(crate) fn next_seq(&self) -> Option<u64> {
        match &self.at {
            At::Ring(viewer) => viewer.next_seq(),
            At::Past { next, known, .. } => known.then_some(*next),
        }
    }

    /// What the keeper returned is for this viewer alone.
    pub(crate) fn encoded(&self, chunk: &Arc<Chunk>, cost: usize) {
        if let At::Ring(viewer) = &self.at {
            viewer.encoded(chunk, cost);
        }
    }

    /// Whether no other viewer gets the chunks that it gets: the keeper returned them for it.
    pub(crate) fn has_own(&self) -> bool {
        matches!(self.at, At::Past { .. })
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
                    // It was too slow for the ring, but the keeper has more.
                    Some(Event::Gap(gap)) if !gap.restarted => (gap.from, true),
                    event => {
                        if let Some(Event::Stalled(stalled)) = event {
                            self.stalled = stalled;
                        }
                        return Poll::Ready(event);
                    }
                },
                // It was recreated, or the server stops.
                At::Past { .. } if self.ring.is_stopped() => {
                    self.at = At::Ring(self.ring.view_at(self.ring.next(), self.stalled));
                    continue;
                }
                At::Past { restarted, .. } if *restarted => {
                    *restarted = false;
                    return Poll::Ready(Some(Event::Gap(RESTARTED)));
                }
                At::Past { next, asked, chunks, charge, known, .. } => {
                    if let Some(chunk) = chunks.pop_front() {
                        (*next, *known) = (chunk.seq + 1, true);
                        if chunks.is_empty() {
                            *charge = None;
                        } else if chunk.bytes.len() >= LARGE
                            && let Some(charge) = charge
                        {
                            // It is charged again as it is given.
                            charge.lower(cost(&chunk));
                        }
                        return Poll::Ready(Some(Event::Chunk(Arc::new(chunk))));
                    }
                    if *next >= self.ring.floor() && asked.is_none() {
                        self.at = At::Ring(self.ring.view_at(*next, self.stalled));
                        continue;
                    }
                    let reading =
                        |next, pause| read(self.keeper.clone(), self.ring.epoch(), next, pause, self.budget.clone());
                    let asking = asked.get_or_insert_with(|| reading(*next, Duration::ZERO));
                    ready!(asking.poll_unpin(cx));
                    let gone = || (Err(FeedError("it has been taken already".into())), None);
                    let (mut read, charged) = Pin::new(asking).take_output().unwrap_or_else(gone);
                    if self.keeper.is_sparse() != self.sparse {
                        // It would take the numbers of others for a gap. The ring is being started over for that.
                        self.at = At::Ring(self.ring.view_at(self.ring.next(), self.stalled));
                        continue;
                    }
                    if let Ok(past) = &mut read {
                        // It has had those before, or begins after them.
                        past.chunks.retain(|chunk| chunk.seq >= *next);
                        // The ring may have chunks that are not stored any more. Those of a sparse feed are not known by
                        // their numbers.
                        let floor = self.ring.floor();
                        if past.first > floor && !self.sparse {
                            past.chunks.clear();
                            (past.first, past.next) = (floor, floor);
                        }
                    }
                    let read = match read {
                        // What the ring has seen is not there. Asking again at once would give the same answer.
                        Ok(past) if past.chunks.is_empty() && past.next.max(past.first) <= *next => Err(()),
                        Ok(past) => Ok(past),
                        Err(error) => {
                            tracing::debug!(%error, "chunks older than the ring cannot be read");
                            Err(())
                        }
                    };
                    match read {
                        Ok(past) => {
                            *asked = None;
                            (*chunks, *charge) = (past.chunks.into(), charged);
                            if let Some(last) = chunks.back()
                                && last.bytes.len() < ALONE
                                && last.seq + 1 < self.ring.floor()
                            {
                                let mut ahead = reading(last.seq + 1, Duration::ZERO);
                                // It begins when it is first polled.
                                let _ = ahead.poll_unpin(cx);
                                *asked = Some(ahead);
                            }
                            let gap = Gap { from: *next, missing: past.first.saturating_sub(*next), restarted: false };
                            // The last chunk tells where to continue; without any, `past.next` does.
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
                        // Nothing fills it any more: what the ring has is all that is left.
                        Err(()) if self.ring.has_ended() => {
                            let (from, floor) = (*next, self.ring.floor().max(*next));
                            self.at = At::Ring(self.ring.view_at(floor, self.stalled));
                            if floor > from {
                                self.ring.skipped(floor - from);
                                return Poll::Ready(Some(Event::Gap(Gap {
                                    from,
                                    missing: floor - from,
                                    restarted: false,
                                })));
                            }
                        }
                        Err(()) => {
                            *asked = Some(reading(*next, RETRY));
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
