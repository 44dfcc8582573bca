//! For how long a command has printed nothing.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Instant,
};

/// Since when a reader has found nothing to read, if that is how it is. Clones are of the same reader.
///
/// Who doesn't read doesn't know: a slow viewer must not look like a silent command.
#[derive(Debug, Clone, Default)]
pub(super) struct Silence(Arc<Mutex<Option<Instant>>>);

impl Silence {
    /// Whether nothing has come for so long, as the reader sees it.
    pub(super) fn lasts(&self, long: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|since| since.elapsed() >= long)
    }

    fn set(&self, silent: bool) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match silent {
            true => drop(since.get_or_insert_with(Instant::now)),
            false => *since = None,
        }
    }
}

/// What is read, and its silence.
#[derive(Debug)]
pub(super) struct Heard<R> {
    reader: R,
    silence: Silence,
}

impl<R> Heard<R> {
    pub(super) fn new(reader: R, silence: Silence) -> Self {
        Self { reader, silence }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Heard<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.reader).poll_read(cx, buf);
        self.silence.set(polled.is_pending());
        polled
    }
}
