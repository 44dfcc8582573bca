//! An answer that comes before its request has been read.
//!
//! HTTP/2 resets the stream behind such an answer (NO_ERROR, RFC 9113 §8.1), HTTP/1.1 closes the
//! connection, and clients that have not looked at the answer yet, as curl 7, take that for a failure
//! and lose it. So a little of what is on its way anyway is read, and then they have a moment.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum_core::body::Body;
use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::JoinSet;

use super::waiting::Busy;

/// How much is read of what nobody wants, in bytes: what small requests have.
const MOST: usize = 64 * 1024;
/// How long a client has to look at the answer.
const LONGEST: Duration = Duration::from_secs(1);

/// What is left of a connection's requests, until it has been dealt with or the connection ends.
#[derive(Clone, Default)]
pub(super) struct Unread(Arc<Mutex<JoinSet<()>>>);

impl Unread {
    /// Makes a request whose body, when it is dropped unread, is dealt with here. `busy` goes with it.
    pub(super) fn lend(&self, request: Request<Incoming>, busy: Option<Busy>) -> Request<Body> {
        request.map(|body| Body::new(Lent { body: Some((body, busy)), unread: self.clone() }))
    }

    fn take(&self, (body, busy): (Incoming, Option<Busy>)) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let _busy = busy;
            let _ = tokio::time::timeout(LONGEST, drain(body)).await;
        });
    }
}

async fn drain(body: Incoming) {
    let mut body = pin!(body);
    let mut read = 0;
    while read <= MOST {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
    // Behind that, flow control holds the client.
    std::future::pending().await
}

struct Lent {
    body: Option<(Incoming, Option<Busy>)>,
    unread: Unread,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|(body, _)| !http_body::Body::is_end_stream(body)) {
            self.unread.take(body);
        }
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some((body, _)) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|(body, _)| http_body::Body::is_end_stream(body))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), |(body, _)| http_body::Body::size_hint(body))
    }
}
