//! Connections as an application sees them: who is there, how well it is reached, and its end.
//!
//! | file | what it is |
//! |---|---|
//! | `handle` | [`ConnectionHandle`], which every request and session has |
//! | `owner` | what holds a connection while it lasts, and ends its handle |
//! | `tls`, `stats`, `end` | what the handle reports |
//! | `cut` | what cuts a response |
//! | `hooks` | what an application decides about connections before their first request |

pub(crate) mod address;
mod cut;
mod end;
mod handle;
mod hooks;
mod owner;
mod stats;
mod tls;

pub use cut::Cut;
pub(crate) use cut::cut;
pub use end::ConnectionEnd;
pub(crate) use handle::Standing;
pub use handle::{ConnectionHandle, Protocol};
pub(crate) use hooks::Hooks;
pub use hooks::{Admit, Incoming};
pub(crate) use owner::Owner;
pub use stats::ConnectionStats;
pub use tls::TlsInfo;
