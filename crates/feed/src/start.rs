//! Where a viewer begins.

use std::str::FromStr;

use crate::{Cursor, EndCursor, Epoch};

/// Where a viewer begins. As text, in a query or on a command line: `start`, `now`, `-N`, or a cursor.
///
/// ```
/// use h3cast_feed::{Cursor, Epoch, Start};
///
/// assert_eq!("-10".parse(), Ok(Start::Last(10)));
/// assert_eq!("7-41".parse(), Ok(Start::After(Cursor { epoch: Epoch(7), seq: 41 })));
/// assert!("yesterday".parse::<Start>().is_err());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// With the oldest chunk that is still there.
    Start,
    /// With the next chunk that is published. A feed that starts over for each viewer is viewed from its
    /// start.
    #[default]
    Now,
    /// With the last chunks of a live feed: this many, or all that there are.
    Last(u64),
    /// After this chunk.
    After(Cursor),
    /// After the end of this run, which had no chunk.
    End(Epoch),
}

/// A text that is not a valid [`Start`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid position `{0}`: expected start, now, -N for the last N chunks, or a cursor EPOCH-SEQ as the feed itself gives it"
)]
pub struct BadStart(String);

impl FromStr for Start {
    type Err = BadStart;

    fn from_str(text: &str) -> Result<Self, BadStart> {
        if let Some(number) = text.strip_prefix('-')
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            // A number that is too large means all chunks.
            return Ok(Self::Last(number.parse().unwrap_or(u64::MAX)));
        }
        match text {
            "start" => return Ok(Self::Start),
            "now" => return Ok(Self::Now),
            _ => {}
        }
        if let Ok(EndCursor { epoch, last }) = text.parse() {
            return Ok(last.map_or(Self::End(epoch), |seq| Self::After(Cursor { epoch, seq })));
        }
        text.parse().map(Self::After).map_err(|_| BadStart(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts() {
        let cursor = Cursor { epoch: Epoch(0x1f), seq: 3 };
        for (text, start) in [
            ("start", Start::Start),
            ("now", Start::Now),
            ("-5", Start::Last(5)),
            ("-0", Start::Last(0)),
            ("-99999999999999999999999", Start::Last(u64::MAX)),
            ("1f-3", Start::After(cursor)),
            ("1f-3-end", Start::After(cursor)),
            ("1f-end", Start::End(Epoch(0x1f))),
        ] {
            assert_eq!(text.parse(), Ok(start), "{text}");
        }
        for text in ["", "-", "--1", "-x", "-1-2", "5", "-+1", "-1 ", "Start", "-end"] {
            assert!(text.parse::<Start>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn takes_any_text(text in "\\PC{0,30}|[0-9a-f+-]{0,9}(-end)?") {
            let _ = text.parse::<Start>();
        }
    }
}
