//! A live feed: one producer, any number of viewers, and a bounded memory of what has been.
//!
//! Chunks are held once, in a ring. A viewer is a sequence number, not a queue: what it costs does
//! not grow with how far it is behind, and what is behind the ring it is told about (a gap).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::{Chunk, Cursor, End, EndCursor, Epoch, Event, From, Gap, Lag};

/// A live feed's memory.
#[derive(Debug)]
pub(crate) struct Ring {
    epoch: Epoch,
    lag: Lag,
    /// How many bytes of chunks are kept, with what they cost beside.
    history: usize,
    /// What comes before this number was there before the ring.
    now: u64,
    state: Mutex<State>,
    /// Who publishes next, so that one with large chunks is not always overtaken by others. For
    /// [`Lag::Block`] only: nobody else waits.
    turn: tokio::sync::Mutex<()>,
    /// Tells a producer that waits that a viewer has moved on.
    room: Notify,
    /// Tells that the feed has ended.
    over: Notify,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Kept>,
    /// From this number on, all that there is before `next` is in `chunks`.
    floor: u64,
    /// The sequence number of the chunk that is published next, or the least that it may have.
    next: u64,
    /// How many chunks there were so far.
    count: u64,
    /// What all chunks so far have cost, in bytes.
    total: u64,
    end: Option<End>,
    /// Nothing comes from where the feed is kept, until that is there again.
    stalled: bool,
    /// Viewers that wait for what is published next.
    waiting: Vec<Option<Waker>>,
    /// Those places in it whose viewer has gone.
    free: Vec<usize>,
    /// Grows each time that `waiting` is emptied.
    woken: u64,
    /// How many viewers are at each place, for [`Lag::Block`] only.
    places: BTreeMap<u64, usize>,
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
    /// The first chunk that is not before `seq`, if there is one.
    fn at(&self, seq: u64) -> Option<&Kept> {
        let at = usize::try_from(seq.saturating_sub(self.floor)).unwrap_or(usize::MAX);
        match self.chunks.get(at) {
            Some(kept) if kept.chunk.seq == seq => Some(kept),
            _ if seq >= self.next => None,
            _ => self.search(seq),
        }
    }

    /// The same where numbers are left out: the feed is a part of what is kept elsewhere.
    #[cold]
    fn search(&self, seq: u64) -> Option<&Kept> {
        self.chunks.get(self.chunks.partition_point(|kept| kept.chunk.seq < seq))
    }

    /// What the chunks from `seq` on have cost, as far as they are kept.
    fn since(&self, seq: u64) -> u64 {
        self.at(seq).map_or(0, |kept| self.total - kept.before)
    }

    fn kept_bytes(&self) -> u64 {
        self.chunks.front().map_or(0, |first| self.total - first.before)
    }

    /// Adds a chunk, whose number is not before `next`, and drops what is too much then.
    fn push(&mut self, chunk: Arc<Chunk>, history: u64) {
        let before = self.total;
        self.next = chunk.seq + 1;
        self.count += 1;
        self.total += cost(&chunk.bytes);
        self.chunks.push_back(Kept { before, chunk });
        // A chunk larger than the whole ring still stands in it alone.
        while self.kept_bytes() > history && self.chunks.len() > 1 {
            if let Some(dropped) = self.chunks.pop_front() {
                self.floor = dropped.chunk.seq + 1;
            }
        }
    }

    /// The number of the first of the last `many` chunks that are kept; `None` when they are all of them.
    fn last(&self, many: u64) -> Option<u64> {
        let before = self.chunks.len().checked_sub(usize::try_from(many).unwrap_or(usize::MAX))?;
        (before > 0).then(|| self.chunks.get(before).map_or(self.next, |kept| kept.chunk.seq))
    }

    fn slowest(&self) -> Option<u64> {
        self.places.keys().next().copied()
    }

    /// Takes one viewer away from a place; whether the slowest is another one by that.
    fn leave(&mut self, place: u64) -> bool {
        let slowest = self.slowest() == Some(place);
        match self.places.get_mut(&place) {
            Some(count) if *count > 1 => {
                *count -= 1;
                return false;
            }
            _ => self.places.remove(&place),
        };
        slowest
    }

    fn wake(&mut self) -> Vec<Option<Waker>> {
        self.woken += 1;
        self.free.clear();
        std::mem::take(&mut self.waiting)
    }
}

fn cost(bytes: &Bytes) -> u64 {
    (bytes.len() + OVERHEAD) as u64
}

impl Ring {
    pub(crate) fn new(epoch: Epoch, history: usize, lag: Lag) -> Self {
        Self::starting_at(epoch, history, lag, 0, 0)
    }

    /// One that begins at the number `next`, of which what comes before `now` is nothing new.
    pub(crate) fn starting_at(epoch: Epoch, history: usize, lag: Lag, next: u64, now: u64) -> Self {
        Self {
            epoch,
            lag,
            history,
            now,
            state: Mutex::new(State { floor: next, next, ..State::default() }),
            turn: Default::default(),
            room: Notify::new(),
            over: Notify::new(),
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a chunk, unless that has to wait: see [`publish`](Self::publish).
    pub(crate) fn publish_now(&self, bytes: &Bytes) -> Result<Cursor, Full> {
        let _turn = match self.lag {
            Lag::Block => Some(self.turn.try_lock().map_err(|_| Full::Wait)?),
            Lag::Skip | Lag::Disconnect => None,
        };
        self.try_publish(bytes)
    }

    /// Publishes a chunk. With [`Lag::Block`], waits until no viewer would lose one by it.
    ///
    /// Cancel-safe: when dropped, nothing is published. `None` when the feed has ended.
    pub(crate) async fn publish(&self, bytes: &Bytes) -> Option<Cursor> {
        let _turn = match self.lag {
            Lag::Block => Some(self.turn.lock().await),
            Lag::Skip | Lag::Disconnect => None,
        };
        loop {
            let room = self.room.notified();
            match self.try_publish(bytes) {
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
        let seq = state.next;
        state.push(Arc::new(Chunk::new(seq, bytes.clone())), history);
        let waiting = state.wake();
        drop(state);
        waiting.into_iter().flatten().for_each(Waker::wake);
        Ok(Cursor { epoch: self.epoch, seq })
    }

    /// Adds a chunk of a feed that is kept elsewhere, and has its number there. One that the ring has
    /// had is left out. Whether it was new.
    pub(crate) fn add(&self, chunk: Chunk) -> bool {
        let mut state = self.lock();
        if chunk.seq < state.next {
            return false;
        }
        state.push(Arc::new(chunk), self.history as u64);
        let waiting = state.wake();
        drop(state);
        waiting.into_iter().flatten().for_each(Waker::wake);
        true
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Whether a viewer that has had this much has had the end.
    pub(crate) fn is_over(&self, had: EndCursor) -> bool {
        let state = self.lock();
        let ended = matches!(state.end, Some(End::Clean | End::Failed(_)));
        ended && had.epoch == self.epoch && had.last.is_none_or(|last| last.saturating_add(1) >= state.next)
    }

    /// The number from which on the ring has not seen what there is.
    pub(crate) fn next(&self) -> u64 {
        self.lock().next
    }

    /// From which number on there is nothing yet.
    pub(crate) fn now(&self) -> u64 {
        self.next().max(self.now)
    }

    /// From which number on it has the last `many` chunks, if it has so many.
    pub(crate) fn last(&self, many: u64) -> Option<u64> {
        self.lock().last(many)
    }

    /// From which number on the ring has all that it has seen.
    pub(crate) fn floor(&self) -> u64 {
        self.lock().floor
    }

    /// Goes on at `next`, what is between being lost for the ring.
    pub(crate) fn skip_to(&self, next: u64) {
        let mut state = self.lock();
        if next > state.next {
            state.chunks.clear();
            (state.floor, state.next) = (next, next);
        }
    }

    /// Says whether chunks can come at all.
    pub(crate) fn stall(&self, stalled: bool) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.stalled, stalled) == stalled {
            return;
        }
        let waiting = state.wake();
        drop(state);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// Ends the feed, unless it has ended: whether this is its end. Viewers still read what is there.
    pub(crate) fn end(&self, end: End) -> bool {
        let mut state = self.lock();
        let first = state.end.is_none();
        state.end.get_or_insert(end);
        let waiting = state.wake();
        drop(state);
        waiting.into_iter().flatten().for_each(Waker::wake);
        self.room.notify_waiters();
        self.over.notify_waiters();
        first
    }

    pub(crate) async fn ended(&self) {
        loop {
            let over = self.over.notified();
            if self.lock().end.is_some() {
                return;
            }
            over.await;
        }
    }

    pub(crate) fn status(&self) -> Status {
        let state = self.lock();
        Status {
            chunks: state.count,
            kept_bytes: usize::try_from(state.kept_bytes()).unwrap_or(usize::MAX),
            oldest: state.chunks.front().map(|first| Cursor { epoch: self.epoch, seq: first.chunk.seq }),
            skipped: state.skipped,
            stalled: state.stalled,
            end: state.end.clone(),
        }
    }

    pub(crate) fn view(self: &Arc<Self>, from: From) -> RingViewer {
        let mut state = self.lock();
        // All that there is.
        let last = |many| state.last(many).map_or(From::Start, |_| from);
        let from = if let From::Last(many) = from { last(many) } else { from };
        let (next, stale) = match from {
            From::Start => (0, false),
            From::Now => (state.next, false),
            From::Last(many) => (state.last(many).unwrap_or_default(), false),
            From::After(cursor) if cursor.epoch == self.epoch => (cursor.seq.saturating_add(1).min(state.next), false),
            From::End(epoch) if epoch == self.epoch => (state.next, false),
            // Of another run: nothing of what there is now has been seen.
            From::After(_) | From::End(_) => (0, true),
        };
        let place = (self.lag == Lag::Block).then(|| {
            // Late joiners cannot hold what is gone already.
            let at = next.max(state.floor);
            *state.places.entry(at).or_default() += 1;
            at
        });
        drop(state);
        // Who asks for the start wants what there is, and is not told of what was before.
        let mut viewer = self.view_at(next, false);
        (viewer.stale, viewer.from_start, viewer.place) = (stale, from == From::Start, place);
        viewer.counted = true;
        viewer
    }

    /// Counts what viewers of a feed that is kept elsewhere have missed there.
    pub(crate) fn skipped(&self, missing: u64) {
        self.lock().skipped += missing;
    }

    /// Views from that number on, also when the ring has not come to it. `stalled` is what the viewer has
    /// been told of that.
    pub(crate) fn view_at(self: &Arc<Self>, next: u64, stalled: bool) -> RingViewer {
        RingViewer {
            ring: self.clone(),
            next,
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
}

/// Why a chunk is not published.
pub(crate) enum Full {
    /// It has to wait for a viewer, or behind another one.
    Wait,
    Ended,
}

/// What a ring says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) chunks: u64,
    pub(crate) kept_bytes: usize,
    pub(crate) oldest: Option<Cursor>,
    pub(crate) skipped: u64,
    pub(crate) stalled: bool,
    pub(crate) end: Option<End>,
}

/// One viewer of a ring.
#[derive(Debug)]
pub(crate) struct RingViewer {
    ring: Arc<Ring>,
    next: u64,
    /// Its cursor was of another epoch, and that has not been told yet.
    stale: bool,
    from_start: bool,
    /// Where the ring has it, for [`Lag::Block`] only.
    place: Option<u64>,
    /// Since which wake-up our waker stands in the ring's list, and which it is.
    registered: Option<(u64, usize)>,
    done: bool,
    /// There was more when it got its last chunk.
    behind: bool,
    /// It has been told that nothing can come.
    stalled: bool,
    /// What it misses is lost, and not only behind the ring.
    counted: bool,
}

impl RingViewer {
    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    pub(crate) fn next_seq(&self) -> Option<u64> {
        (!self.stale && !self.from_start).then_some(self.next)
    }

    /// What `poll_next` would tell to be missing.
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

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut state = self.ring.lock();
        let first = state.floor;
        if self.stale {
            self.stale = false;
            self.next = first;
            return Poll::Ready(Some(Event::Gap(Gap { from: 0, missing: first, restarted: true })));
        }
        if self.next < first {
            let gap = Gap { from: self.next, missing: first - self.next, restarted: false };
            self.next = first;
            if !std::mem::take(&mut self.from_start) {
                if self.counted {
                    state.skipped += gap.missing;
                }
                self.done = self.ring.lag == Lag::Disconnect;
                return Poll::Ready(Some(Event::Gap(gap)));
            }
        }
        self.from_start = false;
        if let Some(chunk) = state.at(self.next).map(|kept| kept.chunk.clone()) {
            self.next = chunk.seq + 1;
            self.behind = self.next < state.next || state.end.is_some();
            if let Some(place) = &mut self.place {
                *state.places.entry(self.next).or_default() += 1;
                let moved = state.leave(std::mem::replace(place, self.next));
                drop(state);
                if moved {
                    self.ring.room.notify_waiters();
                }
            }
            return Poll::Ready(Some(Event::Chunk(chunk)));
        }
        if let Some(end) = state.end.clone() {
            self.done = true;
            return Poll::Ready(Some(Event::End(end)));
        }
        if self.stalled != state.stalled {
            self.stalled = state.stalled;
            return Poll::Ready(Some(Event::Stalled(self.stalled)));
        }
        // Polled again without having been woken, a viewer must not stand in the list twice.
        let at = match self.registered {
            Some((woken, at)) if woken == state.woken => at,
            _ => state.free.pop().unwrap_or_else(|| {
                state.waiting.push(None);
                state.waiting.len() - 1
            }),
        };
        self.registered = Some((state.woken, at));
        let before = match &mut state.waiting[at] {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            place => place.replace(cx.waker().clone()),
        };
        drop(state);
        // Whatever goes with a waker goes without the lock.
        drop(before);
        Poll::Pending
    }
}

impl Drop for RingViewer {
    fn drop(&mut self) {
        let mut state = self.ring.lock();
        // A waker holds the memory of its whole task.
        let waker = self.registered.filter(|(woken, _)| *woken == state.woken).and_then(|(_, at)| {
            state.free.push(at);
            state.waiting[at].take()
        });
        let moved = self.place.is_some_and(|place| state.leave(place));
        drop(state);
        drop(waker);
        if moved {
            self.ring.room.notify_waiters();
        }
    }
}
