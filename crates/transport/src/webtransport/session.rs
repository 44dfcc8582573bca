//! A session as an application holds it.

mod inner;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{BufMut, Bytes, BytesMut};
use h3cast_proto::{code, datagram, frame, stream_type, varint};

use super::stream::{RecvStream, SendStream};
use crate::{
    connection::ConnectionHandle,
    guard::Begun,
    quic::{self, SendDatagramError},
};
pub(crate) use inner::SessionInner;
pub(super) use inner::Tally;
pub(super) use inner::{Ask, SessionState};

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// One side closed it, by a close capsule or by ending its CONNECT stream (code 0).
    Clean {
        /// The application's code.
        code: u32,
        /// The application's reason, at most 1,024 bytes.
        reason: String,
        /// Whether the other side closed it.
        by_peer: bool,
    },
    /// Its CONNECT stream was reset, or the peer broke the protocol on it.
    Abrupt {
        /// The HTTP/3 error code.
        code: u64,
    },
    /// The connection under it is gone.
    ConnectionLost(quic::ConnectionError),
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clean { code, reason, by_peer } => {
                let who = if *by_peer { "the peer" } else { "this side" };
                write!(f, "closed by {who} with code {code}")?;
                if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") }
            }
            Self::Abrupt { code } => write!(f, "the session's stream was cut: {}", code::describe(*code)),
            Self::ConnectionLost(error) => write!(f, "the connection was lost: {error}"),
        }
    }
}

/// The session has ended, so that nothing can be done with it any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended: {0}")]
pub struct SessionError(pub Closed);

/// Why a datagram was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// It is longer than [`Session::max_datagram_size`].
    #[error("a datagram of {size} bytes is longer than the {max} that fit")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// What fits now, in bytes.
        max: usize,
    },
    /// The peer accepts no datagrams.
    #[error("the peer accepts no datagrams")]
    Unsupported,
    /// The session has ended.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// What a session has carried so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams opened by this side.
    pub streams_opened: u64,
    /// Streams opened by the peer.
    pub streams_accepted: u64,
    /// Streams that the peer reset as soon as it had opened them, and that
    /// [`accept_uni`](Session::accept_uni) and [`accept_bi`](Session::accept_bi) will not report: with several
    /// sessions on the connection nothing shows whose they were, and they count for each of them; or 128 of them
    /// waited to be accepted already.
    pub streams_unreported: u64,
    /// Datagrams handed to QUIC.
    pub datagrams_sent: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams received and dropped, because nobody read them in time.
    pub datagrams_dropped: u64,
    /// Bytes that this side has written to streams, and sent as datagrams.
    pub bytes_sent: u64,
    /// Bytes that this side has read from streams, and received as datagrams.
    pub bytes_received: u64,
}

/// A WebTransport session. Clones are handles of the same session; when the last is dropped, it is
/// closed with code 0.
///
/// ```no_run
/// # async fn doc(session: h3cast_transport::webtransport::Session) -> Result<(), Box<dyn std::error::Error>> {
/// // What the peer sends on a stream, back on the same stream.
/// let (mut send, mut recv) = session.accept_bi().await?;
/// while let Some(bytes) = recv.read_bytes(65_536).await? {
///     send.write_bytes(bytes).await?;
/// }
/// send.finish()?;
/// session.close(0, "done");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Session {
    inner: Arc<SessionInner>,
    _last: Arc<CloseOnDrop>,
}

#[derive(Debug)]
struct CloseOnDrop(Arc<SessionInner>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.ask_close(0, "");
    }
}

impl Session {
    pub(super) fn new(inner: Arc<SessionInner>) -> Self {
        Self { _last: Arc::new(CloseOnDrop(inner.clone())), inner }
    }

    /// The session's id: that of its CONNECT stream.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// The connection that carries it: how well it is reached, what TLS has agreed on, and its close.
    #[must_use]
    pub fn connection(&self) -> &ConnectionHandle {
        &self.inner.handle
    }

    /// The same as QUIC has it.
    #[doc(hidden)]
    pub fn quic(&self) -> &quic::Connection {
        &self.inner.conn
    }

    /// The [client's address](ConnectionHandle::remote_address).
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.handle.remote_address()
    }

    /// The subprotocol that both sides agreed on, if any.
    #[must_use]
    pub fn protocol(&self) -> Option<&str> {
        self.inner.protocol.as_deref()
    }

    /// What the session has carried so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.inner.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            streams_opened: get(&counters.streams_opened),
            streams_accepted: get(&counters.streams_accepted),
            streams_unreported: get(&counters.streams_unreported),
            datagrams_sent: get(&counters.datagrams_sent),
            datagrams_received: get(&counters.datagrams_received),
            datagrams_dropped: get(&counters.datagrams_dropped),
            bytes_sent: get(&counters.tally.sent),
            bytes_received: get(&counters.tally.received),
        }
    }

    /// Opens a unidirectional stream. Waits while the peer allows no more streams.
    ///
    /// # Errors
    ///
    /// When the session has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a stream that was opened and not returned is reset.
    pub async fn open_uni(&self) -> Result<SendStream, SessionError> {
        let opened = async {
            let stream = self.inner.conn.open_uni().await?;
            let mut header = BytesMut::with_capacity(2 * varint::MAX_LEN);
            varint::encode(stream_type::WEBTRANSPORT, &mut header);
            Ok(self.begin(stream, header).await)
        };
        self.unless_ended(opened).await
    }

    /// Opens a bidirectional stream. Waits while the peer allows no more streams. Finish its sending half before
    /// dropping it: otherwise it is reset.
    ///
    /// # Errors
    ///
    /// When the session has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a stream that was opened and not returned is reset.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), SessionError> {
        let opened = async {
            let (send, recv) = self.inner.conn.open_bi().await?;
            let recv = self.inner.adopt_recv(recv, Begun::Named(Bytes::new()));
            let mut header = BytesMut::with_capacity(2 * varint::MAX_LEN);
            varint::encode(frame::WEBTRANSPORT_STREAM, &mut header);
            Ok((self.begin(send, header).await, recv))
        };
        self.unless_ended(opened).await
    }

    /// Writes a stream's signal and the session's id. An error shows at the first write.
    async fn begin(&self, stream: quic::SendStream, mut header: BytesMut) -> SendStream {
        varint::encode(self.inner.id, &mut header);
        let mut stream = self.inner.adopt_send(stream);
        let _ = stream.write_header(header.freeze()).await;
        self.inner.counters.streams_opened.fetch_add(1, Ordering::Relaxed);
        stream
    }

    /// Waits for a unidirectional stream of the peer's, in the order in which they came.
    ///
    /// A stream that the peer opens and resets at once comes as well, and reading it gives the code. A reset takes
    /// the place of all that was sent before it, what names the stream's session included. So this works while the
    /// connection has one session; with several, [`Stats::streams_unreported`] counts.
    ///
    /// # Errors
    ///
    /// When the session has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe, and independent of [`accept_bi`](Self::accept_bi).
    pub async fn accept_uni(&self) -> Result<RecvStream, SessionError> {
        self.unless_ended(async { Ok(self.inner.uni.take().await) }).await
    }

    /// Waits for a bidirectional stream of the peer's, in the order in which they came. One that the peer breaks
    /// off at once comes as in [`accept_uni`](Self::accept_uni).
    ///
    /// # Errors
    ///
    /// When the session has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe, and independent of [`accept_uni`](Self::accept_uni).
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), SessionError> {
        self.unless_ended(async { Ok(self.inner.bi.take().await) }).await
    }

    /// Waits for a bidirectional stream of the peer's, in the order of their ids: of those that the peer opened at
    /// once, the one that it opened first, whatever order they came in. So a stream waits for what an earlier one of
    /// the connection begins with, but no longer than a second after that was opened.
    ///
    /// # Errors
    ///
    /// When the session has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. What [`accept_bi`](Self::accept_bi) takes meanwhile does not come here.
    pub async fn accept_bi_in_order(&self) -> Result<(SendStream, RecvStream), SessionError> {
        let id = |(_, recv): &(SendStream, RecvStream)| recv.id();
        self.unless_ended(async {
            loop {
                let lowest = self.inner.bi.lowest(id).await;
                self.inner.unread.none_before(lowest, self.inner.opened).await;
                if let Some(streams) = self.inner.bi.take_lowest(id) {
                    return Ok(streams);
                }
            }
        })
        .await
    }

    /// Sends a datagram. It may be lost on the way, and older ones that still wait to be sent are
    /// dropped when too many do.
    ///
    /// # Errors
    ///
    /// When it does not fit, the peer takes none, or the session has ended.
    pub fn send_datagram(&self, payload: Bytes) -> Result<(), DatagramError> {
        let (datagram, size) = (self.datagram(&payload)?, payload.len());
        self.inner.conn.send_datagram(datagram).map_err(|error| self.not_sent(error, size))?;
        self.inner.counters.tally.sent(size);
        self.inner.counters.datagrams_sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Sends a datagram as soon as there is room for it, so that none is dropped on this side. It
    /// may still be lost on the way.
    ///
    /// # Errors
    ///
    /// When it does not fit, the peer takes none, or the session has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, the datagram was not sent.
    pub async fn send_datagram_wait(&self, payload: Bytes) -> Result<(), DatagramError> {
        let datagram = self.datagram(&payload)?;
        let sent = tokio::select! {
            biased;
            sent = self.inner.conn.send_datagram_wait(datagram) => sent,
            closed = self.ended() => return Err(SessionError(closed).into()),
        };
        sent.map_err(|error| self.not_sent(error, payload.len()))?;
        self.inner.counters.tally.sent(payload.len());
        self.inner.counters.datagrams_sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A datagram of this session with its header.
    fn datagram(&self, payload: &Bytes) -> Result<Bytes, SessionError> {
        if let Some(closed) = self.inner.ended() {
            return Err(SessionError(closed));
        }
        let mut datagram = BytesMut::with_capacity(varint::MAX_LEN + payload.len());
        datagram::put_header(self.inner.id, &mut datagram);
        datagram.put_slice(payload);
        Ok(datagram.freeze())
    }

    fn not_sent(&self, error: SendDatagramError, size: usize) -> DatagramError {
        match error {
            SendDatagramError::TooLarge => {
                DatagramError::TooLarge { size, max: self.max_datagram_size().unwrap_or_default() }
            }
            SendDatagramError::ConnectionLost(error) => SessionError(Closed::ConnectionLost(error)).into(),
            SendDatagramError::Unsupported => DatagramError::Unsupported,
        }
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    ///
    /// When the session has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn recv_datagram(&self) -> Result<Bytes, SessionError> {
        self.unless_ended(async { Ok(self.inner.datagrams.take().await) }).await
    }

    /// The longest datagram that fits now, in bytes; `None` when the peer takes none.
    #[must_use]
    pub fn max_datagram_size(&self) -> Option<usize> {
        let max = self.inner.conn.max_datagram_size()?;
        max.checked_sub(datagram::header_len(self.inner.id))
    }

    /// Closes the session; what is still on its streams is lost. The first close counts.
    ///
    /// A reason longer than 1,024 bytes is cut at a character boundary.
    pub fn close(&self, code: u32, reason: &str) {
        self.inner.ask_close(code, reason);
    }

    /// Closes the connection that carries the session, with an HTTP/3 error code
    /// ([RFC 9114 §8.1](https://www.rfc-editor.org/rfc/rfc9114#section-8.1), `0x100` for none) or one of the
    /// application's own, and with a reason for the peer's log.
    ///
    /// Everything on the connection ends at once: this session without a close of its own, all others, and
    /// requests. What was written and has not arrived is lost. The peer's sessions end with
    /// [`Closed::ConnectionLost`], which has the code and the reason, this side's with the same of this side;
    /// browsers reject `closed` with a `WebTransportError` that has neither, so that a page cannot tell it
    /// from a broken network. To end one session with a code that a page sees, use [`close`](Self::close).
    pub fn close_connection(&self, code: u64, reason: &str) {
        self.inner.conn.close(code, reason.as_bytes());
    }

    /// Waits for the end of the session and tells how it came. When this side closed it, that is
    /// when the peer has taken the close, or after 3 s.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn closed(&self) -> Closed {
        let closed = |state: &SessionState| matches!(state, SessionState::Closed(_));
        self.inner.wait(closed).await
    }

    /// Asks the peer to end the session soon (WT_DRAIN_SESSION). Everything keeps working.
    pub fn drain(&self) {
        self.inner.ask_drain();
    }

    /// Waits until the peer asks for the session to be ended soon, or it has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn draining(&self) {
        let mut state = self.inner.state.subscribe();
        // An error would mean that the session is gone, which counts as well.
        let _ = state.wait_for(|state| *state != SessionState::Open { draining: false }).await;
    }

    /// Waits until nothing can be done with the session any more.
    async fn ended(&self) -> Closed {
        self.inner.wait(|state| !matches!(state, SessionState::Open { .. })).await
    }

    /// Runs `work` unless the session ends first.
    async fn unless_ended<T>(
        &self,
        work: impl Future<Output = Result<T, quic::ConnectionError>>,
    ) -> Result<T, SessionError> {
        if let Some(closed) = self.inner.ended() {
            return Err(SessionError(closed));
        }
        let done = tokio::select! {
            biased;
            done = work => done,
            closed = self.ended() => return Err(SessionError(closed)),
        };
        match self.inner.ended() {
            // Both at once: what is done is of no use any more.
            Some(closed) => Err(SessionError(closed)),
            None => done.map_err(|error| SessionError(Closed::ConnectionLost(error))),
        }
    }
}
