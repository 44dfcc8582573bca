//! Clients that acknowledge nothing. A QUIC connection lives as long as its peer sends something, whatever that is, and
//! keeps for it what it has not acknowledged.

use std::time::Duration;

use tokio::time::Instant;

use crate::quic::Acknowledged;

/// How often to look within the time: a cut may come two looks later. Seldom, as a look wakes a task that would sleep
/// otherwise.
pub(super) fn pause(timeout: Duration) -> Duration {
    timeout / 20
}

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

    /// Whenever, between two looks, the last acknowledgement came and something was sent after it.
    #[test]
    fn a_cut_comes_a_tenth_late_at_most() {
        for (acknowledged_in, sent_in) in [(7, 7), (7, 8), (6, 7)] {
            let cut = seen((0..100).map(|turn| (turn.min(acknowledged_in), turn.max(sent_in)))).unwrap();
            // What is seen at a look happened up to a look before.
            let before = pause(TIMEOUT).as_secs() * (sent_in.max(acknowledged_in) - 1);
            assert!((60..=66).contains(&(cut - before)), "{cut} s, {acknowledged_in}, {sent_in}");
        }
    }

    fn acknowledged(rtt: u64, sent: u64) -> Acknowledged {
        Acknowledged { rtt: Duration::from_nanos(rtt), sent }
    }

    /// What is seen at each look; when it was too long, in seconds.
    fn seen(all: impl IntoIterator<Item = (u64, u64)>) -> Option<u64> {
        let (begun, mut unacknowledged) = (Instant::now(), Unacknowledged::default());
        let mut looks = all.into_iter().zip(0_u32..);
        let cut = looks.find(|((rtt, sent), turn)| {
            unacknowledged.look(acknowledged(*rtt, *sent), TIMEOUT, begun + *turn * pause(TIMEOUT))
        });
        cut.map(|(_, turn)| (turn * pause(TIMEOUT)).as_secs())
    }

    #[test]
    fn is_seen_by_what_is_sent_and_by_the_round_trip_time_that_stays() {
        assert_eq!(seen((0..100).map(|turn| (7, turn))), Some(63));
        // Also when it is sent again ever more seldom.
        assert_eq!(seen((0..100).map(|turn| (7, 1 + u64::from(turn > 0) + turn / 7))), Some(63));
        // A client that acknowledges, and one to which nothing is sent.
        assert_eq!(seen((0..100).map(|turn| (turn, turn))), None);
        assert_eq!(seen((0..100).map(|turn| (turn / 3, turn))), None);
        assert_eq!(seen((0..100).map(|_| (7, 1))), None);
    }
}
