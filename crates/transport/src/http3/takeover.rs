//! Taking over the stream of a request: the handler writes to it itself.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum_core::body::Body;
use http::{Response, StatusCode, Version};

use super::{
    placeholder::{Placeholder, Settled, Step, settle},
    taken::TakenStream,
};

/// The right to take over the stream of a request, which every HTTP/3 request carries.
///
/// A handler gets it with [`Takeover::of`], or as an argument (it is an axum extractor that
/// answers 505 where there is no HTTP/3 stream), and returns [`Takeover::respond`].
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{Router, response::Response, routing::get};
/// use h3cast_transport::Takeover;
///
/// /// Writes the body on HTTP/3's own stream.
/// async fn ticks(takeover: Takeover) -> Response {
///     takeover.respond(Response::new(()), |mut stream| async move {
///         let _ = stream.write_bytes("tick".into()).await;
///         let _ = stream.finish().await;
///     })
/// }
///
/// let router: Router = Router::new().route("/ticks", get(ticks));
/// # }
/// ```
///
/// # Layers
///
/// What is written to the stream passes by the layers around the handler. So the server looks at what they
/// make of the response's body, which is a placeholder, before it sends the head:
///
/// | a layer | example in tower-http | the takeover |
/// |---|---|---|
/// | looks at the response or its body | `TraceLayer`, `TimeoutLayer`, `SetResponseHeaderLayer` | takes place |
/// | changes, adds to or reads the body | `CompressionLayer`, `MapResponseBodyLayer` | does not take place |
/// | replaces the body | a page for errors | does not take place: the client gets that body |
///
/// Where a takeover is refused, [`respond_or`](Self::respond_or) gives those layers a body to work on. After
/// [`respond`](Self::respond), the client gets 500 and the log says why. A response that has no content has no
/// takeover either: to HEAD, and with status 204 or 304.
///
/// Layers that count or time the frames of a body see an empty one, which stays until the work has ended.
#[derive(Debug, Clone)]
pub struct Takeover(OfferSlot);

/// Where the server finds what a handler has left for it.
type OfferSlot = Arc<Mutex<Option<Offer>>>;

/// The request has no stream that could be taken over: it did not come over HTTP/3, or asks for a WebTransport
/// session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this request came over {version:?}: only an HTTP/3 request has a stream to take over")]
pub struct NoTakeover {
    /// What it came over.
    pub version: Version,
}

pub(super) type Work = Box<dyn FnOnce(TakenStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A handler's work, and how far the server has come with the placeholder in its response.
pub(super) struct Offer {
    work: Work,
    step: Arc<Mutex<Step>>,
    has_body: bool,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer").field("step", &self.step).field("has_body", &self.has_body).finish_non_exhaustive()
    }
}

impl Takeover {
    /// One for a request, and where the server finds what its handler leaves.
    pub(super) fn new() -> (Self, Offers) {
        let slot = OfferSlot::default();
        (Self(slot.clone()), Offers(slot))
    }

    /// The takeover of a request.
    ///
    /// # Errors
    ///
    /// When it came over HTTP/1.1 or HTTP/2.
    pub fn of<B>(request: &http::Request<B>) -> Result<Self, NoTakeover> {
        let version = request.version();
        request.extensions().get::<Self>().cloned().ok_or(NoTakeover { version })
    }

    /// Makes a response whose head is sent at once and whose body `work` writes itself.
    ///
    /// `work` runs on the request's own task and is dropped as soon as the client goes away. The
    /// response must be ended with [`TakenStream::finish`], or the client sees it as cut short.
    ///
    /// If a layer changes or reads the body, `work` is dropped without being called, and the client gets 500:
    /// see [Layers](Self#layers).
    pub fn respond<F, R>(self, head: Response<()>, work: F) -> Response<Body>
    where
        F: FnOnce(TakenStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.offer(head, work, None)
    }

    /// As [`respond`](Self::respond), with a body for layers that change or read one: where the takeover is
    /// refused, `work` is dropped without being called, and the response has the body that `body` gives.
    ///
    /// A layer that leaves the beginning of a body alone and changes or adds to the rest shows that too late
    /// for this; the client gets 500.
    ///
    /// # Example
    ///
    /// ```
    /// use axum::{body::Body, response::Response};
    /// use h3cast_transport::Takeover;
    ///
    /// async fn hello(takeover: Takeover) -> Response {
    ///     let work = async |mut stream: h3cast_transport::TakenStream| {
    ///         // An error means that the client has left.
    ///         let _ = stream.write_bytes("hello\n".into()).await;
    ///         let _ = stream.finish().await;
    ///     };
    ///     // Under a `CompressionLayer`, it is this one that is compressed.
    ///     takeover.respond_or(Response::new(()), work, || Body::from("hello\n"))
    /// }
    /// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(hello));
    /// ```
    pub fn respond_or<F, R, B>(self, head: Response<()>, work: F, body: B) -> Response<Body>
    where
        F: FnOnce(TakenStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
        B: FnOnce() -> Body + Send + 'static,
    {
        self.offer(head, work, Some(Box::new(body)))
    }

    fn offer<F, R>(self, head: Response<()>, work: F, body: Option<Box<dyn FnOnce() -> Body + Send>>) -> Response<Body>
    where
        F: FnOnce(TakenStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let step = Arc::default();
        let offer = Offer {
            work: Box::new(move |stream| Box::pin(work(stream))),
            step: Arc::clone(&step),
            has_body: body.is_some(),
        };
        *lock(&self.0) = Some(offer);
        head.map(|()| Body::new(Placeholder::new(step, body)))
    }
}

/// What the handler of a request leaves for the server. Dropping it drops the work, which may hold the request.
pub(super) struct Offers(OfferSlot);

impl Offers {
    /// What the handler has left, if it took the stream over.
    pub(super) fn take(&self) -> Option<Offer> {
        lock(&self.0).take()
    }
}

impl Drop for Offers {
    fn drop(&mut self) {
        let left = self.take();
        drop(left);
    }
}

impl Offer {
    /// Finds out what the layers around the handler have made of its response's body.
    pub(super) async fn settle(self, body: Body) -> Settled {
        settle(self.work, &self.step, self.has_body, body).await
    }
}

impl<S: Sync> axum_core::extract::FromRequestParts<S> for Takeover {
    type Rejection = (StatusCode, String);

    async fn from_request_parts(parts: &mut http::request::Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let none = NoTakeover { version: parts.version };
        let takeover = parts.extensions.get::<Self>().cloned();
        takeover.ok_or_else(|| (StatusCode::HTTP_VERSION_NOT_SUPPORTED, format!("{none}\n")))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
