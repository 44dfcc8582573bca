//! An answer that comes before its request has been read.
//!
//! HTTP/2 then resets the stream behind the answer (NO_ERROR, RFC 9113 §8.1), and clients that have
//! not looked at the answer yet, as curl 7, take that for a failure and lose it. So a little of what
//! is on its way anyway is read first, while the answer has already left but for its end.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

/// How much is read of what nobody wants, in bytes: what small requests have.
const MOST: usize = 64 * 1024;
/// For how long.
const LONGEST: Duration = Duration::from_secs(1);

type Place = Arc<Mutex<Option<Incoming>>>;

/// A request's body, which leaves what was not read of it in a place.
struct Lent {
    body: Option<Incoming>,
    place: Place,
}

/// The place where a request's body is left.
pub(super) struct Unread(Place);

/// Makes a request whose body is not lost when it is dropped unread.
pub(super) fn lend(request: Request<Incoming>) -> (Request<Body>, Unread) {
    let place = Place::default();
    let unread = Unread(place.clone());
    (request.map(|body| Body::new(Lent { body: Some(body), place })), unread)
}

impl Drop for Lent {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !http_body::Body::is_end_stream(body));
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = unread;
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl Unread {
    /// Makes the end of the response wait for what is left of its request.
    pub(super) fn before_the_end_of(self, response: Response<Body>) -> Response<Body> {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match left {
            None => response,
            Some(request) => response.map(|body| {
                let time = Box::pin(tokio::time::sleep(LONGEST));
                Body::new(Answer { body, request: Some(request), read: 0, time })
            }),
        }
    }
}

struct Answer {
    body: Body,
    request: Option<Incoming>,
    read: usize,
    time: Pin<Box<Sleep>>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            return Poll::Ready(Some(frame));
        }
        while let Some(request) = &mut this.request {
            if this.time.as_mut().poll(cx).is_ready() {
                this.request = None;
                break;
            }
            match ready!(Pin::new(request).poll_frame(cx)) {
                Some(Ok(frame)) => this.read += frame.data_ref().map_or(0, Bytes::len),
                _ => this.request = None,
            }
            if this.read > MOST {
                this.request = None;
            }
        }
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
