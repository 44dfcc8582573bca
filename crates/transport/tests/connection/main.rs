//! A connection's handle, what an application decides about connections, and early data.

mod early;
mod handle;
mod hooks;
mod peers;
mod proxies;
mod sessions;
mod tcp;
