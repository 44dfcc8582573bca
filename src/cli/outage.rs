//! What is printed of a server that is away: at once when something changes, and else ever more seldom.

use std::{collections::BTreeSet, fmt::Display, time::Duration};

use tokio::time::Instant;

/// How long the same failure goes unrepeated at first, and at most; in between, twice as long each time.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// So many different failures of one outage are remembered. Beyond that, they count as one.
const MOST: usize = 16;

/// A pause that nobody notices.
const SHORTEST: Duration = Duration::from_millis(50);

/// What went wrong, and when the next attempt follows; `over` names its transport, if it is of interest.
pub(super) fn trying_again(error: &impl Display, over: &str, pause: Duration) -> String {
    let when = match pause < SHORTEST {
        true => "now".to_owned(),
        false => format!("in {:.1} s", pause.as_secs_f64()),
    };
    let error = error.to_string();
    match error.ends_with('?') {
        true => format!("{error} (trying again{over} {when})"),
        false => format!("{error}; trying again{over} {when}"),
    }
}

/// The failures since a server was last reached.
#[derive(Debug, Default)]
pub(super) struct Outage {
    seen: BTreeSet<String>,
    /// When a failure was last printed, and how long to wait until one is printed again.
    printed: Option<(Instant, Duration)>,
}

impl Outage {
    /// Whether to print this failure: it is new in this outage, or it is time to report that the outage lasts.
    pub(super) fn prints(&mut self, failure: &str, now: Instant) -> bool {
        let is_new = !self.seen.contains(failure) && self.seen.len() < MOST;
        if is_new {
            self.seen.insert(failure.to_owned());
        }
        let pause = match self.printed {
            Some((at, pause)) if !is_new && now.saturating_duration_since(at) < pause => return false,
            Some((_, pause)) if !is_new => (pause * 2).min(PAUSES.1),
            _ => PAUSES.0,
        };
        self.printed = Some((now, pause));
        true
    }

    /// The server is reached: whether an outage that was printed has ended with that.
    pub(super) fn ends(&mut self) -> bool {
        std::mem::take(self).printed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_in_words() {
        let words = |error: &str, millis| trying_again(&error, " over HTTP/3", Duration::from_millis(millis));
        assert_eq!(words("lost", 0), "lost; trying again over HTTP/3 now");
        assert_eq!(words("lost", 49), "lost; trying again over HTTP/3 now");
        assert_eq!(words("lost", 250), "lost; trying again over HTTP/3 in 0.2 s");
        assert_eq!(words("is it there?", 1000), "is it there? (trying again over HTTP/3 in 1.0 s)");
    }

    #[test]
    fn the_same_failure_is_printed_ever_more_seldom() {
        let start = Instant::now();
        let mut outage = Outage::default();
        let printed: Vec<_> =
            (0..3600).filter(|second| outage.prints("away", start + Duration::from_secs(*second))).collect();
        assert_eq!(printed, [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030]);
        assert!(outage.ends() && !outage.ends());
        assert!(outage.prints("away", start), "another outage begins");
    }

    #[test]
    fn what_is_new_is_printed_at_once_and_not_again() {
        let start = Instant::now();
        let mut outage = Outage::default();
        for failure in ["lost", "away"] {
            assert!(outage.prints(failure, start), "{failure}");
        }
        // They alternate, as over two transports.
        for second in 1..10 {
            let now = start + Duration::from_secs(second);
            assert!(!outage.prints("lost", now) && !outage.prints("away", now), "{second}");
        }
        assert!(outage.prints("refused", start + Duration::from_secs(5)));
        // Of failures that are never the same, not each is printed.
        let all = (0..1000).filter(|number| outage.prints(&number.to_string(), start + Duration::from_secs(6)));
        assert!(all.count() < MOST);
    }
}
