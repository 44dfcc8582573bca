//! Interim responses (1xx), which come before the final one.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use futures_util::task::AtomicWaker;
use http::{HeaderMap, Response, StatusCode, Version};

/// How many interim responses to one request may wait to be sent.
const WAITING: usize = 16;

/// Sends interim responses to a request, such as 103 (Early Hints, [RFC 8297]), before its final one.
///
/// A handler gets it with [`Interim::of`], or as an argument: it is an axum extractor that never fails.
///
/// Over HTTP/3, each is sent at once. Over HTTP/1.1 and HTTP/2, hyper has no way to send one, and [`send`](Self::send)
/// returns [`InterimError::Version`]; the final response is the same without it.
///
/// 100 (Continue) is sent by itself: over HTTP/1.1 and HTTP/3, to a request with `expect: 100-continue`, when its
/// body is first read ([RFC 9110 §10.1.1]).
///
/// # Example
///
/// ```
/// use axum::http::{HeaderMap, HeaderValue, StatusCode, header::LINK};
/// use h3cast_transport::Interim;
///
/// async fn page(interim: Interim) -> String {
///     let style = HeaderValue::from_static("</style.css>; rel=preload; as=style");
///     // Where it cannot be sent, the page is only slower.
///     let _ = interim.send(StatusCode::EARLY_HINTS, HeaderMap::from_iter([(LINK, style)]));
///     slow_query().await
/// }
/// # async fn slow_query() -> String { String::new() }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(page));
/// ```
///
/// [RFC 8297]: https://www.rfc-editor.org/rfc/rfc8297
/// [RFC 9110 §10.1.1]: https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1
#[derive(Debug, Clone)]
pub struct Interim(Way);

#[derive(Debug, Clone)]
enum Way {
    Queue(Arc<Queue>),
    Nowhere(Version),
}

/// Why an interim response is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InterimError {
    /// The status is not an interim one (RFC 9110 §15.2), or is 101 or 100, which are not for a handler to send.
    #[error("{0} is not the status of an interim response that a handler sends, such as 103")]
    Status(StatusCode),
    /// The request came over a version of HTTP for which the server cannot send any, or asks for a WebTransport
    /// session.
    #[error("this request came over {0:?}: interim responses are sent over HTTP/3 only")]
    Version(Version),
    /// The handler has returned the final response, or the client has gone.
    #[error("the request has its final response")]
    Answered,
    /// As many as may wait are waiting for the client to take them, or for the handler to await something.
    #[error("{WAITING} interim responses are waiting to be sent")]
    Full,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct Waiting {
    responses: Vec<Response<()>>,
    /// 100 is to be sent.
    body_wanted: bool,
    closed: bool,
}

impl Interim {
    /// Sends interim responses to that request.
    pub fn of<B>(request: &http::Request<B>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_else(|| Self::nowhere(request.version()))
    }

    /// For a request over a version that cannot carry any.
    pub(crate) fn nowhere(version: Version) -> Self {
        Self(Way::Nowhere(version))
    }

    /// For a request, and the server's end of it.
    pub(crate) fn queue() -> (Self, Outgoing) {
        let queue = Arc::new(Queue::default());
        (Self(Way::Queue(queue.clone())), Outgoing(queue))
    }

    /// Sends an interim response, without waiting. Fields that speak of the connection, and `content-length`, are
    /// left out (RFC 9114 §4.2, RFC 9110 §8.6).
    ///
    /// Success means that it leaves before the final response, unless the client has gone or takes no head of
    /// this size.
    ///
    /// # Errors
    ///
    /// Each tells why it is not sent: see [`InterimError`].
    pub fn send(&self, status: StatusCode, headers: HeaderMap) -> Result<(), InterimError> {
        if !status.is_informational() || matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return Err(InterimError::Status(status));
        }
        let queue = match &self.0 {
            Way::Queue(queue) => queue,
            Way::Nowhere(version) => return Err(InterimError::Version(*version)),
        };
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        {
            let mut waiting = queue.lock();
            if waiting.closed {
                return Err(InterimError::Answered);
            }
            if waiting.responses.len() >= WAITING {
                return Err(InterimError::Full);
            }
            waiting.responses.push(response);
        }
        queue.reader.wake();
        Ok(())
    }
}

impl<S: Sync> axum_core::extract::FromRequestParts<S> for Interim {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut http::request::Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::nowhere(parts.version)))
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a server sends before the final response of a request. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Outgoing(Arc<Queue>);

impl Outgoing {
    /// The next ones, or `None` after [`close`](Self::close).
    pub(crate) async fn next(&self) -> Option<Vec<Response<()>>> {
        poll_fn(|cx| {
            self.0.reader.register(cx.waker());
            let mut waiting = self.0.lock();
            let mut next = std::mem::take(&mut waiting.responses);
            if std::mem::take(&mut waiting.body_wanted) {
                let mut proceed = Response::new(());
                *proceed.status_mut() = StatusCode::CONTINUE;
                next.push(proceed);
            }
            match (next.is_empty(), waiting.closed) {
                (false, _) => Poll::Ready(Some(next)),
                (true, true) => Poll::Ready(None),
                (true, false) => Poll::Pending,
            }
        })
        .await
    }

    /// The final response is there: no more are sent than those that wait.
    pub(crate) fn close(&self) {
        self.0.lock().closed = true;
        self.0.reader.wake();
    }

    /// For the body of a request with `expect: 100-continue`.
    pub(crate) fn expected(&self) -> Expected {
        Expected(self.0.clone())
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.close();
    }
}

/// A client that waits until its body is asked for.
#[derive(Debug)]
pub(crate) struct Expected(Arc<Queue>);

impl Expected {
    /// Asks for it with 100 (Continue), if there is no final response yet.
    pub(crate) fn ask(self) {
        {
            let mut waiting = self.0.lock();
            waiting.body_wanted = !waiting.closed;
        }
        self.0.reader.wake();
    }
}
