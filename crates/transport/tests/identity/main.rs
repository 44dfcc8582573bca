//! Certificates: in a folder, where they are renewed, and in memory.
#![cfg(all(feature = "client", feature = "self-signed", feature = "server"))]

mod folder;
mod memory;
