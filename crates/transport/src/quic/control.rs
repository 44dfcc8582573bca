//! The streams that h3 itself needs, control and QPACK, which h3-quinn opens.

use std::task::{Context, Poll};

use bytes::Bytes;
use h3::quic::{OpenStreams, StreamErrorIncoming};

use super::Connection;

/// A stream of h3's own.
pub(crate) type SendStream = h3_quinn::SendStream<Bytes>;

/// Opens unidirectional streams as h3 wants them.
pub(crate) struct Opener {
    h3: h3_quinn::Connection,
    conn: Connection,
}

impl Opener {
    pub(crate) fn new(conn: &Connection) -> Self {
        Self { h3: h3_quinn::Connection::new(conn.engine().clone()), conn: conn.clone() }
    }

    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        OpenStreams::<Bytes>::poll_open_send(&mut self.h3, cx)
    }

    /// Closes the connection.
    pub(crate) fn close(&mut self, code: h3::error::Code, reason: &[u8]) {
        self.conn.close(code.value(), reason);
    }
}
