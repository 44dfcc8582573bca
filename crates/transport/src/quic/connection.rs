//! A connection.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::TryFutureExt;

use super::{ConnectionError, RecvStream, SendStream, varint};

/// A QUIC connection. Clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Connection(quinn::Connection);

/// Why a datagram was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendDatagramError {
    /// It does not fit into a packet.
    #[error("the datagram is too large")]
    TooLarge,
    /// The peer accepts none.
    #[error("the peer accepts no datagrams")]
    Unsupported,
    /// The connection is gone.
    #[error(transparent)]
    ConnectionLost(#[from] ConnectionError),
}

impl From<quinn::SendDatagramError> for SendDatagramError {
    fn from(error: quinn::SendDatagramError) -> Self {
        match error {
            quinn::SendDatagramError::TooLarge => Self::TooLarge,
            quinn::SendDatagramError::UnsupportedByPeer | quinn::SendDatagramError::Disabled => Self::Unsupported,
            quinn::SendDatagramError::ConnectionLost(error) => Self::ConnectionLost(error),
        }
    }
}

/// What shows whether a peer keeps receiving and reading, counted since the connection began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// The smoothed round-trip time.
    pub(crate) rtt: Duration,
    /// MAX_DATA and MAX_STREAM_DATA frames received: what was received before has been read.
    pub(crate) credits: u64,
}

impl Connection {
    #[inline]
    pub(super) fn new(conn: quinn::Connection) -> Self {
        Self(conn)
    }

    #[inline]
    pub(super) fn engine(&self) -> &quinn::Connection {
        &self.0
    }

    /// The peer's address, as it is now: connections move between networks.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// Closes the connection at once, with an HTTP/3 error code.
    pub fn close(&self, code: u64, reason: &[u8]) {
        self.0.close(varint(code), reason);
    }

    /// How it was lost, if it was.
    #[must_use]
    pub fn close_reason(&self) -> Option<ConnectionError> {
        self.0.close_reason()
    }

    /// Waits until it is lost. Cancel-safe.
    pub async fn closed(&self) -> ConnectionError {
        self.0.closed().await
    }

    /// Opens a unidirectional stream. Waits while the peer allows no more of them. Cancel-safe.
    #[inline]
    pub fn open_uni(&self) -> impl Future<Output = Result<SendStream, ConnectionError>> + Send + Sync + '_ {
        self.0.open_uni().map_ok(SendStream::new)
    }

    /// Opens a bidirectional stream. Waits while the peer allows no more of them. Cancel-safe.
    #[inline]
    pub fn open_bi(
        &self,
    ) -> impl Future<Output = Result<(SendStream, RecvStream), ConnectionError>> + Send + Sync + '_ {
        self.0.open_bi().map_ok(|(send, recv)| (SendStream::new(send), RecvStream::new(recv)))
    }

    /// Waits for a unidirectional stream of the peer's. Cancel-safe.
    #[inline]
    pub fn accept_uni(&self) -> impl Future<Output = Result<RecvStream, ConnectionError>> + Send + Sync + '_ {
        self.0.accept_uni().map_ok(RecvStream::new)
    }

    /// Waits for a bidirectional stream of the peer's. Cancel-safe.
    #[inline]
    pub fn accept_bi(
        &self,
    ) -> impl Future<Output = Result<(SendStream, RecvStream), ConnectionError>> + Send + Sync + '_ {
        self.0.accept_bi().map_ok(|(send, recv)| (SendStream::new(send), RecvStream::new(recv)))
    }

    /// Sends a datagram; older ones that still wait are dropped when too many do.
    ///
    /// # Errors
    ///
    /// When it does not fit, the peer takes none, or the connection is gone.
    #[inline]
    pub fn send_datagram(&self, datagram: Bytes) -> Result<(), SendDatagramError> {
        Ok(self.0.send_datagram(datagram)?)
    }

    /// Sends a datagram as soon as there is room for it. Cancel-safe.
    #[inline]
    pub fn send_datagram_wait(
        &self,
        datagram: Bytes,
    ) -> impl Future<Output = Result<(), SendDatagramError>> + Send + Sync + '_ {
        self.0.send_datagram_wait(datagram).map_err(SendDatagramError::from)
    }

    /// Waits for a datagram. Cancel-safe.
    #[inline]
    pub fn read_datagram(&self) -> impl Future<Output = Result<Bytes, ConnectionError>> + Send + Sync + '_ {
        self.0.read_datagram()
    }

    /// The longest datagram that fits now, in bytes; `None` when the peer takes none.
    #[must_use]
    pub fn max_datagram_size(&self) -> Option<usize> {
        self.0.max_datagram_size()
    }

    /// Allows the peer that many bidirectional streams at once.
    pub(crate) fn allow_bi_streams(&self, count: u32) {
        self.0.set_max_concurrent_bi_streams(count.into());
    }

    /// Allows the peer that many unidirectional streams at once.
    pub(crate) fn allow_uni_streams(&self, count: u32) {
        self.0.set_max_concurrent_uni_streams(count.into());
    }

    pub(crate) fn traffic(&self) -> Traffic {
        let stats = self.0.stats();
        Traffic { rtt: stats.path.rtt, credits: stats.frame_rx.max_data + stats.frame_rx.max_stream_data }
    }
}
