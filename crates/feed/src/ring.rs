//! The history of a live feed, with a bounded size.
//!
//! Chunks are held once, in a ring. A viewer is a sequence number, not a queue: its cost does not grow with
//! how far it is behind, and chunks that have left the ring are reported to it as a gap.

mod contents;
mod viewer;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::{Chunk, Cursor, End, EndCursor, Epoch, History, RestoreError, Start, Status};
use contents::{Contents, cost};
pub(crate) use viewer::RingViewer;

/// So many chunks are added at once, while nobody else uses the ring.
const AT_ONCE: usize = 64;

/// What happens to a viewer of a live feed that falls behind its history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lag {
    /// It skips to the oldest chunk in the history, and the gap is reported.
    #[default]
    Skip,
    /// The gap is reported, and its view ends.
    Disconnect,
    /// It does not come to that: publishers wait while half of the history is ahead of the slowest viewer.
    /// The other half is for viewers that lost their connection and reconnect.
    Block,
}

/// The ring of a live feed.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Its number. It changes only before the ring is used.
    epoch: AtomicU64,
    lag: Lag,
    /// Its size in memory, in bytes: chunks, their encodings, and the overhead of both.
    history: usize,
    /// Chunks before this number are older than the ring.
    now: u64,
    contents: Mutex<Contents>,
    /// Held by the publisher that is next, so that one with large chunks is not always overtaken by others.
    /// For [`Lag::Block`] only: the others never wait.
    turn: tokio::sync::Mutex<()>,
    /// Notifies a waiting publisher that a viewer has advanced.
    room: Notify,
    /// Notifies of the end of the feed.
    over: Notify,
}

impl Ring {
    pub(crate) fn new(epoch: Epoch, history: usize, lag: Lag) -> Self {
        Self::starting_at(epoch, history, lag, 0, 0)
    }

    /// A ring that begins at the number `next`; chunks before `now` are not new.
    pub(crate) fn starting_at(epoch: Epoch, history: usize, lag: Lag, next: u64, now: u64) -> Self {
        Self {
            epoch: AtomicU64::new(epoch.0),
            lag,
            history,
            now,
            contents: Mutex::new(Contents { floor: next, next, ..Contents::default() }),
            turn: Default::default(),
            room: Notify::new(),
            over: Notify::new(),
        }
    }

    /// A ring that continues at the number `next`, after so many chunks of the feed.
    pub(crate) fn continuing_at(epoch: Epoch, history: usize, next: u64, count: u64) -> Self {
        let mut ring = Self::starting_at(epoch, history, Lag::Skip, next, next);
        ring.contents.get_mut().unwrap_or_else(PoisonError::into_inner).count = count;
        ring
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a chunk, unless that has to wait: see [`publish`](Self::publish).
    pub(crate) fn publish_now(&self, bytes: &Bytes, note: &mut Note<'_>) -> Result<Cursor, Full> {
        let _turn = match self.lag {
            Lag::Block => Some(self.turn.try_lock().map_err(|_| Full::Wait)?),
            Lag::Skip | Lag::Disconnect => None,
        };
        self.try_publish(bytes, note)
    }

    /// Publishes a chunk. With [`Lag::Block`], waits until no viewer loses one by that. `None` if the feed has
    /// ended.
    ///
    /// Cancel-safe: when dropped, nothing is published.
    pub(crate) async fn publish(&self, bytes: &Bytes, note: &mut Note<'_>) -> Option<Cursor> {
        let _turn = match self.lag {
            Lag::Block => Some(self.turn.lock().await),
            Lag::Skip | Lag::Disconnect => None,
        };
        loop {
            let room = self.room.notified();
            match self.try_publish(bytes, note) {
                Ok(cursor) => return Some(cursor),
                Err(Full::Ended) => return None,
                Err(Full::Wait) => room.await,
            }
        }
    }

    fn try_publish(&self, bytes: &Bytes, note: &mut Note<'_>) -> Result<Cursor, Full> {
        let mut contents = self.lock();
        if contents.end.is_some() {
            return Err(Full::Ended);
        }
        if contents.held {
            return Err(Full::Wait);
        }
        let history = self.history as u64;
        if self.lag == Lag::Block
            && let Some(slowest) = contents.slowest()
        {
            // The other half stays behind the slowest viewer: one that loses its connection has not received
            // everything it was given, and reconnects for it.
            let behind = contents.since(slowest);
            if behind > 0 && behind + cost(bytes) > history / 2 {
                return Err(Full::Wait);
            }
        }
        let seq = contents.next;
        contents.push(Arc::new(Chunk::new(seq, bytes.clone())), history);
        let cursor = Cursor { epoch: self.epoch(), seq };
        note(cursor);
        let waiting = contents.wake();
        drop(contents);
        waiting.into_iter().flatten().for_each(Waker::wake);
        Ok(cursor)
    }

    /// Adds a chunk of a feed that is stored, and numbered there. Whether it was new; one that was
    /// added before is ignored.
    pub(crate) fn add(&self, chunk: Chunk) -> bool {
        let mut contents = self.lock();
        if chunk.seq < contents.next {
            return false;
        }
        contents.push(Arc::new(chunk), self.history as u64);
        let waiting = contents.wake();
        drop(contents);
        waiting.into_iter().flatten().for_each(Waker::wake);
        true
    }

    /// Adds several, and gives how many of them were new, and their size.
    pub(crate) fn add_all(&self, chunks: impl IntoIterator<Item = Chunk>) -> (u64, usize) {
        let (mut many, mut bytes) = (0, 0);
        let mut chunks = chunks.into_iter().peekable();
        while chunks.peek().is_some() {
            let mut contents = self.lock();
            // Viewers do not wait for all of them.
            for chunk in chunks.by_ref().take(AT_ONCE) {
                if chunk.seq >= contents.next {
                    (many, bytes) = (many + 1, bytes + chunk.bytes.len());
                    contents.push(Arc::new(chunk), self.history as u64);
                }
            }
            let waiting = contents.wake();
            drop(contents);
            waiting.into_iter().flatten().for_each(Waker::wake);
        }
        (many, bytes)
    }

    /// Charges the history for an encoding that was made of one of its chunks.
    pub(crate) fn encoded(&self, chunk: &Arc<Chunk>, cost: u64) {
        self.lock().encode(chunk, cost, self.history as u64);
    }

    /// What it costs now, in bytes.
    pub(crate) fn charged(&self) -> u64 {
        let mut contents = self.lock();
        contents.trim(self.history as u64);
        contents.charged()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Whether it has ended with its server, or for another one.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.lock().end, Some(End::Stopped))
    }

    /// Whether a viewer that has received this much has received the end.
    pub(crate) fn is_over(&self, had: EndCursor) -> bool {
        let contents = self.lock();
        let ended = matches!(contents.end, Some(End::Clean | End::Failed(_)));
        ended && had.epoch == self.epoch() && had.last.is_none_or(|last| last.saturating_add(1) >= contents.next)
    }

    /// The number of the next chunk, or the least that it may have.
    pub(crate) fn next(&self) -> u64 {
        self.lock().next
    }

    /// The number from which on chunks are new.
    pub(crate) fn now(&self) -> u64 {
        self.next().max(self.now)
    }

    /// The number of the first of the last `many` chunks, if it has more than that.
    pub(crate) fn last(&self, many: u64) -> Option<u64> {
        self.lock().last(many)
    }

    /// The number from which on it has all chunks up to [`next`](Self::next).
    pub(crate) fn floor(&self) -> u64 {
        self.lock().floor
    }

    /// Continues at `next`. The ring no longer has what is before.
    pub(crate) fn skip_to(&self, next: u64) {
        let mut contents = self.lock();
        if next > contents.next {
            contents.clear();
            (contents.floor, contents.next) = (next, next);
        }
    }

    /// Drops the chunks before that number, which are not stored any more. Whether it has come that far.
    pub(crate) fn forget_before(&self, first: u64) -> bool {
        let mut contents = self.lock();
        contents.clear_before(first);
        contents.next >= first
    }

    /// Leaves out that many numbers, of chunks that its source has lost.
    pub(crate) fn leave_out(&self, missing: u64) {
        let mut contents = self.lock();
        if missing == 0 || contents.end.is_some() {
            return;
        }
        contents.next = contents.next.saturating_add(missing);
        let waiting = contents.wake();
        drop(contents);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// Sets whether new chunks cannot be received or stored.
    pub(crate) fn stall(&self, stalled: bool) {
        let mut contents = self.lock();
        if std::mem::replace(&mut contents.stalled, stalled) == stalled {
            return;
        }
        let waiting = contents.wake();
        drop(contents);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// Ends the feed, unless it has ended. Whether this is its end. Viewers still read what is there.
    pub(crate) fn end(&self, end: End) -> bool {
        let mut contents = self.lock();
        let first = contents.end.is_none();
        contents.end.get_or_insert(end);
        let waiting = contents.wake();
        drop(contents);
        waiting.into_iter().flatten().for_each(Waker::wake);
        self.room.notify_waiters();
        self.over.notify_waiters();
        first
    }

    /// Drops the chunks that it has, which are stored.
    pub(crate) fn forget(&self) {
        let mut contents = self.lock();
        contents.clear();
        contents.floor = contents.next;
    }

    /// Waits while publishers are to wait; then, whether they may publish: the feed has not ended.
    pub(crate) async fn is_open(&self) -> bool {
        loop {
            let room = self.room.notified();
            {
                let contents = self.lock();
                if contents.end.is_some() || !contents.held {
                    return contents.end.is_none();
                }
            }
            room.await;
        }
    }

    /// Has publishers wait, or not any more.
    pub(crate) fn hold(&self, held: bool) {
        self.lock().held = held;
        self.room.notify_waiters();
    }

    /// Whether publishers wait for what has taken hold of it, and not for a viewer.
    pub(crate) fn is_held(&self) -> bool {
        self.lock().held
    }

    /// What it is now, unless it has ended.
    pub(crate) fn history(&self) -> Option<History> {
        let contents = self.lock();
        // What is before a number that was left out is given up: a history has all chunks from its first one on.
        let mut first = contents.next;
        let mut chunks: Vec<_> = contents.chunks.iter().rev().map(|slot| slot.chunk.clone()).collect();
        let whole = chunks.iter().take_while(|chunk| std::mem::replace(&mut first, chunk.seq) == chunk.seq + 1).count();
        chunks.truncate(whole);
        chunks.reverse();
        contents.end.is_none().then(|| History::new(self.epoch(), contents.next, chunks))
    }

    /// Continues another one.
    pub(crate) fn restore(&self, history: History) -> Result<(), RestoreError> {
        let History { epoch, next, chunks, .. } = history;
        let first = next.checked_sub(chunks.len() as u64).ok_or(RestoreError::Gap)?;
        if !chunks.iter().map(|chunk| chunk.seq).eq(first..next) {
            return Err(RestoreError::Gap);
        }
        let mut contents = self.lock();
        if contents.end.is_some() || contents.next > 0 {
            return Err(RestoreError::NotNew);
        }
        self.epoch.store(epoch.0, Ordering::Relaxed);
        (contents.floor, contents.next, contents.count) = (first, first, first);
        for chunk in chunks {
            contents.push(chunk, self.history as u64);
        }
        Ok(())
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

    /// Adds what it knows of a feed's status.
    pub(crate) fn report(&self, status: &mut Status) {
        let mut contents = self.lock();
        contents.trim(self.history as u64);
        // That of a feed that is not there yet is not known.
        status.epoch = Some(self.epoch()).filter(|epoch| epoch.0 > 0);
        status.chunks = contents.count;
        status.kept_bytes = usize::try_from(contents.charged()).unwrap_or(usize::MAX);
        status.oldest = contents.chunks.front().map(|first| Cursor { epoch: self.epoch(), seq: first.chunk.seq });
        status.skipped = contents.skipped;
        status.gaps = contents.gaps;
        status.lag = contents.behind();
        status.stalled = contents.stalled;
        status.end.clone_from(&contents.end);
    }

    pub(crate) fn view(self: &Arc<Self>, start: Start) -> RingViewer {
        let mut contents = self.lock();
        let start = match start {
            // All chunks.
            Start::Last(many) if contents.last(many).is_none() => Start::Start,
            start => start,
        };
        let (next, stale) = match start {
            Start::Start => (0, false),
            Start::Now => (contents.next, false),
            Start::Last(many) => (contents.last(many).unwrap_or_default(), false),
            Start::After(cursor) if cursor.epoch == self.epoch() => {
                (cursor.seq.saturating_add(1).min(contents.next), false)
            }
            Start::End(epoch) if epoch == self.epoch() => (contents.next, false),
            // Of another run: all of this one is new.
            Start::After(_) | Start::End(_) => (0, true),
        };
        let place = (self.lag == Lag::Block).then(|| {
            // A viewer that joins late cannot hold chunks that are gone.
            let at = next.max(contents.floor);
            *contents.places.entry(at).or_default() += 1;
            at
        });
        drop(contents);
        // A viewer from the start wants what there is: what was before is not a gap.
        self.view_at(next, false).of_live(stale, start == Start::Start, place)
    }

    /// Counts chunks that viewers missed because what stores the feed does not have them any more either.
    pub(crate) fn skipped(&self, missing: u64) {
        let mut contents = self.lock();
        contents.skipped = contents.skipped.saturating_add(missing);
        contents.gaps += 1;
    }

    /// A viewer from that number on, even if the ring has not reached it. `stalled` is what the viewer has
    /// been told of that.
    pub(crate) fn view_at(self: &Arc<Self>, next: u64, stalled: bool) -> RingViewer {
        RingViewer::new(self.clone(), next, stalled)
    }
}

/// Notes a chunk as it is published, while nothing else can happen to its feed. It must not block.
pub(crate) type Note<'a> = dyn FnMut(Cursor) + Send + 'a;

/// Why a chunk is not published.
pub(crate) enum Full {
    /// It has to wait for a viewer, or for another publisher's turn.
    Wait,
    Ended,
}
