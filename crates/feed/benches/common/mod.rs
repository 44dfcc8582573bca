//! What the benchmarks share with each other, and with the scenarios whose instructions are counted.

#![allow(dead_code, reason = "each benchmark uses its own part")]

#[path = "../../../../tests/instructions/src/audience.rs"]
pub(crate) mod audience;
#[path = "../../../../tests/instructions/src/chunks.rs"]
pub(crate) mod chunks;

use h3cast_feed::format::Format;
use tokio::runtime::{Builder, Runtime};

pub(crate) const FORMATS: [(&str, Format); 3] =
    [("raw", Format::Raw), ("sse", Format::Sse), ("frames", Format::Frames)];

/// Timers are set in it, and never looked at: what is measured is polled by hand.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}
