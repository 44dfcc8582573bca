//! Requests in early data ([RFC 8470](https://www.rfc-editor.org/rfc/rfc8470)): they come with a client's very first
//! packets (0-RTT), and could be copies that an attacker recorded and replays.
//!
//! Only HTTP/3 has them here: over TCP, TLS takes none. The server itself holds back what is not
//! [safe](http::Method::is_safe) until the handshake is complete, as it does all requests of a server that has an
//! [`on_connect`](crate::server::ServerBuilder::on_connect) hook, and those from the address of a
//! [trusted proxy](crate::server::ServerBuilder::trust_proxy), which may be forged until then; and it gives each ticket
//! out once, so that a copy that reaches the same process finds none. A GET that does something all the same, or that must not be answered
//! twice, looks for [`EarlyData`]:
//!
//! ```
//! use axum::{Extension, response::{IntoResponse, Response}};
//! use h3cast_transport::early::{EarlyData, TooEarly};
//!
//! /// Waits for the handshake.
//! async fn vote(early: Option<Extension<EarlyData>>) -> &'static str {
//!     if let Some(Extension(early)) = early && early.handshake().await.is_err() {
//!         return "the client has gone";
//!     }
//!     "counted"
//! }
//!
//! /// Or has the client send it again, which costs it a round trip and the server nothing.
//! async fn draw(early: Option<Extension<EarlyData>>) -> Response {
//!     match early {
//!         Some(_) => TooEarly.into_response(),
//!         None => "a number".into_response(),
//!     }
//! }
//! # let _: axum::Router = axum::Router::new().route("/vote", axum::routing::get(vote)).route("/draw", axum::routing::get(draw));
//! ```

use std::{fmt, sync::Arc};

use http::{HeaderName, Request, Response, StatusCode};
use tokio::sync::SetOnce;

use crate::connection::{ConnectionEnd, ConnectionHandle};

/// The field with which a gateway marks what it forwards from early data, as `Early-Data: 1`
/// ([RFC 8470 §5.1](https://www.rfc-editor.org/rfc/rfc8470#section-5.1)). A service that forwards a request with
/// [`EarlyData`] in its extensions must add it, or wait for the [handshake](EarlyData::handshake).
pub const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");

/// In the extensions of a request that came in early data, whose client's handshake was not complete then.
///
/// Clones are of the same connection, which they do not keep open.
#[derive(Clone)]
pub struct EarlyData {
    handshaken: Arc<SetOnce<()>>,
    connection: ConnectionHandle,
}

impl fmt::Debug for EarlyData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyData").field("is_complete", &self.is_complete()).finish_non_exhaustive()
    }
}

impl EarlyData {
    pub(crate) fn new(handshaken: Arc<SetOnce<()>>, connection: ConnectionHandle) -> Self {
        Self { handshaken, connection }
    }

    /// Whether the handshake is complete by now, so that the request is not a replay.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.handshaken.initialized()
    }

    /// Waits until the handshake is complete, so that the request is not a replay
    /// ([RFC 8470 §3](https://www.rfc-editor.org/rfc/rfc8470#section-3)). A replay never gets there.
    ///
    /// # Errors
    ///
    /// When the connection ends before that, as that of a copy does by its time-out.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn handshake(&self) -> Result<(), ConnectionEnd> {
        tokio::select! {
            biased;
            _ = self.handshaken.wait() => Ok(()),
            end = self.connection.closed() => Err(end),
        }
    }

    /// Whether a request may be a copy: it came in early data to this server, whose handshake is not complete yet,
    /// or to a gateway before it, which has marked it with [`EARLY_DATA`]. Any value of that field counts, as the
    /// specification has it; to answer [`TooEarly`] is right then, and has the gateway or the client try again.
    #[must_use]
    pub fn is_in<B>(request: &Request<B>) -> bool {
        request.extensions().get::<Self>().is_some_and(|early| !early.is_complete())
            || request.headers().contains_key(EARLY_DATA)
    }
}

/// The answer to a request that is not handled in early data: 425 (Too Early,
/// [RFC 8470 §5.2](https://www.rfc-editor.org/rfc/rfc8470#section-5.2)). The client sends the
/// request again when its handshake is complete, as [ours](crate::client::Connector::get) does by itself. Only
/// requests that [are early](EarlyData::is_in) may be answered so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TooEarly;

impl<B: Default> From<TooEarly> for Response<B> {
    fn from(_: TooEarly) -> Self {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::TOO_EARLY;
        response
    }
}

impl axum_core::response::IntoResponse for TooEarly {
    fn into_response(self) -> axum_core::response::Response {
        self.into()
    }
}
