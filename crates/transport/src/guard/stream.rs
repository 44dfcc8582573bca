//! Request streams and the peer's control stream, as h3 reads and writes them.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};

use h3cast_proto::{
    Role, Violation, code,
    filter::{Fault, FrameFilter},
};

use crate::{
    guard::Shared,
    quic::{self as engine, WriteError, stream_id, write_error},
};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + Sync>>;

/// What the connection's driver needs of a request's stream beside what h3 gives.
pub(crate) struct RequestParts {
    /// Gives the raw send half back once h3 has let go of it.
    pub(crate) handback: Handback,
    /// Completes when the peer no longer wants the response, or has all of it.
    pub(crate) stopped: Stopped,
    pub(crate) malformed: Malformed,
    /// It came before the handshake was complete, and may be a copy that somebody else sent.
    pub(crate) early: bool,
}

/// Whether a request has turned out to be malformed while it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Malformed(Arc<AtomicBool>);

impl Malformed {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) type Stopped = BoxFuture<Result<Option<u64>, WriteError>>;

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
            early: self.recv.stream.is_early(),
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

/// Where a [`SendStream`] leaves its QUIC stream when h3 drops it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handback(Arc<Mutex<Slot>>);

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Unwanted,
    Wanted,
    Returned(Unfinished),
}

/// A stream that is reset when nobody takes it: QUIC would finish it, and it would look whole.
#[derive(Debug)]
struct Unfinished(Option<engine::SendStream>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(mut stream) = self.0.take() {
            stream.reset(code::H3_INTERNAL_ERROR);
        }
    }
}

impl Handback {
    /// Asks for the stream: from now on, dropping h3's half returns it instead of resetting it.
    pub(crate) fn ask(&self) {
        *lock(&self.0) = Slot::Wanted;
    }

    /// The stream, if h3 has let go of it.
    pub(crate) fn take(&self) -> Option<engine::SendStream> {
        match std::mem::take(&mut *lock(&self.0)) {
            Slot::Returned(mut stream) => stream.0.take(),
            Slot::Unwanted | Slot::Wanted => None,
        }
    }
}

/// The send half of a request stream, as h3 writes to it: heads, and a client's bodies. A server's
/// bodies are written by `http3::response` on the raw stream.
pub(crate) struct SendStream {
    /// `None` once it has been handed back.
    stream: Option<engine::SendStream>,
    id: u64,
    writing: Bytes,
    ended: bool,
    role: Role,
    handback: Handback,
}

impl SendStream {
    pub(crate) fn new(stream: engine::SendStream, role: Role) -> Self {
        Self {
            id: stream.id(),
            stream: Some(stream),
            writing: Bytes::new(),
            ended: false,
            role,
            handback: Handback::default(),
        }
    }

    fn stopped(&self) -> Stopped {
        match &self.stream {
            Some(stream) => Box::pin(stream.stopped()),
            None => Box::pin(std::future::pending()),
        }
    }

    fn stream(&mut self) -> Result<&mut engine::SendStream, StreamErrorIncoming> {
        self.stream.as_mut().ok_or_else(|| StreamErrorIncoming::Unknown("the stream was handed back".into()))
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while !self.writing.is_empty() {
            let writing = self.writing.clone();
            let written = ready!(self.stream()?.poll_write(cx, &writing)).map_err(write_error)?;
            self.writing.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        let mut frame = data.into();
        // One buffer, so that header and payload leave in one write: one lock, one wake-up.
        self.writing = frame.copy_to_bytes(frame.remaining());
        Ok(())
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.ended = true;
        Poll::Ready(self.stream()?.finish().map_err(|closed| StreamErrorIncoming::Unknown(Box::new(closed))))
    }

    fn reset(&mut self, code: u64) {
        self.ended = true;
        if let Some(stream) = &mut self.stream {
            stream.reset(code);
        }
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.id)
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        let mut slot = lock(&self.handback.0);
        if matches!(*slot, Slot::Wanted) {
            *slot = Slot::Returned(Unfinished(Some(stream)));
        } else if !self.ended {
            // QUIC would finish the stream, and a message cut short would look whole.
            stream.reset(match self.role {
                Role::Server => code::H3_INTERNAL_ERROR,
                Role::Client => code::H3_REQUEST_CANCELLED,
            });
        }
    }
}

/// The receive half of a request stream, or the peer's control stream.
pub(crate) struct RecvStream {
    stream: engine::RecvStream,
    filter: FrameFilter,
    /// What has passed the filter and h3 has not yet taken.
    passed: VecDeque<Bytes>,
    /// What was read before the stream was given to h3, still to be filtered.
    prefix: Bytes,
    ended: bool,
    /// It was reset, or the connection was lost. QUIC reports that once, and a clean end after it.
    failed: bool,
    /// What is wrong with the message behind `passed`.
    wrong: Option<&'static str>,
    malformed: Malformed,
    shared: Arc<Shared>,
}

impl RecvStream {
    pub(crate) fn new(
        stream: engine::RecvStream,
        passed: VecDeque<Bytes>,
        filter: FrameFilter,
        shared: Arc<Shared>,
    ) -> Self {
        let (prefix, malformed) = (Bytes::new(), Malformed::default());
        Self { stream, filter, passed, prefix, ended: false, failed: false, wrong: None, malformed, shared }
    }

    pub(crate) fn with_prefix(mut self, prefix: Bytes) -> Self {
        self.prefix = prefix;
        self
    }

    fn violated(&mut self, violation: Violation) -> StreamErrorIncoming {
        self.ended = true;
        self.shared.violated(violation);
        StreamErrorIncoming::ConnectionErrorIncoming {
            connection_error: ConnectionErrorIncoming::ApplicationClose { error_code: violation.code },
        }
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            if let Some(piece) = self.passed.pop_front() {
                if piece.is_empty() {
                    continue;
                }
                return Poll::Ready(Ok(Some(piece)));
            }
            if let Some(reason) = self.wrong.take() {
                self.malformed.set();
                quic::RecvStream::stop_sending(self, code::H3_MESSAGE_ERROR);
                return Poll::Ready(Err(StreamErrorIncoming::Unknown(reason.into())));
            }
            if self.failed {
                return Poll::Ready(Err(StreamErrorIncoming::Unknown("the stream has failed before".into())));
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            let chunk = match std::mem::take(&mut self.prefix) {
                prefix if prefix.is_empty() => {
                    let polled = ready!(self.stream.poll_data(cx));
                    self.failed = polled.is_err();
                    polled?
                }
                prefix => Some(prefix),
            };
            match chunk {
                Some(chunk) => {
                    let filtered = self.filter.push(chunk, &mut self.passed);
                    if self.filter.settings_came() {
                        self.shared.settings_came();
                    }
                    match filtered {
                        Ok(()) => {}
                        Err(Fault::Connection(violation)) => return Poll::Ready(Err(self.violated(violation))),
                        Err(Fault::Message(reason)) => self.wrong = Some(reason),
                    }
                }
                None => {
                    self.ended = true;
                    if !self.filter.at_boundary() {
                        // RFC 9114 §7.1. h3 cannot see this when the frame was one to drop.
                        return Poll::Ready(Err(self.violated(Violation {
                            code: code::H3_FRAME_ERROR,
                            reason: "a frame is cut short by the end of its stream",
                        })));
                    }
                }
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        self.ended = true;
        self.stream.stop(code);
    }

    fn recv_id(&self) -> StreamId {
        self.stream.recv_id()
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // A request without a body has usually ended by now, though nobody has read that.
        let mut cx = Context::from_waker(Waker::noop());
        let end = self.stream.poll_chunk(&mut cx, usize::MAX);
        if !matches!(end, Poll::Ready(Ok(None))) {
            // Without a code QUIC sends 0, which is none of HTTP/3's: curl then calls a
            // complete response broken.
            self.stream.stop(code::H3_NO_ERROR);
        }
    }
}

/// A lock that a panic elsewhere does not poison: what it guards is always whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
