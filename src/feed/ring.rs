//! A live feed: one producer, any number of viewers, and a bounded memory of what has been.
//!
//! Chunks are held once, in a ring. A viewer is a sequence number, not a queue: what it costs does
//! not grow with how far it is behind, and what is behind the ring it is told about (a gap).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{End, Event, From, Gap, Lag};
use crate::chunk::{Chunk, Cursor, Epoch};

/// A live feed's memory.
#[derive(Debug)]
pub(super) struct Ring {
    epoch: Epoch,
    lag: Lag,
    /// How many bytes of chunks are kept, with what they cost beside.
    history: usize,
    state: Mutex<State>,
    /// Tells a producer that waits that a viewer has moved on.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Kept>,
    /// The sequence number of the chunk that is published next.
    next: u64,
    /// What all chunks so far have cost, in bytes.
    total: u64,
    end: Option<End>,
    /// Viewers that wait for what is published next.
    waiting: Vec<Waker>,
    /// Grows each time that `waiting` is emptied.
    woken: u64,
    /// Where each viewer is, for [`Lag::Block`] only.
    places: Vec<Option<u64>>,
    skipped: u64,
}

#[derive(Debug)]
struct Kept {
    /// What all chunks before it have cost, in bytes.
    before: u64,
    chunk: Arc<Chunk>,
}

/// What a chunk costs beside its bytes, so that a feed of empty lines is bounded too.
const OVERHEAD: usize = size_of::<Chunk>() + 2 * size_of::<usize>() + size_of::<Kept>();

impl State {
    fn first(&self) -> u64 {
        self.next - self.chunks.len() as u64
    }

    /// What the chunks from `seq` on have cost, as far as they are kept.
    fn since(&self, seq: u64) -> u64 {
        let at = usize::try_from(seq.saturating_sub(self.first())).unwrap_or(usize::MAX);
        self.chunks.get(at).map_or(0, |kept| self.total - kept.before)
    }

    fn kept_bytes(&self) -> u64 {
        self.since(self.first())
    }

    fn slowest(&self) -> Option<u64> {
        self.places.iter().flatten().min().copied()
    }

    fn wake(&mut self) -> Vec<Waker> {
        self.woken += 1;
        std::mem::take(&mut self.waiting)
    }
}

fn cost(bytes: &Bytes) -> u64 {
    (bytes.len() + OVERHEAD) as u64
}

impl Ring {
    pub(super) fn new(epoch: Epoch, history: usize, lag: Lag) -> Self {
        Self { epoch, lag, history, state: Mutex::default(), room: Notify::new() }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a chunk. With [`Lag::Block`], waits until no viewer would lose one by it.
    ///
    /// Cancel-safe: when dropped, nothing is published. `None` when the feed has ended.
    pub(super) async fn publish(&self, bytes: Bytes) -> Option<Cursor> {
        loop {
            let room = self.room.notified();
            match self.try_publish(&bytes) {
                Ok(cursor) => return Some(cursor),
                Err(Full::Ended) => return None,
                Err(Full::Wait) => room.await,
            }
        }
    }

    fn try_publish(&self, bytes: &Bytes) -> Result<Cursor, Full> {
        let mut state = self.lock();
        if state.end.is_some() {
            return Err(Full::Ended);
        }
        let history = self.history as u64;
        if self.lag == Lag::Block
            && let Some(slowest) = state.slowest()
        {
            // The other half stays behind the slowest viewer: one whose connection is lost has not
            // received all that it was given, and comes again for it.
            let behind = state.since(slowest);
            if behind > 0 && behind + cost(bytes) > history / 2 {
                return Err(Full::Wait);
            }
        }
        let (seq, before) = (state.next, state.total);
        state.next += 1;
        state.total += cost(bytes);
        state.chunks.push_back(Kept { before, chunk: Arc::new(Chunk::new(seq, bytes.clone())) });
        // A chunk larger than the whole ring still stands in it alone.
        while state.kept_bytes() > history && state.chunks.len() > 1 {
            state.chunks.pop_front();
        }
        let waiting = state.wake();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        Ok(Cursor { epoch: self.epoch, seq })
    }

    /// Ends the feed; the first end counts. Viewers still read what is there.
    pub(super) fn end(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        let waiting = state.wake();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        self.room.notify_waiters();
    }

    pub(super) async fn ended(&self) {
        loop {
            let changed = self.room.notified();
            if self.lock().end.is_some() {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn status(&self) -> Status {
        let state = self.lock();
        Status {
            chunks: state.next,
            kept_bytes: usize::try_from(state.kept_bytes()).unwrap_or(usize::MAX),
            oldest: (!state.chunks.is_empty()).then(|| Cursor { epoch: self.epoch, seq: state.first() }),
            skipped: state.skipped,
            end: state.end.clone(),
        }
    }

    pub(super) fn view(self: &Arc<Self>, from: From) -> RingViewer {
        let mut state = self.lock();
        let (next, stale) = match from {
            From::Start => (0, false),
            From::Now => (state.next, false),
            From::After(cursor) if cursor.epoch == self.epoch => (cursor.seq.saturating_add(1).min(state.next), false),
            // Of another run: nothing of what there is now has been seen.
            From::After(_) => (0, true),
        };
        let place = (self.lag == Lag::Block).then(|| {
            // Late joiners cannot hold what is gone already.
            let at = next.max(state.first());
            match state.places.iter().position(Option::is_none) {
                Some(free) => {
                    state.places[free] = Some(at);
                    free
                }
                None => {
                    state.places.push(Some(at));
                    state.places.len() - 1
                }
            }
        });
        drop(state);
        // Who asks for the start wants what there is, and is not told of what was before.
        let from_start = from == From::Start;
        RingViewer { ring: self.clone(), next, stale, from_start, place, registered: None, done: false }
    }
}

enum Full {
    Wait,
    Ended,
}

/// What a ring says of itself.
#[derive(Debug, Clone)]
pub(super) struct Status {
    pub(super) chunks: u64,
    pub(super) kept_bytes: usize,
    pub(super) oldest: Option<Cursor>,
    pub(super) skipped: u64,
    pub(super) end: Option<End>,
}

/// One viewer of a ring.
#[derive(Debug)]
pub(super) struct RingViewer {
    ring: Arc<Ring>,
    next: u64,
    /// Its cursor was of another epoch, and that has not been told yet.
    stale: bool,
    from_start: bool,
    place: Option<usize>,
    /// Since which wake-up our waker stands in the ring's list, and which it is.
    registered: Option<(u64, Waker)>,
    done: bool,
}

impl RingViewer {
    /// What `poll_next` would tell to be missing.
    pub(super) fn gap(&self) -> Option<Gap> {
        let first = self.ring.lock().first();
        if self.stale {
            return Some(Gap { from: 0, missing: first, restarted: true });
        }
        (self.next < first && !self.from_start).then(|| Gap {
            from: self.next,
            missing: first - self.next,
            restarted: false,
        })
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut state = self.ring.lock();
        let first = state.first();
        if self.stale {
            self.stale = false;
            self.next = first;
            return Poll::Ready(Some(Event::Gap(Gap { from: 0, missing: first, restarted: true })));
        }
        if self.next < first {
            let gap = Gap { from: self.next, missing: first - self.next, restarted: false };
            self.next = first;
            if !std::mem::take(&mut self.from_start) {
                state.skipped += gap.missing;
                self.done = self.ring.lag == Lag::Disconnect;
                return Poll::Ready(Some(Event::Gap(gap)));
            }
        }
        self.from_start = false;
        let at = usize::try_from(self.next - first).unwrap_or(usize::MAX);
        if let Some(chunk) = state.chunks.get(at).map(|kept| kept.chunk.clone()) {
            self.next += 1;
            if let Some(place) = self.place {
                state.places[place] = Some(self.next);
                drop(state);
                self.ring.room.notify_waiters();
            }
            return Poll::Ready(Some(Event::Chunk(chunk)));
        }
        if let Some(end) = state.end.clone() {
            self.done = true;
            return Poll::Ready(Some(Event::End(end)));
        }
        // Polled again without having been woken, a viewer must not stand in the list twice.
        let there = |(woken, waker): &(u64, Waker)| *woken == state.woken && waker.will_wake(cx.waker());
        if !self.registered.as_ref().is_some_and(there) {
            state.waiting.push(cx.waker().clone());
            self.registered = Some((state.woken, cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for RingViewer {
    fn drop(&mut self) {
        let mut state = self.ring.lock();
        if let Some(place) = self.place {
            state.places[place] = None;
        }
        drop(state);
        self.ring.room.notify_waiters();
    }
}
