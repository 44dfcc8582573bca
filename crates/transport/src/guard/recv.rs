//! What h3 reads: request streams and the peer's control stream, filtered frame by frame. Generic over the stream
//! that the engine gives.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId};
use h3cast_proto::{
    Role, Violation, code,
    filter::{Fault, FrameFilter},
};

use super::Shared;
use crate::quic as engine;

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

/// The receive half of a request stream, or the peer's control stream.
pub(crate) struct RecvStream<S: quic::RecvStream<Buf = Bytes> = engine::RecvStream> {
    stream: S,
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
    pub(super) malformed: Malformed,
    shared: Arc<Shared>,
}

impl RecvStream {
    /// Whether the request came as early data.
    pub(super) fn is_early(&self) -> bool {
        self.stream.is_early()
    }
}

impl<S: quic::RecvStream<Buf = Bytes>> RecvStream<S> {
    pub(crate) fn new(stream: S, passed: VecDeque<Bytes>, filter: FrameFilter, shared: Arc<Shared>) -> Self {
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

impl<S: quic::RecvStream<Buf = Bytes>> quic::RecvStream for RecvStream<S> {
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
                    let idle = self.filter.take_idle();
                    if let Err(flood) = self.shared.spend(idle) {
                        return Poll::Ready(Err(self.violated(flood)));
                    }
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
        self.stream.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.stream.recv_id()
    }
}

impl<S: quic::RecvStream<Buf = Bytes>> Drop for RecvStream<S> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // A request without a body has usually ended by now, though nobody has read that.
        let mut cx = Context::from_waker(Waker::noop());
        let end = self.stream.poll_data(&mut cx);
        if !matches!(end, Poll::Ready(Ok(None))) {
            // Without a code QUIC sends 0, which is none of HTTP/3's: curl then calls a
            // complete response broken.
            self.stream.stop_sending(match self.shared.role {
                Role::Server => code::H3_NO_ERROR,
                // RFC 9114 §4.1.1.
                Role::Client => code::H3_REQUEST_CANCELLED,
            });
        }
    }
}
