//! HTTP/3: the backend under h3, the connection driver, and taking over a stream.
//!
//! Data flows `quic` → `guard` → h3 → `server` (one task a request) → the [`tower::Service`] → `response`, which
//! writes a body by itself, or hands the stream to a handler that has taken it over: `takeover`, unless the layers
//! around that handler want the body (`placeholder`), and then `taken`.

mod idle;
mod incoming;
mod placeholder;
mod request;
mod response;
pub(crate) mod server;
#[cfg_attr(not(feature = "webtransport"), path = "no_session.rs")]
mod session;
mod taken;
mod takeover;
mod unacknowledged;
mod vitals;
mod watch;

pub use h3cast_proto::{code, varint};

pub use taken::TakenStream;
pub use takeover::{NoTakeover, Takeover};
