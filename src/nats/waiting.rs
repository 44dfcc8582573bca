//! A start beside a cluster that starts, too.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::NatsError;
use crate::feed::FeedError;

/// The time between two tries.
const AGAIN: Duration = Duration::from_millis(500);

/// How long NATS may take to be there, and what was said of that.
pub(super) struct Waiting {
    until: Instant,
    said: String,
}

impl Waiting {
    pub(super) fn until(until: Instant) -> Self {
        Self { until, said: String::new() }
    }

    /// Waits a moment, if it may help and there is time left; says once what for.
    pub(super) async fn goes_on(&mut self, error: &NatsError) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() || !error.may_pass() {
            return false;
        }
        let why = FeedError::of(error).0;
        if why != self.said {
            warn!("waiting up to {} s for NATS: {why}", left.as_secs_f64().ceil());
            self.said = why;
        }
        sleep(AGAIN.min(left)).await;
        true
    }
}
