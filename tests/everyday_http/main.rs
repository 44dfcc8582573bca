//! Ordinary requests and what the program prints about itself.
#![cfg(feature = "cli")]

#[path = "../common/program.rs"]
mod program;

mod startup;
