//! A connection's handle, what an application decides about connections, and early data.

mod counts;
mod early;
mod handle;
mod handover;
mod hooks;
mod peers;
mod proxies;
#[path = "../common/relay.rs"]
mod relay;
mod sessions;
mod tcp;

use peers::soon;
