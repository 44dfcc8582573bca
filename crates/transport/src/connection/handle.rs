//! A connection's handle.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use h3cast_proto::proxy::{ProxyHeader, Source};
use http::Version;
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use super::{ConnectionEnd, ConnectionStats, TlsInfo, address::canonical};
use crate::{diag, quic};

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// QUIC, for HTTP/3 and WebTransport.
    Quic,
    /// TLS over TCP, for HTTP/2 and HTTP/1.1.
    Tls,
    /// Plain TCP.
    Tcp,
}

/// The connection that a request or session came on. Every request has one in its extensions, over every version
/// of HTTP; a session gives it as [`Session::connection`](crate::webtransport::Session::connection), a client as
/// [`client::Connection::handle`](crate::client::Connection::handle).
///
/// Clones are handles of the same connection. They do not keep it open, and may be kept after its end, when they
/// hold under a kilobyte, and the peer's certificates.
///
/// ```
/// use axum::Extension;
/// use h3cast_transport::ConnectionHandle;
///
/// /// Tells a client how well it is reached.
/// async fn quality(Extension(connection): Extension<ConnectionHandle>) -> String {
///     let stats = connection.stats().await;
///     let (rtt, lost) = (stats.rtt.unwrap_or_default(), stats.lost_packets.unwrap_or_default());
///     format!("{} over {:?}: {rtt:?}, {lost} packets lost\n", connection.remote_address(), connection.protocol())
/// }
/// # let _: axum::Router = axum::Router::new().route("/quality", axum::routing::get(quality));
/// ```
#[derive(Clone)]
pub struct ConnectionHandle {
    inner: Arc<HandleInner>,
    /// The client whose request a trusted proxy forwards, on the handle that this request has.
    client: Option<Arc<SocketAddr>>,
}

struct HandleInner {
    id: u64,
    protocol: Protocol,
    local: Option<SocketAddr>,
    /// What a trusted proxy has sent before anything else.
    announced: Option<ProxyHeader>,
    version: OnceLock<Version>,
    /// Complete when the handshake is.
    tls: OnceLock<TlsInfo>,
    /// The host that a client asked for.
    server_name: Option<String>,
    link: Mutex<Link>,
    /// Over TCP, asks the owner to close it. Cancelled at its end.
    closing: CancellationToken,
    closed_with: OnceLock<(u64, String)>,
    ended: SetOnce<ConnectionEnd>,
}

/// What has become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// As far as is known, it is there.
    Open,
    /// This side has closed it.
    Closed,
    /// The other side has ended it, or the network.
    Lost,
}

/// The way to a connection, while there is one.
enum Link {
    Quic(quic::Connection),
    Tcp(SocketAddr),
    Ended { remote: SocketAddr, stats: ConnectionStats },
}

impl ConnectionHandle {
    /// Of a QUIC connection; a client names the server that it asked for.
    pub(super) fn quic(conn: &quic::Connection, server_name: Option<String>) -> Self {
        let version = OnceLock::from(Version::HTTP_3);
        let link = Link::Quic(conn.clone());
        Self::new(Protocol::Quic, conn.local_address(), None, version, OnceLock::new(), server_name, link)
    }

    /// Of a TCP connection, whose handshake is complete.
    pub(super) fn tcp(
        local: Option<SocketAddr>,
        remote: SocketAddr,
        announced: Option<ProxyHeader>,
        tls: Option<TlsInfo>,
    ) -> Self {
        let version = match tls.as_ref().and_then(|tls| tls.alpn.as_deref()) {
            Some(b"h2") => OnceLock::from(Version::HTTP_2),
            _ => OnceLock::new(),
        };
        let protocol = if tls.is_some() { Protocol::Tls } else { Protocol::Tcp };
        let tls = tls.map(OnceLock::from).unwrap_or_default();
        Self::new(protocol, local, announced, version, tls, None, Link::Tcp(remote))
    }

    fn new(
        protocol: Protocol,
        local: Option<SocketAddr>,
        announced: Option<ProxyHeader>,
        version: OnceLock<Version>,
        tls: OnceLock<TlsInfo>,
        server_name: Option<String>,
        link: Link,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let inner = Arc::new(HandleInner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            protocol,
            local,
            announced,
            version,
            tls,
            server_name,
            link: Mutex::new(link),
            closing: CancellationToken::new(),
            closed_with: OnceLock::new(),
            ended: SetOnce::new(),
        });
        Self { inner, client: None }
    }

    fn link(&self) -> std::sync::MutexGuard<'_, Link> {
        self.inner.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for logs. No other connection of this process has the same one.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// What carries it.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.inner.protocol
    }

    /// The version of HTTP. Over TCP it is that of the first request; before one has come, it is known only if
    /// TLS has chosen HTTP/2.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.inner.version.get().copied()
    }

    /// The client's address (on a client, the server's), which is known to be its own once the handshake is complete.
    /// QUIC connections move between networks
    /// ([RFC 9000 §9](https://www.rfc-editor.org/rfc/rfc9000#section-9)); the port follows, as behind a NAT, and the
    /// address stays the one where the connection began: a client could forge another, see
    /// [`current_address`](Self::current_address). After the end, the last one.
    ///
    /// Behind a [trusted proxy](crate::server::ServerBuilder::trust_proxy) it is the one that the proxy states: for
    /// the connection, or for the request whose extensions this handle is from.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.forwarded_client().or_else(|| self.announced_client()).unwrap_or_else(|| self.peer_address())
    }

    /// The address at the other end of the connection: the client's, or that of the last proxy before this server. Of a
    /// QUIC connection that has moved, as for [`remote_address`](Self::remote_address).
    #[must_use]
    pub fn peer_address(&self) -> SocketAddr {
        canonical(match &*self.link() {
            Link::Quic(conn) => conn.proven_address(),
            Link::Tcp(remote) | Link::Ended { remote, .. } => *remote,
        })
    }

    /// Where the last packet came from, for the log: nothing should depend on it. A QUIC client that has moved may have
    /// forged it, until it has shown that it receives there, and the engine does not tell when it has
    /// ([RFC 9000 §9.3](https://www.rfc-editor.org/rfc/rfc9000#section-9.3)).
    #[must_use]
    pub fn current_address(&self) -> SocketAddr {
        canonical(match &*self.link() {
            Link::Quic(conn) => conn.remote_address(),
            Link::Tcp(remote) | Link::Ended { remote, .. } => *remote,
        })
    }

    /// What a trusted proxy has sent before anything else.
    pub(crate) fn announced(&self) -> Option<&ProxyHeader> {
        self.inner.announced.as_ref()
    }

    /// The client's address that it has stated so.
    pub(crate) fn announced_client(&self) -> Option<SocketAddr> {
        match self.inner.announced?.source {
            Source::Address(at) => Some(canonical(at)),
            Source::Proxy | Source::Unknown => None,
        }
    }

    /// The client whose request a trusted proxy forwards.
    pub(crate) fn forwarded_client(&self) -> Option<SocketAddr> {
        self.client.as_deref().copied()
    }

    /// The handle that a request of this client has.
    pub(crate) fn of_client(&self, client: SocketAddr) -> Self {
        Self { inner: self.inner.clone(), client: Some(Arc::new(client)) }
    }

    /// This side's address, to which the client connected, where the system tells. A client that is not bound to
    /// one address sees the unspecified one (`0.0.0.0` or `::`).
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.inner.local
    }

    /// What TLS has agreed on; `None` over plain TCP.
    ///
    /// While a QUIC handshake is not complete, as for a request in [early data](crate::EarlyData), the peer's
    /// certificates may be missing.
    #[must_use]
    pub fn tls(&self) -> Option<TlsInfo> {
        if let Some(tls) = self.inner.tls.get() {
            return Some(tls.clone());
        }
        match &*self.link() {
            Link::Quic(conn) => Some(TlsInfo::of_quic(conn, self.inner.server_name.as_deref())),
            Link::Tcp(_) | Link::Ended { .. } => None,
        }
    }

    /// How well it works, and what it has carried so far. After the end, what QUIC had counted by then.
    ///
    /// Over QUIC this does not wait; over TCP it asks the system, which takes some 20 µs on Linux.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn stats(&self) -> ConnectionStats {
        let remote = match &*self.link() {
            Link::Quic(conn) => return conn.path().into(),
            Link::Ended { stats, .. } => return *stats,
            Link::Tcp(remote) => *remote,
        };
        diag::info(self.inner.local, remote).await.map(ConnectionStats::from).unwrap_or_default()
    }

    /// Closes the connection at once, with all its requests and sessions. Does nothing when it has ended.
    ///
    /// Over QUIC the peer receives `code` and `reason` (CONNECTION_CLOSE,
    /// [RFC 9000 §10.2](https://www.rfc-editor.org/rfc/rfc9000#section-10.2)). HTTP/3 has codes of its own
    /// ([`http3::code`](h3cast_proto::code); H3_NO_ERROR is 0x100), which clients understand best; codes end at
    /// 2^62 - 1. The reason is cut to fit into one packet. What was written and has not left is dropped.
    ///
    /// TCP has neither: a client of HTTP/2 gets GOAWAY without them, one of HTTP/1.1 sees the end of the
    /// connection, and no response that is cut looks complete. One that takes nothing more sees a reset: what was
    /// written for it would stay in the system for minutes. [`closed`](Self::closed) reports code and reason on
    /// this side.
    pub fn close(&self, code: u64, reason: &str) {
        let conn = match &*self.link() {
            Link::Quic(conn) => Some(conn.clone()),
            Link::Tcp(_) => None,
            Link::Ended { .. } => return,
        };
        match conn {
            Some(conn) => conn.close(code, reason.as_bytes()),
            None => {
                // The first one counts.
                let _ = self.inner.closed_with.set((code, reason.to_owned()));
                self.inner.closing.cancel();
            }
        }
    }

    /// Waits until the connection has ended, and reports how.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn closed(&self) -> ConnectionEnd {
        self.inner.ended.wait().await.clone()
    }

    /// How the connection ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<ConnectionEnd> {
        self.inner.ended.get().cloned()
    }

    /// Cancelled when the connection is to be closed, and at its end.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.inner.closing
    }

    /// The version of HTTP that its requests have.
    pub(crate) fn speaks(&self, version: Version) {
        if self.inner.version.get().is_none() {
            let _ = self.inner.version.set(version);
        }
    }

    /// Remembers what TLS has agreed on, now that its handshake is complete.
    pub(super) fn handshaken(&self) {
        if let Link::Quic(conn) = &*self.link() {
            self.inner.tls.get_or_init(|| TlsInfo::of_quic(conn, self.inner.server_name.as_deref()));
        }
    }

    /// Whether [`close`](Self::close) was called, of a connection over TCP.
    pub(crate) fn is_closed(&self) -> bool {
        self.inner.closed_with.get().is_some()
    }

    /// Whether it is there, or which side has ended it.
    pub(crate) fn standing(&self) -> Standing {
        let by_this_side = match &*self.link() {
            Link::Quic(conn) => match conn.close_reason() {
                None => return Standing::Open,
                Some(lost) => lost == quic::ConnectionError::LocallyClosed,
            },
            Link::Tcp(_) if self.is_closed() => true,
            Link::Tcp(_) => return Standing::Open,
            Link::Ended { .. } => match self.inner.ended.get() {
                Some(end) => matches!(end, ConnectionEnd::Closed { by_peer: false, .. }),
                None => self.is_closed(),
            },
        };
        if by_this_side { Standing::Closed } else { Standing::Lost }
    }

    /// What it was closed with by this side, if it was.
    pub(super) fn closed_with(&self) -> Option<ConnectionEnd> {
        let (code, reason) = self.inner.closed_with.get().cloned()?;
        Some(ConnectionEnd::Closed { code, reason, by_peer: false })
    }

    /// Lets go of the connection, which has ended. The first end counts: whether this is it.
    pub(super) fn finish(&self, end: ConnectionEnd) -> bool {
        let mut link = self.link();
        let last = match &*link {
            Link::Quic(conn) => {
                self.inner.tls.get_or_init(|| TlsInfo::of_quic(conn, self.inner.server_name.as_deref()));
                Link::Ended { remote: conn.proven_address(), stats: conn.path().into() }
            }
            Link::Tcp(remote) => Link::Ended { remote: *remote, stats: ConnectionStats::default() },
            Link::Ended { .. } => return false,
        };
        // Dropped after the lock is.
        let ended = std::mem::replace(&mut *link, last);
        drop(link);
        drop(ended);
        let first = self.inner.ended.set(end).is_ok();
        self.inner.closing.cancel();
        first
    }
}

impl PartialEq for ConnectionHandle {
    fn eq(&self, other: &Self) -> bool {
        self.inner.id == other.inner.id
    }
}

impl Eq for ConnectionHandle {}

impl fmt::Debug for ConnectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionHandle")
            .field("id", &self.inner.id)
            .field("protocol", &self.inner.protocol)
            .field("remote_address", &self.remote_address())
            .field("end", &self.inner.ended.get())
            .finish_non_exhaustive()
    }
}
