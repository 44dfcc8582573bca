//! A request's stream, both halves, and what its driver needs besides.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h3::quic::{self, StreamErrorIncoming, StreamId, WriteBuf};

use super::{
    recv::{Malformed, RecvStream},
    send::{Handback, SendStream},
};
use crate::quic::WriteError;

/// What the connection's driver needs of a request's stream beside what h3 gives.
pub(crate) struct RequestParts {
    /// Gives the raw send half back once h3 has let go of it.
    pub(crate) handback: Handback,
    /// Completes when the peer no longer wants the response, or has all of it.
    pub(crate) stopped: Stopped,
    pub(crate) malformed: Malformed,
    /// It came before the handshake was complete, and may be a replay.
    pub(crate) early: bool,
}

/// Completes when the peer no longer wants the response, or has all of it.
pub(crate) type Stopped = Pin<Box<dyn Future<Output = Result<Option<u64>, WriteError>> + Send + Sync>>;

/// A request stream.
pub(crate) struct BidiStream {
    send: SendStream,
    recv: RecvStream,
}

impl BidiStream {
    pub(crate) fn new(send: SendStream, recv: RecvStream) -> Self {
        Self { send, recv }
    }

    pub(super) fn parts(&self) -> RequestParts {
        RequestParts {
            handback: self.send.handback.clone(),
            stopped: self.send.stopped(),
            malformed: self.recv.malformed.clone(),
            early: self.recv.is_early(),
        }
    }
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}
