//! What the log says of how feeds end.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::{End, FeedError};

/// One line when a live feed ends. That its server stops is not an end of the feed.
pub(crate) fn ended(feed: &str, end: &End) {
    match end {
        End::Clean => info!(feed, "the feed ended"),
        End::Failed(error) => warn!(feed, %error, "the feed failed"),
        End::Stopped => {}
    }
}

/// How long the log is silent about an on-demand feed that has failed, in which it may fail for as many
/// viewers as there are.
const SILENCE: Duration = Duration::from_secs(10);

/// Failures of a feed that starts over for each viewer.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    /// How many there were since.
    left_out: u64,
}

impl Failures {
    /// The feed has failed for one of its viewers.
    pub(crate) fn count(&self, feed: &str, error: &FeedError) {
        let Some(left_out) = self.tells(Instant::now()) else { return };
        match left_out {
            0 => warn!(feed, %error, "the feed failed for a viewer"),
            _ => {
                warn!(feed, %error, "the feed failed for a viewer, and for {left_out} others since this was last logged")
            }
        }
    }

    /// Whether the log is told, and how many failures it was not told of before.
    fn tells(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| now.duration_since(last) < SILENCE) {
            told.left_out += 1;
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_failures_are_one_line() {
        let (failures, start) = (Failures::default(), Instant::now());
        assert_eq!(failures.tells(start), Some(0));
        assert_eq!(failures.tells(start), None);
        assert_eq!(failures.tells(start + SILENCE / 2), None);
        assert_eq!(failures.tells(start + SILENCE), Some(2));
        assert_eq!(failures.tells(start + 3 * SILENCE), Some(0));
    }
}
