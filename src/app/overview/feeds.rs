//! The feeds that the status page lists: a few of what may be thousands.

use std::cmp::Reverse;

use http::{StatusCode, Uri};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    app::Problem,
    feed::{Behind, End, Feed, Status},
};

/// How many are listed unless another number is asked for, and at most.
const LISTED: (usize, usize) = (20, 200);

/// Which of them, and in which order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What their names contain, in lower case.
    text: String,
    order: Order,
    most: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Viewers,
    Rate,
    Skipped,
    State,
    Name,
}

impl Wanted {
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        let mut wanted = Self { text: String::new(), order: Order::Viewers, most: LISTED.0 };
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "match" => wanted.text = value.to_lowercase(),
                "sort" => {
                    wanted.order = match value.as_ref() {
                        "viewers" => Order::Viewers,
                        "rate" => Order::Rate,
                        "skipped" => Order::Skipped,
                        "state" => Order::State,
                        "name" => Order::Name,
                        _ => return Err(bad("`sort` is viewers, rate, skipped, state or name")),
                    }
                }
                "limit" => {
                    let number = value.parse().ok().filter(|number| (1..=LISTED.1).contains(number));
                    wanted.most = number.ok_or_else(|| bad("`limit` is a number of feeds, from 1 to 200"))?;
                }
                _ => {}
            }
        }
        Ok(wanted)
    }
}

fn bad(text: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, text.into())
}

/// What all feeds come to.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) viewers: u64,
    /// Chunks and bytes a second.
    pub(super) chunks: f64,
    pub(super) bytes: f64,
    pub(super) skipped: u64,
    pub(super) lag: Lag,
    /// By [`State`].
    states: [u64; 4],
}

/// How far viewers are behind.
#[derive(Debug, Default, Serialize)]
pub(super) struct Lag {
    /// For how long the first chunk that it has not been given has been there, of the viewer that is furthest behind.
    seconds: f64,
    /// How many chunks it has not been given.
    chunks: u64,
    /// How many viewers are behind by more than a second.
    viewers: u64,
}

impl From<Behind> for Lag {
    fn from(behind: Behind) -> Self {
        Self { seconds: behind.time.as_secs_f64(), chunks: behind.chunks, viewers: behind.viewers }
    }
}

/// How a feed is. Feeds that need attention come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Failed,
    Stalled,
    Open,
    Ended,
}

impl State {
    fn of(status: &Status) -> Self {
        match status.end {
            Some(End::Failed(_)) => Self::Failed,
            Some(End::Clean | End::Stopped) => Self::Ended,
            None if status.stalled => Self::Stalled,
            None => Self::Open,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stalled => "stalled",
            Self::Open => "open",
            Self::Ended => "ended",
        }
    }
}

/// Those that are wanted, with how many there are, and what all come to.
pub(super) fn shown(feeds: &[Feed], wanted: &Wanted) -> (Value, Sums) {
    let mut sums = Sums::default();
    let mut matching = Vec::new();
    for feed in feeds {
        let status = feed.status();
        let state = State::of(&status);
        sums.viewers += status.viewers;
        sums.chunks += status.rate.chunks;
        sums.bytes += status.rate.bytes;
        sums.skipped += status.skipped;
        let lag = Lag::from(status.lag);
        sums.lag.seconds = sums.lag.seconds.max(lag.seconds);
        sums.lag.chunks = sums.lag.chunks.max(lag.chunks);
        sums.lag.viewers += lag.viewers;
        sums.states[state as usize] += 1;
        if wanted.text.is_empty() || feed.name().to_lowercase().contains(&wanted.text) {
            matching.push((feed, status, state));
        }
    }
    // Rates have fractions; more digits than these make no difference.
    let rate = |status: &Status| Reverse((status.rate.bytes * 1000.0) as u64);
    matching.sort_by(|(one, first, state), (other, second, its)| {
        let by_viewers = || Reverse(first.viewers).cmp(&Reverse(second.viewers));
        let by_rate = || rate(first).cmp(&rate(second));
        let order = match wanted.order {
            Order::Viewers => by_viewers().then_with(by_rate),
            Order::Rate => by_rate().then_with(by_viewers),
            Order::Skipped => Reverse(first.skipped).cmp(&Reverse(second.skipped)).then_with(by_viewers),
            Order::State => state.cmp(its).then_with(by_viewers),
            Order::Name => std::cmp::Ordering::Equal,
        };
        order.then_with(|| one.name().cmp(other.name()))
    });
    let list: Vec<_> =
        matching.iter().take(wanted.most).map(|(feed, status, state)| row(feed, status, *state)).collect();
    let count = |state: State| sums.states[state as usize];
    let value = json!({
        "total": feeds.len(),
        "open": count(State::Open),
        "ended": count(State::Ended),
        "failed": count(State::Failed),
        "stalled": count(State::Stalled),
        "matching": matching.len(),
        "list": list,
    });
    (value, sums)
}

fn row(feed: &Feed, status: &Status, state: State) -> Value {
    let error = match &status.end {
        Some(End::Failed(error)) => Some(error.to_string()),
        _ => None,
    };
    json!({
        "name": feed.name(),
        "kind": feed.kind(),
        "state": state.as_str(),
        "error": error,
        "viewers": status.viewers,
        "rate": { "chunks": status.rate.chunks, "bytes": status.rate.bytes },
        "skipped": status.skipped,
        // A viewer of an on-demand feed is behind nothing.
        "lag": (feed.kind() == "live").then(|| Lag::from(status.lag)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{FeedError, Lag, Start};

    fn names(feeds: &[Feed], query: &str) -> Vec<String> {
        let uri: Uri = format!("/status/data?{query}").parse().unwrap();
        let (value, _) = shown(feeds, &Wanted::of(&uri).unwrap());
        let list = value["list"].as_array().unwrap();
        list.iter().map(|feed| feed["name"].as_str().unwrap().to_owned()).collect()
    }

    /// However many feeds there are, few are listed, and any can be found.
    #[tokio::test]
    async fn a_list_of_a_thousand_feeds_stays_small() {
        let feeds: Vec<_> = (0..1000).map(|n| Feed::writable(&format!("chat.{n:03}"), 1 << 10, Lag::Skip)).collect();
        assert_eq!(names(&feeds, "").len(), 20);
        assert_eq!(names(&feeds, "limit=3"), ["chat.000", "chat.001", "chat.002"]);
        assert_eq!(names(&feeds, "match=CHAT.99&limit=2"), ["chat.990", "chat.991"]);
        let view = |feed: &Feed| feed.view(Start::default(), None);
        let _viewers = [view(&feeds[700]), view(&feeds[700]), view(&feeds[800])];
        assert_eq!(names(&feeds, "sort=viewers&limit=3"), ["chat.700", "chat.800", "chat.000"]);
        assert_eq!(names(&feeds, "sort=name&limit=1"), ["chat.000"]);
        let uri = Uri::from_static("/status/data?match=700");
        let (value, sums) = shown(&feeds, &Wanted::of(&uri).unwrap());
        assert_eq!((value["total"].as_u64(), value["matching"].as_u64(), sums.viewers), (Some(1000), Some(1), 3));
    }

    #[tokio::test]
    async fn feeds_that_need_attention_come_first() {
        let made = ["open", "failed", "ended"].map(|name| Feed::live(name, 1 << 10, Lag::Skip));
        let (feeds, publishers): (Vec<_>, Vec<_>) = made.into_iter().unzip();
        publishers[1].end(End::Failed(FeedError("exit status: 3".into())));
        publishers[2].end(End::Clean);
        assert_eq!(names(&feeds, "sort=state"), ["failed", "open", "ended"]);
        let uri = Uri::from_static("/status/data?sort=state");
        let (value, _) = shown(&feeds, &Wanted::of(&uri).unwrap());
        assert_eq!(value["list"][0]["error"], "exit status: 3");
        assert_eq!((&value["failed"], &value["open"], &value["ended"]), (&json!(1), &json!(1), &json!(1)));
    }

    #[test]
    fn a_query_that_cannot_be_read_says_what_can() {
        for (query, expected) in [("sort=size", "viewers, rate"), ("limit=0", "1 to 200"), ("limit=x", "1 to 200")] {
            let uri: Uri = format!("/status/data?{query}").parse().unwrap();
            let problem = Wanted::of(&uri).unwrap_err();
            assert!(problem.text().contains(expected), "{query}: {}", problem.text());
        }
    }
}
