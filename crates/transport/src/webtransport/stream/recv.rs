//! The receiving half of a stream.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3cast_proto::{code, frame, varint};
use tokio::io::{AsyncRead, ReadBuf};

use super::{Cell, StreamError, Tally, codes};
use crate::{guard::Begun, quic};

/// The receiving half of a stream. Dropping it before its end stops it with code 0.
#[derive(Debug)]
pub struct RecvStream {
    cell: Arc<Cell<quic::RecvStream>>,
    /// What came together with the stream's header.
    prefix: Bytes,
    state: RecvState,
    tally: Arc<Tally>,
}

#[derive(Debug)]
enum RecvState {
    Reading,
    /// The peer stopped the other half before all of the header was here. This is what has come of it.
    Unnamed {
        header: Bytes,
        session: u64,
    },
    /// The peer has reset it with this code. QUIC reports that once, and a clean end after it.
    Reset(u64),
    /// The application wants no more; to QUIC that is as good as the end.
    Stopped,
}

impl RecvStream {
    pub(in crate::webtransport) fn new(
        stream: quic::RecvStream,
        begun: Begun,
        session: u64,
        tally: Arc<Tally>,
    ) -> Self {
        let (prefix, state) = match begun {
            Begun::Named(prefix) => (prefix, RecvState::Reading),
            Begun::Unnamed(header) => (Bytes::new(), RecvState::Unnamed { header, session }),
            Begun::Reset(code) => (Bytes::new(), RecvState::Reset(code)),
        };
        Self { cell: Cell::new(stream), prefix, state, tally }
    }

    /// Whether the peer has reset it, as far as is known.
    pub(in crate::webtransport) fn came_reset(&self) -> bool {
        matches!(self.state, RecvState::Reset(_))
    }

    pub(in crate::webtransport) fn cell(&self) -> &Arc<Cell<quic::RecvStream>> {
        &self.cell
    }

    /// The stream's id ([RFC 9000 §2.1](https://www.rfc-editor.org/rfc/rfc9000#section-2.1)).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.cell.lock().stream.id()
    }

    /// Waits for the next bytes, at most `max` of them, without copying; `None` at the end.
    ///
    /// Where the pieces are cut says nothing of how the peer wrote them.
    ///
    /// # Errors
    ///
    /// When the peer reset the stream, or its session or connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn read_bytes(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        std::future::poll_fn(|cx| self.poll_bytes(cx, max)).await
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, StreamError>> {
        if matches!(self.state, RecvState::Stopped) {
            return Poll::Ready(Err(StreamError::Ended));
        }
        if max == 0 {
            return Poll::Ready(Ok(Some(Bytes::new())));
        }
        let (prefix, state) = (&mut self.prefix, &mut self.state);
        let polled = ready!(self.cell.poll(cx, |stream, cx| {
            match state {
                RecvState::Reset(code) => return Poll::Ready(Err(StreamError::of_code(*code, StreamError::Reset))),
                RecvState::Unnamed { header, session } => {
                    *prefix = ready!(poll_header(cx, stream, header, *session))?;
                    *state = RecvState::Reading;
                }
                RecvState::Reading | RecvState::Stopped => {}
            }
            if !prefix.is_empty() {
                return Poll::Ready(Ok(Some(prefix.split_to(max.min(prefix.len())))));
            }
            stream.poll_chunk(cx, max).map_err(|error| {
                if let quic::ReadError::Reset(code) = error {
                    *state = RecvState::Reset(code);
                }
                error.into()
            })
        }));
        if let Ok(Some(bytes)) = &polled {
            self.tally.received(bytes.len());
        }
        // A stream whose session has ended is still to be stopped.
        if !matches!(polled, Ok(Some(_)) | Err(StreamError::SessionGone)) {
            self.cell.lock().ended = true;
        }
        Poll::Ready(polled)
    }

    /// Asks the peer to stop sending, with a code for its application. What it has sent is lost.
    pub fn stop(&mut self, code: u32) {
        self.state = RecvState::Stopped;
        self.refuse(codes::to_http3(code));
    }

    pub(in crate::webtransport) fn refuse(&self, http3: u64) {
        let mut half = self.cell.lock();
        half.ended = true;
        half.stream.stop(http3);
    }
}

/// Reads the rest of a stream's header; gives what came after it.
fn poll_header(
    cx: &mut Context<'_>,
    stream: &mut quic::RecvStream,
    header: &mut Bytes,
    session: u64,
) -> Poll<Result<Bytes, StreamError>> {
    loop {
        if let Some((ty, id, size)) = frame::parse_header(header) {
            if (ty, id) == (frame::WEBTRANSPORT_STREAM, session) {
                return Poll::Ready(Ok(header.split_off(size)));
            }
            // It was another's after all.
            stream.stop(code::WT_BUFFERED_STREAM_REJECTED);
            return Poll::Ready(Err(StreamError::Http3(code::WT_BUFFERED_STREAM_REJECTED)));
        }
        // Two varints never need more.
        let missing = 2 * varint::MAX_LEN - header.len();
        match ready!(stream.poll_chunk(cx, missing))? {
            Some(chunk) => *header = [&header[..], &chunk].concat().into(),
            None => return Poll::Ready(Ok(Bytes::new())),
        }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        let mut half = self.cell.lock();
        if !half.ended && !half.gone {
            half.stream.stop(codes::to_http3(0));
        }
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(bytes) = ready!(self.poll_bytes(cx, buf.remaining()))? {
            buf.put_slice(bytes.chunk());
        }
        Poll::Ready(Ok(()))
    }
}
