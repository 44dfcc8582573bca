//! One viewer of a feed that is stored externally: it reads older chunks from the keeper until it has reached
//! the ring.

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
    Chunk, Epoch, Event, FeedError, Gap, Keeper, Past,
    ring::{Ring, RingViewer},
    viewer::RESTARTED,
};

/// How long a viewer waits before it asks a keeper again that could not answer.
const RETRY: Duration = Duration::from_secs(1);

/// A viewer of a feed that is stored externally.
pub(crate) struct KeptViewer {
    keeper: Arc<dyn Keeper>,
    ring: Arc<Ring>,
    at: At,
    /// It has been told that what stores the feed cannot be reached.
    stalled: bool,
}

type Reading = BoxFuture<'static, Result<Past, FeedError>>;

/// Where it is.
pub(super) enum At {
    Ring(RingViewer),
    /// Before everything in the ring.
    Past {
        next: u64,
        /// What comes after `chunks`, asked for while those are taken: one reading ahead, no more.
        asked: Option<MaybeDone<Reading>>,
        chunks: VecDeque<Chunk>,
        /// It has the chunk before `next`, and is told what it misses from there on.
        known: bool,
        /// Its cursor was of another epoch, and that has not been told yet.
        restarted: bool,
    },
}

impl At {
    pub(super) fn past(next: u64, known: bool, restarted: bool) -> Self {
        Self::Past { next, asked: None, chunks: VecDeque::new(), known, restarted }
    }
}

impl KeptViewer {
    pub(super) fn new(keeper: Arc<dyn Keeper>, ring: Arc<Ring>, at: At) -> Self {
        Self { keeper, ring, at, stalled: false }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.ring.epoch()
    }

    pub(crate) fn is_sparse(&self) -> bool {
        self.keeper.is_sparse()
    }

    /// Only what is known without asking the keeper.
    pub(crate) fn gap(&self) -> Option<Gap> {
        matches!(self.at, At::Past { restarted: true, .. }).then_some(RESTARTED)
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
                At::Past { next, asked, chunks, known, .. } => {
                    if let Some(chunk) = chunks.pop_front() {
                        (*next, *known) = (chunk.seq + 1, true);
                        return Poll::Ready(Some(Event::Chunk(Arc::new(chunk))));
                    }
                    if *next >= self.ring.floor() && asked.is_none() {
                        self.at = At::Ring(self.ring.view_at(*next, self.stalled));
                        continue;
                    }
                    let read = || maybe_done(self.keeper.clone().read(self.ring.epoch(), *next));
                    let asking = asked.get_or_insert_with(read);
                    ready!(asking.poll_unpin(cx));
                    let gone = || Err(FeedError("it has been taken already".into()));
                    let mut read = Pin::new(asking).take_output().unwrap_or_else(gone);
                    if let Ok(past) = &mut read {
                        // It has had those before, or begins after them.
                        past.chunks.retain(|chunk| chunk.seq >= *next);
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
                            *chunks = past.chunks.into();
                            if let Some(last) = chunks.back()
                                && last.seq + 1 < self.ring.floor()
                            {
                                let mut ahead = maybe_done(self.keeper.clone().read(self.ring.epoch(), last.seq + 1));
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
                            let (keeper, epoch, next) = (self.keeper.clone(), self.ring.epoch(), *next);
                            let again = async move {
                                sleep(RETRY).await;
                                keeper.read(epoch, next).await
                            };
                            *asked = Some(maybe_done(again.boxed()));
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
