//! Feeds: named sequences of chunks, and who views them. Nothing here knows of HTTP or QUIC.

mod ring;

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};

use crate::chunk::{Chunk, Cursor, Epoch};
use ring::{Ring, RingViewer};

/// The name of the feed at `/stream`.
pub const DEFAULT: &str = "default";

/// How many bytes of a live feed are kept for those who come late or again.
pub const DEFAULT_HISTORY: usize = 8 << 20;

/// Why a feed broke off before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FeedError(pub String);

/// How a feed ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// There is no more.
    Clean,
    /// Its source failed.
    Failed(FeedError),
}

/// Where a viewer begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum From {
    /// At the oldest chunk that there still is.
    Start,
    /// At the next chunk that is published; a feed that starts afresh for each viewer is viewed
    /// from its start.
    #[default]
    Now,
    /// Behind that chunk.
    After(Cursor),
}

/// Chunks that a viewer will not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first of them.
    pub from: u64,
    /// How many they are.
    pub missing: u64,
    /// The feed was started again, so that the viewer's cursor means nothing; what comes now is
    /// another run of numbers.
    pub restarted: bool,
}

/// An on-demand feed that is not the one of the viewer's cursor.
const RESTARTED: Gap = Gap { from: 0, missing: 0, restarted: true };

/// What a viewer gets.
#[derive(Debug, Clone)]
pub enum Event {
    /// The next chunk.
    Chunk(Arc<Chunk>),
    /// Some are missing before the next.
    Gap(Gap),
    /// There is no more. Nothing follows.
    End(End),
}

/// What becomes of a viewer that is behind all that a live feed keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lag {
    /// It goes on with the oldest chunk kept, and is told of the gap.
    #[default]
    Skip,
    /// It is told of the gap and cut off.
    Disconnect,
    /// It does not come to that: the producer waits.
    Block,
}

type Open = dyn Fn(u64) -> BoxStream<'static, Result<Bytes, FeedError>> + Send + Sync;

#[derive(Clone)]
enum Kind {
    Live(Arc<Ring>),
    OnDemand {
        open: Arc<Open>,
        /// Every run has the same chunks, so that a viewer can go on in another one.
        same: bool,
    },
}

/// A named sequence of chunks.
#[derive(Clone)]
pub struct Feed {
    name: Arc<str>,
    kind: Kind,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    viewers: AtomicU64,
    chunks: AtomicU64,
    bytes: AtomicU64,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("name", &self.name).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

impl Feed {
    /// A live feed, and the one that publishes to it. It keeps up to `history` bytes; it ends when
    /// the last clone of its publisher is dropped.
    #[must_use]
    pub fn live(name: &str, history: usize, lag: Lag) -> (Self, Publisher) {
        let ring = Arc::new(Ring::new(Epoch::now(), history, lag));
        let counters = Arc::<Counters>::default();
        let publisher = Publisher(Arc::new(EndOnDrop { ring: ring.clone(), counters: counters.clone() }));
        (Self { name: name.into(), kind: Kind::Live(ring), counters }, publisher)
    }

    /// A feed that starts afresh for each viewer, as `open` makes it. Dropping the stream that
    /// `open` returned ends its source.
    pub fn on_demand<S>(name: &str, open: impl Fn() -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes, FeedError>> + Send + 'static,
    {
        let open = Arc::new(move |_| open().boxed());
        Self { name: name.into(), kind: Kind::OnDemand { open, same: false }, counters: Arc::default() }
    }

    /// A feed that has the same chunks for each viewer; `open` makes them from that number on, so
    /// that a viewer who comes again goes on where it was.
    pub fn replayable<S>(name: &str, open: impl Fn(u64) -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes, FeedError>> + Send + 'static,
    {
        let open = Arc::new(move |start| open(start).boxed());
        Self { name: name.into(), kind: Kind::OnDemand { open, same: true }, counters: Arc::default() }
    }

    /// Its name, which is also the last segment of its URL.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it starts, in the words of `/info`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Live(_) => "live",
            Kind::OnDemand { .. } => "on-demand",
        }
    }

    /// What can be said of it now.
    #[must_use]
    pub fn status(&self) -> Status {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let mut status = Status {
            viewers: get(&counters.viewers),
            chunks: get(&counters.chunks),
            bytes: get(&counters.bytes),
            kept_bytes: 0,
            oldest: None,
            skipped: 0,
            end: None,
        };
        if let Kind::Live(ring) = &self.kind {
            let ring = ring.status();
            status.chunks = ring.chunks;
            status.kept_bytes = ring.kept_bytes;
            status.oldest = ring.oldest;
            status.skipped = ring.skipped;
            status.end = ring.end;
        }
        status
    }

    /// Starts to view the feed; after `limit` chunks it ends cleanly.
    #[must_use]
    pub fn view(&self, from: From, limit: Option<u64>) -> Viewer {
        self.counters.viewers.fetch_add(1, Ordering::Relaxed);
        let (source, epoch) = match &self.kind {
            Kind::Live(ring) => (Source::Live(ring.view(from)), ring.epoch()),
            Kind::OnDemand { open, same } => {
                let epoch = if *same { Epoch(0) } else { Epoch::now() };
                let (start, restarted) = match from {
                    From::After(cursor) if *same && cursor.epoch == epoch => (cursor.seq.saturating_add(1), false),
                    From::After(_) => (0, true),
                    From::Start | From::Now => (0, false),
                };
                (
                    Source::OnDemand { stream: open(start), next: start, restarted, counters: self.counters.clone() },
                    epoch,
                )
            }
        };
        Viewer { source: Some(source), epoch, left: limit.unwrap_or(u64::MAX), counters: self.counters.clone() }
    }
}

/// What can be said of a feed at a moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// Who views it now.
    pub viewers: u64,
    /// Chunks published (live), or given to viewers (on demand).
    pub chunks: u64,
    /// The bytes of those chunks.
    pub bytes: u64,
    /// What a live feed keeps, in bytes with what each chunk costs beside its own.
    pub kept_bytes: usize,
    /// The oldest chunk that a live feed keeps.
    pub oldest: Option<Cursor>,
    /// Chunks that viewers missed, being too far behind.
    pub skipped: u64,
    /// How a live feed ended, if it has.
    pub end: Option<End>,
}

/// Publishes to a live feed. Clones publish to the same one; when the last is dropped, it ends.
#[derive(Debug, Clone)]
pub struct Publisher(Arc<EndOnDrop>);

#[derive(Debug)]
struct EndOnDrop {
    ring: Arc<Ring>,
    counters: Arc<Counters>,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.ring.end(End::Clean);
    }
}

impl Publisher {
    /// Publishes a chunk and gives its cursor; `None` when the feed has ended. With [`Lag::Block`],
    /// waits until no viewer would lose a chunk by it.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, nothing is published.
    pub async fn publish(&self, bytes: Bytes) -> Option<Cursor> {
        let size = bytes.len() as u64;
        let cursor = self.0.ring.publish(bytes).await?;
        self.0.counters.bytes.fetch_add(size, Ordering::Relaxed);
        Some(cursor)
    }

    /// Ends the feed; the first end counts.
    pub fn end(&self, end: End) {
        self.0.ring.end(end);
    }
}

enum Source {
    Live(RingViewer),
    OnDemand {
        stream: BoxStream<'static, Result<Bytes, FeedError>>,
        next: u64,
        restarted: bool,
        counters: Arc<Counters>,
    },
}

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        match self {
            Self::Live(viewer) => viewer.poll_next(cx),
            Self::OnDemand { restarted, .. } if *restarted => {
                *restarted = false;
                Poll::Ready(Some(Event::Gap(RESTARTED)))
            }
            Self::OnDemand { stream, next, counters, .. } => {
                Poll::Ready(Some(match ready!(stream.poll_next_unpin(cx)) {
                    Some(Ok(bytes)) => {
                        counters.chunks.fetch_add(1, Ordering::Relaxed);
                        counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                        *next += 1;
                        Event::Chunk(Arc::new(Chunk::new(*next - 1, bytes)))
                    }
                    Some(Err(error)) => Event::End(End::Failed(error)),
                    None => Event::End(End::Clean),
                }))
            }
        }
    }
}

/// One reader of a feed. Dropping it ends what was made for it alone.
pub struct Viewer {
    /// `None` once it has ended.
    source: Option<Source>,
    epoch: Epoch,
    left: u64,
    counters: Arc<Counters>,
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Viewer").field("epoch", &self.epoch).field("left", &self.left).finish_non_exhaustive()
    }
}

impl Viewer {
    /// What it will be told to be missing first of all, if that is known by now.
    #[must_use]
    pub fn gap(&self) -> Option<Gap> {
        match self.source.as_ref()? {
            Source::Live(viewer) => viewer.gap(),
            Source::OnDemand { restarted, .. } => restarted.then_some(RESTARTED),
        }
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
            _ => ready!(source.poll_next(cx)),
        };
        match &event {
            Some(Event::Chunk(_)) => this.left -= 1,
            Some(Event::Gap(_)) => {}
            // What was made for this viewer alone goes now, not when the last bytes are read.
            Some(Event::End(_)) | None => this.source = None,
        }
        Poll::Ready(event)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.counters.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The feeds of a server, by name.
#[derive(Debug, Clone, Default)]
pub struct Feeds(BTreeMap<String, Feed>);

impl Feeds {
    /// The feed of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Feed> {
        self.0.get(name)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Feed> {
        self.0.values()
    }
}

impl FromIterator<Feed> for Feeds {
    fn from_iter<T: IntoIterator<Item = Feed>>(feeds: T) -> Self {
        Self(feeds.into_iter().map(|feed| (feed.name().to_owned(), feed)).collect())
    }
}

#[cfg(test)]
mod tests;
