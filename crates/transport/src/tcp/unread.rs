//! A response that comes before its request has been read.
//!
//! HTTP/2 resets the stream after such a response (NO_ERROR, RFC 9113 §8.1) and HTTP/1.1 closes the connection.
//! Clients that have not looked at the response yet, such as curl 7, take that for a failure and lose it. So a little
//! of what is on its way anyway is read, and then they have a moment.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum_core::body::Body;
use bytes::Bytes;
use http::{Request, Version};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::waiting::Busy;

/// How much is read of what nobody wants, in bytes: what small requests have.
const MOST: usize = 64 * 1024;
/// How long a client has to look at the response.
const LONGEST: Duration = Duration::from_secs(1);

/// What is left of a connection's requests, until it has been dealt with or the connection ends.
#[derive(Clone, Default)]
pub(super) struct Unread(Arc<Mutex<JoinSet<()>>>);

/// What a request has left when it is answered. Nothing over HTTP/1.1, or where no length was declared: there the client
/// may end it wherever it likes.
pub(super) struct Rest(Option<(Arc<AtomicBool>, CancellationToken)>);

/// The other end of it, which goes with the body.
struct Fate {
    is_left: Arc<AtomicBool>,
    _settled: DropGuard,
}

impl Rest {
    fn of(request: &Request<Incoming>) -> (Self, Option<Fate>) {
        let body = request.body();
        let may_break_off = request.version() == Version::HTTP_2
            && !http_body::Body::is_end_stream(body)
            && http_body::Body::size_hint(body).exact().is_some();
        if !may_break_off {
            return (Self(None), None);
        }
        let (is_left, settled) = (Arc::default(), CancellationToken::new());
        let rest = Self(Some((Arc::clone(&is_left), settled.clone())));
        (rest, Some(Fate { is_left, _settled: settled.drop_guard() }))
    }

    /// Nobody will read the rest, and it was still arriving.
    pub(super) fn is_left(&self) -> bool {
        self.0.as_ref().is_some_and(|(is_left, _)| is_left.load(Ordering::Acquire))
    }

    /// Waits until all of it has arrived, or no more of it is read.
    pub(super) async fn settled(&self) {
        if let Some((_, settled)) = &self.0 {
            settled.cancelled().await;
        }
    }
}

impl Unread {
    /// Makes a request whose body, when it is dropped unread, is dealt with here. `busy` goes with it.
    pub(super) fn lend(&self, request: Request<Incoming>, busy: Option<Busy>) -> (Request<Body>, Rest) {
        self.lend_counted(request, busy, None)
    }

    /// The same, and counts what is read of it.
    pub(super) fn lend_counted(
        &self,
        request: Request<Incoming>,
        busy: Option<Busy>,
        received: Option<Arc<AtomicU64>>,
    ) -> (Request<Body>, Rest) {
        let ((rest, fate), unread) = (Rest::of(&request), self.clone());
        (request.map(|body| Body::new(Lent { body: Some((body, busy)), unread, fate, received })), rest)
    }

    fn take(&self, (body, busy): (Incoming, Option<Busy>), fate: Option<Fate>) {
        if let Some(fate) = &fate {
            fate.is_left.store(true, Ordering::Release);
        }
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let _busy = busy;
            let _ = timeout(LONGEST, drain(body, fate)).await;
        });
    }
}

async fn drain(body: Incoming, fate: Option<Fate>) {
    let mut body = pin!(body);
    let mut read = 0;
    while read <= MOST {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
    drop(fate);
    // After that, flow control holds the client.
    std::future::pending().await
}

struct Lent {
    body: Option<(Incoming, Option<Busy>)>,
    unread: Unread,
    fate: Option<Fate>,
    received: Option<Arc<AtomicU64>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|(body, _)| !http_body::Body::is_end_stream(body)) {
            self.unread.take(body, self.fate.take());
        }
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some((body, _)) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if let (Some(received), Some(Ok(frame))) = (&self.received, &frame) {
            received.fetch_add(frame.data_ref().map_or(0, Bytes::len) as u64, Ordering::Relaxed);
        }
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
