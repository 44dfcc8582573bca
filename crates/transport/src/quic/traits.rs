//! What h3's traits need of the types here.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId};

use super::{ConnectionError, ReadError, RecvStream, WriteError};

/// A stream's id as h3 takes it.
#[inline]
pub(crate) fn stream_id(id: u64) -> StreamId {
    id.try_into().expect("both are the same 62-bit number")
}

pub(crate) fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

pub(crate) fn lost(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

pub(crate) fn write_error(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(error_code) => StreamErrorIncoming::StreamTerminated { error_code },
        WriteError::ConnectionLost(error) => lost(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

fn read_error(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(error_code) => StreamErrorIncoming::StreamTerminated { error_code },
        ReadError::ConnectionLost(error) => lost(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    #[inline]
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.poll_chunk(cx, usize::MAX).map_err(read_error)
    }

    #[inline]
    fn stop_sending(&mut self, code: u64) {
        self.stop(code);
    }

    #[inline]
    fn recv_id(&self) -> StreamId {
        stream_id(self.id())
    }
}
