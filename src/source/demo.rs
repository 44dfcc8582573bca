//! The demo: `data chunk #0`, `data chunk #1` …, each a line, at a steady pace, or as a viewer sets it.

use std::{
    fmt::Display,
    ops::RangeInclusive,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use h3cast_proto::{feed::Epoch, varint};
use tokio::time::Instant;

use crate::feed::{BadVariant, Feed, FeedError};

/// A demo feed: `count` chunks (0: without end), one each `interval`, the first at once. Viewers may set how many there
/// are, how large, and how fast they come, in the query of their request (docs/protocol.md).
#[must_use]
pub fn feed(name: &str, count: u64, interval: Duration) -> Feed {
    let plain = Demo { count, interval, burst: 1, size: None };
    let named = name.to_owned();
    Feed::replayable(name, move |first| plain.chunks(first))
        .with_variants(&["rate", "size", "burst", "count"], move |query| {
            Ok(plain.set(query)?.map(|demo| demo.feed(&named)))
        })
}

/// Chunks a second.
const RATES: RangeInclusive<u64> = 1..=1000;
/// Bytes of a chunk. Its number and time fit into the least, and the most is that of any chunk.
const SIZES: RangeInclusive<u64> = 64..=65_536;
/// Chunks at once.
const BURSTS: RangeInclusive<u64> = 1..=1000;
/// Chunks in all, 0 for no end.
const COUNTS: RangeInclusive<u64> = 0..=1_000_000;
/// Bytes a second: what a viewer sets is generated for it alone.
const FASTEST: f64 = 10_000_000.0;
/// Between two chunks of a demo without pauses, when a viewer sets other things.
const SHORTEST: Duration = Duration::from_millis(1);

/// How it comes.
#[derive(Debug, Clone, Copy)]
struct Demo {
    count: u64,
    /// Between chunks, on average.
    interval: Duration,
    /// How many come at once.
    burst: u64,
    /// Of each chunk, whose text then also has the time at which it was due.
    size: Option<u64>,
}

impl Demo {
    /// As a query sets it, if it sets anything.
    fn set(self, query: &str) -> Result<Option<Self>, BadVariant> {
        let (mut rate, mut size, mut burst, mut count) = (None, None, None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let (place, allowed, unit) = match name.as_ref() {
                "rate" => (&mut rate, RATES, "chunks a second"),
                "size" => (&mut size, SIZES, "bytes"),
                "burst" => (&mut burst, BURSTS, "chunks at once"),
                "count" => (&mut count, COUNTS, "chunks, where 0 means without end"),
                _ => continue,
            };
            let number = value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
            let Some(number) = number.filter(|number| allowed.contains(number)) else {
                let (least, most) = allowed.into_inner();
                return Err(BadVariant(format!("{name} must be {least} to {most} {unit}")));
            };
            if place.replace(number).is_some() {
                return Err(BadVariant(format!("`{name}` is given several times: give it once")));
            }
        }
        if rate.or(size).or(burst).or(count).is_none() {
            return Ok(None);
        }
        #[expect(clippy::cast_precision_loss, reason = "it is small")]
        let interval = rate.map_or(self.interval.max(SHORTEST), |rate| Duration::from_secs_f64(1.0 / rate as f64));
        let size = size.unwrap_or(*SIZES.start());
        #[expect(clippy::cast_precision_loss, reason = "it is small")]
        if size as f64 > interval.as_secs_f64() * FASTEST * 1.000_001 {
            return Err(BadVariant(
                "`rate` times `size` is more than 10,000,000 bytes a second: choose less of one".into(),
            ));
        }
        let (burst, count) = (burst.unwrap_or(1), count.unwrap_or(self.count));
        Ok(Some(Self { count, interval, burst, size: Some(size) }))
    }

    /// Cursors of one size mean nothing in another.
    fn feed(self, name: &str) -> Feed {
        Feed::replayable_as(name, Epoch(self.size.unwrap_or_default()), move |first| self.chunks(first))
    }

    fn chunks(self, first: u64) -> impl Stream<Item = Result<Bytes, FeedError>> + Send {
        let (start, time) = (Instant::now(), SystemTime::now());
        let due = move |number: u64| {
            // Counted from the start, so that delays do not add up; a late chunk comes at once.
            let bursts = number / self.burst - first / self.burst;
            u32::try_from(bursts * self.burst).ok().and_then(|number| self.interval.checked_mul(number))
        };
        stream::unfold(first, move |number| async move {
            // What a cursor names may be far beyond what is ever reached, and beyond what `frames` can have.
            if self.count > 0 && number >= self.count || number > varint::MAX {
                return None;
            }
            let due = due(number);
            match due.and_then(|due| start.checked_add(due)) {
                Some(due) => tokio::time::sleep_until(due).await,
                None => tokio::time::sleep(self.interval).await,
            }
            let text = format!("data chunk #{number}");
            let bytes = match self.size {
                None => text + "\n",
                Some(size) => padded(&text, due.and_then(|due| time.checked_add(due)), size),
            };
            Some((Ok(bytes.into()), number + 1))
        })
    }
}

/// A line of so many bytes, with the time.
fn padded(text: &impl Display, time: Option<SystemTime>, size: u64) -> String {
    let since = time.unwrap_or_else(SystemTime::now).duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = format!("{text} at {}.{:06} ", since.as_secs(), since.subsec_micros());
    let width = usize::try_from(size - 1).unwrap_or_default();
    format!("{text:.<width$}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    fn plain(count: u64, millis: u64) -> Demo {
        Demo { count, interval: Duration::from_millis(millis), burst: 1, size: None }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_chunks_at_a_steady_pace() {
        let start = Instant::now();
        let chunks: Vec<_> =
            plain(10, 100).chunks(0).map(|chunk| (start.elapsed().as_millis(), chunk.unwrap())).collect().await;
        for (number, (at, bytes)) in chunks.iter().enumerate() {
            assert_eq!(bytes, format!("data chunk #{number}\n").as_bytes());
            assert_eq!(*at / 10, number as u128 * 10);
        }
        assert_eq!(chunks.len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn count_zero_does_not_end() {
        assert_eq!(plain(0, 1000).chunks(7).take(10_000).count().await, 10_000);
    }

    /// A cursor may name any chunk.
    #[tokio::test(start_paused = true)]
    async fn numbers_end() {
        let demo = plain(10, 100).set("count=0").unwrap().unwrap();
        for (first, chunks) in [(varint::MAX - 1, 2), (varint::MAX + 1, 0), (u64::MAX, 0)] {
            assert_eq!(demo.chunks(first).count().await, chunks, "{first}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_bursts_of_a_size_and_at_a_rate() {
        let demo = plain(10, 100).set("rate=50&size=1000&burst=10&count=25").unwrap().unwrap();
        let start = Instant::now();
        // From the middle of a burst on, the next one is as far away as from its first chunk.
        for (first, times) in [(0, [0, 200, 400]), (15, [200, 200, 200 + 200])] {
            let before = Instant::now();
            let mut chunks = Box::pin(demo.chunks(first));
            let mut stamps = Vec::new();
            for number in first..25 {
                let line = String::from_utf8(chunks.next().await.unwrap().unwrap().to_vec()).unwrap();
                assert_eq!(line.len(), 1000);
                let (text, rest) = line.split_once(" at ").unwrap();
                assert_eq!(text, format!("data chunk #{number}"));
                let (stamp, dots) = rest.split_once(' ').unwrap();
                assert_eq!(dots.trim_end_matches('\n').trim_matches('.'), "");
                stamps.push(stamp.parse::<f64>().unwrap());
                let burst = usize::try_from(number / 10).unwrap();
                let due = times[burst] - if first == 15 { 200 } else { 0 };
                assert_eq!(before.elapsed().as_millis() / 2, due / 2, "{number}");
            }
            assert!(chunks.next().await.is_none());
            let spread = stamps.last().unwrap() - stamps[0];
            assert!((spread - (before.elapsed().as_secs_f64())).abs() < 0.01, "{spread}");
        }
        assert_eq!(start.elapsed().as_millis() / 10, 60);
    }

    #[test]
    fn what_may_be_set() {
        let set = |query: &str| plain(10, 100).set(query);
        assert!(set("from=0-1&_=1&Rate=x").unwrap().is_none());
        for good in ["rate=1", "rate=1000&size=10000", "size=65536&rate=152", "burst=1000", "count=0", "count=1000000"]
        {
            assert!(set(good).unwrap().is_some(), "{good}");
        }
        for (bad, said) in [
            ("rate=0", "1 to 1000 chunks a second"),
            ("rate=1001", "1 to 1000 chunks a second"),
            ("rate=1.5", "1 to 1000 chunks a second"),
            ("rate=%2B1", "1 to 1000 chunks a second"),
            ("rate=", "1 to 1000 chunks a second"),
            ("size=63", "64 to 65536 bytes"),
            ("size=65537", "64 to 65536 bytes"),
            ("burst=0", "1 to 1000 chunks at once"),
            ("count=1000001", "0 to 1000000 chunks"),
            ("count=-1", "0 to 1000000 chunks"),
            ("rate=5&rate=5", "several times"),
            ("rate=1000&size=10001", "10,000,000 bytes a second"),
        ] {
            let error = set(bad).unwrap_err().to_string();
            assert!(error.contains(said), "{bad}: {error}");
        }
        // A demo without pauses does not become a flood of large chunks.
        assert!(plain(10, 0).set("size=65536").is_err());
    }
}
