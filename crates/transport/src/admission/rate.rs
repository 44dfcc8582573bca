//! How often something happens.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const SECOND: Duration = Duration::from_secs(1);

/// Counts what happens in a second.
#[derive(Debug, Default)]
pub(super) struct Rate(Mutex<Option<Seconds>>);

/// The second that has begun last, and the one before.
#[derive(Debug, Clone, Copy)]
struct Seconds {
    began: Instant,
    now: u32,
    before: u32,
}

impl Rate {
    /// Counts one; gives how many there were in a second: in this one so far, or in the one before, whichever is
    /// more. So a flood is known for one until a second has passed without it.
    pub(super) fn count(&self) -> u32 {
        self.count_at(Instant::now())
    }

    fn count_at(&self, now: Instant) -> u32 {
        let mut seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seconds.get_or_insert(Seconds { began: now, now: 0, before: 0 });
        let passed = now.saturating_duration_since(last.began);
        if passed >= SECOND {
            let before = if passed < 2 * SECOND { last.now } else { 0 };
            *last = Seconds { began: now, now: 0, before };
        }
        last.now = last.now.saturating_add(1);
        last.now.max(last.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_of_two_seconds() {
        let (rate, start) = (Rate::default(), Instant::now());
        let count = |millis| rate.count_at(start + Duration::from_millis(millis));
        assert_eq!([count(0), count(500), count(999)], [1, 2, 3]);
        assert_eq!([count(1000), count(1999)], [3, 3]);
        assert_eq!(count(2000), 2);
        assert_eq!(count(9000), 1);
    }
}
