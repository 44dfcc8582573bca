//! What a source printed arrives before its failure is reported, and no task dies unnoticed.
#![cfg(all(feature = "cli", unix))]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/program.rs"]
mod program;

mod get;
mod panics;
