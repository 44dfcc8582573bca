//! Files of the user are theirs: certificates, keys, and whom a client trusts.
#![cfg(all(feature = "cli", unix))]

#[path = "../common/program.rs"]
mod program;

mod note;
mod trust;
