//! When to try again, and for how long. Nothing here does I/O.

pub use crate::identity::random;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, Uri, header, uri::Authority};
use tokio::time::{Instant, timeout_at};

use super::ClientError;

/// The first pause is at most that long, each following one at most twice as long.
const FIRST: Duration = Duration::from_millis(250);
/// No pause is longer, save one that the server asks for.
const LONGEST: Duration = Duration::from_secs(15);
/// The longest pause that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// When the time to try is limited, the last attempt begins that long before its end, or a quarter of it: an
/// attempt takes time too.
const LAST_ATTEMPT: Duration = Duration::from_secs(1);

/// How long a server that sends nothing is tried with short pauses, so that one that is restarted is found at once.
const SOON: Duration = Duration::from_secs(10);
/// The longest of these pauses.
const SOON_PAUSE: Duration = Duration::from_millis(300);
/// Later pauses are at most that part of the outage so far: many clients that lost the same server reach it again one
/// after another, and none is long in noticing that it is back.
const PART: u32 = 4;

/// Pauses that grow exponentially, with full jitter, so that clients that lost the same server do
/// not come back at the same moment.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next pause: between nothing and the bound, as `random` says.
    pub fn pause(&mut self, random: u64) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(random as f64 / u64::MAX as f64)
    }

    /// Begins with the short pauses again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// How long something is tried again and again.
#[derive(Debug, Clone, Default)]
pub struct Retry {
    backoff: Backoff,
    limit: Option<Duration>,
    /// When the first of the failures was, since the last success.
    since: Option<Instant>,
    /// Since when the time counts, which may be earlier.
    begun: Option<Instant>,
}

impl Retry {
    /// Tries for that long, counted from the first failure on, or from where [`counts_from`](Self::counts_from) says;
    /// `None` for ever.
    #[must_use]
    pub fn new(limit: Option<Duration>) -> Self {
        Self { backoff: Backoff::default(), limit, since: None, begun: None }
    }

    /// It works: what fails next is the first failure.
    pub fn works(&mut self) {
        self.backoff.reset();
        (self.since, self.begun) = (None, None);
    }

    /// The attempt that fails next began then: the time counts from there, unless it counts already.
    pub fn counts_from(&mut self, then: Instant) {
        self.begun.get_or_insert(then);
    }

    /// For how long it has been tried.
    #[must_use]
    pub fn tried(&self, now: Instant) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun))
    }

    /// Whether the last attempt has failed, and the first of these failures is so recent that the server may be back at
    /// any moment: it is worth a handshake every second.
    #[must_use]
    pub fn is_eager(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) < SOON)
    }

    /// When the present attempt must be over; `None` for the first one, and when there is no limit.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.since.and(self.begun)?.checked_add(self.limit?)
    }

    /// Whether the last attempt has failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.since.is_some()
    }

    /// It failed: how long to wait before the next attempt, or `None` when there is no time for another one.
    /// `asked` is what the server asked to wait.
    pub fn failed(&mut self, now: Instant, random: u64, asked: Option<Duration>) -> Option<Duration> {
        self.left(now).map(|left| {
            let pause = self.backoff.pause(random).max(asked.unwrap_or_default().min(LONGEST_ASKED));
            // There is a last attempt shortly before the time is over, not long before.
            pause.min(left)
        })
    }

    /// It failed since the server sent nothing at all: as [`failed`](Self::failed), but the pauses are short at first,
    /// and then grow with the outage.
    pub fn unanswered(&mut self, now: Instant, random: u64) -> Option<Duration> {
        let away = now.saturating_duration_since(self.since.unwrap_or(now));
        let longest = if away < SOON { SOON_PAUSE } else { (away / PART).min(LONGEST) };
        self.left(now).map(|left| longest.mul_f64(random as f64 / u64::MAX as f64).min(left))
    }

    /// As [`failed`](Self::failed) now, or as [`unanswered`](Self::unanswered).
    pub fn pause(&mut self, asked: Option<Duration>, unanswered: bool) -> Option<Duration> {
        match unanswered {
            true => self.unanswered(Instant::now(), random()),
            false => self.failed(Instant::now(), random(), asked),
        }
    }

    /// How much of the time is left for pauses.
    fn left(&mut self, now: Instant) -> Option<Duration> {
        self.since.get_or_insert(now);
        let tried = now.saturating_duration_since(*self.begun.get_or_insert(now));
        match self.limit {
            Some(limit) => {
                let last = LAST_ATTEMPT.min(limit / 4);
                limit.checked_sub(tried)?.checked_sub(last).filter(|left| !left.is_zero())
            }
            None => Some(Duration::MAX),
        }
    }
}

/// Makes an attempt to reach the server of `uri`, which gets no answer any more at the deadline.
///
/// # Errors
///
/// As the attempt's, or that there was no answer.
pub async fn by<T, E: From<ClientError>>(
    deadline: Option<Instant>,
    uri: &Uri,
    attempt: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(deadline) = deadline else { return attempt.await };
    timeout_at(deadline, attempt).await.unwrap_or_else(|_| {
        let authority = uri.authority().map_or("", Authority::as_str).to_owned();
        Err(ClientError::Unreachable { authority }.into())
    })
}

/// Whether the same request will get the same answer again.
#[must_use]
pub fn is_final(status: StatusCode) -> bool {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => false,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => true,
        status => !status.is_server_error(),
    }
}

/// What `Retry-After` asks for ([RFC 9110 §10.2.3]), in seconds or as a date.
///
/// [RFC 9110 §10.2.3]: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    SystemTime::from(date(text)?).duration_since(now).ok()
}

/// A date as HTTP writes it today: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(text: &str) -> Option<time::UtcDateTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = (1_u8..).zip(MONTHS).find(|(_, month)| *month == name)?.0.try_into().ok()?;
    let year = words.next()?.parse().ok()?;
    let mut clock = words.next()?.splitn(3, ':').map(|part| part.parse::<u8>().ok());
    let clock = time::Time::from_hms(clock.next()??, clock.next()??, clock.next()??).ok()?;
    Some(time::UtcDateTime::new(time::Date::from_calendar_date(year, month, day).ok()?, clock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        let longest: Vec<_> = (0..9).map(|_| backoff.pause(u64::MAX).as_millis()).collect();
        assert_eq!(longest, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
        assert_eq!(backoff.pause(0), Duration::ZERO);
        assert_eq!(backoff.pause(u64::MAX / 2).as_secs(), 7);
        backoff.reset();
        assert_eq!(backoff.pause(u64::MAX), FIRST);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.pause(u64::MAX), LONGEST);
    }

    #[test]
    fn gives_up_when_the_time_is_over_and_not_before() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut retry = Retry::new(Some(Duration::from_secs(1)));
        assert_eq!(retry.failed(at(0), u64::MAX, None), Some(FIRST));
        assert_eq!(retry.deadline(), Some(at(1000)));
        // The last attempt has the last quarter for itself, whatever is asked for.
        assert_eq!(retry.failed(at(700), u64::MAX, Some(LONGEST)), Some(Duration::from_millis(50)));
        for late in [750, 999, 1000, 2000] {
            assert_eq!(retry.clone().failed(at(late), 0, None), None, "{late}");
        }
        retry.works();
        assert_eq!(retry.deadline(), None);
        // Of a long time, one second.
        let mut long = Retry::new(Some(Duration::from_secs(60)));
        long.failed(at(0), 0, None);
        assert_eq!(long.failed(at(58_000), 0, Some(LONGEST)), Some(Duration::from_secs(1)));
        assert_eq!(long.failed(at(59_000), 0, None), None);
        assert_eq!(retry.failed(at(5000), u64::MAX, None), Some(FIRST));
        assert_eq!(Retry::new(Some(Duration::ZERO)).failed(start, 0, None), None);
        let mut for_ever = Retry::new(None);
        for_ever.failed(start, 0, None);
        assert!(for_ever.failed(start + Duration::from_secs(1 << 32), 0, None).is_some());
        assert_eq!(for_ever.failed(start, 0, Some(Duration::MAX)), Some(LONGEST_ASKED));
    }

    #[test]
    fn the_time_counts_from_where_it_was_waited_for() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut retry = Retry::new(Some(Duration::from_secs(60)));
        retry.counts_from(at(0));
        assert_eq!((retry.deadline(), retry.tried(at(20_000))), (None, Duration::from_secs(20)));
        assert!(!retry.is_failing());
        assert_eq!(retry.unanswered(at(20_000), u64::MAX), Some(SOON_PAUSE), "it has only failed now");
        assert!(retry.is_eager(at(29_000)));
        // What is waited for later counts from there, too.
        retry.counts_from(at(40_000));
        assert_eq!((retry.deadline(), retry.tried(at(50_000))), (Some(at(60_000)), Duration::from_secs(50)));
        assert_eq!(retry.failed(at(59_000), 0, None), None);
        retry.works();
        assert_eq!(retry.tried(at(60_000)), Duration::ZERO);
        retry.failed(at(60_000), 0, None);
        assert_eq!(retry.deadline(), Some(at(120_000)));
    }

    #[test]
    fn a_server_that_sends_nothing_is_asked_often_at_first() {
        let start = Instant::now();
        let mut retry = Retry::new(None);
        assert!(!retry.is_failing());
        assert!(!retry.is_eager(start));
        for seconds in 0..10 {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(retry.unanswered(now, u64::MAX), Some(SOON_PAUSE));
            assert!(retry.is_eager(now));
        }
        assert!(retry.is_failing());
        for (seconds, longest) in [(10, 2500), (20, 5000), (60, 15_000), (3600, 15_000)] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(retry.unanswered(now, u64::MAX), Some(Duration::from_millis(longest)));
            assert_eq!(retry.unanswered(now, 0), Some(Duration::ZERO), "clients come back one after another");
            assert!(!retry.is_eager(now));
        }
        retry.works();
        assert_eq!(retry.unanswered(start + SOON, u64::MAX), Some(SOON_PAUSE));
        let mut limited = Retry::new(Some(Duration::from_secs(1)));
        limited.unanswered(start, 0);
        assert_eq!(limited.unanswered(start + Duration::from_millis(700), u64::MAX), Some(Duration::from_millis(50)));
        assert_eq!(limited.unanswered(start + Duration::from_millis(750), 0), None);
    }

    /// A hundred clients behind one address, of a server that is away for a while: how many begin a handshake in the
    /// busiest second, when each attempt takes two seconds to fail.
    #[test]
    fn a_hundred_clients_do_not_ask_at_once_for_long() {
        const CLIENTS: u32 = 100;
        let start = Instant::now();
        let mut random = 1_u64;
        let mut begun = vec![0; 121];
        for _ in 0..CLIENTS {
            let (mut retry, mut at) = (Retry::new(None), start);
            while at.duration_since(start) < Duration::from_secs(120) {
                begun[at.duration_since(start).as_secs() as usize] += 1;
                at += Duration::from_secs(2);
                // Xorshift, so that each run is the same.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                at += retry.unanswered(at, random).unwrap();
            }
        }
        // At first they all ask at once: fewer than a server allows one address to have in progress.
        assert_eq!(begun[2], CLIENTS);
        assert!(begun[11..30].iter().all(|number| *number < CLIENTS / 2), "{begun:?}");
        assert!(begun[30..60].iter().all(|number| *number < CLIENTS / 3), "{begun:?}");
        assert!(begun[90..].iter().all(|number| *number < CLIENTS / 4), "{begun:?}");
    }

    #[test]
    fn retry_after_in_seconds_and_as_a_date() {
        let read = |text: &'static str| {
            let headers = [(header::RETRY_AFTER, http::HeaderValue::from_static(text))].into_iter().collect();
            retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770))
        };
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        for text in ["", "-1", "soon", "Sun, 06 Nov 1994 08:49:00 GMT", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov"]
        {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), SystemTime::now()), None);
    }

    #[test]
    fn what_is_final() {
        for status in [400, 401, 403, 404, 410, 413, 301, 501] {
            assert!(is_final(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(!is_final(StatusCode::from_u16(status).unwrap()), "{status}");
        }
    }
}
