//! Where a feed's chunks come from.

pub mod demo;
