//! A connection's handle.

mod handle;
mod peers;
mod sessions;
mod tcp;
