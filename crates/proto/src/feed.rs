//! Feeds on the wire: where a viewer is in one, and what happens to it.
//!
//! A feed is a sequence of numbered chunks. Viewers and servers name positions in it by [`Cursor`], and a
//! stream carries it with times, gaps and its end as [`frames`]. `docs/protocol.md` has the layouts.

use std::error::Error;

mod cursor;
pub mod frames;

pub use cursor::{BadCursor, Cursor, EndCursor, Epoch};

/// The codes with which a server closes a session in which a feed is read or written.
pub mod session_code {
    /// The feed broke off: it failed, or its server is stopping. The reason has the words.
    pub const FAILED: u32 = 1;
    /// The right to read or write the feed has ended: a session with a new token resumes after the last
    /// chunk.
    pub const EXPIRED: u32 = 2;
    /// The viewer took nothing for too long, which is less while the server is short of memory: another session
    /// resumes after its last chunk.
    pub const STALLED: u32 = 3;
}

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

/// Why a feed broke off before its end, in words: viewers receive this text, and nothing else of the error
/// that was its cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FeedError(pub String);

impl FeedError {
    /// An error in words, followed by its causes. A cause that the words before it contain is left out: many
    /// errors repeat theirs.
    ///
    /// ```
    /// use h3cast_proto::feed::FeedError;
    ///
    /// let error = "x".parse::<u8>().unwrap_err();
    /// assert_eq!(FeedError::of(&error).to_string(), "invalid digit found in string");
    /// ```
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let (mut text, mut source) = (error.to_string(), error.source());
        while let Some(cause) = source {
            let words = cause.to_string();
            if !text.contains(&words) {
                text = format!("{text}: {words}");
            }
            source = cause.source();
        }
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read {0}")]
    struct Outer(&'static str, #[source] DiskFailed);

    #[derive(Debug, thiserror::Error)]
    #[error("the disk failed")]
    struct DiskFailed;

    #[test]
    fn an_error_in_words_has_each_cause_once() {
        assert_eq!(FeedError::of(&Outer("a.log", DiskFailed)).0, "cannot read a.log: the disk failed");
        assert_eq!(FeedError::of(&Outer("a.log: the disk failed", DiskFailed)).0, "cannot read a.log: the disk failed");
    }
}
