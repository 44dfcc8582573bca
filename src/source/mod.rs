//! Where a feed's chunks come from.

pub mod chunker;
pub mod demo;
