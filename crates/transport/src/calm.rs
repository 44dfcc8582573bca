//! How much of what costs the server and brings it nothing a client may send.

use std::time::{Duration, Instant};

/// How many seconds' worth a client may send at once.
const BURST: u32 = 10;
/// How much a client may save up by what it is sent, in seconds' worth.
const SAVED: u32 = 100;

/// An allowance that grows with time, and with what the server sends: a token bucket.
///
/// It asks for the time only when it is used up, which no ordinary client sees.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// A second's worth. `None` for no limit.
    rate: Option<u32>,
    left: u32,
    /// Until when it has grown with time.
    grown: Instant,
}

impl Allowance {
    /// With so many a second; 0 for no limit.
    pub(crate) fn new(rate: u32) -> Self {
        let rate = Some(rate).filter(|rate| *rate > 0);
        Self { rate, left: rate.unwrap_or_default().saturating_mul(BURST), grown: Instant::now() }
    }

    /// Adds to it: what was sent lets the client say more.
    pub(crate) fn add(&mut self, count: u32) {
        let Some(rate) = self.rate else { return };
        self.left = self.left.saturating_add(count).min(rate.saturating_mul(SAVED)).max(self.left);
    }

    /// Takes from it; whether there was enough.
    #[must_use]
    pub(crate) fn take(&mut self, count: u32) -> bool {
        self.take_at(count, Instant::now)
    }

    fn take_at(&mut self, count: u32, now: impl FnOnce() -> Instant) -> bool {
        let Some(rate) = self.rate else { return true };
        if self.left < count {
            let now = now();
            let elapsed = now.saturating_duration_since(self.grown).min(Duration::from_secs(BURST.into()));
            let more = (elapsed.as_secs_f64() * f64::from(rate)) as u32;
            if more > 0 {
                self.grown = now;
                self.left = self.left.saturating_add(more).min(rate.saturating_mul(BURST));
            }
        }
        match self.left.checked_sub(count) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used_up(allowance: &mut Allowance, now: Instant) -> usize {
        (0..1_000_000).take_while(|_| allowance.take_at(1, || now)).count()
    }

    #[test]
    fn grows_with_time_and_with_what_is_sent() {
        let mut allowance = Allowance::new(100);
        let start = allowance.grown;
        assert_eq!(used_up(&mut allowance, start), 1000);
        assert_eq!(used_up(&mut allowance, start + Duration::from_millis(5)), 0);
        // Small steps are not lost.
        assert_eq!(used_up(&mut allowance, start + Duration::from_millis(10)), 1);
        assert_eq!(used_up(&mut allowance, start + Duration::from_millis(1010)), 100);
        assert_eq!(used_up(&mut allowance, start + Duration::from_secs(3600)), 1000);
        allowance.add(30);
        assert_eq!(used_up(&mut allowance, start + Duration::from_secs(3600)), 30);
        allowance.add(u32::MAX);
        assert_eq!(used_up(&mut allowance, start + Duration::from_secs(3600)), 10_000);
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let mut allowance = Allowance::new(0);
        allowance.add(1);
        assert!(allowance.take(u32::MAX) && allowance.take(u32::MAX));
    }
}
