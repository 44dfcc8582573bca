//! WebTransport from both sides of the public API, and against a client that writes it by hand.

#[path = "../common/mod.rs"]
mod common;
mod opening;
mod resets;
mod sessions;
mod streams;
