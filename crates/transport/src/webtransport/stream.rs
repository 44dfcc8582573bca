//! The streams of a session.

mod recv;

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h3cast_proto::code;
use tokio::{io::AsyncWrite, sync::Notify};

use super::{codes, session::Tally};
use crate::quic;
pub use recv::RecvStream;

/// Why a stream cannot be read or written any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer reset the stream that this side reads.
    #[error("the peer reset the stream with code {0}")]
    Reset(u32),
    /// The peer stopped reading the stream that this side writes.
    #[error("the peer stopped reading with code {0}")]
    Stopped(u32),
    /// The peer ended the stream with an HTTP/3 code that is not an application's.
    #[error("the peer ended the stream with {}", code::describe(*.0))]
    Http3(u64),
    /// The peer took nothing of the stream that this side writes, for
    /// [`Limits::send_timeout`](crate::Limits::send_timeout). It was reset, with code 0 or the one that was
    /// [set](SendStream::set_stalled_code).
    #[error("the peer read nothing from the stream for too long")]
    Stalled,
    /// The stream's session has ended.
    #[error("the session of the stream has ended")]
    SessionGone,
    /// This side has already finished, reset or stopped the stream.
    #[error("the stream has already been ended by this side")]
    Ended,
    /// The connection is gone.
    #[error("the connection was lost: {0}")]
    ConnectionLost(#[from] quic::ConnectionError),
}

impl StreamError {
    fn of_code(http3: u64, application: impl FnOnce(u32) -> Self) -> Self {
        match http3 {
            code::WT_SESSION_GONE => Self::SessionGone,
            other => codes::from_http3(other).map_or(Self::Http3(other), application),
        }
    }
}

impl From<quic::WriteError> for StreamError {
    fn from(error: quic::WriteError) -> Self {
        match error {
            quic::WriteError::Stopped(code) => Self::of_code(code, Self::Stopped),
            quic::WriteError::ConnectionLost(error) => Self::ConnectionLost(error),
            quic::WriteError::Stalled => Self::Stalled,
            quic::WriteError::Ended => Self::Ended,
        }
    }
}

impl From<quic::ReadError> for StreamError {
    fn from(error: quic::ReadError) -> Self {
        match error {
            quic::ReadError::Reset(code) => Self::of_code(code, Self::Reset),
            quic::ReadError::ConnectionLost(error) => Self::ConnectionLost(error),
            quic::ReadError::Ended => Self::Ended,
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) | StreamError::Stopped(_) | StreamError::Http3(_) => io::ErrorKind::ConnectionReset,
            StreamError::Stalled => io::ErrorKind::TimedOut,
            StreamError::SessionGone => io::ErrorKind::ConnectionAborted,
            StreamError::Ended => io::ErrorKind::NotConnected,
            StreamError::ConnectionLost(_) => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

/// What the end of a session does to a stream of it, wherever the application holds it.
pub(super) trait SessionGone: std::fmt::Debug + Send + Sync {
    /// Nothing can be done with it any more. The peer is not told yet.
    fn session_gone(&self);
    /// Resets or stops it, unless it has ended.
    fn break_off(&self);
}

/// One half of a stream. The session can reach it to end it, and wake whoever waits on it.
#[derive(Debug)]
pub(super) struct Cell<S> {
    half: Mutex<Half<S>>,
    /// Tells those who wait for something else than to read or write, who may be many.
    gone: Notify,
}

#[derive(Debug)]
struct Half<S> {
    stream: S,
    /// This side has ended the stream.
    ended: bool,
    /// The session has.
    gone: bool,
    /// Who reads or writes: one at a time, as that takes the handle's `&mut`.
    waiting: Option<Waker>,
}

impl<S> Cell<S> {
    fn new(stream: S) -> Arc<Self> {
        let half = Half { stream, ended: false, gone: false, waiting: None };
        Arc::new(Self { half: Mutex::new(half), gone: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Half<S>> {
        self.half.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls an operation of the stream, unless it has ended.
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        operation: impl FnOnce(&mut S, &mut Context<'_>) -> Poll<Result<T, StreamError>>,
    ) -> Poll<Result<T, StreamError>> {
        let mut half = self.lock();
        if half.gone {
            return Poll::Ready(Err(StreamError::SessionGone));
        }
        let polled = operation(&mut half.stream, cx);
        if polled.is_pending() {
            half.waiting = Some(cx.waker().clone());
        }
        polled
    }

    /// The session has ended: whoever waits wakes.
    fn gone(&self) {
        let mut half = self.lock();
        half.gone = true;
        let waiting = half.waiting.take();
        drop(half);
        if let Some(waker) = waiting {
            waker.wake();
        }
        self.gone.notify_waiters();
    }

    /// Ends the stream, unless this side has.
    fn end(&self, end: impl FnOnce(&mut S)) {
        let mut half = self.lock();
        if !std::mem::replace(&mut half.ended, true) {
            end(&mut half.stream);
        }
    }
}

impl SessionGone for Cell<quic::SendStream> {
    fn session_gone(&self) {
        self.gone();
    }

    fn break_off(&self) {
        self.end(|stream| stream.reset(code::WT_SESSION_GONE));
    }
}

impl SessionGone for Cell<quic::RecvStream> {
    fn session_gone(&self) {
        self.gone();
    }

    fn break_off(&self) {
        self.end(|stream| stream.stop(code::WT_SESSION_GONE));
    }
}

/// The sending half of a stream. Dropping it unfinished resets it with code 0, unlike quinn's, which finishes it:
/// a cut stream never looks complete. Call [`finish`](Self::finish), or `shutdown` after `tokio::io::copy`.
#[derive(Debug)]
pub struct SendStream {
    cell: Arc<Cell<quic::SendStream>>,
    tally: Arc<Tally>,
}

impl SendStream {
    pub(super) fn new(mut stream: quic::SendStream, tally: Arc<Tally>) -> Self {
        stream.set_stalled_code(codes::to_http3(0));
        Self { cell: Cell::new(stream), tally }
    }

    pub(super) fn cell(&self) -> &Arc<Cell<quic::SendStream>> {
        &self.cell
    }

    /// The stream's id ([RFC 9000 §2.1](https://www.rfc-editor.org/rfc/rfc9000#section-2.1)).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.cell.lock().stream.id()
    }

    /// Writes `bytes` whole, without copying them. Waits while the peer takes no more.
    ///
    /// # Errors
    ///
    /// When the peer stopped the stream, or it has ended.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: when dropped, an unknown part has been written.
    pub async fn write_bytes(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.write_chunks(&mut [bytes]).await
    }

    /// Writes several buffers whole, in order and without copying them. They are left empty.
    ///
    /// # Errors
    ///
    /// When the peer stopped the stream, or it has ended.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: when dropped, `chunks` holds what has not been written.
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), StreamError> {
        self.write_all(chunks, |tally, bytes| tally.sent(bytes)).await
    }

    /// Writes what begins the stream, which is not the application's.
    pub(super) async fn write_header(&mut self, header: Bytes) -> Result<(), StreamError> {
        self.write_all(&mut [header], |_, _| ()).await
    }

    async fn write_all(&mut self, mut chunks: &mut [Bytes], count: impl Fn(&Tally, usize)) -> Result<(), StreamError> {
        while !chunks.is_empty() {
            let written = std::future::poll_fn(|cx| {
                self.cell.poll(cx, |stream, cx| {
                    let written = ready!(stream.poll_write_chunks(cx, chunks))?;
                    count(&self.tally, written.bytes);
                    Poll::Ready(Ok(written.chunks))
                })
            })
            .await?;
            chunks = &mut chunks[written..];
        }
        Ok(())
    }

    /// Ends the stream: the peer reads to its end.
    ///
    /// # Errors
    ///
    /// When it has ended already, by either side.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        let mut half = self.cell.lock();
        if half.gone {
            return Err(StreamError::SessionGone);
        }
        half.ended = true;
        Ok(half.stream.finish()?)
    }

    /// Breaks the stream off: what the peer has not yet read is lost, and it learns `code`.
    pub fn reset(&mut self, code: u32) {
        self.refuse(codes::to_http3(code));
    }

    pub(super) fn refuse(&self, http3: u64) {
        let mut half = self.cell.lock();
        half.ended = true;
        half.stream.reset(http3);
    }

    /// Waits until the peer stops the stream, and gives its code, or has acknowledged all of a
    /// finished one, which gives `None`.
    ///
    /// # Errors
    ///
    /// When the session or the connection ended first.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn stopped(&self) -> Result<Option<u32>, StreamError> {
        self.when_stopped().await
    }

    /// The same, for as long as one wants.
    pub fn when_stopped(&self) -> impl Future<Output = Result<Option<u32>, StreamError>> + Send + 'static {
        let cell = self.cell.clone();
        async move {
            // Before the look at `gone`, so that no end slips in between.
            let gone = cell.gone.notified();
            let stopped = {
                let half = cell.lock();
                if half.gone {
                    return Err(StreamError::SessionGone);
                }
                half.stream.stopped()
            };
            let stopped = tokio::select! {
                biased;
                () = gone => return Err(StreamError::SessionGone),
                stopped = stopped => stopped,
            };
            match stopped {
                Ok(None) => Ok(None),
                Ok(Some(code)) => match StreamError::of_code(code, StreamError::Stopped) {
                    StreamError::Stopped(code) => Ok(Some(code)),
                    other => Err(other),
                },
                Err(error) => Err(error.into()),
            }
        }
    }

    /// Sets the code with which the stream is reset when the peer takes nothing of it for
    /// [`Limits::send_timeout`](crate::Limits::send_timeout), instead of 0.
    pub fn set_stalled_code(&mut self, code: u32) {
        self.cell.lock().stream.set_stalled_code(codes::to_http3(code));
    }

    /// Sets the stream's send order within its connection: higher goes first, 0 is the default.
    pub fn set_priority(&self, priority: i32) {
        self.cell.lock().stream.set_priority(priority);
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let mut half = self.cell.lock();
        // A session that ends has its streams, and resets them.
        if !half.ended && !half.gone {
            // QUIC would finish the stream, and what was cut short would look whole.
            half.stream.reset(codes::to_http3(0));
        }
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.cell.poll(cx, |stream, cx| stream.poll_write(cx, buf).map_err(StreamError::from));
        if let Poll::Ready(Ok(written)) = &polled {
            self.tally.sent(*written);
        }
        polled.map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // QUIC sends what is written as soon as it may.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish().map_err(io::Error::from))
    }
}
