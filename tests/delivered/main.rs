//! What a source printed arrives before its failure is reported.
#![cfg(all(feature = "cli", unix))]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/program.rs"]
mod program;

mod get;
