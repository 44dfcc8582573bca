//! Log lines about how feeds end.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::{End, FeedError, ring::Ring};

/// Logs that a live feed ended. A server that stops does not end its feeds.
fn ended(feed: &str, end: &End) {
    match end {
        End::Clean => info!(feed, "the feed ended"),
        End::Failed(error) => warn!(feed, %error, "the feed failed"),
        End::Stopped => {}
    }
}

/// Ends a live feed, and logs it if it has not ended before.
pub(crate) fn end(feed: &str, ring: &Ring, end: End) {
    if ring.end(end.clone()) {
        ended(feed, &end);
    }
}

/// How often at most failures of one on-demand feed are logged: it may fail for every viewer.
const SILENCE: Duration = Duration::from_secs(10);

/// Failures of a feed that starts over for each viewer.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<Logged>);

#[derive(Debug, Default)]
struct Logged {
    last: Option<Instant>,
    /// How many failures there were since.
    left_out: u64,
}

impl Failures {
    /// Logs that the feed failed for one of its viewers.
    pub(crate) fn count(&self, feed: &str, error: &FeedError) {
        let Some(left_out) = self.logs(Instant::now()) else { return };
        match left_out {
            0 => warn!(feed, %error, "the feed failed for a viewer"),
            _ => {
                warn!(feed, %error, "the feed failed for a viewer, and for {left_out} others since this was last logged")
            }
        }
    }

    /// Whether a failure is logged now, with how many that were not.
    fn logs(&self, now: Instant) -> Option<u64> {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.last.is_some_and(|last| now.duration_since(last) < SILENCE) {
            logged.left_out += 1;
            return None;
        }
        logged.last = Some(now);
        Some(std::mem::take(&mut logged.left_out))
    }
}

/// Feeds that gave way to others, of one family.
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    counted: AtomicU64,
    logged: Failures,
}

impl Evictions {
    /// Counts one, and logs it, at most once in 10 s.
    pub(crate) fn count(&self, feed: &str, pattern: &str) {
        let all = self.counted.fetch_add(1, Ordering::Relaxed) + 1;
        if self.logged.logs(Instant::now()).is_some() {
            warn!(
                feed,
                pattern,
                all,
                "removed a feed with its history to make room for a new one: clients have reached the limit"
            );
        }
    }

    pub(crate) fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_failures_are_one_line() {
        let (failures, start) = (Failures::default(), Instant::now());
        assert_eq!(failures.logs(start), Some(0));
        assert_eq!(failures.logs(start), None);
        assert_eq!(failures.logs(start + SILENCE / 2), None);
        assert_eq!(failures.logs(start + SILENCE), Some(2));
        assert_eq!(failures.logs(start + 3 * SILENCE), Some(0));
    }
}
