//! Response bodies that a task writes to.
//!
//! ```no_run
//! use axum::{Router, http::header, response::IntoResponse, routing::get};
//! use h3cast::{Identity, Server, body};
//!
//! async fn count() -> impl IntoResponse {
//!     let (tx, body) = body::channel(1);
//!     tokio::spawn(async move {
//!         for number in 0..10 {
//!             tx.send(format!("{number}\n")).await?;
//!         }
//!         tx.finish();
//!         Ok::<_, body::ClientGone>(())
//!     });
//!     ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], body)
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;
//! let server = Server::builder(identity).http_service(Router::new().route("/", get(count))).build().await?;
//! server.run(Default::default()).await?;
//! # Ok(())
//! # }
//! ```

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

/// A body, and the sender that writes it. `capacity` is how many chunks the sender may be ahead of the
/// connection, at least 1; the connection itself buffers up to about 1 MiB for a slow client.
///
/// Over HTTP/3 and HTTP/2, each chunk leaves as a DATA frame of its own, without waiting for others.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use http_body_util::BodyExt;
///
/// let (tx, body) = h3cast::body::channel(16);
/// tokio::spawn(async move {
///     let _ = tx.send("hello").await;
///     // Dropped without that, the body is cut off, so that it never looks whole.
///     tx.finish();
/// });
/// assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
/// # }
/// ```
#[must_use]
pub fn channel(capacity: usize) -> (Sender, Body) {
    let (tx, rx) = mpsc::channel(capacity.max(1));
    let finished = Arc::new(AtomicBool::new(false));
    (Sender { tx, finished: finished.clone() }, Body { rx, finished, ended: false })
}

/// Writes a [`Body`].
///
/// The response is complete only after [`finish`](Self::finish). A sender that is dropped without it,
/// by a panic, an early `return` or an aborted task, cuts the response off: the client receives all
/// chunks sent so far, then an error (a reset stream over HTTP/3 and HTTP/2, a closed connection over
/// HTTP/1.1).
#[derive(Debug)]
pub struct Sender {
    tx: mpsc::Sender<Bytes>,
    finished: Arc<AtomicBool>,
}

impl Sender {
    /// Sends a chunk as soon as there is room for it. An empty chunk is skipped.
    ///
    /// Success means that the chunk is on its way, not that the client has it.
    ///
    /// # Errors
    ///
    /// When the body is no longer read: the client left or cancelled, or the server stops.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it completes, the chunk is not sent, and the sender can be used
    /// again.
    pub async fn send(&self, chunk: impl Into<Bytes>) -> Result<(), ClientGone> {
        let chunk = chunk.into();
        if chunk.is_empty() {
            return if self.tx.is_closed() { Err(ClientGone) } else { Ok(()) };
        }
        self.tx.send(chunk).await.map_err(|_| ClientGone)
    }

    /// Completes the response, after the chunks that are still on their way.
    pub fn finish(self) {
        // Before the channel closes with the drop of `tx`, which is when the body looks.
        self.finished.store(true, Ordering::Release);
    }

    /// Waits until the body is no longer read: the client left or cancelled, or the server stops.
    /// Use it in a `select!` to stop work that takes long between two chunks.
    ///
    /// # Cancel safety
    ///
    /// This can be dropped and called again at any time.
    pub async fn closed(&self) {
        self.tx.closed().await;
    }
}

/// A body that a [`Sender`] writes. As a response of its own it has status 200 and no `content-type`:
/// give it one, and `x-content-type-options: nosniff` for a browser window that is to show text as it
/// arrives.
#[derive(Debug)]
pub struct Body {
    rx: mpsc::Receiver<Bytes>,
    finished: Arc<AtomicBool>,
    /// After the error, which is reported once.
    ended: bool,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Unfinished;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let next = ready!(this.rx.poll_recv(cx)).map(|chunk| Ok(Frame::data(chunk)));
        this.ended = next.is_none();
        let unfinished = this.ended && !this.finished.load(Ordering::Acquire);
        Poll::Ready(if unfinished { Some(Err(Unfinished)) } else { next })
    }
}

impl IntoResponse for Body {
    fn into_response(self) -> Response {
        Response::new(axum::body::Body::new(self))
    }
}

/// The response is no longer read: the client left or cancelled, or the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client no longer reads the response")]
pub struct ClientGone;

/// The sender of a body was dropped without [`Sender::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response was not finished")]
pub struct Unfinished;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use http_body_util::BodyExt;
    use std::pin::pin;

    /// The next chunk, the end, or the error.
    async fn next(body: &mut Body) -> Option<Result<Bytes, Unfinished>> {
        Some(body.frame().await?.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test]
    async fn chunks_in_order_and_an_end() {
        let (tx, mut body) = channel(4);
        tx.send("one").await.unwrap();
        tx.send(String::from("two")).await.unwrap();
        tx.send("").await.unwrap();
        tx.finish();
        assert_eq!(next(&mut body).await, Some(Ok("one".into())));
        assert_eq!(next(&mut body).await, Some(Ok("two".into())));
        assert_eq!(next(&mut body).await, None);
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test]
    async fn an_unfinished_body_is_an_error_after_its_chunks() {
        let (tx, mut body) = channel(1);
        tx.send("one").await.unwrap();
        drop(tx);
        assert_eq!(next(&mut body).await, Some(Ok("one".into())));
        assert_eq!(next(&mut body).await, Some(Err(Unfinished)));
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test]
    async fn a_panic_and_an_abort_leave_it_unfinished() {
        let (tx, mut body) = channel(1);
        let task = tokio::spawn(async move {
            tx.send("one").await.unwrap();
            panic!("on purpose");
        });
        assert!(task.await.is_err());
        assert_eq!(next(&mut body).await, Some(Ok("one".into())));
        assert_eq!(next(&mut body).await, Some(Err(Unfinished)));

        let (tx, mut body) = channel(1);
        let task = tokio::spawn(async move { tx.closed().await });
        task.abort();
        assert!(task.await.is_err());
        assert_eq!(next(&mut body).await, Some(Err(Unfinished)));
    }

    #[tokio::test]
    async fn a_sender_waits_for_its_reader() {
        for capacity in [0, 1] {
            let (tx, mut body) = channel(capacity);
            tx.send("one").await.unwrap();
            let mut second = pin!(tx.send("two"));
            assert!(poll!(second.as_mut()).is_pending(), "there is room for one");
            assert_eq!(next(&mut body).await, Some(Ok("one".into())));
            second.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_send_that_is_dropped_sends_nothing() {
        let (tx, mut body) = channel(1);
        tx.send("one").await.unwrap();
        {
            let mut dropped = pin!(tx.send("never"));
            assert!(poll!(dropped.as_mut()).is_pending());
        }
        assert_eq!(next(&mut body).await, Some(Ok("one".into())));
        tx.send("two").await.unwrap();
        assert_eq!(next(&mut body).await, Some(Ok("two".into())));
    }

    #[tokio::test]
    async fn a_reader_that_left_is_noticed() {
        let (tx, body) = channel(1);
        tx.send("one").await.unwrap();
        let mut closed = pin!(tx.closed());
        let mut second = pin!(tx.send("two"));
        assert!(poll!(closed.as_mut()).is_pending() && poll!(second.as_mut()).is_pending());
        drop(body);
        closed.await;
        assert_eq!(second.await, Err(ClientGone));
        assert_eq!(tx.send("three").await, Err(ClientGone));
        assert_eq!(tx.send("").await, Err(ClientGone));
    }
}
