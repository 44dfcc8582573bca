//! One viewer of a ring.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::Ring;
use crate::{Chunk, Event, Gap, Lag};

/// A number in a ring: what comes next for one viewer.
#[derive(Debug)]
pub(crate) struct RingViewer {
    ring: Arc<Ring>,
    next: u64,
    /// Where its position is noted.
    at: u32,
    /// Its cursor was of another epoch, which it has not been told yet.
    stale: bool,
    from_start: bool,
    /// Its place in the ring, for [`Lag::Block`] only.
    place: Option<u64>,
    /// Since which wake-up its waker is in the ring's list, and where.
    registered: Option<(u64, usize)>,
    done: bool,
    /// There was more when it got its last chunk.
    behind: bool,
    /// It has been told that what stores the feed cannot be reached.
    stalled: bool,
    /// What it misses is lost, and not stored externally.
    counted: bool,
}

impl RingViewer {
    /// A viewer from that number on, even if the ring has not reached it. `stalled` is what the viewer has
    /// been told of that.
    pub(super) fn new(ring: Arc<Ring>, next: u64, stalled: bool) -> Self {
        let at = ring.lock().enter(next);
        Self {
            ring,
            next,
            at,
            stale: false,
            from_start: false,
            place: None,
            registered: None,
            done: false,
            behind: false,
            stalled,
            counted: false,
        }
    }

    /// Makes it one of a feed that is only in this ring. `place` is where the ring has it.
    pub(super) fn of_live(mut self, stale: bool, from_start: bool, place: Option<u64>) -> Self {
        (self.stale, self.from_start, self.place, self.counted) = (stale, from_start, place, true);
        self
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    pub(crate) fn encoded(&self, chunk: &Arc<Chunk>, cost: usize) {
        self.ring.encoded(chunk, cost as u64);
    }

    pub(crate) fn next_seq(&self) -> Option<u64> {
        (!self.stale && !self.from_start).then_some(self.next)
    }

    /// The gap that `poll_next` would report.
    pub(crate) fn gap(&self) -> Option<Gap> {
        let first = self.ring.lock().floor;
        if self.stale {
            return Some(Gap { from: 0, missing: first, restarted: true });
        }
        (self.next < first && !self.from_start).then(|| Gap {
            from: self.next,
            missing: first - self.next,
            restarted: false,
        })
    }

    #[inline]
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut contents = self.ring.lock();
        let first = contents.floor;
        if self.stale {
            self.stale = false;
            self.next = first;
            contents.advance(self.at, first);
            // It has started over, and everything of it may still be there.
            contents.gaps += u64::from(first > 0);
            return Poll::Ready(Some(Event::Gap(Gap { from: 0, missing: first, restarted: true })));
        }
        if self.next < first {
            let gap = Gap { from: self.next, missing: first - self.next, restarted: false };
            self.next = first;
            contents.advance(self.at, first);
            if !std::mem::take(&mut self.from_start) {
                if self.counted {
                    contents.skipped = contents.skipped.saturating_add(gap.missing);
                    contents.gaps += 1;
                }
                self.done = self.ring.lag == Lag::Disconnect;
                return Poll::Ready(Some(Event::Gap(gap)));
            }
        }
        self.from_start = false;
        if let Some(chunk) = contents.at(self.next).map(|kept| kept.chunk.clone()) {
            self.next = chunk.seq + 1;
            contents.advance(self.at, self.next);
            self.behind = self.next < contents.next || contents.end.is_some();
            if let Some(place) = &mut self.place {
                *contents.places.entry(self.next).or_default() += 1;
                let moved = contents.leave(std::mem::replace(place, self.next));
                drop(contents);
                if moved {
                    self.ring.room.notify_waiters();
                }
            }
            return Poll::Ready(Some(Event::Chunk(chunk)));
        }
        if let Some(end) = contents.end.clone() {
            self.done = true;
            return Poll::Ready(Some(Event::End(end)));
        }
        if self.stalled != contents.stalled {
            self.stalled = contents.stalled;
            return Poll::Ready(Some(Event::Stalled(self.stalled)));
        }
        // The last viewer to be sent an encoding may have held it until now.
        contents.trim(self.ring.history as u64);
        // Polled again without having been woken, a viewer must not be in the list twice.
        let at = match self.registered {
            Some((woken, at)) if woken == contents.woken => at,
            _ => contents.free.pop().unwrap_or_else(|| {
                contents.waiting.push(None);
                contents.waiting.len() - 1
            }),
        };
        self.registered = Some((contents.woken, at));
        let before = match &mut contents.waiting[at] {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            place => place.replace(cx.waker().clone()),
        };
        drop(contents);
        // Dropping a waker may run anything: not under the lock.
        drop(before);
        Poll::Pending
    }
}

impl Drop for RingViewer {
    fn drop(&mut self) {
        let mut contents = self.ring.lock();
        contents.exit(self.at);
        // A waker that stays keeps the memory of its whole task.
        let waker = self.registered.filter(|(woken, _)| *woken == contents.woken).and_then(|(_, at)| {
            contents.free.push(at);
            contents.waiting[at].take()
        });
        let moved = self.place.is_some_and(|place| contents.leave(place));
        drop(contents);
        drop(waker);
        if moved {
            self.ring.room.notify_waiters();
        }
    }
}
