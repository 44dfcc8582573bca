//! Where a viewer is, from what it has been sent: what to ask for when it comes again, and what is
//! missing. No I/O.

use std::collections::VecDeque;

use http::Uri;

use super::viewer::{BadUri, Event, ViewError};
use crate::{
    chunk::{Cursor, EndCursor, Epoch},
    feed::{Gap, Start},
    format::frames::Frame,
};

/// A feed's URI without what changes when it is asked for again.
#[derive(Debug, Clone)]
pub(super) struct FeedUri {
    uri: Uri,
    /// The pairs of its query that stay as they are.
    rest: Vec<String>,
}

impl FeedUri {
    /// Takes a URI apart into what stays and where its viewer begins.
    pub(super) fn parse(uri: &Uri) -> Result<(Self, Place), BadUri> {
        let (mut rest, mut from, mut limit) = (Vec::new(), Start::default(), None);
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let wrong = || BadUri(pair.to_owned());
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("format", "raw") | ("delivery", "stream") => {}
                ("format" | "delivery", _) => return Err(wrong()),
                ("limit", number) => limit = Some(number.parse().map_err(|_| wrong())?),
                ("from", place) => from = place.parse().map_err(|_| wrong())?,
                _ => rest.push(pair.to_owned()),
            }
        }
        Ok((Self { uri: uri.clone(), rest }, Place::new(from, limit)))
    }

    /// The URI of what comes behind that place.
    pub(super) fn behind(&self, place: &Place) -> Uri {
        let mut pairs = self.rest.clone();
        pairs.push("format=frames".into());
        pairs.extend(match place.from() {
            Start::Now => None,
            Start::Start => Some("from=start".into()),
            Start::Last(many) => Some(format!("from=-{many}")),
            Start::After(cursor) => Some(format!("from={cursor}")),
            Start::End(epoch) => Some(format!("from={}", EndCursor { epoch, last: None })),
        });
        pairs.extend(place.left().map(|left| format!("limit={left}")));
        let mut parts = self.uri.clone().into_parts();
        let path_and_query = format!("{}?{}", self.uri.path(), pairs.join("&"));
        parts.path_and_query = path_and_query.parse().ok();
        // Made of parts that stood in one before.
        Uri::from_parts(parts).unwrap_or_else(|_| self.uri.clone())
    }
}

/// Where a viewer is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Where it began.
    start: Start,
    limit: Option<u64>,
    /// The run of numbers of what it has seen.
    epoch: Option<Epoch>,
    /// The number of the chunk that comes next, once that is known.
    next: Option<u64>,
    /// Another epoch has begun, and that has not been told yet.
    restarted: bool,
    /// The stream that is read now has said its epoch.
    begun: bool,
    /// Numbers are left out between its chunks: a jump is no loss.
    sparse: bool,
    received: u64,
    missing: u64,
    restarts: u64,
    /// Why the feed has stalled, if the server says that: of each of the events that are still to come, and of the last.
    causes: VecDeque<Option<String>>,
    stalled_by: Option<String>,
}

impl Default for Place {
    fn default() -> Self {
        Self::new(Start::default(), None)
    }
}

impl Place {
    fn new(start: Start, limit: Option<u64>) -> Self {
        let (epoch, next) = match start {
            Start::After(cursor) => (Some(cursor.epoch), Some(cursor.seq.saturating_add(1))),
            Start::Start | Start::Now | Start::Last(_) | Start::End(_) => (None, None),
        };
        Self {
            start,
            limit,
            epoch,
            next,
            restarted: false,
            begun: false,
            sparse: false,
            received: 0,
            missing: 0,
            restarts: 0,
            causes: VecDeque::new(),
            stalled_by: None,
        }
    }

    /// Where to begin when the feed is asked for again.
    fn from(&self) -> Start {
        match (self.epoch, self.next) {
            (Some(epoch), Some(next)) if next > 0 => Start::After(Cursor { epoch, seq: next - 1 }),
            // Before the first chunk of a run there is no cursor.
            (Some(_), Some(_)) => Start::Start,
            _ if self.restarted => Start::Start,
            _ => self.start,
        }
    }

    fn left(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.received))
    }

    /// The last chunk that has come, or is known to be missing.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        match self.from() {
            Start::After(cursor) => Some(cursor),
            Start::Start | Start::Now | Start::Last(_) | Start::End(_) => None,
        }
    }

    /// Whether everything has come that was asked for, whatever the stream says.
    pub(super) fn is_complete(&self) -> bool {
        self.received > 0 && self.left() == Some(0)
    }

    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    /// An event is given to whoever reads the feed.
    pub(super) fn gives(&mut self, event: &Event) {
        match event {
            Event::Stalled(_) => self.stalled_by = self.causes.pop_front().flatten(),
            Event::Opened { .. } => self.stalled_by = None,
            _ => {}
        }
    }

    /// Why the feed has stalled, as of the last event that was given.
    pub(super) fn stalled_by(&self) -> Option<&str> {
        self.stalled_by.as_deref()
    }

    /// A new stream is read.
    pub(super) fn reopened(&mut self) {
        self.begun = false;
        self.sparse = false;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes the next frame of a stream and tells what it means.
    pub(super) fn take(&mut self, frame: Frame, events: &mut VecDeque<Event>) -> Result<(), ViewError> {
        if !self.begun && !matches!(frame, Frame::Begin { .. }) {
            return Err(ViewError::NoFeed);
        }
        match frame {
            Frame::Begin { epoch, next } => {
                self.begun = true;
                // Of a run that had not begun nothing was lost, and all of the new one is wanted.
                let seen = self.next.is_some_and(|next| next > 0) || self.restarted;
                if seen && self.epoch.is_some_and(|known| known != epoch) {
                    self.restarted = true;
                    self.next = None;
                }
                self.epoch = Some(epoch);
                if !self.restarted {
                    // So that what is lost before the first chunk has come is known too.
                    self.next = self.next.or(next);
                }
            }
            Frame::Chunk { seq, micros, bytes } => {
                let next = self.next.unwrap_or(if self.restarted { 0 } else { seq });
                if seq < next {
                    // It has come before.
                    return Ok(());
                }
                if (seq > next && !self.sparse) || self.restarted {
                    self.gap(next, seq, events);
                }
                self.next = Some(seq.saturating_add(1));
                self.received += 1;
                let cursor = Cursor { epoch: self.epoch.unwrap_or(Epoch(0)), seq };
                events.push_back(Event::Chunk { cursor, micros, bytes });
            }
            Frame::Gap(gap) => {
                if gap.restarted {
                    self.restarted = true;
                    self.next = None;
                }
                let end = gap.from.saturating_add(gap.missing);
                let next = self.next.unwrap_or(if self.restarted { 0 } else { gap.from });
                if end > next || self.restarted {
                    self.gap(next, end, events);
                    self.next = Some(end);
                }
            }
            Frame::End(end) => {
                if self.restarted {
                    self.gap(0, 0, events);
                }
                events.push_back(Event::End(end));
            }
            Frame::Heartbeat => {}
            Frame::Sparse => self.sparse = true,
            Frame::Stalled { stalled, cause } => {
                self.causes.push_back(cause);
                events.push_back(Event::Stalled(stalled));
            }
            Frame::Expired => return Err(ViewError::Expired),
            // A type that is new: readers skip what they don't know.
            _ => {}
        }
        Ok(())
    }

    /// Nothing from `from` to before `to` will come.
    fn gap(&mut self, from: u64, to: u64, events: &mut VecDeque<Event>) {
        let restarted = std::mem::take(&mut self.restarted);
        let missing = to - from;
        self.missing = self.missing.saturating_add(missing);
        self.restarts += u64::from(restarted);
        events.push_back(Event::Gap(Gap { from, missing, restarted }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{End, FeedError};
    use proptest::prelude::*;

    fn place(query: &str) -> (FeedUri, Place) {
        FeedUri::parse(&format!("https://host:1/stream/x{query}").parse().unwrap()).unwrap()
    }

    fn chunk(seq: u64) -> Frame {
        Frame::Chunk { seq, micros: 0, bytes: "x".into() }
    }

    /// What a stream of these frames means, in short.
    fn read(place: &mut Place, epoch: u64, frames: impl IntoIterator<Item = Frame>) -> Vec<String> {
        place.reopened();
        let mut events = VecDeque::new();
        for frame in [Frame::Begin { epoch: Epoch(epoch), next: None }].into_iter().chain(frames) {
            place.take(frame, &mut events).unwrap();
        }
        let short = |event| match event {
            Event::Chunk { cursor, .. } => cursor.to_string(),
            Event::Gap(gap) => format!("gap {}+{}{}", gap.from, gap.missing, if gap.restarted { " new" } else { "" }),
            Event::End(_) => "end".into(),
            event => format!("{event:?}"),
        };
        events.into_iter().map(short).collect()
    }

    #[test]
    fn asks_for_what_has_not_come() {
        let (uri, mut place) = place("?limit=9&from=start&x=y&format=raw");
        let ask = |place: &Place| uri.behind(place).to_string();
        assert_eq!(ask(&place), "https://host:1/stream/x?x=y&format=frames&from=start&limit=9");
        assert_eq!(read(&mut place, 0xab, [chunk(5), chunk(6)]), ["ab-5", "ab-6"]);
        assert_eq!(ask(&place), "https://host:1/stream/x?x=y&format=frames&from=ab-6&limit=7");
        // A gap counts as nothing received, and is not asked for again.
        let gap = Frame::Gap(Gap { from: 7, missing: 3, restarted: false });
        assert_eq!(read(&mut place, 0xab, [gap]), ["gap 7+3"]);
        assert_eq!(ask(&place), "https://host:1/stream/x?x=y&format=frames&from=ab-9&limit=7");
        assert!(!place.is_complete());
        assert_eq!(read(&mut place, 0xab, (10..17).map(chunk)).len(), 7);
        assert!(place.is_complete());
        assert_eq!((place.missing(), place.restarts()), (3, 0));
    }

    #[test]
    fn the_last_chunks_are_asked_for_until_one_has_come() {
        let (uri, mut place) = place("?from=-3");
        assert_eq!(uri.behind(&place).query(), Some("format=frames&from=-3"));
        assert_eq!(read(&mut place, 1, [chunk(7)]), ["1-7"]);
        assert_eq!(uri.behind(&place).query(), Some("format=frames&from=1-7"));
    }

    #[test]
    fn nothing_doubled_and_no_jump_unnoticed() {
        let mut place = place("").1;
        assert_eq!(read(&mut place, 1, [chunk(3), chunk(3), chunk(2), chunk(4)]), ["1-3", "1-4"]);
        assert_eq!(read(&mut place, 1, [chunk(4), chunk(7)]), ["gap 5+2", "1-7"]);
        // Of what is said to be missing, some has come.
        let gap = |from, missing| Frame::Gap(Gap { from, missing, restarted: false });
        assert_eq!(read(&mut place, 1, [gap(6, 4), gap(0, 10), chunk(10)]), ["gap 8+2", "1-10"]);
        // And some more is missing than is said.
        assert_eq!(read(&mut place, 1, [gap(12, 2), chunk(14)]), ["gap 11+3", "1-14"]);
        assert_eq!(place.missing(), 7);
    }

    #[test]
    fn a_feed_that_was_started_again_is_told_once() {
        let new = |missing| Frame::Gap(Gap { from: 0, missing, restarted: true });
        let (uri, mut place) = place("");
        read(&mut place, 1, [chunk(0), chunk(1)]);
        assert_eq!(read(&mut place, 2, [new(4), chunk(4)]), ["gap 0+4 new", "2-4"]);
        assert_eq!(place.restarts(), 1);
        // The server does not say so itself.
        assert_eq!(read(&mut place, 3, [chunk(2)]), ["gap 0+2 new", "3-2"]);
        assert_eq!(read(&mut place, 4, [Frame::End(End::Clean)]), ["gap 0+0 new", "end"]);
        // It is lost again before the gap has come: nothing of the new run has been seen.
        let mut place = FeedUri::parse(&uri.uri).unwrap().1;
        read(&mut place, 1, [chunk(8)]);
        assert_eq!(read(&mut place, 2, []), [""; 0]);
        assert_eq!(uri.behind(&place).query(), Some("format=frames&from=start"));
        assert_eq!(read(&mut place, 2, [chunk(0)]), ["gap 0+0 new", "2-0"]);
        // Or behind the gap.
        assert_eq!(read(&mut place, 3, [new(0)]), ["gap 0+0 new"]);
        assert_eq!(uri.behind(&place).query(), Some("format=frames&from=start"));
        assert_eq!(read(&mut place, 3, [chunk(1)]), ["gap 0+1", "3-1"]);
    }

    #[test]
    fn a_run_of_which_nothing_was_seen_is_none_that_was_lost() {
        let mut place = place("?from=now").1;
        assert_eq!(read(&mut place, 1, [Frame::Heartbeat]), [""; 0]);
        assert_eq!(read(&mut place, 2, [chunk(7)]), ["2-7"]);
        assert_eq!(place.restarts(), 0);
        let (_, mut place) = self::place("?from=1-6");
        assert_eq!(read(&mut place, 2, [chunk(7)]), ["gap 0+7 new", "2-7"]);
    }

    #[test]
    fn what_is_lost_before_the_first_chunk() {
        let begin = |epoch, next| Frame::Begin { epoch: Epoch(epoch), next: Some(next) };
        let (uri, mut place) = place("");
        let mut events = VecDeque::new();
        place.take(begin(1, 5), &mut events).unwrap();
        assert_eq!(uri.behind(&place).query(), Some("format=frames&from=1-4"));
        assert_eq!(read(&mut place, 1, [chunk(7)]), ["gap 5+2", "1-7"]);
        // Another run, of which it began behind some.
        let mut place = self::place("").1;
        place.take(begin(1, 5), &mut events).unwrap();
        assert_eq!(read(&mut place, 2, [chunk(0)]), ["gap 0+0 new", "2-0"]);
        // One that starts afresh for each viewer, and had not begun.
        let mut place = self::place("").1;
        place.take(begin(1, 0), &mut events).unwrap();
        place.reopened();
        place.take(begin(2, 0), &mut events).unwrap();
        assert_eq!(read(&mut place, 2, [chunk(0)]), ["2-0"]);
        assert!(events.is_empty());
    }

    #[test]
    fn what_is_no_feed_and_no_uri_of_one() {
        let mut place = place("").1;
        let end = Frame::End(End::Failed(FeedError("x".into())));
        assert!(matches!(place.take(end, &mut VecDeque::new()), Err(ViewError::NoFeed)));
        for query in ["format=sse", "format=frames", "delivery=datagrams", "from=x", "limit=", "limit=-1"] {
            let uri = format!("https://host/?{query}").parse().unwrap();
            assert!(FeedUri::parse(&uri).unwrap_err().to_string().contains(query));
        }
    }

    proptest! {
        /// Streams that are cut anywhere and begin again anywhere before: nothing is lost or
        /// doubled.
        #[test]
        fn cuts(cuts in prop::collection::vec((0..20_u64, 0..5_u64), 0..10)) {
            let (uri, mut place) = place("?from=start");
            let (mut seen, mut at) = (Vec::new(), 0);
            for (many, back) in cuts {
                let from = at - back.min(at);
                seen.extend(read(&mut place, 7, (from..from + many).map(chunk)));
                at = at.max(from + many);
                let expected = if at == 0 { "start".into() } else { format!("7-{}", at - 1) };
                let asked = uri.behind(&place);
                prop_assert_eq!(asked.query().unwrap(), format!("format=frames&from={expected}"));
            }
            prop_assert_eq!(seen, (0..at).map(|seq| format!("7-{seq}")).collect::<Vec<_>>());
        }

        #[test]
        fn takes_any_frames(frames in prop::collection::vec((0..5_u8, any::<u64>(), any::<u64>(), any::<bool>()), 0..20)) {
            let (_, mut place) = place("");
            let mut events = VecDeque::new();
            for (kind, one, two, flag) in frames {
                let _ = place.take(match kind {
                    0 => chunk(one),
                    1 => Frame::Gap(Gap { from: one, missing: two, restarted: flag }),
                    2 => Frame::End(End::Clean),
                    3 => Frame::Begin { epoch: Epoch(one), next: flag.then_some(two) },
                    _ => Frame::Heartbeat,
                }, &mut events);
            }
        }
    }
}
