//! HTTP/3 over quinn: the backend under h3, the connection driver, and taking over a stream.
//!
//! Data flows quinn → `incoming` (whose stream is this?) → `backend` (h3's traits) → h3 →
//! `server` (one task a request) → the [`tower::Service`] → `response`.

mod backend;
pub mod code;
mod control;
mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
mod incoming;
mod message;
mod qpack;
mod request;
mod response;
pub(crate) mod server;
mod settings;
mod takeover;
pub mod varint;

pub(crate) use backend::{Backend, OpenStreams, RequestParts, SendStream as BackendSendStream};
pub(crate) use backend::{BidiStream as BackendBidiStream, Malformed, RecvStream as BackendRecvStream, Stopped};
pub(crate) use filter::Violation;
pub(crate) use incoming::{Limits, Role, Shared};
pub(crate) use response::put_data_header;
pub use takeover::{NoTakeover, TakenStream, Takeover};

/// Types of unidirectional streams ([RFC 9114 §6.2](https://www.rfc-editor.org/rfc/rfc9114#section-6.2)).
pub(crate) mod stream_type {
    pub(crate) const CONTROL: u64 = 0x0;
    pub(crate) const PUSH: u64 = 0x1;
    pub(crate) const QPACK_ENCODER: u64 = 0x2;
    pub(crate) const QPACK_DECODER: u64 = 0x3;
    pub(crate) const WEBTRANSPORT: u64 = 0x54;
}
