//! What a viewer sends to the source that runs for it alone.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use tokio::io::AsyncWrite;

/// Where a source takes what its viewer sends.
pub type BoxInput = Pin<Box<dyn AsyncWrite + Send>>;

/// The input of the source that runs for one viewer: see [`Feed::interactive_for`](crate::Feed::interactive_for). What
/// is written waits until the source takes it. When this is dropped, the source's input ends.
pub struct Input(Arc<Mutex<Open>>);

struct Open {
    /// `None` once the source has ended.
    to: Option<BoxInput>,
    /// The task to wake then.
    waiting: Option<Waker>,
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held by the viewer while the source runs.
pub(crate) struct Held(Weak<Mutex<Open>>);

impl Drop for Held {
    fn drop(&mut self) {
        let Some(open) = self.0.upgrade() else { return };
        // Whoever has the input may keep it for as long as a session stays open: a descriptor must not stay with it.
        let to = lock(&open).to.take();
        drop(to);
        let waiting = lock(&open).waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").finish_non_exhaustive()
    }
}

impl Input {
    pub(crate) fn new(to: BoxInput) -> (Self, Held) {
        let open = Arc::new(Mutex::new(Open { to: Some(to), waiting: None }));
        let held = Held(Arc::downgrade(&open));
        (Self(open), held)
    }

    /// Completes when the source has ended or its viewer has left. From then on, nothing can be written.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn over(&mut self) {
        // An error says that it is over.
        let _ = poll_fn(|cx| self.poll::<()>(cx, |_, _| Poll::Pending)).await;
    }

    /// Does something with where it writes to, unless that is over.
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut (dyn AsyncWrite + Send)>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut open = lock(&self.0);
        let Some(to) = &mut open.to else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let polled = write(to.as_mut(), cx);
        if polled.is_pending() {
            open.waiting = Some(cx.waker().clone());
        }
        polled
    }
}

impl AsyncWrite for Input {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |to, cx| to.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |to, cx| to.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |to, cx| to.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
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
    async fn whoever_waits_for_its_end_is_woken() {
        let (mut input, held) = Input::new(Box::pin(Taking(Arc::new(()))));
        // The first one is polled first.
        let ended = async { tokio::join!(input.over(), async { drop(held) }) };
        tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.expect("it is woken");
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
