//! Clients that break the rules, or keep them in order to do harm.

#[path = "../common/mod.rs"]
mod common;
mod frames;
mod h3spec;
mod server;
mod sessions;
mod streams;
