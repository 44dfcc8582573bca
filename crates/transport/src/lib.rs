//! Any tower service over HTTP/1.1, HTTP/2, HTTP/3 and WebTransport on one port, and the client.
//!
//! | module | what it is |
//! |---|---|
//! | [`server`] | [`Server`]: bound sockets, one service for every version of HTTP, WebTransport handlers |
//! | [`webtransport`] | sessions, streams and datagrams |
//! | [`http3`] | the backend under h3, and [`Takeover`] of a request's stream |
//! | [`client`] | requests and sessions from the other side |
//! | [`identity`] | the certificate, its hashes, its renewal |
//! | [`listen`] | addresses to listen on |
//! | [`quic`] | the QUIC engine, and where it shows |
//! | [`note`] | what a running server leaves for its user's clients |

pub mod client;
#[doc(hidden)]
pub mod fault;
mod guard;
pub mod http3;
pub mod identity;
pub mod listen;
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
mod reached;
mod response;
pub mod server;
mod service;
#[doc(hidden)]
pub mod shown;
mod tcp;
pub mod webtransport;

pub use http3::{NoTakeover, TakenStream, Takeover};
pub use identity::Identity;
pub use listen::Listen;
pub use server::{PlainHttp, Server};
