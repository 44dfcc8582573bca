//! What a feed counts, and what it reports.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{Budget, Cursor, End, Epoch, Rate, log, rate::Meter};

/// The state of a feed at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// How many view it.
    pub viewers: u64,
    /// Chunks published (live), or given to viewers (on demand).
    pub chunks: u64,
    /// The bytes of those chunks.
    pub bytes: u64,
    /// The recent rate.
    pub rate: Rate,
    /// For how long publishers have been held up by viewers ([`Lag::Block`](crate::Lag::Block)).
    pub blocked: Duration,
    /// The epoch of a live feed.
    pub epoch: Option<Epoch>,
    /// What a live feed's history costs in memory, in bytes: its chunks, their overhead, and their encodings.
    pub kept_bytes: usize,
    /// The oldest chunk in the history of a live feed.
    pub oldest: Option<Cursor>,
    /// Chunks that viewers missed because they were too far behind.
    pub skipped: u64,
    /// What stores the feed cannot be reached.
    pub stalled: bool,
    /// How a live feed ended, if it has.
    pub end: Option<End>,
}

/// What the parts of a feed count.
#[derive(Debug, Default)]
pub(crate) struct FeedCounters {
    viewers: AtomicU64,
    /// For how long publishers were held up, in milliseconds.
    blocked: AtomicU64,
    meter: Mutex<Meter>,
    pub(crate) failures: log::Failures,
    pub(crate) budget: OnceLock<Budget>,
}

impl FeedCounters {
    pub(crate) fn joined(&self) {
        self.viewers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn left(&self) {
        self.viewers.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn blocked(&self, time: Duration) {
        self.blocked.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts a chunk of that many bytes.
    pub(crate) fn count(&self, bytes: usize) {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).count(bytes);
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
            chunks: meter.chunks,
            bytes: meter.bytes,
            rate: meter.rate(),
            blocked: Duration::from_millis(self.blocked.load(Ordering::Relaxed)),
            epoch: None,
            kept_bytes: 0,
            oldest: None,
            skipped: 0,
            stalled: false,
            end: None,
        }
    }
}

/// Counts as a viewer of a feed until it is dropped: something that reads the feed's bytes from its file.
#[derive(Debug)]
pub struct Counted(Arc<FeedCounters>);

impl Counted {
    pub(crate) fn new(counters: Arc<FeedCounters>) -> Self {
        counters.joined();
        Self(counters)
    }

    /// Counts a piece of that many bytes, which it has read.
    pub fn count(&self, bytes: usize) {
        self.0.count(bytes);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.left();
    }
}
