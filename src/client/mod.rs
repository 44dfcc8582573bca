//! The client: requests and WebTransport sessions on one HTTP/3 connection, and on top of them
//! a feed that is read ([`Viewer`]) or written ([`Publication`]) through losses of the connection.
//!
//! ```no_run
//! # async fn doc() -> Result<(), h3cast::client::ClientError> {
//! use h3cast::client::{Connection, Trust};
//!
//! let uri = "https://localhost:4433/stream".parse().unwrap();
//! let connection = Connection::open(&uri, &Trust::Files(vec!["certs/cert.pem".into()])).await?;
//! let mut response = connection.get(&uri).await?;
//! while let Some(bytes) = response.body.next().await? {
//!     print!("{}", String::from_utf8_lossy(&bytes));
//! }
//! # Ok(()) }
//! ```

pub(crate) mod answer;
mod publication;
#[cfg(feature = "cli")]
pub(crate) mod reader;
mod replay;
mod resume;
mod token;
pub mod viewer;

pub use h3cast_transport::client::*;
pub use publication::{AnswerError, Publication, PublishError, PublishEvent, Published};
pub use token::{NoToken, RENEWAL_WAIT, Token};
pub use viewer::Viewer;
