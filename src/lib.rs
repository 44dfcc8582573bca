//! Stream live output to any browser: the same chunks as an HTTP/3 response, read with `fetch`, and
//! over a WebTransport session, from one server on one port that speaks HTTP/2 and HTTP/1.1 too.
//!
//! ```text
//!  source ──► feed ──► App: routes and the page ──► Server (h3cast_transport) ──► browsers, client
//!  stdin,      │                                    HTTP/1.1, 2, 3, WebTransport
//!  command,    └─ nats: stored in JetStream
//!  file
//! ```
//!
//! A first program serves a feed that it writes itself:
//!
//! ```no_run
//! # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
//! use h3cast::{
//!     App, Identity, Server,
//!     feed::{Feed, Lag},
//! };
//!
//! let (feed, publisher) = Feed::live("default", 1_000_000, Lag::Skip);
//! tokio::spawn(async move { publisher.publish("hello\n".into()).await });
//! let identity = Identity::localhost()?;
//! let app = App::new([feed], identity.clone());
//! app.install(Server::builder(identity)).build().await?.serve().await?;
//! # Ok(()) }
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`server`] | [`Server`]: bound sockets, one service for every version of HTTP, WebTransport handlers |
//! | [`body`] | response bodies that a task writes to |
//! | [`webtransport`] | sessions, streams and datagrams |
//! | [`http3`] | the backend under h3, and [`Takeover`] of a request's stream |
//! | [`client`] | requests and sessions from the other side |
//! | [`feed`], [`chunk`], [`source`] | what is streamed; knows nothing of HTTP |
//! | [`app`] | the routes of the `h3cast` program: feeds and the page |
//! | [`auth`] | who may read and write: tokens, and the hook for a decider of your own |
//! | `acme` | certificates that browsers trust, from an authority such as Let's Encrypt (feature `acme`) |
//! | `store` | feeds on disk, which a later process continues (feature `store`) |
//! | [`identity`] | the certificate, its hashes, its renewal |
//! | [`listen`] | addresses to listen on |
//! | [`note`] | what a running server leaves for its user's clients |
//!
//! ```
//! use axum::{Router, routing::get};
//! use h3cast::{Identity, Server, webtransport::SessionRequest};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;
//! let server = Server::builder(identity)
//!     .http_service(Router::new().route("/", get(|| async { "hello over any HTTP\n" })))
//!     .webtransport("/echo", |request: SessionRequest| async move { /* request.accept().await … */ })
//!     .build()
//!     .await?;
//! server.run_until(tokio::signal::ctrl_c()).await?;
//! # let _ = h3cast::Limits::default();
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "acme")]
pub mod acme;
pub mod app;
pub mod auth;
pub mod body;
pub mod browser;
mod child;
pub mod chunk;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod client;
mod content;
pub mod feed;
#[cfg(any(feature = "acme", all(feature = "cli", feature = "jwt")))]
mod https;
#[cfg(feature = "nats")]
pub mod nats;
mod page;
mod resource;
pub mod source;
#[cfg(feature = "store")]
pub mod store;
mod units;

pub use app::App;
pub use h3cast_feed::format;
#[cfg(feature = "cli")]
pub(crate) use h3cast_transport::program::shown;
pub(crate) use h3cast_transport::program::{fault, outstanding, panics, path, rarely};
pub use h3cast_transport::{
    BadLimit, ConnectionHandle, EarlyData, Identity, Interim, InterimError, Limits, Listen, NoTakeover, PlainHttp,
    Server, TakenStream, Takeover, TooEarly, admission, connection, counts, early, exchange, http3, identity, listen,
    note, origin, quic, server, webtransport,
};
// What public signatures name, as `h3cast_transport` has it; and the router of `App`.
#[doc(no_inline)]
pub use axum;
#[doc(no_inline)]
pub use h3cast_transport::{CancellationToken, Stream, bytes, http, http_body, rustls, tokio, tower};
