//! What a viewer sends to the source that runs for it alone.

use std::{
    convert::Infallible,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
};

use futures_util::FutureExt;
use tokio::{io::AsyncWrite, sync::oneshot};

/// Where a source takes what its viewer sends.
pub type BoxInput = Pin<Box<dyn AsyncWrite + Send>>;

/// The input of the source that runs for one viewer: see [`Feed::interactive_for`](crate::Feed::interactive_for). What
/// is written waits until the source takes it. When this is dropped, the source's input ends.
pub struct Input {
    to: Arc<Shared>,
    over: oneshot::Receiver<Infallible>,
}

/// `None` once the source has ended.
type Shared = Mutex<Option<BoxInput>>;

/// Held by the viewer while the source runs.
pub(crate) struct Held {
    to: Weak<Shared>,
    _over: oneshot::Sender<Infallible>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Whoever has the input may keep it for as long as a session stays open: a descriptor must not stay with it.
        let to = self.to.upgrade().and_then(|to| to.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(to);
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").finish_non_exhaustive()
    }
}

impl Input {
    pub(crate) fn new(to: BoxInput) -> (Self, Held) {
        let (held, over) = oneshot::channel();
        let to = Arc::new(Mutex::new(Some(to)));
        let held = Held { to: Arc::downgrade(&to), _over: held };
        (Self { to, over }, held)
    }

    /// Completes when the source has ended or its viewer has left. From then on, nothing can be written.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn over(&mut self) {
        // Polled again after its end, it would panic.
        if !self.over.is_terminated() {
            // Nothing is ever sent.
            let _ = (&mut self.over).await;
        }
    }

    /// Does something with where it writes to, unless that is over.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut (dyn AsyncWrite + Send)>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let is_over = self.over.is_terminated() || self.over.poll_unpin(cx).is_ready();
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *to {
            Some(to) if !is_over => write(to.as_mut(), cx),
            _ => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;
    use futures_util::{StreamExt, stream};

    use super::*;
    use crate::{Account, End, Feed, Start};

    /// Takes everything; the other `Arc` shows whether it is there.
    struct Taking(#[allow(dead_code, reason = "it is only counted")] Arc<()>);

    impl AsyncWrite for Taking {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn write(input: &mut Input) -> io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *input).poll_write(cx, b"x")).await
    }

    #[tokio::test]
    async fn an_input_that_is_kept_keeps_nothing_of_a_source_that_has_ended() {
        for leaves in [false, true] {
            let taking = Arc::new(());
            let kept = Arc::downgrade(&taking);
            let taking = Mutex::new(Some(taking));
            let feed = Feed::interactive_for("shell", move |_| {
                let input = taking.lock().unwrap().take().map(|taking| Box::pin(Taking(taking)) as BoxInput);
                Ok((stream::empty::<Result<Bytes, End>>(), input))
            });
            let mut viewer = feed.view_as(&Account::unknown(), Start::Now, None).unwrap();
            let mut input = viewer.take_input().unwrap();
            assert_eq!(write(&mut input).await.unwrap(), 1);
            if leaves {
                drop(viewer);
            } else {
                while viewer.next().await.is_some() {}
            }
            assert_eq!(kept.strong_count(), 0);
            assert_eq!(write(&mut input).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            // However often it is asked.
            input.over().await;
            input.over().await;
        }
    }

    #[tokio::test]
    async fn an_input_that_is_dropped_ends() {
        let taking = Arc::new(());
        let kept = Arc::downgrade(&taking);
        let (input, held) = Input::new(Box::pin(Taking(taking)));
        drop(input);
        assert_eq!(kept.strong_count(), 0);
        drop(held);
    }
}
