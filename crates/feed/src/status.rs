//! What a feed counts, and what it reports.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    Budget, Cursor, Deliveries, Delivery, Elsewhere, End, Epoch, Rate, Trouble, budget::Seat, log, rate::Meter,
};

/// The state of a feed at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// How many view it.
    pub viewers: u64,
    /// How many publications to it are in progress: see [`Feed::publishing`](crate::Feed::publishing).
    pub publishers: u64,
    /// How many view and write it at other servers, if what stores it knows: see
    /// [`Keeper::elsewhere`](crate::Keeper::elsewhere).
    pub elsewhere: Option<Elsewhere>,
    /// Chunks published (live), or given to viewers (on demand).
    pub chunks: u64,
    /// The bytes of those chunks.
    pub bytes: u64,
    /// The recent rate.
    pub rate: Rate,
    /// For how long publishers have been held up by viewers ([`Lag::Block`](crate::Lag::Block)).
    pub blocked: Duration,
    /// The epoch of a live feed, unless what stores it has not said it yet.
    pub epoch: Option<Epoch>,
    /// What a live feed's history costs in memory, in bytes: its chunks, their overhead, and their encodings.
    pub kept_bytes: usize,
    /// The bytes that a live feed takes where it is stored, if that is known: see [`Keeper::stored`](crate::Keeper::stored).
    pub stored: Option<u64>,
    /// The oldest chunk in the history of a live feed, or in what is stored of it, if that is known.
    pub oldest: Option<Cursor>,
    /// Chunks that viewers missed because they were too far behind, the chunks are no longer stored, or the
    /// source has lost them.
    pub skipped: u64,
    /// How often viewers were told that they miss chunks.
    pub gaps: u64,
    /// How many viewers came with a cursor, to continue where they were.
    pub resumed: u64,
    /// How far viewers of a live feed are behind its latest chunk.
    pub lag: Behind,
    /// New chunks cannot be received or stored.
    pub stalled: bool,
    /// How a live feed ended, if it has.
    pub end: Option<End>,
    /// How long ago the newest chunk was published (live), or given to a viewer (on demand).
    pub newest: Option<Duration>,
}

/// How far the viewers of a live feed are behind. Those of a feed that is stored count once they have reached the
/// [history](crate::Feed::kept) that is kept here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Behind {
    /// How many chunks there are for the viewer that is furthest behind.
    pub chunks: u64,
    /// For how long the first of these has been there.
    pub time: Duration,
    /// How many viewers have had a chunk waiting for over a second.
    pub viewers: u64,
}

/// What the parts of a feed count.
#[derive(Debug, Default)]
pub(crate) struct FeedCounters {
    viewers: AtomicU64,
    publishers: AtomicU64,
    /// For how long publishers were held up, in milliseconds.
    blocked: AtomicU64,
    resumed: AtomicU64,
    meter: Mutex<Meter>,
    pub(crate) failures: log::Failures,
    pub(crate) budget: OnceLock<Budget>,
    /// Why the feed cannot be served as it should be.
    trouble: Mutex<Option<Trouble>>,
}

impl FeedCounters {
    pub(crate) fn joined(&self) {
        self.viewers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_trouble(&self, why: Option<Trouble>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(crate) fn publishes(&self) {
        self.publishers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn published(&self) {
        self.publishers.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many viewers and publications there are.
    pub(crate) fn attendance(&self) -> (u64, u64) {
        (self.viewers.load(Ordering::Relaxed), self.publishers.load(Ordering::Relaxed))
    }

    /// Counts a viewer that continues where it was.
    pub(crate) fn resumed(&self) {
        self.resumed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn left(&self) {
        self.viewers.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn blocked(&self, time: Duration) {
        self.blocked.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts a chunk of that many bytes.
    #[inline]
    pub(crate) fn count(&self, bytes: usize) {
        self.count_all(1, bytes);
    }

    /// Counts so many chunks, of that many bytes together.
    #[inline]
    pub(crate) fn count_all(&self, chunks: u64, bytes: usize) {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).count(chunks, bytes);
    }

    /// The bytes of all chunks.
    pub(crate) fn bytes(&self) -> u64 {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Continues at what was counted elsewhere: that many bytes, the last of them that long ago.
    pub(crate) fn restore(&self, bytes: u64, ago: Duration) {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        meter.bytes = bytes;
        meter.last = Some(now.checked_sub(ago).unwrap_or(now));
    }

    /// When the last chunk was counted.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    /// The status of a feed without a ring.
    pub(crate) fn status(&self) -> Status {
        let meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        Status {
            viewers: self.viewers.load(Ordering::Relaxed),
            publishers: self.publishers.load(Ordering::Relaxed),
            elsewhere: None,
            chunks: meter.chunks,
            bytes: meter.bytes,
            rate: meter.rate(),
            blocked: Duration::from_millis(self.blocked.load(Ordering::Relaxed)),
            epoch: None,
            kept_bytes: 0,
            stored: None,
            oldest: None,
            skipped: 0,
            gaps: 0,
            resumed: self.resumed.load(Ordering::Relaxed),
            lag: Behind::default(),
            stalled: false,
            end: None,
            newest: meter.last.map(|at| at.elapsed()),
        }
    }
}

/// Counts as a viewer of a feed until it is dropped: something that reads the feed's bytes from its file. Or it reads
/// a file of no feed, and only a [`Budget`] counts it.
#[derive(Debug)]
pub struct Counted {
    counters: Option<Arc<FeedCounters>>,
    /// If there is a budget.
    seat: Option<Arc<Seat>>,
    delivery: Option<Delivery>,
}

impl Counted {
    pub(crate) fn new(counters: Arc<FeedCounters>) -> Self {
        counters.joined();
        let seat = counters.budget.get().map(Budget::seat_of_one);
        Self { counters: Some(counters), seat, delivery: None }
    }

    pub(crate) fn of_budget(budget: &Budget) -> Self {
        Self { counters: None, seat: Some(budget.seat_of_one()), delivery: None }
    }

    pub(crate) fn of_answer(budget: &Budget, bytes: u64) -> Self {
        Self { counters: None, seat: Some(budget.seat_of_answer(bytes)), delivery: None }
    }

    /// Counts it there as well, and what it is given.
    #[must_use]
    pub fn count_in(mut self, deliveries: &Deliveries) -> Self {
        self.delivery = Some(deliveries.viewer());
        self
    }

    /// Counts a piece of that many bytes, which it has read.
    pub fn count(&self, bytes: usize) {
        if let Some(delivery) = &self.delivery {
            delivery.count_shared(1, bytes as u64);
        }
        if let Some(counters) = &self.counters {
            counters.count(bytes);
        }
    }

    /// Counts a piece that it is given now, and which its feed's [`Budget`] takes to be on its way for as long as the
    /// buffer is kept or nothing more is given; the same bytes come back. See [`waits`](Self::waits).
    #[must_use]
    pub fn give(&self, bytes: Bytes) -> Bytes {
        self.count(bytes.len());
        let Some(seat) = &self.seat else { return bytes };
        let mut batch = [bytes];
        seat.give(&mut batch, true);
        let [bytes] = batch;
        bytes
    }

    /// Completes when it may be [given](Self::give) more: at once, unless its feed's [`Budget`] is nearly used up and it
    /// has taken too little of what it was given, or once it is cut.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.seat.as_ref().map_or(Poll::Ready(()), |seat| seat.poll_room(cx))
    }

    /// It is back for more, and there is nothing yet.
    pub fn waits(&self) {
        if let Some(seat) = &self.seat {
            seat.waits();
        }
    }

    /// Calls `cut` when its feed's [`Budget`] cuts it, since it has taken nothing for too long while memory was short;
    /// at once if that has happened. Only the last call counts; without a budget it does nothing.
    pub fn on_cut(&self, cut: impl FnOnce() + Send + 'static) {
        if let Some(seat) = &self.seat {
            seat.on_cut(Box::new(cut));
        }
    }

    /// Whether it was cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.seat.as_ref().is_some_and(|seat| seat.is_cut())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(counters) = &self.counters {
            counters.left();
        }
        if let Some(seat) = &self.seat {
            seat.leave();
        }
    }
}
