//! The client: requests, bodies streamed both ways, and WebTransport sessions over HTTP/3
//! ([RFC 9114](https://www.rfc-editor.org/rfc/rfc9114)).
//!
//! ```no_run
//! # async fn doc() -> Result<(), h3cast_transport::client::ClientError> {
//! use h3cast_transport::client::{Connection, Trust};
//!
//! let uri = "https://localhost:4433/stream".parse().unwrap();
//! let connection = Connection::open(&uri, &Trust::Files(vec!["certs/cert.pem".into()])).await?;
//! let mut response = connection.get(&uri).await?;
//! while let Some(bytes) = response.body.next().await? {
//!     print!("{}", String::from_utf8_lossy(&bytes));
//! }
//! # Ok(()) }
//! ```
//!
//! | item | what it is |
//! |---|---|
//! | [`Client`] | a tower service: a connection for each authority, opened when it is needed, reopened when it is lost |
//! | [`Connection`] | one connection, for those who open and close it themselves, and for WebTransport sessions |
//! | [`Connector`], [`ConnectorBuilder`] | what connections share, with its settings: sockets, tickets, TLS, QUIC |
//! | [`Trust`], [`Refusal`] | which servers to trust, and why one is not |
//! | [`ClientResponse`], [`Body`] | a response, read piece by piece, as a `Stream`, or as an `http_body::Body` with trailers |
//! | [`RequestBody`], [`ResponseFuture`] | a request's body that is written piece by piece, and the response to wait for |
//! | [`ClientError`] | why a request failed; [`is_unprocessed`](ClientError::is_unprocessed) and [`is_final`](ClientError::is_final) say what can be tried again |
//! | [`retry`], [`mod@url`] | when to try again, and what is wrong with a URL |
//!
//! Times are [`Duration`](std::time::Duration)s, sizes bytes. Every request can be cancelled by dropping its future
//! or its response (H3_REQUEST_CANCELLED); each item says so under *Cancel safety*. It needs a Tokio runtime.

mod body;
mod builder;
mod connection;
mod connector;
mod dial;
mod error;
mod request;
pub mod retry;
mod send;
mod service;
#[cfg(feature = "webtransport")]
mod session;
#[doc(hidden)]
pub mod trust;
pub mod url;

pub use body::{Body, ClientResponse, content_length};
pub use builder::ConnectorBuilder;
pub use connection::Connection;
pub use connector::Connector;
pub use error::{ClientError, ConnectError, MalformedResponse, ProtocolError};
pub use request::{RequestBody, ResponseFuture};
pub use service::Client;
pub use trust::{Expected, Presented, Reason, Refusal, Trust};
pub use url::{BadUrl, UrlProblem};
