//! The halves of a stream.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use futures_util::FutureExt;

use h3cast_proto::code;

use super::{
    ConnectionError,
    sending::{Blocked, Sending},
    varint,
};

/// Why a stream cannot be written any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The peer stopped reading, with this error code.
    #[error("the peer stopped the stream with code {0:#x}")]
    Stopped(u64),
    /// The connection is gone.
    #[error("the connection was lost: {0}")]
    ConnectionLost(#[from] ConnectionError),
    /// The peer took nothing for [`Limits::send_timeout`](crate::Limits::send_timeout), and the stream was reset.
    #[error("the peer read nothing from the stream for too long")]
    Stalled,
    /// This side has finished or reset the stream, or the server refused its early data.
    #[error("the stream has already been ended")]
    Ended,
}

/// Why a stream can no longer be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer reset the stream, with this error code.
    #[error("the peer reset the stream with code {0:#x}")]
    Reset(u64),
    /// The connection is gone.
    #[error("the connection was lost: {0}")]
    ConnectionLost(#[from] ConnectionError),
    /// This side has stopped the stream, or the server refused its early data.
    #[error("the stream has already been ended")]
    Ended,
}

impl From<quinn::WriteError> for WriteError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(code) => Self::Stopped(code.into_inner()),
            quinn::WriteError::ConnectionLost(error) => Self::ConnectionLost(error),
            quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => Self::Ended,
        }
    }
}

impl From<quinn::ReadError> for ReadError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => Self::Reset(code.into_inner()),
            quinn::ReadError::ConnectionLost(error) => Self::ConnectionLost(error),
            _ => Self::Ended,
        }
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match error {
            WriteError::Stopped(_) => io::ErrorKind::ConnectionReset,
            WriteError::Stalled => io::ErrorKind::TimedOut,
            WriteError::ConnectionLost(_) | WriteError::Ended => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

/// What one write took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Bytes written.
    pub bytes: usize,
    /// Buffers written whole. They are left empty.
    pub chunks: usize,
}

/// The sending half of a stream. Dropping it finishes it.
#[derive(Debug)]
pub struct SendStream {
    stream: quinn::SendStream,
    sending: Arc<Sending>,
    blocked: Blocked,
    /// What it is reset with when the peer takes nothing.
    stalled: u64,
}

impl SendStream {
    #[inline]
    pub(super) fn new(stream: quinn::SendStream, sending: Arc<Sending>) -> Self {
        Self { stream, sending, blocked: Blocked::default(), stalled: code::H3_REQUEST_CANCELLED }
    }

    /// Says what code the peer gets when it takes nothing.
    pub(crate) fn set_stalled_code(&mut self, code: u64) {
        self.stalled = code;
    }

    /// Tries to write, until there is no room even in a larger window; then for as long as the peer may take nothing.
    #[inline]
    fn poll_sending<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut quinn::SendStream, &mut Context<'_>) -> Poll<Result<T, quinn::WriteError>>,
    ) -> Poll<Result<T, WriteError>> {
        loop {
            if let Poll::Ready(written) = write(&mut self.stream, cx) {
                self.blocked.ended();
                return Poll::Ready(Ok(written?));
            }
            if !self.sending.widen() {
                break;
            }
        }
        ready!(self.blocked.poll(&self.sending, cx));
        self.reset(self.stalled);
        Poll::Ready(Err(WriteError::Stalled))
    }

    /// The stream of the engine.
    #[must_use]
    pub fn into_engine(self) -> quinn::SendStream {
        self.stream
    }

    /// The stream's id ([RFC 9000 §2.1](https://www.rfc-editor.org/rfc/rfc9000#section-2.1)).
    #[inline]
    #[must_use]
    pub fn id(&self) -> u64 {
        self.stream.id().into()
    }

    /// Writes a part of `bytes`, which is copied; gives its size.
    ///
    /// # Errors
    ///
    /// When the peer stopped the stream, or it has ended.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, WriteError>> {
        self.poll_sending(cx, |stream, cx| Pin::new(stream).poll_write(cx, bytes))
    }

    /// Writes what there is room for, without copying it. What was not written stays in `chunks`.
    ///
    /// # Errors
    ///
    /// When the peer stopped the stream, or it has ended.
    #[inline]
    pub fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<Written, WriteError>> {
        let written = ready!(self.poll_sending(cx, |stream, cx| pin!(stream.write_chunks(chunks)).poll(cx)))?;
        Poll::Ready(Ok(Written { bytes: written.bytes, chunks: written.chunks }))
    }

    /// Writes `bytes` whole; they are copied. Not cancel-safe.
    ///
    /// # Errors
    ///
    /// When the peer stopped the stream, or it has ended.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let mut left = bytes;
        while !left.is_empty() {
            let written = poll_fn(|cx| self.poll_write(cx, left)).await?;
            left = &left[written..];
        }
        Ok(())
    }

    /// Writes `chunk` whole, without copying it. Not cancel-safe.
    ///
    /// # Errors
    ///
    /// When the peer stopped the stream, or it has ended.
    pub async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), WriteError> {
        self.write_all_chunks(&mut [chunk]).await
    }

    /// Writes several buffers whole, in order and without copying them. Not cancel-safe: when dropped, `chunks`
    /// holds what has not been written.
    ///
    /// # Errors
    ///
    /// When the peer stopped the stream, or it has ended.
    #[inline]
    pub async fn write_all_chunks(&mut self, mut chunks: &mut [Bytes]) -> Result<(), WriteError> {
        while !chunks.is_empty() {
            let written = poll_fn(|cx| self.poll_write_chunks(cx, chunks)).await?;
            chunks = &mut chunks[written.chunks..];
        }
        Ok(())
    }

    /// Ends the stream: the peer reads to its end.
    ///
    /// # Errors
    ///
    /// When it has ended already.
    #[inline]
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.stream.finish().map_err(|_| WriteError::Ended)
    }

    /// Breaks the stream off with an error code. Does nothing when it has ended already.
    pub fn reset(&mut self, code: u64) {
        let _ = self.stream.reset(varint(code));
    }

    /// Sets the stream's send order within its connection: higher goes first, 0 is the default. Does nothing
    /// when it has ended already.
    pub fn set_priority(&self, priority: i32) {
        let _ = self.stream.set_priority(priority);
    }

    /// The error code with which the peer has stopped the stream, if it has and this side has not ended it.
    ///
    /// Unlike [`stopped`](Self::stopped) it leaves nothing behind in the engine. It is an empty write, for which
    /// the engine may send a frame.
    pub(crate) fn stop_code(&mut self) -> Option<u64> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.stream).poll_write(&mut cx, &[]) {
            Poll::Ready(Err(quinn::WriteError::Stopped(code))) => Some(code.into_inner()),
            _ => None,
        }
    }

    /// Waits until the peer stops the stream, and gives its error code, or has acknowledged all of a finished
    /// one, which gives `None`. Cancel-safe.
    pub fn stopped(&self) -> impl Future<Output = Result<Option<u64>, WriteError>> + Send + Sync + 'static + use<> {
        self.stream.stopped().map(|stopped| match stopped {
            Ok(code) => Ok(code.map(quinn::VarInt::into_inner)),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(WriteError::ConnectionLost(error)),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(WriteError::Ended),
        })
    }
}

/// The receiving half of a stream. Dropping it before its end stops it with code 0.
#[derive(Debug)]
pub struct RecvStream(quinn::RecvStream);

impl RecvStream {
    #[inline]
    pub(super) fn new(stream: quinn::RecvStream) -> Self {
        Self(stream)
    }

    /// The stream's id ([RFC 9000 §2.1](https://www.rfc-editor.org/rfc/rfc9000#section-2.1)).
    #[inline]
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id().into()
    }

    /// Whether it was opened before the handshake was complete: it may be a copy that somebody else sent.
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.0.is_0rtt()
    }

    /// The next bytes, at most `max` of them, without copying; `None` at the end.
    ///
    /// # Errors
    ///
    /// When the peer reset the stream, or the connection is gone.
    #[inline]
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, ReadError>> {
        let chunk = ready!(pin!(self.0.read_chunk(max, true)).poll(cx))?;
        Poll::Ready(Ok(chunk.map(|chunk| chunk.bytes)))
    }

    /// Waits for the next bytes, at most `max` of them, without copying; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// When the peer reset the stream, or the connection is gone.
    #[inline]
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        Ok(self.0.read_chunk(max, true).await?.map(|chunk| chunk.bytes))
    }

    /// Asks the peer to stop sending, with an error code. Does nothing when the stream has ended already.
    pub fn stop(&mut self, code: u64) {
        let _ = self.0.stop(varint(code));
    }
}
