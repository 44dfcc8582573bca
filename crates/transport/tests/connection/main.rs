//! A connection's handle, what an application decides about connections, and early data.

mod early;
mod handle;
mod hooks;
mod peers;
mod sessions;
mod tcp;
