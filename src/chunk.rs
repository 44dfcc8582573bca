//! The unit that a source emits and a viewer receives.

use std::time::SystemTime;

use bytes::Bytes;

/// One piece of a feed. Cloning it shares its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its place in its feed, from 0.
    pub seq: u64,
    /// When it was published.
    pub time: SystemTime,
    /// What it carries.
    pub bytes: Bytes,
}
