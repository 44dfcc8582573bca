//! The client: requests and WebTransport sessions on one HTTP/3 connection.
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

mod body;
mod connection;
mod connector;
mod error;
mod request;
pub mod retry;
mod send;
#[cfg(feature = "webtransport")]
mod session;
#[doc(hidden)]
pub mod trust;
pub mod url;

pub use body::{Body, ClientResponse, content_length};
pub use connection::Connection;
pub use connector::Connector;
pub use error::{ClientError, ConnectError, MalformedResponse, ProtocolError};
pub use request::{RequestBody, ResponseFuture};
pub use trust::{Expected, Presented, Reason, Refusal, Trust};
pub use url::BadUrl;
