//! WebTransport over HTTP/3 (draft-ietf-webtrans-http3): sessions, their streams and datagrams.
//!
//! A server gives each session to a [`Handler`]; a client opens one with
//! [`client::Connection::webtransport`](crate::client::Connection::webtransport). Both get a
//! [`Session`]. Any number of sessions and ordinary requests share a connection.
//!
//! ```no_run
//! use h3cast_transport::webtransport::SessionRequest;
//!
//! /// Sends every stream back to where it came from.
//! async fn echo(request: SessionRequest) {
//!     let Ok(session) = request.accept().await else { return };
//!     while let Ok((mut send, mut recv)) = session.accept_bi().await {
//!         while let Ok(Some(bytes)) = recv.read_bytes(usize::MAX).await {
//!             if send.write_bytes(bytes).await.is_err() {
//!                 break;
//!             }
//!         }
//!         let _ = send.finish();
//!     }
//! }
//! ```

pub(crate) mod connect;
mod paths;
mod registry;
mod request;
#[cfg(feature = "server")]
mod route;
mod session;
mod stream;
mod unread;

pub use h3cast_proto::{capsule, stream_code as codes};
pub(crate) use paths::Handlers;
pub(crate) use registry::{Registry, Seat};
pub(crate) use request::{Answer, CHOSEN};
pub use request::{Handler, SessionRequest};
#[cfg(feature = "server")]
pub use route::NoSession;
#[cfg(feature = "server")]
pub(crate) use route::{Offer, Opening};
pub use session::{Closed, DatagramError, Session, SessionError, Stats};
pub use stream::{RecvStream, SendStream, StreamError};
