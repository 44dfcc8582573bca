//! Clients that acknowledge nothing. A QUIC connection lives as long as its peer sends something, whatever that is, and
//! keeps for it what it has not acknowledged.

use std::time::Duration;

use tokio::time::Instant;

use crate::quic::Acknowledged;

/// What a client has acknowledged, as it was seen last.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    seen: Option<Acknowledged>,
    since: Option<Instant>,
}

impl Unacknowledged {
    /// Whether nothing was acknowledged for `timeout` of what was sent.
    pub(super) fn look(&mut self, now: Acknowledged, timeout: Duration, at: Instant) -> bool {
        let waits = self.seen.is_some_and(|seen| seen.rtt == now.rtt && now.sent > seen.sent);
        if !waits {
            self.since = None;
            self.seen = Some(now);
            return false;
        }
        at.saturating_duration_since(*self.since.get_or_insert(at)) >= timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn acknowledged(rtt: u64, sent: u64) -> Acknowledged {
        Acknowledged { rtt: Duration::from_nanos(rtt), sent }
    }

    /// What is seen every 20 s; when it was too long, in seconds.
    fn seen(all: impl IntoIterator<Item = (u64, u64)>) -> Option<u64> {
        let (begun, mut unacknowledged) = (Instant::now(), Unacknowledged::default());
        let mut looks = all.into_iter().zip(0_u64..);
        let cut = looks.find(|((rtt, sent), turn)| {
            unacknowledged.look(acknowledged(*rtt, *sent), TIMEOUT, begun + Duration::from_secs(20 * turn))
        });
        cut.map(|(_, turn)| 20 * turn)
    }

    #[test]
    fn is_seen_by_what_is_sent_and_by_the_round_trip_time_that_stays() {
        assert_eq!(seen((0..100).map(|turn| (7, turn))), Some(80));
        // Also when it is sent again ever more seldom.
        assert_eq!(seen([(7, 1), (7, 2), (7, 2), (7, 3), (7, 3)]), Some(80));
        // A client that acknowledges, and one to which nothing is sent.
        assert_eq!(seen((0..100).map(|turn| (turn, turn))), None);
        assert_eq!(seen((0..100).map(|turn| (turn / 3, turn))), None);
        assert_eq!(seen((0..100).map(|_| (7, 1))), None);
    }
}
