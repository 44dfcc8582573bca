//! What becomes of single requests: in early data, and when a handler takes their stream over.

#[path = "../common/mod.rs"]
mod common;
mod early_data;
mod takeover;
