//! Input for commands: what a viewer sends is the standard input of the command that runs for it.
#![cfg(all(feature = "cli", unix))]

#[path = "../common/mod.rs"]
mod common;
mod ends;
mod get;
mod kit;
#[path = "../common/program.rs"]
mod program;
#[path = "../common/revocable.rs"]
mod revocable;
mod senders;
#[path = "../common/serving.rs"]
mod serving;
mod start;
mod talk;
