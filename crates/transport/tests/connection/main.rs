//! A connection's handle, and what an application decides about connections.

mod handle;
mod hooks;
mod peers;
mod sessions;
mod tcp;
