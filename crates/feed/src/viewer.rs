//! One viewer of a feed, and what it gets.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use tracing::{debug, info};

use crate::{
    Chunk, End, Epoch, Feed, Gap, Input, Trouble,
    budget::Seat,
    feed::{Backing, panicked},
    input::Held,
    kept::KeptViewer,
    panics,
    ring::RingViewer,
    status::FeedCounters,
};

/// What a viewer gets.
#[derive(Debug, Clone)]
pub enum Event {
    /// The next chunk.
    Chunk(Arc<Chunk>),
    /// Chunks are missing before the next one.
    Gap(Gap),
    /// Whether new chunks of the feed cannot be received or stored. What is stored is not lost by that.
    Stalled(bool),
    /// The end. Nothing follows.
    End(End),
}

/// The run of numbers is not that of the viewer's cursor. How much of it is gone is unknown.
pub(crate) const RESTARTED: Gap = Gap { from: 0, missing: 0, restarted: true };

/// Where its chunks come from.
pub(crate) enum Upstream {
    Live(RingViewer),
    Kept(KeptViewer),
    OnDemand {
        stream: BoxStream<'static, Result<Bytes, End>>,
        next: u64,
        restarted: bool,
        counters: Arc<FeedCounters>,
        interaction: Interaction,
    },
}

/// What a viewer sends to a source, as long as that runs.
pub(crate) struct Interaction {
    /// Until it is taken.
    pub(crate) input: Option<Input>,
    /// Tells whoever has the input of the source's end.
    pub(crate) _held: Option<Held>,
}

impl Upstream {
    #[inline]
    fn poll_next(&mut self, feed: &str, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        match self {
            Self::Live(viewer) => viewer.poll_next(cx),
            _ => self.poll_other(feed, cx),
        }
    }

    /// Separate from live feeds, to whose every chunk it would add cost.
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
                // This viewer is to get the reason, even if others share its task.
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

/// One viewer of a feed: a stream of events. Dropping it ends a source that is for it alone.
///
/// ```
/// use futures_util::StreamExt;
/// use h3cast_feed::{Event, Feed, Lag, Start};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), h3cast_feed::PublishError> {
/// let (feed, publisher) = Feed::live("log", 1_000_000, Lag::Skip);
/// publisher.publish("a line".into()).await?;
/// let mut viewer = feed.view(Start::Start, None);
/// assert!(matches!(viewer.next().await, Some(Event::Chunk(chunk)) if chunk.bytes == "a line"));
/// # Ok(()) }
/// ```
///
/// # Cancel safety
///
/// Polling it is cancel-safe: an event is either returned or still to come.
pub struct Viewer {
    feed: Arc<str>,
    /// `None` once it has ended.
    upstream: Option<Upstream>,
    epoch: Epoch,
    left: u64,
    /// Another view can continue where this one ends.
    resumable: bool,
    /// The feed itself is over, wherever a view of it begins.
    settled: bool,
    /// It has been logged that it is too slow.
    logged: bool,
    counters: Arc<FeedCounters>,
    /// If its feed has a budget.
    pub(crate) seat: Option<Arc<Seat>>,
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Viewer").field("epoch", &self.epoch).field("left", &self.left).finish_non_exhaustive()
    }
}

impl Viewer {
    /// A viewer that the feed has counted already. After `limit` chunks it ends cleanly.
    pub(crate) fn new(feed: &Feed, mut upstream: Upstream, epoch: Epoch, limit: Option<u64>) -> Self {
        let left = limit.unwrap_or(u64::MAX);
        let seat = feed.counters.budget.get().map(|budget| match &mut upstream {
            Upstream::Live(_) => budget.seat(),
            Upstream::Kept(viewer) => {
                viewer.charge(budget);
                budget.seat_of_some()
            }
            Upstream::OnDemand { .. } => budget.seat_of_one(),
        });
        let resumable = !matches!(feed.backing, Backing::OnDemand { same: None, .. });
        Self {
            feed: feed.name.clone(),
            upstream: Some(upstream),
            epoch,
            left,
            resumable,
            settled: false,
            logged: false,
            counters: feed.counters.clone(),
            seat,
        }
    }

    /// Calls `cut` when its feed's [`Budget`](crate::Budget) cuts it, since it has taken nothing for too long while
    /// memory was short; at once if that has happened. What waits to send it something should give up then, and drop
    /// what it has. The viewer itself ends with [`End::Stopped`], and another one may resume where it was. Only the
    /// last call counts; without a budget it does nothing.
    pub fn on_cut(&self, cut: impl FnOnce() + Send + 'static) {
        if let Some(seat) = &self.seat {
            seat.on_cut(Box::new(cut));
        }
    }

    /// Whether its chunks are published for all viewers, and not from a source of its own.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.upstream, Some(Upstream::Live(_) | Upstream::Kept(_)))
    }

    /// The input of its source, if that takes any and it has not been taken before. When it is never taken, it ends
    /// with the source.
    #[must_use]
    pub fn take_input(&mut self) -> Option<Input> {
        match &mut self.upstream {
            Some(Upstream::OnDemand { interaction, .. }) => interaction.input.take(),
            _ => None,
        }
    }

    /// The gap that it will get first, if that is known by now.
    #[must_use]
    pub fn gap(&self) -> Option<Gap> {
        match self.upstream.as_ref()? {
            Upstream::Live(viewer) => viewer.gap(),
            Upstream::Kept(viewer) => viewer.gap(),
            Upstream::OnDemand { restarted, .. } => restarted.then_some(RESTARTED),
        }
    }

    /// The number of the next chunk unless it misses some, if that is known. A viewer from the start gets the
    /// oldest chunk at the time.
    #[must_use]
    pub fn next_seq(&self) -> Option<u64> {
        match self.upstream.as_ref()? {
            Upstream::Live(viewer) => viewer.next_seq(),
            Upstream::Kept(viewer) => viewer.next_seq(),
            Upstream::OnDemand { next, .. } => Some(*next),
        }
    }

    /// Whether more was there when it got its last chunk.
    pub(crate) fn is_behind(&self) -> bool {
        match &self.upstream {
            Some(Upstream::Live(viewer)) => viewer.is_behind(),
            Some(Upstream::Kept(viewer)) => viewer.is_behind(),
            Some(Upstream::OnDemand { .. }) | None => false,
        }
    }

    /// Whether it is one of a feed in memory, whose viewers all get the same.
    #[inline]
    pub(crate) fn is_of_ring(&self) -> bool {
        matches!(self.upstream, Some(Upstream::Live(_)))
    }

    /// Whether no other viewer gets the chunks that it gets.
    pub(crate) fn has_own(&self) -> bool {
        match &self.upstream {
            Some(Upstream::Live(_)) => false,
            Some(Upstream::Kept(viewer)) => viewer.has_own(),
            // It is read for it alone, to its end.
            Some(Upstream::OnDemand { .. }) | None => true,
        }
    }

    /// Whether the numbering of its chunks has gaps, which do not mean lost chunks.
    pub(crate) fn is_sparse(&self) -> bool {
        matches!(&self.upstream, Some(Upstream::Kept(viewer)) if viewer.is_sparse())
    }

    /// Charges the feed's history for an encoding that was made of one of its chunks.
    pub(crate) fn encoded(&self, chunk: &Arc<Chunk>, cost: usize) {
        match &self.upstream {
            Some(Upstream::Live(viewer)) => viewer.encoded(chunk, cost),
            Some(Upstream::Kept(viewer)) => viewer.encoded(chunk, cost),
            Some(Upstream::OnDemand { .. }) | None => {}
        }
    }

    /// Whether its end was that of the feed, so that another view has nothing to continue with.
    pub(crate) fn has_settled(&self) -> bool {
        self.settled
    }

    /// Why the feed cannot be served as it should be now, if that was [noted](Feed::set_trouble).
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.counters.trouble()
    }

    /// The epoch of the chunks that it gets.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Stream for Viewer {
    type Item = Event;

    #[inline]
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = &mut *self;
        let Some(upstream) = &mut this.upstream else { return Poll::Ready(None) };
        let event = match (this.left, &this.seat) {
            (0, _) => Some(Event::End(End::Clean)),
            (_, None) => ready!(upstream.poll_next(&this.feed, cx)),
            (_, Some(seat)) if seat.is_cut() => Some(Event::End(End::Stopped)),
            (_, Some(seat)) => match upstream.poll_next(&this.feed, cx) {
                Poll::Ready(event) => {
                    seat.given();
                    event
                }
                Poll::Pending => {
                    seat.waits();
                    return Poll::Pending;
                }
            },
        };
        match &event {
            Some(Event::Chunk(_)) => this.left -= 1,
            Some(Event::Gap(gap)) if gap.missing > 0 => {
                let (feed, missing) = (&*this.feed, gap.missing);
                // Once at a level that is shown: it may happen for as long as the viewer stays.
                match (std::mem::replace(&mut this.logged, true), &*upstream) {
                    // It reads from there what it is behind by.
                    (false, Upstream::Kept(_)) => {
                        info!(feed, missing, "a viewer misses chunks that are no longer stored, or cannot be read")
                    }
                    (false, _) => info!(feed, missing, "a viewer fell behind the history and misses chunks"),
                    (true, _) => debug!(feed, missing, "a viewer is missing chunks again"),
                }
            }
            Some(Event::Gap(_) | Event::Stalled(_)) => {}
            // A source for this viewer alone is dropped now, not when the last bytes have been read.
            Some(Event::End(end)) => {
                if let (Upstream::OnDemand { .. }, End::Failed(error)) = (&*upstream, end) {
                    this.counters.failures.count(&this.feed, error);
                }
                this.settled = this.left > 0 || !this.resumable;
                this.upstream = None;
            }
            None => this.upstream = None,
        }
        Poll::Ready(event)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.counters.left();
        if let Some(seat) = &self.seat {
            seat.leave();
        }
    }
}
