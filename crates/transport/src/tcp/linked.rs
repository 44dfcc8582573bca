//! The stream of a connection that its handle may close, and whose end is the handle's.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::connection::Owner;

/// A stream whose connection lasts as long as it. After an upgrade, when hyper has handed it on, it fails when the
/// connection is to be closed; before, its driver ends.
pub(super) struct Linked<S> {
    stream: S,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    upgraded: Upgraded,
    owner: Arc<Owner>,
}

/// Whether a connection is not hyper's any more.
#[derive(Clone, Default)]
pub(super) struct Upgraded(Arc<AtomicBool>);

impl Upgraded {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl<S> Linked<S> {
    pub(super) fn new(stream: S, upgraded: Upgraded, owner: Arc<Owner>) -> Self {
        Self { stream, closing: Box::pin(owner.handle().closing().clone().cancelled_owned()), upgraded, owner }
    }

    fn check(&self) -> io::Result<()> {
        match self.upgraded.get() && self.owner.handle().closing().is_cancelled() {
            true => Err(closed()),
            false => Ok(()),
        }
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection has been closed by this side")
}

impl<S: AsyncRead + Unpin> AsyncRead for Linked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.closing.as_mut().poll(cx).is_ready() && self.upgraded.get() {
            return Poll::Ready(Err(closed()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Linked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
