//! What a server's application sees of a session before it exists.

use std::{net::SocketAddr, pin::Pin};

#[cfg(feature = "server")]
use axum_core::body::Body;
use h3cast_proto::{code, structured};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header, request};
use tokio::sync::oneshot;
use tracing::warn;

#[cfg(feature = "server")]
use super::route::Opening;
use super::{
    paths::Params,
    session::{Closed, Session, SessionError},
};
use crate::connection::ConnectionHandle;

/// A client asks for a session.
///
/// A [`Handler`] answers with [`accept`](Self::accept) or [`reject`](Self::reject); dropping the request
/// rejects it with 500.
///
/// It is also an axum extractor, so that a session can be a route, with path parameters and state. The
/// router's layers then decide about sessions as they do about requests, and what they add to the response
/// is sent. The route returns what [`on_session`](Self::on_session) gives:
///
/// ```
/// use axum::{Router, extract::Path, routing::any};
/// use h3cast_transport::webtransport::SessionRequest;
///
/// let app: Router = Router::new().route(
///     "/rooms/{room}",
///     any(async |Path(room): Path<String>, request: SessionRequest| {
///         request.on_session(async move |session| {
///             let _ = session.send_datagram(room.into());
///             session.closed().await;
///         })
///     }),
/// );
/// ```
///
/// The extractor rejects what does not ask for a session (400), and pages of origins that
/// [may not](crate::server::ServerBuilder::origins) open one here (403).
#[derive(Debug)]
pub struct SessionRequest {
    head: request::Parts,
    connection: ConnectionHandle,
    params: Params,
    status: StatusCode,
    response: HeaderMap,
    protocol: Option<String>,
    answer: oneshot::Sender<Answer>,
}

/// What the application decided.
#[derive(Debug)]
pub(crate) enum Answer {
    Accept { status: StatusCode, headers: HeaderMap, protocol: Option<String>, session: oneshot::Sender<Session> },
    Reject { status: StatusCode, headers: HeaderMap },
}

const OFFERED: HeaderName = HeaderName::from_static("wt-available-protocols");
pub(crate) const CHOSEN: HeaderName = HeaderName::from_static("wt-protocol");

impl SessionRequest {
    pub(crate) fn new(
        head: request::Parts,
        connection: ConnectionHandle,
        params: Params,
    ) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        (Self::answered_by(head, connection, params, answer), answered)
    }

    pub(super) fn answered_by(
        head: request::Parts,
        connection: ConnectionHandle,
        params: Params,
        answer: oneshot::Sender<Answer>,
    ) -> Self {
        let (status, response) = (StatusCode::OK, HeaderMap::new());
        Self { head, connection, params, status, response, protocol: None, answer }
    }

    /// The URI that was asked for.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.head.uri
    }

    /// What a wildcard of the handler's path stands for, percent-decoded: `7` for `room` when the handler is at
    /// `/chat/{room}` and the client asked for `/chat/7`. `None` when the path has no wildcard of that name. Routes
    /// of a router have axum's `Path` instead.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params().find(|(of, _)| *of == name).map(|(_, value)| value)
    }

    /// All of them by name, in the order of the path.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params.iter()
    }

    /// The request's extensions, with what the layers on its way have added.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        &self.head.extensions
    }

    /// The request's headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The origin of the page that asks, as the browser states it. A client that is no browser
    /// has none.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.head.headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("null"))
    }

    /// The host and port that was asked for.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.head.uri.authority().map_or("", http::uri::Authority::as_str)
    }

    /// The [client's address](ConnectionHandle::remote_address).
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// The connection that the session is to use.
    #[must_use]
    pub fn connection(&self) -> &ConnectionHandle {
        &self.connection
    }

    /// The subprotocols that the client offers, the preferred one first
    /// (draft-ietf-webtrans-http3 §3.3).
    #[must_use]
    pub fn protocols(&self) -> Vec<String> {
        let lines = self.head.headers.get_all(OFFERED).into_iter().map(HeaderValue::to_str);
        match lines.collect::<Result<Vec<_>, _>>() {
            Ok(lines) => structured::parse_strings(&lines.join(",")).unwrap_or_default(),
            // A structured field that cannot be parsed is ignored as a whole (RFC 9651 §4.2).
            Err(_) => Vec::new(),
        }
    }

    /// Chooses the status that opens the session, 200 by default. Clients take
    /// any 2xx (draft-ietf-webtrans-http3 §3.2).
    ///
    /// Any other status opens nothing; it is logged and replaced by 200. To refuse a session, use
    /// [`reject`](Self::reject).
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        if status.is_success() {
            self.status = status;
        } else {
            warn!(%status, "a session cannot be accepted with this status, only with 2xx: answering 200; to refuse it, use reject");
            self.status = StatusCode::OK;
        }
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.response.append(name, value);
        self
    }

    /// Chooses a subprotocol, which must be one of those that the client offers; another one is
    /// not sent.
    #[must_use]
    pub fn protocol(mut self, protocol: &str) -> Self {
        self.protocol = self.protocols().into_iter().find(|offered| offered == protocol);
        self
    }

    /// A response that opens the session; `work` then has it. It goes out through the layers around the
    /// route, with any status of success: a layer may add to it, or answer something else in its place, and
    /// the session is not opened.
    ///
    /// `work` begins when the response has been sent, on a task that is the session's, so that no time-out
    /// for requests cuts it off. It is dropped soon after the session's connection has ended. When it returns
    /// and has kept no handle of the session elsewhere, a session that is still open is closed with code 0.
    #[cfg(feature = "server")]
    pub fn on_session<F, R>(self, work: F) -> Response<Body>
    where
        F: FnOnce(Session) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let mut response = Response::new(Body::empty());
        (*response.status_mut(), *response.headers_mut()) = (self.status, self.response);
        response.extensions_mut().insert(Opening::new(self.protocol, work));
        response
    }

    /// Opens the session.
    ///
    /// In a route, prefer [`on_session`](Self::on_session): this opens the session while the route has not
    /// yet answered. The layers have let the request pass, but do not see the answer, and a time-out for
    /// requests ends the session.
    ///
    /// # Errors
    ///
    /// When the client has gone meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: when dropped, the session may be opened and closed again at once.
    pub async fn accept(self) -> Result<Session, SessionError> {
        let (session, opened) = oneshot::channel();
        let (status, headers, protocol) = (self.status, self.response, self.protocol);
        let answer = Answer::Accept { status, headers, protocol, session };
        let gone = || SessionError(Closed::Abrupt { code: code::H3_REQUEST_CANCELLED });
        self.answer.send(answer).map_err(|_| gone())?;
        opened.await.map_err(|_| gone())
    }

    /// Refuses the session. A status that refuses nothing (1xx, 2xx) counts as 500.
    pub fn reject(self, status: StatusCode) {
        let refuses = !status.is_success() && !status.is_informational();
        let status = if refuses { status } else { StatusCode::INTERNAL_SERVER_ERROR };
        // Nobody takes the answer when the client has gone meanwhile.
        let _ = self.answer.send(Answer::Reject { status, headers: self.response });
    }
}

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Answers session requests. Any `Fn(SessionRequest) -> impl Future<Output = ()>` is one.
///
/// The future has a task of its own, and is dropped soon after the session's connection has ended.
/// When it returns and has kept no handle of the session elsewhere, a session that is still open is
/// closed with code 0. When it panics, the session is cut off, and the connection goes on.
pub trait Handler: Send + Sync + 'static {
    /// Handles one request and, when it accepts, the session.
    fn call(&self, request: SessionRequest) -> BoxFuture;
}

impl<F, R> Handler for F
where
    F: Fn(SessionRequest) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    fn call(&self, request: SessionRequest) -> BoxFuture {
        Box::pin(self(request))
    }
}
