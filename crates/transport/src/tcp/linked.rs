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
    /// For those who read, and for those who write.
    closing: [Pin<Box<WaitForCancellationFutureOwned>>; 2],
    upgraded: Upgraded,
    /// Ends the handle when the stream is dropped.
    _owner: Arc<Owner>,
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
        let closing = || Box::pin(owner.handle().closing().clone().cancelled_owned());
        Self { stream, closing: [closing(), closing()], upgraded, _owner: owner }
    }

    /// Fails when the connection is to be closed. Until then it wakes the task, also one that waits for a peer that
    /// takes nothing.
    fn check(&mut self, cx: &mut Context<'_>, way: Way) -> io::Result<()> {
        match self.upgraded.get() && self.closing[way as usize].as_mut().poll(cx).is_ready() {
            true => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection has been closed by this side"))
            }
            false => Ok(()),
        }
    }
}

/// What a task does with the stream: one may read while another writes.
#[derive(Clone, Copy)]
enum Way {
    Read,
    Write,
}

impl<S: AsyncRead + Unpin> AsyncRead for Linked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx, Way::Read)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Linked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx, Way::Write)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx, Way::Write)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx, Way::Write)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx, Way::Write)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
