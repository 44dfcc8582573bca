//! Feeds on the wire: where a viewer is in one, and what happens to it.
//!
//! A feed is a sequence of numbered chunks. Viewers and servers name positions in it by [`Cursor`], and a
//! stream carries it with times, gaps and its end as [`frames`]. `docs/protocol.md` has the layouts.

mod cursor;
pub mod frames;

pub use cursor::{BadCursor, Cursor, EndCursor, Epoch};

/// Chunks that a viewer will not receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The number of the first one.
    pub from: u64,
    /// How many there are.
    pub missing: u64,
    /// The feed was restarted, so the viewer's cursor no longer applies: a new run of numbers follows.
    pub restarted: bool,
}

/// How a feed ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It is complete.
    Clean,
    /// Its source failed.
    Failed(FeedError),
    /// The server is stopping, and the feed has not ended: it may be back when the server is. On the wire
    /// the stream ends without an end frame.
    Stopped,
}

/// Why a feed broke off before its end, in words: viewers receive this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FeedError(pub String);
