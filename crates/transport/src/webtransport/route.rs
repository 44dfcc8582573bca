//! A session that is asked for, on its way through the HTTP service to the route that opens it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use axum_core::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{Extensions, Method, StatusCode, Uri, Version, header, request::Parts};
use tokio::sync::oneshot;

use super::{Answer, Session, SessionRequest, paths::Params};
use crate::{admission::Refusal, connection::ConnectionHandle, origin::Origins};

/// Why a [`SessionRequest`] could not be extracted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoSession {
    /// The request asks for no session.
    #[error("open a WebTransport session here, which needs HTTP/3: this is {method} over {version:?}")]
    NotAsked {
        /// The request's method.
        method: Method,
        /// What it came over.
        version: Version,
    },
    /// The page that asks is of an origin that may not.
    #[error("pages of the origin {0} may not open a session here")]
    Origin(String),
    /// The session has been extracted before.
    #[error("the session that this request asks for has been taken already")]
    Taken,
}

impl IntoResponse for NoSession {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotAsked { .. } => StatusCode::BAD_REQUEST,
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Taken => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = (status, format!("{self}\n")).into_response();
        if let Self::Origin(_) = self {
            // Counted where the response leaves the service.
            response.extensions_mut().insert(Refusal::Origin);
        }
        response
    }
}

/// What the CONNECT of a session has in its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    uri: Uri,
    connection: ConnectionHandle,
    plain_port: Option<u16>,
    /// Until a route takes it.
    answer: Arc<Mutex<Option<oneshot::Sender<Answer>>>>,
}

impl Offer {
    /// A session that is asked for at `uri`; `plain_port` is where the server's pages are over plain HTTP.
    pub(crate) fn new(
        uri: Uri,
        connection: ConnectionHandle,
        plain_port: Option<u16>,
    ) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        (Self { uri, connection, plain_port, answer: Arc::new(Mutex::new(Some(answer))) }, answered)
    }

    /// Whether no route has taken it.
    pub(crate) fn is_left(&self) -> bool {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Checks that the page that asks, if it is one, is of an origin that may.
    fn check(&self, head: &Parts) -> Result<(), NoSession> {
        self.check_after(head, &Extensions::new())
    }

    /// The same after the service has left the session to a handler: by its rule, if its answer has one.
    pub(crate) fn check_after(&self, head: &Parts, answer: &Extensions) -> Result<(), NoSession> {
        let Some(origin) = head.headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or("null");
        let authority = self.uri.authority().map_or("", http::uri::Authority::as_str);
        let origins = answer.get::<Origins>().or(head.extensions.get::<Origins>());
        match origins.is_some_and(|origins| origins.allow_session(origin, authority, self.plain_port)) {
            true => Ok(()),
            false => Err(NoSession::Origin(origin.to_owned())),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for SessionRequest {
    type Rejection = NoSession;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, NoSession> {
        let Some(offer) = parts.extensions.get::<Offer>().cloned() else {
            return Err(NoSession::NotAsked { method: parts.method.clone(), version: parts.version });
        };
        offer.check(parts)?;
        let answer = offer.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let answer = answer.ok_or(NoSession::Taken)?;
        let mut head = parts.clone();
        // A router strips what it has matched.
        head.uri = offer.uri;
        head.extensions.remove::<Offer>();
        Ok(Self::answered_by(head, offer.connection, Params::default(), answer))
    }
}

/// How a session is opened by the response to its CONNECT. Extensions must be cloneable; it is opened once.
#[derive(Clone)]
pub(crate) struct Opening(Arc<Mutex<Option<Opened>>>);

/// A session that a response opens.
pub(crate) struct Opened {
    /// The subprotocol.
    pub(crate) protocol: Option<String>,
    /// Takes the session.
    pub(crate) session: oneshot::Sender<Session>,
    /// What the application does with it.
    pub(crate) work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Opening {
    pub(super) fn new<F, R>(protocol: Option<String>, work: F) -> Self
    where
        F: FnOnce(Session) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let (session, opened) = oneshot::channel();
        let work = Box::pin(async move {
            if let Ok(session) = opened.await {
                work(session).await;
            }
        });
        Self(Arc::new(Mutex::new(Some(Opened { protocol, session, work }))))
    }

    /// The session that a response opens, if it does.
    pub(crate) fn take(extensions: &mut Extensions) -> Option<Opened> {
        extensions.remove::<Self>()?.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
