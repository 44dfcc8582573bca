//! Who may read and write: one decision, whichever way a client comes by.

mod clients;
#[path = "../common/mod.rs"]
mod common;
mod counted;
mod ends;
#[cfg(feature = "jwt")]
mod jwt;
#[cfg(all(feature = "cli", feature = "jwt"))]
mod log;
mod owners;
mod pages;
#[cfg(feature = "cli")]
mod program;
mod reload;
mod renewal;
#[path = "../common/revocable.rs"]
mod revocable;
#[cfg(all(feature = "cli", feature = "jwt"))]
mod traces;
mod ways;
