//! Any tower service over HTTP/1.1, HTTP/2, HTTP/3 and WebTransport on one port, and the client.
//!
//! ```text
//!   your service          webtransport           client
//!        │            Session, streams         Client, Connection
//!        ▼                    │                      │
//!   ┌─────────┬───────────────┴──────────────────────┴──┐
//!   │  tcp    │   http3   Takeover                      │
//!   │ HTTP/1,2├─────────────────────────────────────────┤
//!   │         │   guard   looks at each stream first    │
//!   ├─────────┼─────────────────────────────────────────┤
//!   │  TCP    │   quic    the QUIC engine, quinn        │
//!   └─────────┴─────────────────────────────────────────┘
//! ```
//!
//! ```no_run
//! # #[cfg(all(feature = "axum", feature = "self-signed", feature = "server"))]
//! # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Router, routing::get};
//! use h3cast_transport::{Identity, Server};
//!
//! let router = Router::new().route("/", get(async || "hello\n"));
//! // A certificate in memory, for this machine; on https://localhost:4433/ unless `listen` says otherwise.
//! Server::builder(Identity::localhost()?).http_service(router).build().await?.serve().await?;
//! # Ok(()) }
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`server`] | [`Server`]: bound sockets, one service for every version of HTTP, WebTransport handlers |
//! | [`webtransport`] | sessions, streams and datagrams |
//! | [`http3`] | the backend under h3, and [`Takeover`] of a request's stream |
//! | [`client`] | requests and sessions from the other side |
//! | [`admission`] | who gets in: what is counted for each address, why clients are refused |
//! | [`connection`] | [`ConnectionHandle`]: who is there, how well it is reached, its end |
//! | [`counts`] | what a server counts of its connections and requests |
//! | [`early`] | [`EarlyData`]: requests that may be copies, and 425 |
//! | [`exchange`] | requests from their head to their end, for access logs; their ids |
//! | [`identity`] | the certificate, its hashes, its renewal |
//! | [`listen`] | addresses to listen on |
//! | [`proxy`] | proxies in front of a server, and what they say of clients |
//! | [`quic`] | the QUIC engine, and where it shows |
//! | [`note`] | what a running server leaves for its user's clients |
//!
//! # Features
//!
//! All but `aws-lc-rs` are on by default. Without some of them, what they add is not compiled, nor the crates
//! that it needs.
//!
//! | feature | adds |
//! |---|---|
//! | `server` | [`Server`] for any tower service over HTTP/3, and [`Takeover`] |
//! | `tcp` | HTTP/1.1 and HTTP/2 on the same port, and plain HTTP; without it, a server uses UDP alone |
//! | `webtransport` | [`webtransport`], on the server and on the client |
//! | `client` | [`client`] |
//! | `self-signed` | certificates created and renewed here, and changes of files noticed at once |
//! | `axum` | axum's `ConnectInfo` in each request |
//! | `qlog` | traces of QUIC connections (off by default) |
//! | `ring`, `aws-lc-rs` | the cryptography: at least one of them. When both are on it is aws-lc-rs, which answers X25519MLKEM768 |
//!
//! What public signatures name is re-exported, so that a program needs none of these crates at the right version
//! itself, and a new major version of one is a new one of this crate:
//!
//! | re-exported | where it appears |
//! |---|---|
//! | [`bytes`], [`http`], [`http_body`] | requests, responses and their bodies |
//! | [`Body`], [`tower`] | what a server's service takes, and what it is: axum's body, tower's `Service` |
//! | [`Stream`] | the body of a response on the client |
//! | [`rustls`], with `rustls::pki_types` | [`TlsInfo`](connection::TlsInfo), settings and errors of TLS |
//! | [`tokio`] | `AsyncRead` and `AsyncWrite`, of streams; `watch`, of [`Identity::changes`] |
//! | [`CancellationToken`] | what stops a server |
//! | [`quic::engine`] | quinn, where it shows |
//! | [`rcgen`] | the cause of an [`IdentityError`](identity::IdentityError) |

#![cfg_attr(docsrs, feature(doc_cfg))]
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

#[cfg(feature = "server")]
pub mod admission;
mod calm;
#[cfg(feature = "client")]
pub mod client;
pub mod connection;
#[cfg(feature = "server")]
pub mod counts;
mod crypto;
mod diag;
#[cfg(feature = "server")]
pub mod early;
pub mod exchange;
mod fault;
mod guard;
#[cfg(feature = "server")]
pub mod http3;
pub mod identity;
#[cfg(feature = "server")]
mod interim;
mod keys;
mod limits;
pub mod listen;
#[cfg(any(feature = "client", feature = "self-signed"))]
pub mod note;
pub mod origin;
mod outstanding;
mod panics;
mod path;
#[cfg(feature = "server")]
pub mod proxy;
pub mod quic;
mod rarely;
#[cfg(feature = "server")]
mod reached;
#[cfg(feature = "server")]
mod response;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod service;
mod shown;
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
#[cfg(feature = "server")]
pub use interim::{Interim, InterimError};
pub use limits::{BadLimit, Limits};
pub use listen::Listen;
#[cfg(feature = "server")]
pub use server::{PlainHttp, Server};

/// What the `h3cast` program shares with this crate. Not part of its API: it may change in any release.
#[doc(hidden)]
pub mod program {
    pub use crate::rarely::rarely;

    /// Faults that tests ask for.
    pub mod fault {
        pub use crate::fault::{fallible, point};
    }
    /// Traces of QUIC.
    #[cfg(feature = "qlog")]
    pub mod qlog {
        pub use crate::quic::qlog::trace_clients;
    }
    /// The secrets of TLS.
    pub mod keys {
        pub use crate::keys::log_to;
    }
    /// Waiting for what was written.
    pub mod outstanding {
        pub use crate::outstanding::{Outstanding, read, while_receiving};
    }
    /// Panics of others' code.
    pub mod panics {
        pub use crate::panics::{Restarts, caught, caught_async, report};
    }
    /// Paths of URLs.
    pub mod path {
        pub use crate::path::{decoded, normal, normalized};
    }
    /// Text from peers, as it is shown on terminals and in logs.
    pub mod shown {
        pub use crate::shown::{Lines, Short, Shown, json};
    }
}

// What public signatures name: see above.
#[cfg(feature = "server")]
#[doc(no_inline)]
pub use axum_core::body::Body;
#[doc(no_inline)]
pub use bytes;
#[doc(no_inline)]
pub use futures_util::Stream;
#[doc(no_inline)]
pub use http;
#[doc(no_inline)]
pub use http_body;
#[cfg(feature = "self-signed")]
#[doc(no_inline)]
pub use rcgen;
#[doc(no_inline)]
pub use rustls;
#[doc(no_inline)]
pub use tokio;
#[doc(no_inline)]
pub use tokio_util::sync::CancellationToken;
#[cfg(feature = "server")]
#[doc(no_inline)]
pub use tower;
