//! SETTINGS: those that h3 writes are replaced by our own, byte for byte, as Safari needs some that h3 does not
//! know (hyperium/h3#363). Generic over the stream that the engine opens.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::quic::{self, StreamErrorIncoming, StreamId, WriteBuf};

/// A unidirectional stream of h3's own: control, QPACK encoder, QPACK decoder.
pub(crate) struct ControlStream<S> {
    stream: S,
    /// What to write in place of h3's SETTINGS, on the control stream until that is written.
    settings: Option<Bytes>,
    writing: Bytes,
}

impl<S> ControlStream<S> {
    pub(super) fn new(stream: S, settings: Option<Bytes>) -> Self {
        Self { stream, settings, writing: Bytes::new() }
    }
}

impl<S: quic::SendStreamUnframed<Bytes>> quic::SendStream<Bytes> for ControlStream<S> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while self.writing.has_remaining() {
            ready!(self.stream.poll_send(cx, &mut self.writing))?;
        }
        self.stream.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        match self.settings.take() {
            Some(settings) => {
                // h3 writes the stream's type and its SETTINGS at once, before anything else.
                debug_assert_eq!(data.into().chunk().get(..2), Some(&[0x00, 0x04][..]));
                self.writing = settings;
                Ok(())
            }
            None => self.stream.send_data(data),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.stream.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.stream.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.stream.send_id()
    }
}
