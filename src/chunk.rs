//! The unit that a source emits and a viewer receives, and the place where a viewer is.

use std::{
    fmt,
    str::FromStr,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use crate::format::Piece;

/// One piece of a feed.
#[derive(Debug)]
pub struct Chunk {
    /// Its place in its feed, from 0.
    pub seq: u64,
    /// When it was published.
    pub time: SystemTime,
    /// What it carries.
    pub bytes: Bytes,
    /// What it is in each format, made when the first viewer asks and shared by all.
    pub(crate) written: [OnceLock<Box<Piece>>; 3],
}

impl Chunk {
    /// A chunk that is published now.
    #[must_use]
    pub fn new(seq: u64, bytes: Bytes) -> Self {
        Self { seq, time: SystemTime::now(), bytes, written: Default::default() }
    }

    /// When it was published, in microseconds since 1970.
    #[must_use]
    pub fn micros(&self) -> u64 {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

/// Names one run of sequence numbers: another epoch, other chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// One that no earlier run of this feed had: the time, in milliseconds.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Where a viewer is: behind the chunk `seq` of `epoch`. Written `EPOCH-SEQ`, the epoch in
/// hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The run of sequence numbers.
    pub epoch: Epoch,
    /// The last chunk that the viewer has.
    pub seq: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// A text is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no cursor: it is EPOCH-SEQ, as the feed itself gives it")]
pub struct BadCursor(String);

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let parse = || {
            let (epoch, seq) = text.split_once('-')?;
            // `+1` would parse as well.
            let plain = epoch.bytes().chain(seq.bytes()).all(|byte| byte.is_ascii_alphanumeric());
            plain.then_some(())?;
            Some(Self { epoch: Epoch(u64::from_str_radix(epoch, 16).ok()?), seq: seq.parse().ok()? })
        };
        parse().ok_or_else(|| BadCursor(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_is_written(epoch: u64, seq: u64) {
            let cursor = Cursor { epoch: Epoch(epoch), seq };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn takes_any_text(text in "\\PC{0,30}") {
            let _ = text.parse::<Cursor>();
        }
    }

    #[test]
    fn what_is_no_cursor() {
        for text in ["", "-", "1", "1-", "-1", "+1-1", "1-+1", "x-1", "1-x", "1-1-1", "1-18446744073709551616"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
