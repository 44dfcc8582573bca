//! The time by which chunks are too old. A clock may be wrong for a while, and what was removed does not come back.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// What a clock may gain without having been set.
const SLACK: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

/// For how long a clock that was set forward is not believed, where chunks are removed after `age`.
pub(crate) fn patience(age: Duration) -> Duration {
    (age / 16).min(HOUR)
}

/// The system's clock, with what is to be thought of it.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<Known>);

#[derive(Debug)]
pub(crate) struct Known {
    /// When it was begun.
    pub(crate) begun: Instant,
    /// A time that was believed, and when that was.
    pub(crate) believed: (SystemTime, Instant),
    /// Since when the clock is ahead of that.
    pub(crate) ahead: Option<Instant>,
}

impl Default for Clock {
    fn default() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Known { begun: now, believed: (SystemTime::now(), now), ahead: None }))
    }
}

impl Clock {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time for what is removed after `age`, and how long this has been begun if that is not long: so long, it is not
    /// known whether time has gone by since an earlier process, or the clock was set.
    pub(crate) fn now(&self, age: Duration) -> (SystemTime, Option<Duration>) {
        let mut known = self.lock();
        let now = Instant::now();
        let begun = now.saturating_duration_since(known.begun);
        (known.time(SystemTime::now(), now, patience(age)), Some(begun).filter(|begun| *begun < patience(age)))
    }
}

impl Known {
    fn time(&mut self, clock: SystemTime, now: Instant, patience: Duration) -> SystemTime {
        let (time, at) = self.believed;
        let expected = time + now.saturating_duration_since(at);
        if clock > expected + SLACK {
            let since = now.saturating_duration_since(*self.ahead.get_or_insert(now));
            if since < patience {
                return expected;
            }
            if since < HOUR {
                return clock;
            }
        }
        // Set back, it removes nothing too early.
        (self.believed, self.ahead) = ((clock, now), None);
        clock
    }
}

/// Whether a chunk of that time was published by a clock that was ahead.
pub(crate) fn is_ahead(time: Duration, now: Duration) -> bool {
    time > now + SLACK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_forward_is_believed_later() {
        let (time, begun) = (SystemTime::now(), Instant::now());
        let mut known = Known { begun, believed: (time, begun), ahead: None };
        let secs = Duration::from_secs;
        let mut at = |clock: u64, after: u64| {
            known.time(time + secs(clock), begun + secs(after), patience(secs(1600))).duration_since(time).unwrap()
        };
        assert_eq!(at(10, 10), secs(10));
        assert_eq!(at(25, 20), secs(25));
        // A year ahead, and right again.
        assert_eq!(at(31_000_000, 30), secs(35));
        assert_eq!(at(31_000_050, 80), secs(85));
        assert_eq!(at(90, 85), secs(90));
        // For good.
        assert_eq!(at(100_000, 95), secs(100));
        assert_eq!(at(100_099, 194), secs(199));
        assert_eq!(at(100_100, 195), secs(100_100));
        assert_eq!(at(100_105, 200), secs(100_105));
        // Back, and forward.
        assert_eq!(at(210, 210), secs(210));
        assert_eq!(at(100_120, 220), secs(220));
    }
}
