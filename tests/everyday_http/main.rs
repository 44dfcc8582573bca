//! Ordinary requests and what the program prints about itself.
#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/program.rs"]
mod program;

mod events;
mod formats;
mod startup;
