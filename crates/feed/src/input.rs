//! What a viewer sends to the source that runs for it alone.

use std::{
    convert::Infallible,
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::FutureExt;
use tokio::{io::AsyncWrite, sync::oneshot};

/// Where a source takes what its viewer sends.
pub type BoxInput = Pin<Box<dyn AsyncWrite + Send>>;

/// The input of the source that runs for one viewer: see [`Feed::interactive_for`](crate::Feed::interactive_for). What
/// is written waits until the source takes it. When this is dropped, the source's input ends.
pub struct Input {
    to: BoxInput,
    over: oneshot::Receiver<Infallible>,
}

/// Held by the viewer while the source runs.
pub(crate) type Held = oneshot::Sender<Infallible>;

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").finish_non_exhaustive()
    }
}

impl Input {
    pub(crate) fn new(to: BoxInput) -> (Self, Held) {
        let (held, over) = oneshot::channel();
        (Self { to, over }, held)
    }

    /// Completes when the source has ended or its viewer has left. From then on, nothing can be written.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn over(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.over).await;
    }

    /// Does something with where it writes to, unless that is over.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut (dyn AsyncWrite + Send)>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        // Polled again after its end, it would panic.
        if self.over.is_terminated() || self.over.poll_unpin(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        write(self.to.as_mut(), cx)
    }
}

impl AsyncWrite for Input {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |to, cx| to.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |to, cx| to.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |to, cx| to.poll_shutdown(cx))
    }
}
