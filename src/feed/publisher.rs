//! The one who writes a live feed.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::poll;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::{Counters, End, ring::Ring};
use crate::chunk::Cursor;

/// How long a publisher may be held up before the log is told, each time.
const LONG: Duration = Duration::from_secs(10);

/// Publishes to a live feed. Clones publish to the same one; when the last is dropped, it ends.
#[derive(Debug, Clone)]
pub struct Publisher(Arc<EndOnDrop>);

#[derive(Debug)]
struct EndOnDrop {
    name: Arc<str>,
    ring: Arc<Ring>,
    counters: Arc<Counters>,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.ring.end(End::Clean);
    }
}

impl Publisher {
    pub(super) fn new(name: Arc<str>, ring: Arc<Ring>, counters: Arc<Counters>) -> Self {
        Self(Arc::new(EndOnDrop { name, ring, counters }))
    }

    /// Publishes a chunk and gives its cursor; `None` when the feed has ended. With [`Lag::Block`](super::Lag::Block),
    /// waits until no viewer would lose a chunk by it.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, nothing is published.
    ///
    /// # Panics
    ///
    /// When it has to wait and there is no Tokio runtime with timers.
    pub async fn publish(&self, bytes: Bytes) -> Option<Cursor> {
        let size = bytes.len();
        let mut publishing = pin!(self.0.ring.publish(bytes));
        let published = match poll!(publishing.as_mut()) {
            Poll::Ready(published) => published,
            Poll::Pending => self.blocked(publishing).await,
        };
        let cursor = published?;
        self.0.counters.count(size);
        Some(cursor)
    }

    /// Waits with what publishes, and says so when it takes long: one viewer that does not read is
    /// enough for that.
    async fn blocked<T>(&self, mut publishing: Pin<&mut impl Future<Output = T>>) -> T {
        let mut since = Instant::now();
        loop {
            let waited = timeout(LONG, publishing.as_mut()).await;
            self.0.counters.blocked(since.elapsed());
            since = Instant::now();
            match waited {
                Ok(published) => return published,
                Err(_) => {
                    warn!(feed = &*self.0.name, "a viewer that does not read holds up what is published (lag: block)")
                }
            }
        }
    }

    /// Waits until the feed has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn ended(&self) {
        self.0.ring.ended().await;
    }

    /// Ends the feed; the first end counts.
    pub fn end(&self, end: End) {
        self.0.ring.end(end);
    }
}
