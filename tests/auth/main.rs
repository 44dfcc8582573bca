//! Who may read and write: one decision, whichever way a client comes by.

mod clients;
#[path = "../common/mod.rs"]
mod common;
mod counted;
mod ends;
#[cfg(feature = "jwt")]
mod jwt;
mod owners;
mod pages;
#[cfg(feature = "cli")]
mod program;
mod reload;
mod renewal;
mod ways;
