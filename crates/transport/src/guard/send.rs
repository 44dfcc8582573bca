//! What h3 writes to a request stream: each frame in one call. When h3 lets go of a stream, it is handed on.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::quic::{self, StreamErrorIncoming, StreamId, WriteBuf};
use h3cast_proto::{Role, code};

use super::request::Stopped;
use crate::quic::{self as engine, stream_id, write_error};

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

/// A stream that is reset when it is dropped before its end, as by a panic: QUIC would finish it, and it would look
/// whole.
#[derive(Debug)]
pub(crate) struct Unfinished(Option<engine::SendStream>);

impl Unfinished {
    /// `None` once it has ended.
    pub(crate) fn get_mut(&mut self) -> Option<&mut engine::SendStream> {
        self.0.as_mut()
    }

    /// For something else that resets it.
    pub(crate) fn take(&mut self) -> Option<engine::SendStream> {
        self.0.take()
    }

    /// Ends the stream; whether it had not ended before.
    pub(crate) fn finish(mut self) -> bool {
        self.0.take().is_some_and(|mut stream| stream.finish().is_ok())
    }

    pub(crate) fn reset(mut self, code: u64) {
        if let Some(mut stream) = self.0.take() {
            stream.reset(code);
        }
    }
}

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
    pub(crate) fn take(&self) -> Option<Unfinished> {
        match std::mem::take(&mut *lock(&self.0)) {
            Slot::Returned(stream) => Some(stream),
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
    pub(super) handback: Handback,
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

    pub(super) fn stopped(&self) -> Stopped {
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

/// A lock that a panic elsewhere does not poison: what it guards is always whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
