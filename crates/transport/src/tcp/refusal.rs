//! An error that comes before its request has been read, over HTTP/2.
//!
//! A client that sees it may stop its upload where it is and end the request, as curl does. If the request is shorter
//! than its content-length then, h2 resets the stream (PROTOCOL_ERROR), and what has not left of the response is lost.
//! So the head waits until the body is complete or the request cannot break off any more; then all of it leaves at once
//! (see [`opening`](super::opening)).

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum_core::{Error, body::Body};
use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{select, time::timeout};

use super::unread::Rest;
use crate::response::Checked;

/// How much of a response is kept, in bytes: more than most errors have.
const MOST: usize = 64 * 1024;
/// How long a response waits, at most.
const LONGEST: Duration = Duration::from_millis(500);

/// Waits with an error to a request that has `rest` left until what the client makes of it cannot cut it.
pub(super) async fn held(response: Response<Checked>, rest: &Rest) -> Response<Checked> {
    // Only errors make clients stop uploading; other responses may never end.
    if response.status().as_u16() < 300 || !rest.is_left() {
        return response;
    }
    let (head, body) = response.into_parts();
    let mut held = Held { frames: VecDeque::new(), rest: Some(body), failed: None };
    let _ = timeout(LONGEST, async {
        select! {
            biased;
            () = held.fill() => {}
            () = rest.settled() => {}
        }
    })
    .await;
    Response::from_parts(head, Body::new(held).into())
}

/// A body of which the first frames are there.
struct Held {
    frames: VecDeque<Frame<Bytes>>,
    /// What comes after them.
    rest: Option<Checked>,
    failed: Option<Error>,
}

impl Held {
    /// Waits until it is complete. Cancel safe.
    async fn fill(&mut self) {
        let mut size = 0;
        while let Some(rest) = self.rest.as_mut().filter(|rest| !http_body::Body::is_end_stream(*rest)) {
            if size > MOST {
                return std::future::pending().await;
            }
            match rest.frame().await {
                Some(Ok(frame)) => {
                    size += frame.data_ref().map_or(0, Bytes::len);
                    self.frames.push_back(frame);
                }
                Some(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
                None => break,
            }
        }
        self.rest = None;
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(self.failed.take().map(Err)) };
        let frame = ready!(Pin::new(rest).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.rest = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.failed.is_none() && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let kept: usize = self.frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        let (kept, rest) = (kept as u64, self.rest.as_ref().map(http_body::Body::size_hint));
        let mut hint = SizeHint::new();
        hint.set_lower(kept + rest.as_ref().map_or(0, SizeHint::lower));
        match rest {
            Some(rest) => rest.upper().into_iter().for_each(|upper| hint.set_upper(kept + upper)),
            None if self.failed.is_none() => hint.set_upper(kept),
            None => {}
        }
        hint
    }
}
