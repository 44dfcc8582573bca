//! h3's QUIC traits over quinn.
//!
//! h3-quinn opens the streams that h3 itself needs (control and QPACK). Streams that the peer
//! opens are ours, because of what h3-quinn cannot do: look at a stream before h3 does, cap what
//! h3 buffers, end an unfinished response with a reset, stop a request with H3_NO_ERROR, write a
//! frame in one call, and hand the raw stream on.

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt, stream, stream::FuturesUnordered};
use h3::quic::{self, ConnectionErrorIncoming, SendStreamUnframed as _, StreamErrorIncoming, StreamId, WriteBuf};

use super::{
    Violation, code,
    filter::{Fault, FrameFilter},
    incoming::{self, Role, Shared},
    settings,
};

type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send + Sync>>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + Sync>>;
type Accepted<T> = Result<T, quinn::ConnectionError>;

/// One connection, as h3 sees it.
pub(crate) struct Backend {
    shared: Arc<Shared>,
    open: OpenStreams,
    incoming_bi: BoxStream<Accepted<(quinn::SendStream, quinn::RecvStream)>>,
    incoming_uni: BoxStream<Accepted<quinn::RecvStream>>,
    /// Streams that have not yet said what they are. Bounded by the stream limits of quinn's
    /// transport configuration.
    heads_bi: FuturesUnordered<BoxFuture<Option<BidiStream>>>,
    heads_uni: FuturesUnordered<BoxFuture<Option<RecvStream>>>,
    accepted: Arc<Mutex<Option<RequestParts>>>,
}

/// What the connection's driver needs of a request's stream beside what h3 gives.
pub(crate) struct RequestParts {
    /// Gives the raw send half back once h3 has let go of it.
    pub(crate) handback: Handback,
    /// Completes when the peer no longer wants the response, or has all of it.
    pub(crate) stopped: Stopped,
    pub(crate) malformed: Malformed,
}

/// Whether a request has turned out to be malformed while it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Malformed(Arc<AtomicBool>);

impl Malformed {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) type Stopped = BoxFuture<Result<Option<quinn::VarInt>, quinn::StoppedError>>;

impl Backend {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let accept_bi = |conn: quinn::Connection| async { Some((conn.accept_bi().await, conn)) };
        let accept_uni = |conn: quinn::Connection| async { Some((conn.accept_uni().await, conn)) };
        Self {
            open: OpenStreams::new(&shared),
            incoming_bi: Box::pin(stream::unfold(shared.conn.clone(), accept_bi)),
            incoming_uni: Box::pin(stream::unfold(shared.conn.clone(), accept_uni)),
            heads_bi: FuturesUnordered::new(),
            heads_uni: FuturesUnordered::new(),
            accepted: Arc::default(),
            shared,
        }
    }

    /// Where to find the parts of the request that h3's `accept` has just given out.
    pub(crate) fn accepted(&self) -> Arc<Mutex<Option<RequestParts>>> {
        self.accepted.clone()
    }
}

impl quic::Connection<Bytes> for Backend {
    type RecvStream = RecvStream;
    type OpenStreams = OpenStreams;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        while let Poll::Ready(Some(accepted)) = self.incoming_uni.poll_next_unpin(cx) {
            let recv = accepted.map_err(connection_error)?;
            self.heads_uni.push(Box::pin(incoming::unidirectional(self.shared.clone(), recv)));
        }
        while let Poll::Ready(Some(read)) = self.heads_uni.poll_next_unpin(cx) {
            if let Some(stream) = read {
                return Poll::Ready(Ok(stream));
            }
        }
        Poll::Pending
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        while let Poll::Ready(Some(accepted)) = self.incoming_bi.poll_next_unpin(cx) {
            let (send, recv) = accepted.map_err(connection_error)?;
            self.heads_bi.push(Box::pin(incoming::bidirectional(self.shared.clone(), send, recv)));
        }
        while let Poll::Ready(Some(read)) = self.heads_bi.poll_next_unpin(cx) {
            if let Some(stream) = read {
                *lock(&self.accepted) = Some(stream.parts());
                return Poll::Ready(Ok(stream));
            }
        }
        Poll::Pending
    }

    fn opener(&self) -> OpenStreams {
        OpenStreams::new(&self.shared)
    }
}

impl quic::OpenStreams<Bytes> for Backend {
    type BidiStream = BidiStream;
    type SendStream = ControlStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        self.open.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<ControlStream, StreamErrorIncoming>> {
        self.open.poll_open_send(cx)
    }

    fn close(&mut self, code: h3::error::Code, reason: &[u8]) {
        quic::OpenStreams::<Bytes>::close(&mut self.open.quinn, code, reason);
    }
}

/// Opens streams for h3.
pub(crate) struct OpenStreams {
    shared: Arc<Shared>,
    quinn: h3_quinn::Connection,
    control_opened: bool,
    opening_bi: Option<BoxFuture<Accepted<(quinn::SendStream, quinn::RecvStream)>>>,
}

impl OpenStreams {
    fn new(shared: &Arc<Shared>) -> Self {
        Self {
            quinn: h3_quinn::Connection::new(shared.conn.clone()),
            shared: shared.clone(),
            control_opened: false,
            opening_bi: None,
        }
    }
}

impl Clone for OpenStreams {
    fn clone(&self) -> Self {
        Self::new(&self.shared)
    }
}

impl quic::OpenStreams<Bytes> for OpenStreams {
    type BidiStream = BidiStream;
    type SendStream = ControlStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        let opening = self.opening_bi.get_or_insert_with(|| {
            let conn = self.shared.conn.clone();
            Box::pin(async move { conn.open_bi().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening_bi = None;
        let (send, recv) = opened.map_err(lost)?;
        let filter = FrameFilter::new(self.shared.limits.max_field_section_size);
        let recv = RecvStream::new(recv, VecDeque::new(), filter, self.shared.clone());
        Poll::Ready(Ok(BidiStream::new(SendStream::new(send, self.shared.role), recv)))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<ControlStream, StreamErrorIncoming>> {
        let stream = ready!(quic::OpenStreams::<Bytes>::poll_open_send(&mut self.quinn, cx))?;
        // h3 opens its control stream first of all streams (RFC 9114 §6.2.1 asks for no order).
        let settings = (!std::mem::replace(&mut self.control_opened, true))
            .then(|| settings::control_stream(self.shared.limits.max_field_section_size));
        Poll::Ready(Ok(ControlStream { stream, settings, writing: Bytes::new() }))
    }

    fn close(&mut self, code: h3::error::Code, reason: &[u8]) {
        quic::OpenStreams::<Bytes>::close(&mut self.quinn, code, reason);
    }
}

/// A unidirectional stream of h3's own: control, QPACK encoder, QPACK decoder.
pub(crate) struct ControlStream {
    stream: h3_quinn::SendStream<Bytes>,
    /// What to write in place of h3's SETTINGS, on the control stream until that is written.
    settings: Option<Bytes>,
    writing: Bytes,
}

impl quic::SendStream<Bytes> for ControlStream {
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

/// A request stream.
pub(crate) struct BidiStream {
    send: SendStream,
    recv: RecvStream,
}

impl BidiStream {
    pub(super) fn new(send: SendStream, recv: RecvStream) -> Self {
        Self { send, recv }
    }

    fn parts(&self) -> RequestParts {
        RequestParts {
            handback: self.send.handback.clone(),
            stopped: self.send.stopped(),
            malformed: self.recv.malformed.clone(),
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

/// Where a [`SendStream`] leaves its quinn stream when h3 drops it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handback(Arc<Mutex<Slot>>);

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Unwanted,
    Wanted,
    Returned(quinn::SendStream),
}

impl Handback {
    /// Asks for the stream: from now on, dropping h3's half returns it instead of resetting it.
    pub(crate) fn ask(&self) {
        *lock(&self.0) = Slot::Wanted;
    }

    /// The stream, if h3 has let go of it.
    pub(crate) fn take(&self) -> Option<quinn::SendStream> {
        match std::mem::take(&mut *lock(&self.0)) {
            Slot::Returned(stream) => Some(stream),
            Slot::Unwanted | Slot::Wanted => None,
        }
    }
}

/// The send half of a request stream, as h3 writes to it: heads, and a client's bodies. A server's
/// bodies are written by [`response`](super::response) on the raw stream.
pub(crate) struct SendStream {
    /// `None` once it has been handed back.
    stream: Option<quinn::SendStream>,
    id: quinn::StreamId,
    writing: Bytes,
    ended: bool,
    role: Role,
    handback: Handback,
}

impl SendStream {
    pub(super) fn new(stream: quinn::SendStream, role: Role) -> Self {
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

    fn stream(&mut self) -> Result<&mut quinn::SendStream, StreamErrorIncoming> {
        self.stream.as_mut().ok_or_else(|| StreamErrorIncoming::Unknown("the stream was handed back".into()))
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while !self.writing.is_empty() {
            let writing = self.writing.clone();
            let written = ready!(Pin::new(self.stream()?).poll_write(cx, &writing)).map_err(write_error)?;
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
            // An error here means that the stream has ended already.
            let _ = stream.reset(code::varint(code));
        }
    }

    fn send_id(&self) -> StreamId {
        h3_id(self.id)
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        let mut slot = lock(&self.handback.0);
        if matches!(*slot, Slot::Wanted) {
            *slot = Slot::Returned(stream);
        } else if !self.ended {
            // quinn would finish the stream, and a message cut short would look whole.
            let _ = stream.reset(code::varint(match self.role {
                Role::Server => code::H3_INTERNAL_ERROR,
                Role::Client => code::H3_REQUEST_CANCELLED,
            }));
        }
    }
}

/// The receive half of a request stream, or the peer's control stream.
pub(crate) struct RecvStream {
    stream: quinn::RecvStream,
    filter: FrameFilter,
    /// What has passed the filter and h3 has not yet taken.
    passed: VecDeque<Bytes>,
    /// What was read before the stream was given to h3, still to be filtered.
    prefix: Bytes,
    ended: bool,
    /// What is wrong with the message behind `passed`.
    wrong: Option<&'static str>,
    malformed: Malformed,
    shared: Arc<Shared>,
}

impl RecvStream {
    pub(super) fn new(
        stream: quinn::RecvStream,
        passed: VecDeque<Bytes>,
        filter: FrameFilter,
        shared: Arc<Shared>,
    ) -> Self {
        let (prefix, malformed) = (Bytes::new(), Malformed::default());
        Self { stream, filter, passed, prefix, ended: false, wrong: None, malformed, shared }
    }

    pub(super) fn with_prefix(mut self, prefix: Bytes) -> Self {
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
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            let chunk = match std::mem::take(&mut self.prefix) {
                prefix if prefix.is_empty() => {
                    ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx)).map_err(read_error)?
                }
                prefix => Some(quinn::Chunk { offset: 0, bytes: prefix }),
            };
            match chunk {
                Some(chunk) => {
                    let filtered = self.filter.push(chunk.bytes, &mut self.passed);
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
        let _ = self.stream.stop(code::varint(code));
    }

    fn recv_id(&self) -> StreamId {
        h3_id(self.stream.id())
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // A request without a body has usually ended by now, though nobody has read that.
        let mut cx = Context::from_waker(Waker::noop());
        let end = pin!(self.stream.read_chunk(usize::MAX, true)).poll(&mut cx);
        if !matches!(end, Poll::Ready(Ok(None))) {
            // Without a code of its own quinn says 0, which is none of HTTP/3's: curl then calls a
            // complete response broken.
            let _ = self.stream.stop(code::varint(code::H3_NO_ERROR));
        }
    }
}

/// A lock that a panic elsewhere does not poison: what it guards is always whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn h3_id(id: quinn::StreamId) -> StreamId {
    u64::from(id).try_into().expect("both are the same 62-bit number")
}

fn connection_error(error: quinn::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        quinn::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

fn lost(error: quinn::ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

fn read_error(error: quinn::ReadError) -> StreamErrorIncoming {
    match error {
        quinn::ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::ReadError::ConnectionLost(error) => lost(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

fn write_error(error: quinn::WriteError) -> StreamErrorIncoming {
    match error {
        quinn::WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::WriteError::ConnectionLost(error) => lost(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}
