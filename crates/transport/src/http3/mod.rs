//! HTTP/3: the backend under h3, the connection driver, and taking over a stream.
//!
//! Data flows `quic` → `incoming` (whose stream is this?) → `backend` (h3's traits) → h3 →
//! `server` (one task a request) → the [`tower::Service`] → `response`.

mod request;
mod response;
pub(crate) mod server;
mod takeover;

pub use h3cast_proto::{code, varint};

pub use takeover::{NoTakeover, TakenStream, Takeover};
