//! What a source printed arrives before its failure is reported, on every transport, live and late; and
//! no task dies unnoticed.
#![cfg(all(feature = "cli", unix))]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/program.rs"]
mod program;
#[path = "../common/serving.rs"]
mod serving;

mod bodies;
mod busy;
mod closing;
mod failures;
mod get;
mod laggards;
mod lengths;
mod liar;
mod log;
mod outages;
mod panics;
mod stderr;
mod stops;
mod viewers;
