//! One viewer of a ring.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::{Ring, contents::Contents};
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
    /// It has been told that new chunks cannot be received or stored.
    stalled: bool,
    /// What it misses is lost: nothing stores the feed.
    counted: bool,
}

/// What comes next for a viewer.
enum Ahead {
    Gap(Gap),
    Chunk(Arc<Chunk>),
    Nothing,
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
        match self.ahead(&self.ring.lock()) {
            Ahead::Gap(gap) => Some(gap),
            Ahead::Chunk(_) | Ahead::Nothing => None,
        }
    }

    /// What comes next for it.
    #[inline]
    fn ahead(&self, contents: &Contents) -> Ahead {
        let first = contents.floor;
        if self.stale {
            return Ahead::Gap(Gap { from: 0, missing: first, restarted: true });
        }
        let missed = |from, to| Ahead::Gap(Gap { from, missing: to - from, restarted: false });
        if self.next < first && !self.from_start {
            return missed(self.next, first);
        }
        let next = self.next.max(first);
        let found = contents.at(next).map(|kept| &kept.chunk);
        let at = found.map_or(contents.next, |chunk| chunk.seq);
        // In a feed that is only here, nobody else has the numbers that are left out.
        if at != next && self.counted {
            return missed(next, at);
        }
        found.map_or(Ahead::Nothing, |chunk| Ahead::Chunk(chunk.clone()))
    }

    #[inline]
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut contents = self.ring.lock();
        let ahead = self.ahead(&contents);
        if let Ahead::Gap(gap) = ahead {
            // The source has lost these: the viewer was not too slow.
            let dropped = !gap.restarted && gap.from < contents.floor;
            self.done = dropped && self.ring.lag == Lag::Disconnect;
            self.next = gap.from + gap.missing;
            contents.miss(self.at, gap, self.counted);
            (self.stale, self.from_start) = (false, false);
            return Poll::Ready(Some(Event::Gap(gap)));
        }
        self.next = self.next.max(contents.floor);
        self.from_start = false;
        if let Ahead::Chunk(chunk) = ahead {
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
