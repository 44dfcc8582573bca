//! When what hyper writes has left.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ending::Ending, opening::Openings, waiting::Waiting};
use crate::exchange::Exchange;

/// How often a connection has been flushed: everything that hyper had to write was written then.
#[derive(Debug, Clone, Default)]
pub(super) struct Flushes(Arc<FlushCount>);

#[derive(Debug, Default)]
struct FlushCount {
    count: AtomicU64,
    /// How many bytes the connection has taken.
    written: AtomicU64,
    /// What was to be written waits for the client.
    blocked: AtomicBool,
    /// The body that waits (over HTTP/1 there is one response at a time), or the connection (over HTTP/2).
    waiting: AtomicWaker,
    /// Responses over HTTP/1.1 that leave with the next flush.
    leaving: Mutex<Vec<Exchange>>,
    /// Whether there are any.
    leaves: AtomicBool,
}

impl Flushes {
    pub(super) fn count(&self) -> u64 {
        self.0.count.load(Ordering::Acquire)
    }

    /// Waits until nothing that hyper had to write waits for the client.
    pub(super) async fn all(&self) {
        std::future::poll_fn(|cx| {
            self.0.waiting.register(cx.waker());
            if self.is_blocked() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// What was to be written waits for the client.
    pub(super) fn is_blocked(&self) -> bool {
        self.0.blocked.load(Ordering::Acquire)
    }

    pub(super) fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(size)) = written {
            self.0.written.fetch_add(*size as u64, Ordering::Relaxed);
        }
    }

    /// The next flush writes the end of this response, which hyper has.
    pub(super) fn leave_with_next(&self, exchange: &Exchange) {
        if exchange.is_watched() {
            self.0.leaving.lock().unwrap_or_else(PoisonError::into_inner).push(exchange.clone());
            self.0.leaves.store(true, Ordering::Release);
        }
    }

    /// What was to leave has.
    fn left(&self) {
        if self.0.leaves.swap(false, Ordering::Acquire) {
            let left = std::mem::take(&mut *self.0.leaving.lock().unwrap_or_else(PoisonError::into_inner));
            left.iter().for_each(Exchange::left);
        }
    }

    /// Waits until there were more than `count`.
    pub(super) async fn after(&self, count: u64) {
        std::future::poll_fn(|cx| {
            self.0.waiting.register(cx.waker());
            if self.count() > count { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// A connection whose flushes are counted, and that is not closed as if a cut answer were whole.
#[derive(Debug)]
pub(super) struct Flushed<S> {
    stream: S,
    flushes: Flushes,
    openings: Openings,
    ending: Ending,
    waiting: Waiting,
}

impl<S> Flushed<S> {
    pub(super) fn new(stream: S, flushes: Flushes, openings: Openings, ending: Ending, waiting: Waiting) -> Self {
        Self { stream, flushes, openings, ending, waiting }
    }

    fn note<T>(&self, done: Poll<T>) -> Poll<T> {
        if done.is_pending() {
            self.flushes.0.blocked.store(true, Ordering::Release);
        }
        done
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Flushed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.waiting.read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Flushed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.openings.poll_none(cx));
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.flushes.wrote(&written);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.openings.poll_none(cx));
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.flushes.wrote(&written);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        ready!(self.note(flushed))?;
        self.flushes.left();
        let shared = &self.flushes.0;
        shared.blocked.store(false, Ordering::Release);
        shared.count.fetch_add(1, Ordering::Release);
        shared.waiting.wake();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_open() {
            // Neither that of TCP nor that of TLS. What is dropped now is reset.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
