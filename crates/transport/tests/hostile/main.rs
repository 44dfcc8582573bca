//! Clients that break the rules, or keep them in order to do harm.

#[path = "../common/mod.rs"]
mod common;
mod floods;
mod frames;
mod h3spec;
mod handshakes;
#[path = "../../../../tests/attacks/flood/src/initial.rs"]
#[allow(dead_code, reason = "what the attacks on the program use")]
mod initial;
mod server;
mod sessions;
mod streams;
