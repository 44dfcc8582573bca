//! One reader of a feed.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use tracing::{debug, info};

use crate::{
    Chunk, End, Epoch, Event, Feed, Gap,
    feed::{Counters, Kind, panicked},
    kept::KeptViewer,
    panics,
    ring::RingViewer,
};

/// A run of numbers that is not the one of the viewer's cursor; how much of it is gone is not known.
pub(crate) const RESTARTED: Gap = Gap { from: 0, missing: 0, restarted: true };

pub(crate) enum Source {
    Live(RingViewer),
    Kept(KeptViewer),
    OnDemand { stream: BoxStream<'static, Result<Bytes, End>>, next: u64, restarted: bool, counters: Arc<Counters> },
}

impl Source {
    #[inline]
    fn poll_next(&mut self, feed: &str, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        match self {
            Self::Live(viewer) => viewer.poll_next(cx),
            _ => self.poll_other(feed, cx),
        }
    }

    /// Apart from the live feeds, whose every chunk it would make dearer.
    #[inline(never)]
    fn poll_other(&mut self, feed: &str, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        match self {
            Self::Live(viewer) => viewer.poll_next(cx),
            Self::Kept(viewer) => viewer.poll_next(cx),
            Self::OnDemand { restarted, .. } if *restarted => {
                *restarted = false;
                Poll::Ready(Some(Event::Gap(RESTARTED)))
            }
            Self::OnDemand { stream, next, counters, .. } => {
                // It has a viewer of its own, which is to get the reason, also when others share its task.
                let polled = match panics::caught(|| stream.poll_next_unpin(cx)) {
                    Ok(polled) => ready!(polled),
                    Err(panic) => Some(Err(End::Failed(panicked(feed, &panic)))),
                };
                Poll::Ready(Some(match polled {
                    Some(Ok(bytes)) => {
                        counters.count(bytes.len());
                        *next += 1;
                        Event::Chunk(Arc::new(Chunk::new(*next - 1, bytes)))
                    }
                    Some(Err(end)) => Event::End(end),
                    None => Event::End(End::Clean),
                }))
            }
        }
    }
}

/// One reader of a feed. Dropping it ends what was made for it alone.
pub struct Viewer {
    feed: Arc<str>,
    /// `None` once it has ended.
    source: Option<Source>,
    epoch: Epoch,
    left: u64,
    /// Another view can continue where this one ends.
    resumable: bool,
    /// There is no more of the feed, wherever a view of it begins.
    settled: bool,
    /// The log has been told that it is too slow.
    told: bool,
    counters: Arc<Counters>,
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Viewer").field("epoch", &self.epoch).field("left", &self.left).finish_non_exhaustive()
    }
}

impl Viewer {
    /// One of that feed, which counts it already; after `limit` chunks it ends cleanly.
    pub(crate) fn new(feed: &Feed, source: Source, epoch: Epoch, limit: Option<u64>) -> Self {
        let left = limit.unwrap_or(u64::MAX);
        let resumable = !matches!(feed.kind, Kind::OnDemand { same: false, .. });
        Self {
            feed: feed.name.clone(),
            source: Some(source),
            epoch,
            left,
            resumable,
            settled: false,
            told: false,
            counters: feed.counters.clone(),
        }
    }

    /// What it will be told to be missing first of all, if that is known by now.
    #[must_use]
    pub fn gap(&self) -> Option<Gap> {
        match self.source.as_ref()? {
            Source::Live(viewer) => viewer.gap(),
            Source::Kept(viewer) => viewer.gap(),
            Source::OnDemand { restarted, .. } => restarted.then_some(RESTARTED),
        }
    }

    /// The number of the chunk that it gets next unless it misses some, if that is known: who views
    /// from the start gets the oldest that there is when it comes to that.
    #[must_use]
    pub fn next_seq(&self) -> Option<u64> {
        match self.source.as_ref()? {
            Source::Live(viewer) => viewer.next_seq(),
            Source::Kept(viewer) => viewer.next_seq(),
            Source::OnDemand { next, .. } => Some(*next),
        }
    }

    /// Whether there was more, when it got what it got last.
    pub(crate) fn is_behind(&self) -> bool {
        match &self.source {
            Some(Source::Live(viewer)) => viewer.is_behind(),
            Some(Source::Kept(viewer)) => viewer.is_behind(),
            Some(Source::OnDemand { .. }) | None => false,
        }
    }

    /// Whether numbers are left out between its chunks, so that a jump is no loss.
    pub(crate) fn is_sparse(&self) -> bool {
        matches!(&self.source, Some(Source::Kept(viewer)) if viewer.is_sparse())
    }

    /// Whether its end was that of the feed: there is nothing that another view could continue with.
    pub(crate) fn has_settled(&self) -> bool {
        self.settled
    }

    /// The epoch of the chunks that it gets.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Stream for Viewer {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = &mut *self;
        let Some(source) = &mut this.source else { return Poll::Ready(None) };
        let event = match this.left {
            0 => Some(Event::End(End::Clean)),
            _ => ready!(source.poll_next(&this.feed, cx)),
        };
        match &event {
            Some(Event::Chunk(_)) => this.left -= 1,
            Some(Event::Gap(gap)) if gap.missing > 0 => {
                let (feed, missing) = (&*this.feed, gap.missing);
                // Once at a level that is shown: it may go on for as long as the viewer is there.
                match std::mem::replace(&mut this.told, true) {
                    false => info!(feed, missing, "a viewer is behind all that is kept, and misses chunks"),
                    true => debug!(feed, missing, "a viewer misses chunks again"),
                }
            }
            Some(Event::Gap(_) | Event::Stalled(_)) => {}
            // What was made for this viewer alone goes now, not when the last bytes are read.
            Some(Event::End(end)) => {
                if let (Source::OnDemand { .. }, End::Failed(error)) = (&*source, end) {
                    this.counters.failures.count(&this.feed, error);
                }
                this.settled = this.left > 0 || !this.resumable;
                this.source = None;
            }
            None => this.source = None,
        }
        Poll::Ready(event)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.counters.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}
