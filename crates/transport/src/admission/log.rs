//! Log lines about refusals, at a bounded rate.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::warn;

use super::Refusal;

/// How often the log has a line about one reason, at most.
const PAUSE: Duration = Duration::from_secs(10);

/// When each reason was in the log last.
#[derive(Debug, Default)]
pub(super) struct Reports([Mutex<Option<Report>>; Refusal::ALL.len()]);

#[derive(Debug, Clone, Copy)]
struct Report {
    at: Instant,
    /// How many refusals had been counted then.
    all: u64,
}

impl Reports {
    /// Reports the refusal that is number `all` of its reason, unless the log had a line just now.
    pub(super) fn refused(&self, reason: Refusal, all: u64, client: &dyn Display) {
        if let Some(refused) = self.due(reason, all, Instant::now()) {
            let limit = reason.as_str();
            warn!(%client, limit, refused, "refused: {}", reason.reason());
        }
    }

    /// How many refusals a line that is due now is about.
    fn due(&self, reason: Refusal, all: u64, now: Instant) -> Option<u64> {
        let mut last = self.0[reason as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let before = match *last {
            Some(Report { at, .. }) if now.saturating_duration_since(at) < PAUSE => return None,
            Some(Report { all, .. }) => all,
            None => 0,
        };
        *last = Some(Report { at: now, all });
        Some(all.saturating_sub(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_with_the_number_since_the_last() {
        let (reports, start) = (Reports::default(), Instant::now());
        let due = |all, seconds| reports.due(Refusal::Handshakes, all, start + Duration::from_secs(seconds));
        assert_eq!(due(1, 0), Some(1));
        assert_eq!(due(2, 1), None);
        assert_eq!(due(900, 9), None);
        assert_eq!(due(901, 10), Some(900));
        // Each reason has lines of its own.
        assert_eq!(reports.due(Refusal::Connections, 1, start), Some(1));
    }
}
