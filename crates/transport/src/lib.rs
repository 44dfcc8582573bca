//! Any tower service over HTTP/1.1, HTTP/2, HTTP/3 and WebTransport on one port, and the client.
//!
//! | module | what it is |
//! |---|---|
//! | [`server`] | [`Server`]: bound sockets, one service for every version of HTTP, WebTransport handlers |
//! | [`webtransport`] | sessions, streams and datagrams |
//! | [`http3`] | the backend under h3, and [`Takeover`] of a request's stream |
//! | [`client`] | requests and sessions from the other side |
//! | [`connection`] | [`ConnectionHandle`]: who is there, how well it is reached, its end |
//! | [`early`] | [`EarlyData`]: requests that may be copies, and 425 |
//! | [`identity`] | the certificate, its hashes, its renewal |
//! | [`listen`] | addresses to listen on |
//! | [`quic`] | the QUIC engine, and where it shows |
//! | [`note`] | what a running server leaves for its user's clients |

// Without some of the features, less is used of what the others share.
#![cfg_attr(
    not(all(
        feature = "client",
        feature = "self-signed",
        feature = "server",
        feature = "tcp",
        feature = "webtransport"
    )),
    allow(dead_code, unused_imports)
)]

#[cfg(feature = "client")]
pub mod client;
pub mod connection;
mod crypto;
mod diag;
#[cfg(feature = "server")]
pub mod early;
#[doc(hidden)]
pub mod fault;
mod guard;
#[cfg(feature = "server")]
pub mod http3;
pub mod identity;
pub mod listen;
#[cfg(any(feature = "client", feature = "self-signed"))]
pub mod note;
pub mod origin;
#[doc(hidden)]
pub mod outstanding;
#[doc(hidden)]
pub mod panics;
#[doc(hidden)]
pub mod path;
pub mod quic;
#[doc(hidden)]
pub mod rarely;
#[cfg(feature = "server")]
mod reached;
#[cfg(feature = "server")]
mod response;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod service;
#[doc(hidden)]
pub mod shown;
#[cfg(feature = "server")]
#[cfg_attr(not(feature = "tcp"), path = "tcp/none.rs")]
mod tcp;
#[cfg(feature = "webtransport")]
pub mod webtransport;
#[cfg(not(feature = "webtransport"))]
#[path = "webtransport/none.rs"]
mod webtransport;

pub use connection::ConnectionHandle;
#[cfg(feature = "server")]
pub use early::{EarlyData, TooEarly};
#[cfg(feature = "server")]
pub use http3::{NoTakeover, TakenStream, Takeover};
pub use identity::Identity;
pub use listen::Listen;
#[cfg(feature = "server")]
pub use server::{PlainHttp, Server};
