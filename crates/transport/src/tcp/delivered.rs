//! A body that fails: what it gave before arrives first.
//!
//! hyper takes the failure of a body as a reason to end at once. Over HTTP/1.1 it closes the connection
//! with whatever it has not written by then, the status line included; over HTTP/2 it resets the stream,
//! and h2 drops the DATA frames that have not left. So the failure is held back until they have.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum_core::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http_body::{Frame, SizeHint};
use tokio::time::sleep;
use tracing::debug;

use super::{ending::Ending, flushed::Flushes, waiting::Busy};
use crate::{
    admission::Open,
    exchange::Exchange,
    outstanding::{LINGER, Outstanding, PATIENCE, while_progressing},
    response::Checked,
};

/// Makes a body whose failure comes when the client has what it gave before, or has taken nothing for
/// [`PATIENCE`], and after a minute at the latest. With an `ending`, only the end of the connection is the end of the body.
///
/// `leaving` is for HTTP/2, and `busy` for HTTP/1.1; `open` is what the request counts as until then.
pub(super) fn deliver(
    body: impl Into<Checked>,
    flushes: &Flushes,
    ending: Option<Ending>,
    leaving: Option<Leaving>,
    busy: Option<Busy>,
    (open, exchange): (Option<Open>, Exchange),
) -> Body {
    if let Some(ending) = &ending {
        ending.begin();
    }
    Body::new(Delivered {
        body: body.into(),
        flushes: flushes.clone(),
        ending,
        is_http1: leaving.is_none(),
        leaving,
        failing: None,
        _busy: busy,
        _open: open,
        exchange,
    })
}

/// A response over HTTP/2 until it has left: h2 keeps the last DATA frame that long, when hyper has dropped the
/// body already.
pub(super) struct Leaving {
    outstanding: Outstanding,
    /// Held until the body is dropped.
    _begun: Bytes,
    /// Its last frame is known.
    marked: bool,
}

impl Leaving {
    pub(super) fn begin(outstanding: &Outstanding) -> Self {
        Self { outstanding: outstanding.clone(), _begun: outstanding.hold(Bytes::new()), marked: false }
    }

    /// Holds the last frame, or one more after it. `ended`: nothing follows `frame`.
    fn mark(&mut self, frame: Option<Frame<Bytes>>, ended: bool) -> Option<Frame<Bytes>> {
        match frame {
            // No DATA may follow it.
            Some(trailers) if trailers.is_trailers() => {
                self.marked = true;
                Some(trailers)
            }
            Some(last) if ended => {
                self.marked = true;
                Some(last.map_data(|data| self.outstanding.hold(data)))
            }
            None if !std::mem::replace(&mut self.marked, true) => {
                Some(Frame::data(self.outstanding.hold(Bytes::new())))
            }
            frame => frame,
        }
    }
}

struct Delivered {
    body: Checked,
    flushes: Flushes,
    ending: Option<Ending>,
    leaving: Option<Leaving>,
    is_http1: bool,
    /// Gives the failure when it is time.
    failing: Option<BoxFuture<'static, axum_core::Error>>,
    _busy: Option<Busy>,
    _open: Option<Open>,
    exchange: Exchange,
}

impl Drop for Delivered {
    fn drop(&mut self) {
        if self.failing.is_none() && http_body::Body::is_end_stream(&self.body) {
            self.exchange.ended();
        }
        // Over HTTP/2 each stream is flushed by itself: see `pace`.
        if self.is_http1 {
            self.flushes.leave_with_next(&self.exchange);
        }
    }
}

impl Delivered {
    /// Holds a failure back. Over HTTP/2 there is a frame to be sent before it.
    fn fail(&mut self, error: axum_core::Error) -> Option<Frame<Bytes>> {
        if let Some(leaving) = &mut self.leaving {
            leaving.marked = true;
            // h2 keeps it until the frames before it have left.
            let outstanding = Outstanding::default();
            let mark = outstanding.hold(Bytes::new());
            let left = async move {
                outstanding.none().await;
                // Nor must a client read what comes with a reset.
                sleep(LINGER).await;
            };
            self.failing = Some(Box::pin(failed(error, self.flushes.clone(), left)));
            return Some(Frame::data(mark));
        }
        // hyper asks for the next piece before it flushes what it has.
        let (flushes, before) = (self.flushes.clone(), self.flushes.count());
        let ending = self.ending.clone();
        self.failing = Some(Box::pin(async move {
            let flushed = flushes.clone();
            let error = failed(error, flushes, async move { flushed.after(before).await }).await;
            if let Some(ending) = ending {
                ending.arrived().await;
            }
            error
        }));
        None
    }
}

/// Holds a failure back while the connection takes what was written before, as its other responses.
async fn failed(error: axum_core::Error, flushes: Flushes, left: impl Future<Output = ()>) -> axum_core::Error {
    if while_progressing(|| flushes.written(), || PATIENCE, left).await.is_none() {
        debug!(%error, "a client did not receive in time what was written before its response was cut");
    }
    error
}

impl http_body::Body for Delivered {
    type Data = Bytes;
    type Error = axum_core::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum_core::Error>>> {
        if self.failing.is_none() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Err(error)) => {
                    self.exchange.cut();
                    // Whatever makes the body goes now, as it does when there is nothing to wait for.
                    self.body = Body::empty().into();
                    if let Some(mark) = self.fail(error) {
                        return Poll::Ready(Some(Ok(mark)));
                    }
                }
                frame => {
                    let frame = frame.and_then(Result::ok);
                    // hyper does not ask for more when it sees that there is nothing.
                    let ended = frame.is_none() || self.body.is_end_stream();
                    if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
                        self.exchange.sent(data.len() as u64);
                    }
                    if ended {
                        self.exchange.ended();
                    }
                    if let Some(ending) = self.ending.as_ref().filter(|_| ended) {
                        ending.complete();
                    }
                    let frame = match &mut self.leaving {
                        Some(leaving) => leaving.mark(frame, ended),
                        None => frame,
                    };
                    return Poll::Ready(frame.map(Ok));
                }
            }
        }
        let Some(failing) = &mut self.failing else { return Poll::Ready(None) };
        let error = ready!(failing.poll_unpin(cx));
        self.failing = None;
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.failing.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::stream;
    use http_body_util::BodyExt;
    use tokio::{
        io::AsyncWriteExt,
        time::{Instant, timeout},
    };

    use super::*;
    use crate::{
        limits::Limits,
        outstanding::LONGEST,
        tcp::{flushed::Flushed, opening::Openings, waiting::Waiting},
    };

    fn connection(flushes: &Flushes) -> Flushed<tokio::io::Sink> {
        let ending = Ending::new(None, ([127, 0, 0, 1], 9).into());
        Flushed::new(
            tokio::io::sink(),
            flushes.clone(),
            Openings::default(),
            ending,
            Waiting::new(&Limits::default(), None),
        )
    }

    /// A body that gives one piece and fails.
    fn failing(http2: bool, flushes: &Flushes) -> Body {
        let pieces = [Ok("piece"), Err(io::Error::other("by hand"))];
        deliver(
            Body::from_stream(stream::iter(pieces)),
            flushes,
            None,
            http2.then(|| Leaving::begin(&Outstanding::default())),
            None,
            Default::default(),
        )
    }

    async fn data(body: &mut Body) -> Bytes {
        body.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn over_http2_a_failure_waits_for_the_frames_before_it() {
        let mut body = failing(true, &Flushes::default());
        assert_eq!(data(&mut body).await, "piece");
        let mark = data(&mut body).await;
        assert!(mark.is_empty() && !http_body::Body::is_end_stream(&body));
        assert!(timeout(PATIENCE / 2, body.frame()).await.is_err());
        let left = Instant::now();
        drop(mark);
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(left.elapsed(), LINGER);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn over_http2_a_response_is_there_until_its_last_frame_has_left() {
        // Of one piece, whose end is known, of several, and of none.
        let several = Body::from_stream(stream::iter([Ok::<_, io::Error>("a"), Ok("b")]));
        for (body, frames) in [(Body::from("piece"), 1), (several, 3), (Body::empty(), 0)] {
            let outstanding = Outstanding::default();
            let mut body =
                deliver(body, &Flushes::default(), None, Some(Leaving::begin(&outstanding)), None, Default::default());
            assert!(outstanding.none().now_or_never().is_none());
            let mut given = Vec::new();
            while !http_body::Body::is_end_stream(&body)
                && let Some(frame) = body.frame().await
            {
                given.push(frame.unwrap().into_data().unwrap());
            }
            assert_eq!(given.len(), frames);
            drop(body);
            let last = given.pop();
            given.clear();
            assert_eq!(outstanding.none().now_or_never().is_none(), last.is_some());
            drop(last);
            assert!(outstanding.none().now_or_never().is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn over_http1_a_failure_waits_for_the_next_flush() {
        let flushes = Flushes::default();
        let mut connection = connection(&flushes);
        connection.flush().await.unwrap();
        let mut body = failing(false, &flushes);
        assert_eq!(data(&mut body).await, "piece");
        assert!(timeout(PATIENCE / 2, body.frame()).await.is_err());
        connection.flush().await.unwrap();
        assert!(body.frame().now_or_never().unwrap().unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_not_waited_for_for_long() {
        for http2 in [true, false] {
            let (mut body, start) = (failing(http2, &Flushes::default()), Instant::now());
            let mut held = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
                held.push(frame);
            }
            assert_eq!(start.elapsed(), PATIENCE, "HTTP/2: {http2}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_some_is_waited_for_for_a_minute() {
        for http2 in [true, false] {
            let (flushes, start) = (Flushes::default(), Instant::now());
            let mut connection = connection(&flushes);
            let mut body = failing(http2, &flushes);
            let reading = async {
                let mut held = Vec::new();
                while let Some(Ok(frame)) = body.frame().await {
                    held.push(frame);
                }
            };
            let writing = async {
                loop {
                    sleep(PATIENCE / 2).await;
                    connection.write_all(b"piece").await.unwrap();
                }
            };
            tokio::select! {
                () = reading => {}
                () = writing => {}
            }
            assert_eq!(start.elapsed(), LONGEST, "HTTP/2: {http2}");
        }
    }
}
