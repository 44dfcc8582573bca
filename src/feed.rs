//! Feeds: named sequences of chunks, and who views them. Nothing here knows of HTTP or QUIC.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::SystemTime,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};

use crate::chunk::Chunk;

/// The name of the feed at `/stream`.
pub const DEFAULT: &str = "default";

/// Why a feed broke off before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FeedError(pub String);

type Open = dyn Fn() -> BoxStream<'static, Result<Bytes, FeedError>> + Send + Sync;

/// A named sequence of chunks.
#[derive(Clone)]
pub struct Feed {
    name: Arc<str>,
    open: Arc<Open>,
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
        f.debug_struct("Feed").field("name", &self.name).field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Feed {
    /// A feed that starts afresh for each viewer, as `open` makes it. Dropping the stream that
    /// `open` returned ends its source.
    pub fn on_demand<S>(name: &str, open: impl Fn() -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes, FeedError>> + Send + 'static,
    {
        Self { name: name.into(), open: Arc::new(move || open().boxed()), counters: Arc::default() }
    }

    /// Its name, which is also the last segment of its URL.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it starts, in the words of `/info`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        "on-demand"
    }

    /// How many viewers it has now.
    #[must_use]
    pub fn viewers(&self) -> u64 {
        self.counters.viewers.load(Ordering::Relaxed)
    }

    /// How many chunks it has given to viewers.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.counters.chunks.load(Ordering::Relaxed)
    }

    /// How many bytes those chunks had.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.counters.bytes.load(Ordering::Relaxed)
    }

    /// Starts to view the feed; after `limit` chunks it ends cleanly.
    #[must_use]
    pub fn view(&self, limit: Option<u64>) -> Viewer {
        self.counters.viewers.fetch_add(1, Ordering::Relaxed);
        Viewer { source: (self.open)(), next: 0, limit: limit.unwrap_or(u64::MAX), counters: self.counters.clone() }
    }
}

/// One reader of a feed. Dropping it ends what was made for it alone.
pub struct Viewer {
    source: BoxStream<'static, Result<Bytes, FeedError>>,
    next: u64,
    limit: u64,
    counters: Arc<Counters>,
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Viewer").field("next", &self.next).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Stream for Viewer {
    type Item = Result<Chunk, FeedError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.next >= self.limit {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.source.poll_next_unpin(cx)) {
            Some(Ok(bytes)) => {
                let chunk = Chunk { seq: self.next, time: SystemTime::now(), bytes };
                self.next += 1;
                self.counters.chunks.fetch_add(1, Ordering::Relaxed);
                self.counters.bytes.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
                Some(Ok(chunk))
            }
            Some(Err(error)) => Some(Err(error)),
            None => None,
        })
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
mod tests {
    use super::*;
    use futures_util::stream;

    fn three() -> Feed {
        Feed::on_demand("three", || stream::iter(["a", "b", "c"].map(|text| Ok(Bytes::from(text)))))
    }

    #[tokio::test]
    async fn each_viewer_starts_afresh_and_is_counted() {
        let feed = three();
        let (first, second) = (feed.view(None), feed.view(None));
        assert_eq!(feed.viewers(), 2);
        for viewer in [first, second] {
            let seqs: Vec<_> = viewer.map(|chunk| chunk.unwrap().seq).collect().await;
            assert_eq!(seqs, [0, 1, 2]);
        }
        assert_eq!((feed.viewers(), feed.chunks(), feed.bytes()), (0, 6, 6));
    }

    #[tokio::test]
    async fn a_limit_ends_cleanly() {
        assert_eq!(three().view(Some(2)).count().await, 2);
        assert_eq!(three().view(Some(0)).count().await, 0);
    }
}
