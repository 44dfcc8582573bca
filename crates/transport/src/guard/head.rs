//! Reading the first bytes of a stream, which stay there until they are understood. Generic over the stream that
//! the engine gives.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use h3::quic::{self, StreamErrorIncoming};
use h3cast_proto::{frame, varint};

/// A stream of the peer's with the bytes read from it so far.
pub(super) struct StreamHead<S> {
    pub(super) stream: S,
    pub(super) buf: Bytes,
}

/// Why a head could not be read.
pub(super) enum HeadEnd {
    /// The stream was finished.
    End,
    /// The stream was reset, with this code.
    Reset(u64),
    /// The connection is gone.
    Lost,
}

impl<S: quic::RecvStream<Buf = Bytes>> StreamHead<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buf: Bytes::new() }
    }

    /// Waits for more bytes and appends them to `buf`.
    ///
    /// Cancel-safe. They are copied: a stream may wait here for long, and QUIC's chunk would keep all of the
    /// packets that came with it, up to 64 KiB for one byte.
    pub(super) async fn more(&mut self) -> Result<(), HeadEnd> {
        match poll_fn(|cx| self.stream.poll_data(cx)).await {
            Ok(Some(chunk)) => {
                let mut joined = BytesMut::with_capacity(self.buf.len() + chunk.len());
                joined.extend_from_slice(&self.buf);
                joined.extend_from_slice(&chunk);
                self.buf = joined.freeze();
            }
            Ok(None) => return Err(HeadEnd::End),
            Err(StreamErrorIncoming::StreamTerminated { error_code }) => return Err(HeadEnd::Reset(error_code)),
            Err(_) => return Err(HeadEnd::Lost),
        }
        Ok(())
    }

    /// The varint at the front, which stays there, and its size.
    pub(super) async fn peek(&mut self) -> Result<(u64, usize), HeadEnd> {
        loop {
            if let Some(found) = varint::decode(&self.buf) {
                return Ok(found);
            }
            self.more().await?;
        }
    }

    /// Type, length and size of the frame header at the front, which stays there.
    pub(super) async fn peek_frame(&mut self) -> Result<(u64, u64, usize), HeadEnd> {
        loop {
            if let Some(found) = frame::parse_header(&self.buf) {
                return Ok(found);
            }
            self.more().await?;
        }
    }

    /// Drops `left` bytes, in memory or still to come.
    pub(super) async fn skip(&mut self, mut left: u64) -> Result<(), HeadEnd> {
        loop {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(self.buf.len());
            drop(self.buf.split_to(size));
            left -= size as u64;
            if left == 0 {
                return Ok(());
            }
            self.more().await?;
        }
    }

    /// Waits until `size` bytes are in memory.
    pub(super) async fn fill(&mut self, size: usize) -> Result<(), HeadEnd> {
        // Not `more` in a loop: that would copy what is there once for every packet.
        if self.buf.len() >= size {
            return Ok(());
        }
        let mut joined = BytesMut::with_capacity(size + 1500);
        joined.extend_from_slice(&self.buf);
        while joined.len() < size {
            self.buf = Bytes::new();
            self.more().await?;
            joined.extend_from_slice(&self.buf);
        }
        self.buf = joined.freeze();
        Ok(())
    }

    pub(super) fn stop(&mut self, error: u64) {
        self.stream.stop_sending(error);
    }
}
