//! A feed against a model that keeps everything for ever: whatever the order of events, each viewer sees every chunk in its
//! order, or a gap that states exactly how many it does not. For a feed in memory, and for one that any keeper stores.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use h3cast_feed::{Cursor, Event, Feed, Publisher, Start, Viewer};
use proptest::prelude::*;

/// One step.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Publish(usize),
    Join(u64),
    JoinAfter(u64),
    JoinLast(u64),
    Read(usize, usize),
    Leave(usize),
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..300_usize).prop_map(Step::Publish),
        1 => (0..2_u64).prop_map(Step::Join),
        1 => any::<u64>().prop_map(Step::JoinAfter),
        1 => (0..150_u64).prop_map(Step::JoinLast),
        3 => (any::<usize>(), 0..20_usize).prop_map(|(who, count)| Step::Read(who, count)),
        1 => any::<usize>().prop_map(Step::Leave),
    ]
}

/// What becomes of chunks that have left the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Past {
    /// They are gone, and viewers get a gap.
    Gone,
    /// They are stored: nobody misses any.
    Stored,
}

/// A feed with a ring of `history` bytes, which is new, and what may happen to it.
pub(crate) struct Model<'a> {
    feed: &'a Feed,
    publisher: &'a Publisher,
    history: usize,
    past: Past,
    all: Vec<Bytes>,
    /// Each with the number that it must see or be told of next; `None` until it has begun.
    viewers: Vec<(Viewer, Option<u64>)>,
}

impl<'a> Model<'a> {
    pub(crate) fn new(feed: &'a Feed, publisher: &'a Publisher, history: usize, past: Past) -> Self {
        Self { feed, publisher, history, past, all: Vec::new(), viewers: Vec::new() }
    }

    /// Needs a runtime with timers.
    pub(crate) async fn run(mut self, steps: Vec<Step>) -> Result<(), TestCaseError> {
        for step in steps {
            self.step(step).await?;
            prop_assert_eq!(self.feed.status().viewers, self.viewers.len() as u64);
            prop_assert_eq!(self.feed.status().chunks, self.all.len() as u64);
            // A chunk larger than the whole ring stands in it alone.
            let alone = self.all.last().map_or(0, |last| last.len() + 1000);
            prop_assert!(self.feed.status().kept_bytes <= self.history.max(alone));
        }
        Ok(())
    }

    async fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let end = self.all.len() as u64;
        // Where the oldest chunk that one from the start gets is known.
        let begun = |next| (self.past == Past::Stored).then_some(next);
        match step {
            Step::Publish(size) => {
                let bytes = Bytes::from(vec![self.all.len() as u8; size]);
                let publishing = self.publisher.publish(bytes.clone());
                let cursor = match self.past {
                    Past::Gone => publishing.now_or_never().expect("it waits for nobody"),
                    Past::Stored => publishing.await,
                };
                prop_assert_eq!(cursor.unwrap().seq, end);
                self.all.push(bytes);
            }
            Step::Join(0) => self.join(Start::Start, begun(0)),
            Step::Join(_) => self.join(Start::Now, Some(end)),
            Step::JoinAfter(seq) if end > 0 => {
                let (seq, epoch) = (seq % end, self.feed.view(Start::Now, None).epoch());
                self.join(Start::After(Cursor { epoch, seq }), Some(seq + 1));
            }
            Step::JoinLast(many) => {
                let first = end.saturating_sub(many);
                self.join(Start::Last(many), begun(first));
                // It begins there, or with the oldest one.
                if let Some((viewer, next)) = self.viewers.last_mut()
                    && let Some(seq) = viewer.next_seq()
                {
                    prop_assert_eq!(seq, first);
                    *next = Some(seq);
                }
            }
            Step::Read(who, count) if !self.viewers.is_empty() => self.read(who % self.viewers.len(), count).await?,
            Step::Leave(who) if !self.viewers.is_empty() => {
                self.viewers.swap_remove(who % self.viewers.len());
            }
            Step::JoinAfter(_) | Step::Read(..) | Step::Leave(_) => {}
        }
        Ok(())
    }

    fn join(&mut self, start: Start, next: Option<u64>) {
        self.viewers.push((self.feed.view(start, None), next));
    }

    async fn read(&mut self, who: usize, count: usize) -> Result<(), TestCaseError> {
        let (viewer, next) = &mut self.viewers[who];
        let end = self.all.len() as u64;
        for _ in 0..count {
            let event = match *next {
                // It may have to be read.
                Some(next) if self.past == Past::Stored && next < end => {
                    tokio::time::timeout(Duration::from_secs(30), viewer.next()).await.expect("it reads")
                }
                _ => viewer.next().now_or_never().flatten(),
            };
            match event {
                Some(Event::Chunk(chunk)) => {
                    prop_assert!(next.is_none_or(|next| next == chunk.seq));
                    prop_assert_eq!(&chunk.bytes, &self.all[chunk.seq as usize]);
                    *next = Some(chunk.seq + 1);
                }
                Some(Event::Gap(gap)) if self.past == Past::Gone => {
                    prop_assert_eq!(Some(gap.from), *next);
                    prop_assert!(gap.missing > 0 && !gap.restarted);
                    *next = Some(gap.from + gap.missing);
                }
                Some(event) => prop_assert!(false, "{:?}", event),
                None => {
                    prop_assert!(next.is_none_or(|next| next == end));
                    // It has begun, though there is nothing yet.
                    *next = Some(end);
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Viewers that come when the ring has a small part of the feed.
#[allow(dead_code, reason = "one in memory has no more than that")]
pub(crate) fn late_viewers() -> Vec<Step> {
    let published = (0..150).map(|_| Step::Publish(200));
    let joined = [Step::Join(0), Step::JoinAfter(9), Step::JoinLast(140)];
    let read = (0..3).flat_map(|who| [Step::Read(who, 100), Step::Publish(10), Step::Read(who, 200)]);
    published.chain(joined).chain(read).collect()
}
