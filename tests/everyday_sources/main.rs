//! Files, pipes and commands as sources, in their everyday moments.
#![cfg(all(feature = "cli", unix))]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/program.rs"]
mod program;
#[path = "../common/serving.rs"]
mod serving;

mod browser;
mod commands;
mod content;
mod flags;
mod leftovers;
mod pipes;
mod rotation;
mod stdin;
mod tail_history;
mod truncation;
