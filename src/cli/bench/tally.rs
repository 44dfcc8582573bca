//! What all viewers together have received.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hdrhistogram::Histogram;

use crate::{format::frames::Frame, shown::Shown};

/// Counts while it is told to. Viewers share a few shards, so that they seldom wait for each other.
#[derive(Debug)]
pub(super) struct Tally {
    shards: Vec<Mutex<Counts>>,
    measuring: AtomicBool,
    since: Instant,
}

/// What was received.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) chunks: u64,
    pub(super) bytes: u64,
    /// Times at which chunks were missing, and how many they were.
    pub(super) gaps: u64,
    pub(super) missing: u64,
    /// Viewers whose connection came about, and how long that took.
    pub(super) connected: u64,
    pub(super) handshake: Histogram<u64>,
    /// When the last of them did, since the tally was made.
    pub(super) handshakes_in: Duration,
    /// From the beginning of a connection to its first chunk, if that was measured.
    pub(super) first: Histogram<u64>,
    /// What went wrong, and how many times.
    pub(super) errors: BTreeMap<String, u64>,
    /// From a chunk's publication to its arrival, in microseconds.
    pub(super) latency: Histogram<u64>,
}

/// The longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(120);
/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;

impl Default for Counts {
    fn default() -> Self {
        let longest = LONGEST.as_micros() as u64;
        let histogram =
            || Histogram::new_with_max(longest, DIGITS).unwrap_or_else(|_| unreachable!("the bounds are valid"));
        Self {
            chunks: 0,
            bytes: 0,
            gaps: 0,
            missing: 0,
            connected: 0,
            handshake: histogram(),
            handshakes_in: Duration::ZERO,
            first: histogram(),
            errors: BTreeMap::new(),
            latency: histogram(),
        }
    }
}

/// The time now, in microseconds since 1970, as chunks have it.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

impl Tally {
    pub(super) fn new(shards: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| Mutex::default()).collect();
        Self { shards, measuring: AtomicBool::new(false), since: Instant::now() }
    }

    pub(super) fn measure(&self, measuring: bool) {
        self.measuring.store(measuring, Ordering::Relaxed);
    }

    fn shard(&self, viewer: usize) -> MutexGuard<'_, Counts> {
        self.shards[viewer % self.shards.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the frames that a viewer has got. They count while it is measured.
    pub(super) fn take<E>(
        &self,
        viewer: usize,
        mut next: impl FnMut() -> Result<Option<Frame>, E>,
        start: &mut Option<Instant>,
    ) -> Result<(), E> {
        if !self.measuring.load(Ordering::Relaxed) {
            while next()?.is_some() {}
            return Ok(());
        }
        let now = now();
        let mut counts = self.shard(viewer);
        while let Some(frame) = next()? {
            match frame {
                Frame::Chunk { micros, bytes, .. } => {
                    if let Some(start) = start.take() {
                        record(&mut counts.first, start.elapsed());
                    }
                    counts.chunks += 1;
                    counts.bytes += bytes.len() as u64;
                    // Clocks of two machines, or one that was set, may have it come before it left.
                    counts.latency.saturating_record(now.saturating_sub(micros));
                }
                Frame::Gap(gap) => {
                    counts.gaps += 1;
                    counts.missing = counts.missing.saturating_add(gap.missing);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A viewer's connection has come about.
    pub(super) fn connected(&self, viewer: usize, took: Duration) {
        let mut counts = self.shard(viewer);
        counts.connected += 1;
        counts.handshakes_in = self.since.elapsed();
        record(&mut counts.handshake, took);
    }

    /// A viewer has ended before its feed.
    pub(super) fn failed(&self, viewer: usize, error: &anyhow::Error) {
        *self.shard(viewer).errors.entry(Shown(format_args!("{error:#}")).to_string()).or_default() += 1;
    }

    /// How many chunks have been counted.
    pub(super) fn chunks(&self) -> u64 {
        (0..self.shards.len()).map(|shard| self.shard(shard).chunks).sum()
    }

    /// All counts in one.
    pub(super) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for shard in 0..self.shards.len() {
            let shard = self.shard(shard);
            total.chunks += shard.chunks;
            total.bytes += shard.bytes;
            total.gaps += shard.gaps;
            total.missing = total.missing.saturating_add(shard.missing);
            total.connected += shard.connected;
            total.handshakes_in = total.handshakes_in.max(shard.handshakes_in);
            for (error, times) in &shard.errors {
                *total.errors.entry(error.clone()).or_default() += times;
            }
            // The same bounds, so that they fit.
            let _ = total.latency.add(&shard.latency);
            let _ = total.handshake.add(&shard.handshake);
            let _ = total.first.add(&shard.first);
        }
        total
    }
}

impl Counts {
    /// Viewers that ended before their feed.
    pub(super) fn failures(&self) -> u64 {
        self.errors.values().sum()
    }
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}
