//! The unit that a publisher emits and a viewer receives.

use std::{
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use crate::format::Piece;

/// One piece of a feed.
#[derive(Debug)]
pub struct Chunk {
    /// Its number in its feed, from 0.
    pub seq: u64,
    /// When it was published.
    pub time: SystemTime,
    /// Its bytes.
    pub bytes: Bytes,
    /// Its encoding in each format, created when the first viewer needs it and shared by all.
    pub(crate) written: [OnceLock<Box<Piece>>; 3],
}

impl Chunk {
    /// A chunk that is published now.
    #[must_use]
    pub fn new(seq: u64, bytes: Bytes) -> Self {
        Self::published_at(seq, SystemTime::now(), bytes)
    }

    /// A chunk that was published at that time.
    #[must_use]
    pub fn published_at(seq: u64, time: SystemTime, bytes: Bytes) -> Self {
        Self { seq, time, bytes, written: Default::default() }
    }

    /// The same chunk without its encodings.
    pub(crate) fn bare(&self) -> Self {
        Self::published_at(self.seq, self.time, self.bytes.clone())
    }

    /// Whether a viewer still holds one of its encodings: giving it up would free nothing.
    pub(crate) fn is_held(&self) -> bool {
        self.written.iter().filter_map(OnceLock::get).any(|piece| piece.is_held(&self.bytes))
    }

    /// When it was published, in microseconds since 1970.
    #[must_use]
    pub fn micros(&self) -> u64 {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}
