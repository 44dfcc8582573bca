//! A connection.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryFutureExt;

use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::CertificateDer;

use super::{ConnectionError, RecvStream, SendStream, sending::Sending, varint};

/// A QUIC connection. Clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Connection {
    engine: quinn::Connection,
    ours: Arc<Ours>,
}

/// What the engine does not remember.
#[derive(Debug)]
struct Ours {
    /// Where its socket is bound.
    bound: Option<SocketAddr>,
    /// The peer's address when it began.
    first_remote: SocketAddr,
    /// The code and reason with which this side closed it.
    closed: OnceLock<(u64, String)>,
    /// What the peer may send before it is read, in bytes; 0 where that is not known.
    window: AtomicU64,
    sending: Arc<Sending>,
    /// For `sending`, which must not keep it open.
    engine: Arc<quinn::Connection>,
}

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

/// How a connection was lost, as far as it matters for a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// TLS ended it, with this alert ([RFC 9001 §4.8](https://www.rfc-editor.org/rfc/rfc9001#section-4.8)).
    Alert { code: u8, by_peer: bool },
    /// Either side found an error in what QUIC itself does.
    Engine,
    /// Nothing arrived for too long.
    Silence,
    /// The peer closed it, or does not know it any more.
    Peer,
    /// This side closed it.
    Here,
}

impl From<&ConnectionError> for Loss {
    fn from(error: &ConnectionError) -> Self {
        // RFC 9001 §4.8: an alert is a code of QUIC's from 0x100 on.
        let found = |code: quinn_proto::TransportErrorCode, by_peer| match u64::from(code)
            .checked_sub(0x100)
            .and_then(|code| u8::try_from(code).ok())
        {
            Some(code) => Self::Alert { code, by_peer },
            None => Self::Engine,
        };
        match error {
            ConnectionError::TransportError(error) => found(error.code, false),
            ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) > 0 => {
                found(close.error_code, true)
            }
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => Self::Engine,
            ConnectionError::TimedOut => Self::Silence,
            ConnectionError::LocallyClosed => Self::Here,
            ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) | ConnectionError::Reset => {
                Self::Peer
            }
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

/// What shows whether a peer acknowledges what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// The smoothed round-trip time: each acknowledgement of something new changes it.
    pub(crate) rtt: Duration,
    /// How many frames were sent that must be acknowledged.
    pub(crate) sent: u64,
}

/// Frames of QUIC both ways, counted since the connection began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Frames {
    /// Those that carry something, and what this side has sent beside answers to what the peer sends.
    pub(crate) carrying: u64,
    /// Those of the peer's that bring nothing by themselves: PING, acknowledgements, credit, connection ids, paths.
    pub(crate) idle: u64,
}

/// What TLS has agreed on.
pub(crate) struct Handshaken {
    pub(crate) alpn: Option<Vec<u8>>,
    /// A client has none here.
    pub(crate) server_name: Option<String>,
    /// The peer's, its own first.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
}

/// What a connection has carried: packets lost and sent on the present path, the rest since it began.
pub(crate) struct Path {
    pub(crate) rtt: Duration,
    pub(crate) min_rtt: Duration,
    pub(crate) congestion_window: u64,
    pub(crate) mtu: u16,
    pub(crate) sent_packets: u64,
    pub(crate) lost_packets: u64,
    pub(crate) lost_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) received_packets: u64,
}

/// What a peer may say of how long it takes to acknowledge (RFC 9000 §18.2).
const ACK_DELAY: Duration = Duration::from_millis(25);
/// A round trip as it is taken to be before one has been seen (RFC 9002 §6.2.2).
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(333);
/// However long a peer has made a round trip look.
const LONGEST_LINGER: Duration = Duration::from_secs(30);

/// Three probe timeouts, with a variance of half a round trip.
pub(crate) fn linger(rtt: Duration) -> Duration {
    (3 * (3 * rtt + ACK_DELAY)).min(LONGEST_LINGER)
}

impl Connection {
    /// One that can be [kept alive](Self::keep_alive): `window` is its receive window. It began at `first_remote`.
    #[inline]
    pub(super) fn with_window(
        engine: quinn::Connection,
        bound: Option<SocketAddr>,
        first_remote: SocketAddr,
        window: u64,
    ) -> Self {
        let ours = Ours {
            bound,
            first_remote,
            closed: OnceLock::new(),
            window: window.into(),
            sending: Arc::default(),
            engine: Arc::new(engine.clone()),
        };
        Self { engine, ours: Arc::new(ours) }
    }

    #[inline]
    pub(super) fn engine(&self) -> &quinn::Connection {
        &self.engine
    }

    #[inline]
    fn send_stream(&self, stream: quinn::SendStream) -> SendStream {
        SendStream::new(stream, self.ours.sending.clone())
    }

    /// Has the send window grow with what the peer acknowledges: for a connection whose own is that of a server.
    pub(crate) fn grow(&self) {
        self.ours.sending.grow(&self.ours.engine);
    }

    /// Resets streams of which the peer takes nothing for `timeout`, and calls `cut` for each. Before the first is
    /// opened.
    pub(crate) fn limit_sending(&self, timeout: Duration, cut: impl Fn() + Send + Sync + 'static) {
        self.ours.sending.limit(timeout, cut);
    }

    /// The time of [`limit_sending`](Self::limit_sending), if there is one.
    pub(crate) fn send_timeout(&self) -> Option<Duration> {
        self.ours.sending.timeout()
    }

    /// What the peer has acknowledged, and how many frames there were.
    pub(crate) fn seen(&self) -> (Acknowledged, Frames) {
        let stats = self.engine.stats();
        let (rx, tx) = (&stats.frame_rx, &stats.frame_tx);
        let sent = tx.stream + tx.datagram + tx.ping + tx.reset_stream + tx.stop_sending + tx.crypto;
        // Not what the peer has this side send by what brings nothing: acknowledgements, answers to challenges, new ids.
        let credits = tx.max_data + tx.max_stream_data + tx.max_streams_bidi + tx.max_streams_uni;
        let credit = rx.max_data + rx.max_stream_data + rx.max_streams_bidi + rx.max_streams_uni;
        let blocked = rx.data_blocked + rx.stream_data_blocked + rx.streams_blocked_bidi + rx.streams_blocked_uni;
        let ids = rx.new_connection_id + rx.retire_connection_id + rx.new_token;
        let idle = rx.ping + rx.acks + rx.ack_frequency + rx.immediate_ack + rx.crypto + credit + blocked + ids;
        let frames = Frames {
            carrying: rx.stream + rx.datagram + sent + credits,
            idle: idle + rx.path_challenge + rx.path_response + rx.reset_stream + rx.stop_sending,
        };
        (Acknowledged { rtt: stats.path.rtt, sent }, frames)
    }

    /// The peer's address, as it is now: connections move between networks. It may be forged, as the engine takes it
    /// from a single packet and does not tell when it has been validated
    /// ([RFC 9000 §9.3](https://www.rfc-editor.org/rfc/rfc9000#section-9.3)).
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.engine.remote_address()
    }

    /// The peer's address, as far as a complete handshake has shown that it is its own: the one at which the connection
    /// began, with the port that it has now unless it has moved to another address.
    pub(crate) fn proven_address(&self) -> SocketAddr {
        let (now, first) = (self.engine.remote_address(), self.ours.first_remote);
        if now.ip() == first.ip() { now } else { first }
    }

    /// This side's address: that to which the peer sent its first packet, where the system tells.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        let bound = self.ours.bound?;
        Some(SocketAddr::new(self.engine.local_ip().map_or(bound.ip(), |ip| ip.to_canonical()), bound.port()))
    }

    /// Closes the connection at once, with an HTTP/3 error code.
    pub fn close(&self, code: u64, reason: &[u8]) {
        if self.engine.close_reason().is_some() {
            // It is lost already: the engine would forget how.
            return;
        }
        // The first one counts.
        let _ = self.ours.closed.set((code, String::from_utf8_lossy(reason).into_owned()));
        self.engine.close(varint(code), reason);
    }

    /// How it was lost, if it was.
    #[must_use]
    pub fn close_reason(&self) -> Option<ConnectionError> {
        self.engine.close_reason()
    }

    /// The code and reason with which this side closed it, if it did.
    pub(crate) fn closed_with(&self) -> Option<&(u64, String)> {
        self.ours.closed.get()
    }

    /// Closes it, and waits until its end has left for the peer. Unlike the engine, this does not wait until the last
    /// packets on their way have arrived too (three times the probe timeout): a client has no use for them.
    pub(crate) async fn close_and_send(&self, code: u64, reason: &[u8]) {
        /// The engine reports it to no one, and sends it as soon as it runs.
        const LOOK: Duration = Duration::from_millis(1);
        let sent = self.engine.stats().udp_tx.datagrams;
        self.close(code, reason);
        if self.engine.closed().await != ConnectionError::LocallyClosed {
            return;
        }
        loop {
            let is_sent = self.engine.stats().udp_tx.datagrams > sent;
            // Once more after it: what was counted may be a packet that left just before the end.
            tokio::time::sleep(LOOK).await;
            if is_sent {
                return;
            }
        }
    }

    /// Waits until it is lost. Cancel-safe.
    pub async fn closed(&self) -> ConnectionError {
        self.engine.closed().await
    }

    /// Opens a unidirectional stream. Waits while the peer allows no more of them. Cancel-safe.
    #[inline]
    pub fn open_uni(&self) -> impl Future<Output = Result<SendStream, ConnectionError>> + Send + Sync + '_ {
        self.engine.open_uni().map_ok(|send| self.send_stream(send))
    }

    /// Opens a bidirectional stream. Waits while the peer allows no more of them. Cancel-safe.
    #[inline]
    pub fn open_bi(
        &self,
    ) -> impl Future<Output = Result<(SendStream, RecvStream), ConnectionError>> + Send + Sync + '_ {
        self.engine.open_bi().map_ok(|(send, recv)| (self.send_stream(send), RecvStream::new(recv)))
    }

    /// Waits for a unidirectional stream of the peer's. Cancel-safe.
    #[inline]
    pub fn accept_uni(&self) -> impl Future<Output = Result<RecvStream, ConnectionError>> + Send + Sync + '_ {
        self.engine.accept_uni().map_ok(RecvStream::new)
    }

    /// Waits for a bidirectional stream of the peer's. Cancel-safe.
    #[inline]
    pub fn accept_bi(
        &self,
    ) -> impl Future<Output = Result<(SendStream, RecvStream), ConnectionError>> + Send + Sync + '_ {
        self.engine.accept_bi().map_ok(|(send, recv)| (self.send_stream(send), RecvStream::new(recv)))
    }

    /// Sends a datagram; older ones that still wait are dropped when too many do.
    ///
    /// # Errors
    ///
    /// When it does not fit, the peer takes none, or the connection is gone.
    #[inline]
    pub fn send_datagram(&self, datagram: Bytes) -> Result<(), SendDatagramError> {
        Ok(self.engine.send_datagram(datagram)?)
    }

    /// Sends a datagram as soon as there is room for it. Cancel-safe.
    #[inline]
    pub fn send_datagram_wait(
        &self,
        datagram: Bytes,
    ) -> impl Future<Output = Result<(), SendDatagramError>> + Send + Sync + '_ {
        self.engine.send_datagram_wait(datagram).map_err(SendDatagramError::from)
    }

    /// Waits for a datagram. Cancel-safe.
    #[inline]
    pub fn read_datagram(&self) -> impl Future<Output = Result<Bytes, ConnectionError>> + Send + Sync + '_ {
        self.engine.read_datagram()
    }

    /// The longest datagram that fits now, in bytes; `None` when the peer takes none.
    #[must_use]
    pub fn max_datagram_size(&self) -> Option<usize> {
        self.engine.max_datagram_size()
    }

    /// Allows the peer that many bidirectional streams at once.
    pub(crate) fn allow_bi_streams(&self, count: u32) {
        self.engine.set_max_concurrent_bi_streams(count.into());
    }

    /// Allows the peer that many unidirectional streams at once.
    pub(crate) fn allow_uni_streams(&self, count: u32) {
        self.engine.set_max_concurrent_uni_streams(count.into());
    }

    /// What TLS has agreed on so far.
    pub(crate) fn handshake(&self) -> Handshaken {
        let data = self.engine.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let certificates = self.engine.peer_identity().and_then(|all| all.downcast::<Vec<CertificateDer<'_>>>().ok());
        let (alpn, server_name) = data.map(|data| (data.protocol, data.server_name)).unwrap_or_default();
        Handshaken { alpn, server_name, certificates: certificates.map(|all| *all).unwrap_or_default() }
    }

    /// What the connection and its present path have carried.
    pub(crate) fn path(&self) -> Path {
        let stats = self.engine.stats();
        Path {
            rtt: stats.path.rtt,
            min_rtt: stats.path.min_rtt,
            congestion_window: stats.path.cwnd,
            mtu: stats.path.current_mtu,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            lost_bytes: stats.path.lost_bytes,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            received_packets: stats.udp_rx.datagrams,
        }
    }

    /// Has the peer show that it is there, where the receive window is known. The engine has no PING to be sent when
    /// it is asked; this lets the peer send one byte more, which is a frame (MAX_DATA) that is acknowledged like it.
    pub(crate) fn keep_alive(&self) {
        let window = self.ours.window.load(Ordering::Relaxed);
        if window > 0 {
            self.ours.window.store(window + 1, Ordering::Relaxed);
            self.engine.set_receive_window(varint(window + 1));
        }
    }

    /// How long the engine still keeps a connection that has been closed: three times the probe timeout, as a
    /// server computes it from above ([RFC 9000 §10.2](https://www.rfc-editor.org/rfc/rfc9000#section-10.2)).
    pub(crate) fn linger(&self) -> Duration {
        linger(self.engine.rtt())
    }

    pub(crate) fn traffic(&self) -> Traffic {
        let stats = self.engine.stats();
        Traffic { rtt: stats.path.rtt, credits: stats.frame_rx.max_data + stats.frame_rx.max_stream_data }
    }
}
