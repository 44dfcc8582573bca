//! The stream of a response that its handler writes itself.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3cast_proto::{code, frame, varint};
use tokio::io::AsyncWrite;
use tracing::debug;

use super::response::{data_header, not_written};
use crate::{
    exchange::Exchange,
    outstanding::{self, Outstanding},
    quic::{Connection, SendStream, WriteError, engine},
    response::WrongLength,
};

/// The stream of a response that its handler writes itself.
///
/// Each write becomes one DATA frame ([RFC 9114 §7.2.1]) and leaves at once. Dropping the stream
/// without [`finish`](Self::finish) resets it, so that a response cut short never looks whole; what
/// the client has not received by then is lost, unless it is ended with [`abort`](Self::abort).
///
/// [RFC 9114 §7.2.1]: https://www.rfc-editor.org/rfc/rfc9114#section-7.2.1
#[derive(Debug)]
pub struct TakenStream {
    stream: Option<SendStream>,
    conn: Connection,
    /// Tells the connection's driver that there is nothing to wait for.
    broken_off: Arc<AtomicBool>,
    /// What is left of a frame header that was not written whole.
    header: Bytes,
    /// How much payload the frame still wants.
    payload: usize,
    /// A write was dropped in the middle, and nobody knows how much of its frame is written.
    torn: bool,
    /// How long the response has to be, if its head says so, and how much of that no frame has announced.
    length: Option<(u64, u64)>,
    exchange: Exchange,
}

impl TakenStream {
    pub(super) fn new(conn: Connection, stream: SendStream, length: Option<u64>, exchange: Exchange) -> Self {
        let length = length.map(|length| (length, length));
        let (header, broken_off) = (Bytes::new(), Arc::default());
        Self { stream: Some(stream), conn, broken_off, header, payload: 0, torn: false, length, exchange }
    }

    /// Whether it was reset, once it has been dropped.
    pub(super) fn broken_off(&self) -> Arc<AtomicBool> {
        self.broken_off.clone()
    }

    /// A frame whose payload was announced and not written must not be finished.
    fn is_whole(&self) -> bool {
        self.payload == 0 && !self.torn
    }

    fn check_whole(&self) -> io::Result<()> {
        match self.is_whole() {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "the last write was not completed")),
        }
    }

    /// Writes whole frames. Nobody knows how much is written when it is dropped.
    async fn write_whole(&mut self, frames: &mut [Bytes]) -> io::Result<()> {
        self.torn = true;
        let written = match &mut self.stream {
            Some(stream) => stream.write_all_chunks(frames).await.map_err(|error| {
                not_written(&self.exchange, &error);
                error.into()
            }),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        self.torn = false;
        written
    }

    /// No more may be written than the head says.
    fn announce(&mut self, len: u64) -> io::Result<()> {
        let Some((said, left)) = &mut self.length else { return Ok(()) };
        *left = left.checked_sub(len).ok_or_else(|| wrong_length(WrongLength::too_long(*said)))?;
        Ok(())
    }

    /// Nor less.
    fn check_length(&self) -> io::Result<()> {
        match self.length {
            Some((said, left @ 1..)) => Err(wrong_length(WrongLength::too_short(said, left))),
            _ => Ok(()),
        }
    }

    /// Writes `bytes` whole as one DATA frame, without copying them.
    ///
    /// # Errors
    ///
    /// When the client has gone.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: when dropped, an unknown part has been written. The response cannot continue then: its
    /// next use fails, and it is reset.
    pub async fn write_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        self.check_whole()?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.announce(bytes.len() as u64)?;
        let size = bytes.len() as u64;
        self.write_whole(&mut [data_header(bytes.len()), bytes]).await?;
        self.exchange.sent(size);
        Ok(())
    }

    /// Writes buffers that are whole DATA frames already. They are left empty.
    ///
    /// # Errors
    ///
    /// When the client has gone, or the response would be longer than its `content-length`.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe, as [`write_bytes`](Self::write_bytes).
    pub async fn write_frames(&mut self, frames: &mut [Bytes]) -> io::Result<()> {
        self.check_whole()?;
        let size = match self.length.is_some() {
            true => payload(frames)?,
            // Without a length they may be others than DATA.
            false if self.exchange.is_watched() => payload(frames).unwrap_or_default(),
            false => 0,
        };
        self.announce(size)?;
        self.write_whole(frames).await?;
        self.exchange.sent(size);
        Ok(())
    }

    /// Ends the response and waits until the client has all of it.
    ///
    /// # Errors
    ///
    /// When the client went away first. When less was written than the response's `content-length`, or the last
    /// write was given up; it is reset then.
    ///
    /// # Cancel safety
    ///
    /// The response ends with the first poll; when dropped, nobody waits for the client.
    pub async fn finish(mut self) -> io::Result<()> {
        self.check_whole()?;
        self.check_length()?;
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        stream.finish()?;
        self.exchange.ended();
        match stream.stopped().await {
            Ok(None) => {
                self.exchange.complete();
                Ok(())
            }
            Ok(Some(error)) => {
                self.exchange.gone();
                Err(WriteError::Stopped(error).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Breaks the response off when the client has what was written: the client reads all of it, and
    /// then sees that the response was cut short. Waits for a client that keeps receiving and reading, for at
    /// most a minute; for one that does not, five seconds (or three round trips); and no longer for one that
    /// goes away.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the stream is reset at once.
    pub async fn abort(mut self) {
        // In the middle of a frame nothing of ours can be written.
        if self.is_whole()
            && let Some(stream) = &mut self.stream
        {
            self.exchange.cut();
            delivered(&self.conn, stream).await;
        }
    }

    /// Resets the response at once, with this error code
    /// ([RFC 9114 §8.1](https://www.rfc-editor.org/rfc/rfc9114#section-8.1)). What the client has not received is lost,
    /// and its memory free; dropping the stream does the same with H3_INTERNAL_ERROR.
    pub fn reset(mut self, code: u64) {
        self.exchange.cut();
        self.broken_off.store(true, Ordering::Relaxed);
        if let Some(mut stream) = self.stream.take() {
            stream.reset(code);
        }
    }

    /// Hands the QUIC stream out. What is written to it must be HTTP/3 frames, and dropping it finishes it.
    ///
    /// # Errors
    ///
    /// Gives itself back when a frame has been begun and is not whole, and when the response
    /// has a `content-length`, which nobody would see kept.
    #[deprecated(note = "use `into_quic`, whose stream does not depend on the QUIC engine")]
    #[expect(clippy::result_large_err, reason = "gives the stream back; once a response at most")]
    pub fn into_raw(self) -> Result<engine::SendStream, Self> {
        self.into_quic().map(SendStream::into_engine)
    }

    /// Hands the QUIC stream out. What is written to it must be HTTP/3 frames, and dropping it finishes it.
    ///
    /// # Errors
    ///
    /// Gives itself back when a frame has been begun and is not whole, and when the response
    /// has a `content-length`, which nobody would see kept.
    #[expect(clippy::result_large_err, reason = "gives the stream back; once a response at most")]
    pub fn into_quic(mut self) -> Result<SendStream, Self> {
        if !self.is_whole() || self.length.is_some() {
            return Err(self);
        }
        match self.stream.take() {
            Some(stream) => Ok(stream),
            None => Err(self),
        }
    }
}

fn wrong_length(error: WrongLength) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// How many bytes of payload buffers have that are DATA frames.
fn payload(frames: &[Bytes]) -> io::Result<u64> {
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, "these buffers are not whole DATA frames");
    let (mut payload, mut buffers) = (0, frames.iter().cloned());
    let mut rest = Bytes::new();
    loop {
        while rest.is_empty() {
            let Some(next) = buffers.next() else { return Ok(payload) };
            rest = next;
        }
        // A header lies in one buffer.
        let (ty, size) = varint::decode(&rest).ok_or_else(bad)?;
        let (mut len, more) = varint::decode(&rest[size..]).filter(|_| ty == frame::DATA).ok_or_else(bad)?;
        rest.advance(size + more);
        payload += len;
        while len > rest.len() as u64 {
            len -= rest.len() as u64;
            rest = buffers.next().ok_or_else(bad)?;
        }
        rest.advance(len as usize);
    }
}

/// Waits until the peer has all that was written to `stream`, and has had a moment to read it. The
/// stream can only be reset then.
pub(super) async fn delivered(conn: &Connection, stream: &mut SendStream) {
    // The beginning of a frame's header, which no peer hands on. QUIC keeps it until everything up to
    // it is acknowledged.
    let outstanding = Outstanding::default();
    let mark = outstanding.hold(Bytes::from_static(&[frame::DATA as u8]));
    let received = async {
        if stream.write_chunk(mark).await.is_ok() {
            outstanding.none().await;
            outstanding::read(conn).await;
        }
    };
    if outstanding::while_receiving(conn, received).await.is_none() {
        debug!("a client did not receive in time what was written before its response was cut");
    }
}

impl Drop for TakenStream {
    fn drop(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            // Of a connection that is lost, that is the reason.
            if self.exchange.is_watched() && self.conn.close_reason().is_none() {
                self.exchange.cut();
            }
            stream.reset(code::H3_INTERNAL_ERROR);
            self.broken_off.store(true, Ordering::Relaxed);
        }
    }
}

impl AsyncWrite for TakenStream {
    /// Writes `buf` as the payload of a DATA frame, or as more of the payload that an earlier call
    /// has announced and could not write whole.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.torn {
            self.check_whole()?;
        }
        if self.payload == 0
            && let Some((said, left)) = self.length
            && left < buf.len() as u64
        {
            return Poll::Ready(Err(wrong_length(WrongLength::too_long(said))));
        }
        let this = &mut *self;
        let stream = this.stream.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        if this.payload == 0 {
            this.header = data_header(buf.len());
            this.payload = buf.len();
            // The usual case: header and payload leave in one write.
            let mut chunks = [this.header.clone(), Bytes::copy_from_slice(buf)];
            let polled = stream.poll_write_chunks(cx, &mut chunks);
            if polled.is_pending() {
                // Nothing is written yet, and the next call may come with another buffer.
                this.payload = 0;
            }
            let written = ready!(polled)?.bytes;
            if let Some((_, left)) = &mut this.length {
                *left -= buf.len() as u64;
            }
            let header = written.min(this.header.len());
            this.header.advance(header);
            this.payload -= written - header;
            if written > header {
                this.exchange.sent((written - header) as u64);
                return Poll::Ready(Ok(written - header));
            }
        }
        while this.header.has_remaining() {
            let written = ready!(stream.poll_write(cx, &this.header))?;
            this.header.advance(written);
        }
        let piece = &buf[..buf.len().min(this.payload)];
        let written = ready!(stream.poll_write(cx, piece))?;
        this.payload -= written;
        this.exchange.sent(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // QUIC sends what is written as soon as it may.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_whole()?;
        self.check_length()?;
        if let Some(mut stream) = self.stream.take() {
            stream.finish()?;
            self.exchange.ended();
        }
        Poll::Ready(Ok(()))
    }
}
