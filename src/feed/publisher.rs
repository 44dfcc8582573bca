//! The one who writes a live feed.

use std::sync::Arc;

use bytes::Bytes;

use super::{Counters, End, ring::Ring};
use crate::chunk::Cursor;

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
    pub(super) fn new(ring: Arc<Ring>, counters: Arc<Counters>) -> Self {
        Self(Arc::new(EndOnDrop { ring, counters }))
    }

    /// Publishes a chunk and gives its cursor; `None` when the feed has ended. With [`Lag::Block`],
    /// waits until no viewer would lose a chunk by it.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, nothing is published.
    pub async fn publish(&self, bytes: Bytes) -> Option<Cursor> {
        let size = bytes.len();
        let cursor = self.0.ring.publish(bytes).await?;
        self.0.counters.count(size);
        Some(cursor)
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
