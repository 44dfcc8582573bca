//! The body of a response that is taken over: layers see it, and the server sees what they have made of it.
//!
//! The server asks for it in steps: for an empty piece (if there is a body to fall back to), for a mark, and for
//! the end. Only if each comes out as it went in do the layers leave the body alone. A layer
//! that asks by itself, or twice, reads or changes the body: it gets the body that was given for that, or an error.
//! The empty piece commits to nothing: a body that follows it is whole.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use axum_core::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;

use super::takeover::{Work, lock};

/// Known by its address; a layer that shows it after all shows what it is.
static MARK: &[u8] = b"(a response that is taken over)";

/// How far the server has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It has not asked for anything.
    #[default]
    Unasked,
    /// It asks for this.
    Asked(MarkPiece),
    /// It was given that, and has not seen it yet.
    Given(MarkPiece),
    /// A layer reads or changes the body.
    Read,
    /// A layer has dropped the body.
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MarkPiece {
    Empty,
    Mark,
    End,
}

impl MarkPiece {
    fn bytes(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Empty | Self::End => &MARK[..0],
            Self::Mark => MARK,
        })
    }

    fn is(self, bytes: &Bytes) -> bool {
        bytes.as_ptr() == MARK.as_ptr() && bytes.len() == self.bytes().len()
    }
}

/// A layer cannot have the body of a response that is taken over.
#[derive(Debug, thiserror::Error)]
#[error("a layer reads or changes the body of a response that its handler writes by takeover")]
struct TakenOver;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(super) struct Placeholder {
    step: Arc<Mutex<Step>>,
    make: Option<Box<dyn FnOnce() -> Body + Send>>,
    body: Option<Body>,
}

impl Placeholder {
    pub(super) fn new(step: Arc<Mutex<Step>>, make: Option<Box<dyn FnOnce() -> Body + Send>>) -> Self {
        Self { step, make, body: None }
    }
}

impl http_body::Body for Placeholder {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        {
            let mut step = lock(&this.step);
            match *step {
                Step::Asked(MarkPiece::End) | Step::Given(MarkPiece::End) => {
                    *step = Step::Given(MarkPiece::End);
                    this.make = None;
                    return Poll::Ready(None);
                }
                Step::Asked(piece) => {
                    *step = Step::Given(piece);
                    return Poll::Ready(Some(Ok(Frame::data(piece.bytes()))));
                }
                // Somebody has the mark, and the body cannot be whole any more.
                Step::Given(MarkPiece::Mark) => this.make = None,
                Step::Unasked | Step::Given(MarkPiece::Empty) | Step::Read | Step::Dropped => {}
            }
            *step = Step::Read;
        }
        if let Some(make) = this.make.take() {
            this.body = Some(make());
        }
        match &mut this.body {
            Some(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            None => Poll::Ready(Some(Err(TakenOver.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        *lock(&self.step) == Step::Given(MarkPiece::End) || self.body.as_ref().is_some_and(Body::is_end_stream)
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        *lock(&self.step) = Step::Dropped;
    }
}

/// What the layers around a handler that takes over have made of its response's body.
pub(super) enum Settled {
    /// They leave it alone. It stays until the work has ended: layers may count those that are there.
    Taken(Work, Body),
    /// The takeover does not take place: this is the body.
    Body(Body),
    /// A layer would have the body, and there is none. States what the layer does.
    Refused(&'static str),
}

/// Reads what the layers have made of a placeholder in `body`.
pub(super) async fn settle(work: Work, step: &Mutex<Step>, has_body: bool, mut body: Body) -> Settled {
    match *lock(step) {
        Step::Dropped => return Settled::Body(body),
        Step::Read if has_body => return Settled::Body(body),
        Step::Read => return Settled::Refused("a layer reads the body"),
        Step::Unasked | Step::Asked(_) | Step::Given(_) => {}
    }
    if has_body {
        *lock(step) = Step::Asked(MarkPiece::Empty);
        let first = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(first) => Poll::Ready(Some(first)),
            // The body itself, whose first frame may take long: the head is not to wait for it.
            Poll::Pending if *lock(step) == Step::Read => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let Some(first) = first.await else { return Settled::Body(body) };
        if !came_through(MarkPiece::Empty, step, first.as_ref()) {
            let mut step = lock(step);
            if *step != Step::Dropped {
                *step = Step::Read;
            }
            return Settled::Body(Prefixed::body(first, body));
        }
    }
    *lock(step) = Step::Asked(MarkPiece::Mark);
    let mark = body.frame().await;
    if !came_through(MarkPiece::Mark, step, mark.as_ref()) {
        return Settled::Refused("a layer changes the body");
    }
    *lock(step) = Step::Asked(MarkPiece::End);
    match body.frame().await {
        None => Settled::Taken(work, body),
        Some(_) => Settled::Refused("a layer adds to the body"),
    }
}

fn came_through(piece: MarkPiece, step: &Mutex<Step>, frame: Option<&Result<Frame<Bytes>, axum_core::Error>>) -> bool {
    let data = frame.and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
    *lock(step) == Step::Given(piece) && data.is_some_and(|data| piece.is(data))
}

/// A body whose first frame has been read.
struct Prefixed {
    first: Option<Result<Frame<Bytes>, axum_core::Error>>,
    body: Body,
}

impl Prefixed {
    fn body(first: Option<Result<Frame<Bytes>, axum_core::Error>>, body: Body) -> Body {
        match first {
            None => Body::empty(),
            Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => body,
            first => Body::new(Self { first, body }),
        }
    }
}

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = axum_core::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum_core::Error>>> {
        match self.first.take() {
            None => Pin::new(&mut self.body).poll_frame(cx),
            first => Poll::Ready(first),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }
}
