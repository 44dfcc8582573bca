//! What the program says cannot stop it, and signals are handled whatever else stands still.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod access;
mod clients;
mod log;
mod secrets;
mod server;
mod signals;
mod silence;
mod stopping;
#[cfg(feature = "qlog")]
mod traces;
