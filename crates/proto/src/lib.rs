//! HTTP/3, WebTransport and feeds on the wire: bytes in, verdicts out.
//!
//! Everything here is a function of bytes. There is no I/O, no clock and no task, and no type of an async
//! runtime, of quinn or of h3. An endpoint uses it to check what a peer sends before acting on it, and to
//! encode what it sends itself.
//!
//! ```text
//!  bytes of a stream ──► frame, filter, control ──► qpack ──► message      requests, and what is wrong with them
//!                   └──► capsule, datagram, stream_code                    WebTransport
//!  body, stream, datagram ──► feed                                         cursors, gaps, chunks
//! ```
//!
//! ```
//! use h3cast_proto::{code, varint};
//!
//! let mut bytes = Vec::new();
//! varint::encode(4433, &mut bytes);
//! assert_eq!(varint::decode(&bytes), Some((4433, 2)));
//! assert!(code::describe(0x10c).contains("H3_REQUEST_CANCELLED"));
//! ```
//!
//! | module | specification |
//! |---|---|
//! | [`varint`] | integers: RFC 9000 §16 |
//! | [`frame`], [`filter`], [`control`] | frames and their order: RFC 9114 §4.1, §6.2.1, §7 |
//! | [`message`] | well-formed requests and trailers: RFC 9114 §4 |
//! | [`qpack`] | field sections without a dynamic table: RFC 9204 |
//! | [`settings`] | SETTINGS: RFC 9114 §7.2.4, draft-ietf-webtrans-http3 |
//! | [`capsule`] | RFC 9297 §3, draft-ietf-webtrans-http3 §6 |
//! | [`datagram`] | RFC 9297 §2.1 |
//! | [`code`], [`stream_code`] | error codes: RFC 9114 §8.1, draft-ietf-webtrans-http3 §4.4 |
//! | [`proxy`] | what proxies send before a connection: the PROXY protocol, versions 1 and 2 |
//! | [`forwarded`] | what proxies add to requests: RFC 7239, `X-Forwarded-For` |
//! | [`structured`] | strings of structured fields: RFC 9651 §3.3.3 |
//! | [`feed`] | cursors, gaps and binary frames of feeds: `docs/protocol.md` |

pub mod capsule;
pub mod code;
pub mod control;
pub mod datagram;
pub mod feed;
pub mod filter;
pub mod forwarded;
pub mod frame;
pub mod message;
pub mod proxy;
pub mod qpack;
pub mod settings;
pub mod stream_code;
pub mod structured;
pub mod varint;

// What public signatures name.
#[doc(no_inline)]
pub use bytes;
#[doc(no_inline)]
pub use http;

/// Which end of a connection this endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It opened the connection.
    Client,
    /// It accepted the connection.
    Server,
}

/// A violation of HTTP/3 by the peer that ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The error code that the specification names.
    pub code: u64,
    /// What the peer did, for the reason phrase and the log.
    pub reason: &'static str,
}

/// Types of unidirectional streams ([RFC 9114 §6.2](https://www.rfc-editor.org/rfc/rfc9114#section-6.2)).
pub mod stream_type {
    /// The control stream.
    pub const CONTROL: u64 = 0x0;
    /// A push stream.
    pub const PUSH: u64 = 0x1;
    /// QPACK's encoder stream (RFC 9204 §4.2).
    pub const QPACK_ENCODER: u64 = 0x2;
    /// QPACK's decoder stream (RFC 9204 §4.2).
    pub const QPACK_DECODER: u64 = 0x3;
    /// A stream of a WebTransport session (draft-ietf-webtrans-http3 §4.2).
    pub const WEBTRANSPORT: u64 = 0x54;
}
