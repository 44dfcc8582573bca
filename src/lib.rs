//! Pipe live bytes to any browser: the same chunks as an HTTP/3 response, read with `fetch`, and
//! over a WebTransport session, from one server on one port that speaks HTTP/2 and HTTP/1.1 too.
//!
//! | module | what it is |
//! |---|---|
//! | [`server`] | [`Server`]: bound sockets, one service for every version of HTTP, WebTransport handlers |
//! | [`webtransport`] | sessions, streams and datagrams |
//! | [`http3`] | the backend under h3, and [`Takeover`] of a request's stream |
//! | [`client`] | requests and sessions from the other side |
//! | [`feed`], [`chunk`], [`source`] | what is streamed; knows nothing of HTTP |
//! | [`app`] | the routes of the `h3cast` program: feeds and the page |
//! | [`identity`] | the certificate, its hashes, its renewal |
//! | [`listen`] | addresses to listen on |
//! | [`note`] | what a running server leaves for its user's clients |

pub mod app;
pub mod browser;
pub mod chunk;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
mod content;
mod fault;
pub mod feed;
pub mod format;
pub mod http3;
pub mod identity;
pub mod listen;
#[cfg(feature = "nats")]
pub mod nats;
pub mod note;
pub mod origin;
mod outstanding;
mod page;
mod panics;
mod path;
mod rarely;

mod resource;
pub mod server;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line shows more"))]
mod shown;
pub mod source;
mod tcp;
pub mod webtransport;

pub use app::App;
pub use http3::{NoTakeover, TakenStream, Takeover};
pub use identity::Identity;
pub use listen::Listen;
pub use server::{PlainHttp, Server};
