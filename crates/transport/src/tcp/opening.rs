//! The head of a response over HTTP/2 leaves together with what there is of its body.
//!
//! hyper gives h2 first the head, then the body, and between the two another worker may run the task of the
//! connection. A client that has seen an error's head stops its upload, as curl does: it ends a request that is then
//! shorter than its content-length, for which h2 resets the stream (PROTOCOL_ERROR, RFC 9113 §8.1.1), and whatever
//! of the response has not left is lost. So the connection writes nothing while a response is being opened.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

thread_local! {
    /// Of the task that this thread is polling.
    static CURRENT: Cell<Option<Opening>> = const { Cell::new(None) };
}

/// The responses of a connection that are being opened.
#[derive(Debug, Clone, Default)]
pub(super) struct Openings(Arc<OpeningCount>);

#[derive(Debug, Default)]
struct OpeningCount {
    count: AtomicUsize,
    /// The task of the connection.
    writer: AtomicWaker,
}

/// A response of which hyper gives h2 the head, and the part of the body that needs no waiting.
struct Opening(Arc<OpeningCount>);

impl Openings {
    /// Begins one, which lasts until the poll of the current task returns: see [`close`].
    pub(super) fn open(&self) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        CURRENT.set(Some(Opening(self.0.clone())));
    }

    /// Whether there is none. If there is, the task is woken when there is none left.
    pub(super) fn poll_none(&self, cx: &mut Context<'_>) -> Poll<()> {
        let is_none = || self.0.count.load(Ordering::Acquire) == 0;
        if is_none() {
            return Poll::Ready(());
        }
        self.0.writer.register(cx.waker());
        if is_none() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Ends what the current task opened: call it after each poll of one that may.
pub(super) fn close() {
    drop(CURRENT.take());
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.writer.wake();
        }
    }
}
