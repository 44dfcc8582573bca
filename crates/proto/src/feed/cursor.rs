//! Positions in a feed. Their text is the same in a URL (`from=`), in a publication's answer and as the `id`
//! of a server-sent event, so any of them can be handed back to any server of the feed.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Names one run of sequence numbers: another epoch, other chunks. Written in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// One that no earlier run of this feed had: the time, in milliseconds; or one more than the last of this process, if
    /// that is not less.
    #[must_use]
    pub fn now() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let mut last = LAST.load(Ordering::Relaxed);
        loop {
            let next = time.max(last.saturating_add(1));
            match LAST.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Self(next),
                Err(seen) => last = seen,
            }
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        hexadecimal(text).map(Self).ok_or_else(|| BadCursor(text.to_owned()))
    }
}

/// The position after the chunk `seq` of `epoch`. Written `EPOCH-SEQ`, the epoch in hexadecimal.
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

/// The position of a viewer that has received the end of a feed, and not only its last chunk. Written
/// `EPOCH-SEQ-end`, or `EPOCH-end` if there was no chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndCursor {
    /// The run of sequence numbers.
    pub epoch: Epoch,
    /// The last chunk that the viewer has, if there was any.
    pub last: Option<u64>,
}

impl fmt::Display for EndCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            Some(seq) => write!(f, "{}{AT_END}", Cursor { epoch: self.epoch, seq }),
            None => write!(f, "{}{AT_END}", self.epoch),
        }
    }
}

impl FromStr for EndCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let bad = |_| BadCursor(text.to_owned());
        let before = text.strip_suffix(AT_END).ok_or(()).map_err(bad)?;
        if before.contains('-') {
            let Cursor { epoch, seq } = before.parse().map_err(|_: BadCursor| bad(()))?;
            return Ok(Self { epoch, last: Some(seq) });
        }
        let epoch = before.parse().map_err(|_: BadCursor| bad(()))?;
        Ok(Self { epoch, last: None })
    }
}

const AT_END: &str = "-end";

/// A number without a sign: `+1` would parse as well.
fn hexadecimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| plain)
}

/// A text that is not a valid cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid cursor `{0}`: expected EPOCH-SEQ, as the feed itself gives it")]
pub struct BadCursor(String);

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let parse = || {
            let (epoch, seq) = text.split_once('-')?;
            let digits = seq.bytes().all(|byte| byte.is_ascii_digit());
            Some(Self { epoch: Epoch(hexadecimal(epoch)?), seq: seq.parse().ok().filter(|_| digits)? })
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
            prop_assert_eq!(cursor.epoch.to_string().parse(), Ok(cursor.epoch));
        }

        #[test]
        fn the_end_is_read_as_it_is_written(epoch: u64, last: Option<u64>) {
            let cursor = EndCursor { epoch: Epoch(epoch), last };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
            prop_assert!(cursor.to_string().parse::<Cursor>().is_err());
        }
    }

    /// A feed may be removed and created again within a millisecond, and clocks are set back.
    #[test]
    fn no_two_epochs_are_the_same() {
        let epochs: Vec<_> = (0..1000).map(|_| Epoch::now()).collect();
        assert!(epochs.is_sorted_by(|one, next| one < next), "{epochs:?}");
    }

    #[test]
    fn invalid_cursors() {
        for text in ["", "-", "1", "1-", "-1", "+1-1", "1-+1", "x-1", "1-x", "1-1-1", "1-18446744073709551616"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
            assert!(format!("{text}-end").parse::<EndCursor>().is_err() || text == "1", "{text}");
            assert!(text.parse::<Epoch>().is_err() || text == "1", "{text}");
        }
    }
}
