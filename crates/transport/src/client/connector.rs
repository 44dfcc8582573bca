//! What connections of one client share, and how they come about.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{StatusCode, Uri};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::debug;

use super::{
    ClientError, ClientResponse, ConnectError, Connection, ProtocolError, Refusal, Trust,
    trust::{self, Verifier},
    url::target,
};
use crate::{
    listen::enlarge_buffers,
    quic::{self, ConnectionError, KEEP_ALIVE, TransportConfig, client::Endpoint, transport},
};

/// How long the handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same when nothing listens on the TCP port of the same number either.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one address is tried before the next one is tried too (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Servers of which the address is remembered, with a ticket or without.
const MAX_KNOWN: usize = 256;

/// What connections of one client share: whom they trust, their sockets, and the tickets that
/// servers gave for the next time. Clones share them too.
#[derive(Debug, Clone)]
pub struct Connector(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: quic::client::Config,
    /// Knows why a server was refused.
    verifier: Arc<Verifier>,
    /// For IPv4 and IPv6, made when they are needed.
    sockets: Mutex<[Option<Endpoint>; 2]>,
    /// Where each server was reached last.
    known: Mutex<HashMap<String, SocketAddr>>,
}

impl Connector {
    /// A client that trusts so.
    ///
    /// # Errors
    ///
    /// When a file of certificates cannot be used.
    pub fn new(trust: &Trust) -> Result<Self, ClientError> {
        Self::with(trust, b"h3", transport(Some(KEEP_ALIVE)))
    }

    /// One that speaks another protocol (ALPN), or gives other credit.
    #[doc(hidden)]
    pub fn with(trust: &Trust, protocol: &[u8], transport: TransportConfig) -> Result<Self, ClientError> {
        let (mut tls, verifier) = trust::tls(trust, protocol)?;
        // Used by `get` alone.
        tls.enable_early_data = true;
        let config = quic::client::Config::new(tls, transport);
        let config = config.map_err(|error| ProtocolError::Engine(error.into()))?;
        Ok(Self(Arc::new(Inner { config, verifier, sockets: Mutex::default(), known: Mutex::default() })))
    }

    /// Connects to the host of `uri`.
    ///
    /// # Errors
    ///
    /// When it cannot be found or reached, or is not trusted.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, no connection stays.
    pub async fn open(&self, uri: &Uri) -> Result<Connection, ClientError> {
        Connection::over(self.quic(uri).await?, target(uri)?.0, self.clone()).await
    }

    /// Connects to the host of `uri` and asks for it. When the server is known from before and has
    /// given a ticket, the request goes with the very first packets
    /// ([RFC 9001 §4.6](https://www.rfc-editor.org/rfc/rfc9001#section-4.6)), one round trip
    /// earlier. What goes so early could be recorded and sent again by others: a GET does no harm
    /// by that, and h3cast's own server takes each ticket once. A server that does not take it, or answers
    /// 425 (Too Early, [RFC 8470 §5.2](https://www.rfc-editor.org/rfc/rfc8470#section-5.2)), gets the request again,
    /// after the handshake.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open) and [`Connection::get`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, no connection stays.
    pub async fn get(&self, uri: &Uri) -> Result<(Connection, ClientResponse), ClientError> {
        if let Some(early) = self.get_early(uri).await {
            return Ok(early);
        }
        let connection = self.open(uri).await?;
        let response = connection.get(uri).await?;
        Ok((connection, response))
    }

    /// `None` when the server is not known, or would not have it.
    async fn get_early(&self, uri: &Uri) -> Option<(Connection, ClientResponse)> {
        let (host, port) = target(uri).ok()?;
        let address = *lock(&self.0.known).get(&format!("{host}:{port}"))?;
        let connecting = self.begin(address, host).ok()?;
        let early = async {
            let (conn, early) = match connecting.early() {
                Ok(conn) => (conn, true),
                // There is no ticket for it; the handshake has begun all the same.
                Err(connecting) => (connecting.await?, false),
            };
            let connection = Connection::over(conn, host, self.clone()).await?;
            let mut response = connection.get(uri).await?;
            if early && response.status == StatusCode::TOO_EARLY {
                // RFC 8470 §5.2: once more. An answer comes after the handshake is complete.
                response = connection.get(uri).await?;
            }
            Ok::<_, ClientError>((connection, response))
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, early).await {
            Ok(Ok(early)) => Some(early),
            Ok(Err(error)) => {
                debug!(%error, "a request in early data was not answered");
                None
            }
            Err(_) => None,
        }
    }

    /// A QUIC connection to the host of `uri`.
    #[doc(hidden)]
    pub async fn quic(&self, uri: &Uri) -> Result<quic::Connection, ClientError> {
        let (host, port) = target(uri)?;
        let conn = connect_any(host, port, self).await?;
        let mut known = lock(&self.0.known);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(format!("{host}:{port}"), conn.remote_address());
        drop(known);
        Ok(conn)
    }

    /// Waits until the end of a connection, which this side has closed, has left.
    pub(super) async fn told(&self, conn: &quic::Connection) {
        conn.closed().await;
        let sockets = lock(&self.0.sockets).clone();
        // Others that share the sockets keep them from being idle; then they keep them open as well.
        for socket in sockets.iter().flatten().filter(|socket| socket.open_connections() <= 1) {
            socket.wait_idle().await;
        }
    }

    fn begin(&self, address: SocketAddr, host: &str) -> Result<quic::client::Connecting, ConnectError> {
        let no_socket = |source: io::Error| ConnectError::Socket { address, source: source.into() };
        let socket = self.socket(address.is_ipv6()).map_err(no_socket)?;
        socket.connect(&self.0.config, address, host).map_err(|source| ConnectError::Begin { address, source })
    }

    fn socket(&self, v6: bool) -> io::Result<Endpoint> {
        let mut sockets = lock(&self.0.sockets);
        let slot = &mut sockets[usize::from(v6)];
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let any = SocketAddr::new(any, 0);
        let socket = Socket::new(Domain::for_address(any), Type::DGRAM, Some(Protocol::UDP))?;
        enlarge_buffers(&socket);
        socket.bind(&any.into())?;
        Ok(slot.insert(Endpoint::new(socket.into())?).clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, ClientError> {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        // As browsers do, whatever the system says (RFC 6761 §6.3): what is trusted on this machine only must
        // not be found on another one.
        let both = [IpAddr::from(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into()];
        return Ok(both.map(|ip| (ip, port).into()).into());
    }
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|source| ClientError::Resolve { host: host.to_owned(), source })?;
    Ok(found.collect())
}

/// Tries the addresses of `host` one after another, each a little later than the one before; the
/// first that answers is taken.
async fn connect_any(host: &str, port: u16, connector: &Connector) -> Result<quic::Connection, ClientError> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let addresses = addresses(host, port).await?;
    let mut attempts: FuturesUnordered<_> = addresses
        .iter()
        .zip(0_u32..)
        .map(|(address, number)| async move {
            tokio::time::sleep(ATTEMPT_DELAY * number).await;
            connect_one(*address, host, connector).await
        })
        .collect();
    let mut reason: Option<Attempt> = None;
    let attempt = async {
        loop {
            let patience = match &reason {
                // An answer was had: the other addresses need not take as long as one that is lost.
                Some(Attempt { untrusted: true, .. }) => REFUSED_TIMEOUT,
                _ => CONNECT_TIMEOUT,
            };
            match tokio::time::timeout(patience, attempts.next()).await.ok()?? {
                Ok(connected) => return Some(connected),
                Err(error) => {
                    debug!(%error.reason, "an attempt to connect failed");
                    // That a server is not trusted is not made good by one that is not there.
                    if !reason.as_ref().is_some_and(|known| known.untrusted) {
                        reason = Some(error);
                    }
                }
            }
        }
    };
    let limit = async {
        match all_refused(&addresses).await {
            true => tokio::time::sleep(REFUSED_TIMEOUT).await,
            false => tokio::time::sleep(CONNECT_TIMEOUT).await,
        }
    };
    let connected = tokio::select! {
        connected = attempt => connected,
        () = limit => None,
    };
    match (connected, reason) {
        (Some(connected), _) => Ok(connected),
        (None, Some(Attempt { refusal: Some(refusal), .. })) => {
            Err(ClientError::Untrusted { authority, refusal: Box::new(refusal.at_port(port)) })
        }
        (None, Some(Attempt { reason, untrusted, .. })) => Err(ClientError::Connect { authority, reason, untrusted }),
        (None, None) => Err(ClientError::Unreachable { authority }),
    }
}

/// Whether nothing listens on TCP either. UDP itself does not say that nobody is there.
async fn all_refused(addresses: &[SocketAddr]) -> bool {
    for address in addresses {
        let connect = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_secs(1), connect).await {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            _ => return false,
        }
    }
    true
}

/// An attempt to connect that failed.
struct Attempt {
    reason: ConnectError,
    untrusted: bool,
    refusal: Option<Refusal>,
}

impl From<ConnectError> for Attempt {
    fn from(reason: ConnectError) -> Self {
        Self { reason, untrusted: false, refusal: None }
    }
}

async fn connect_one(address: SocketAddr, host: &str, connector: &Connector) -> Result<quic::Connection, Attempt> {
    let source: ConnectionError = match connector.begin(address, host)?.await {
        Ok(conn) => return Ok(conn),
        Err(error) => error,
    };
    match quic::client::alert(&source) {
        // Those about certificates, access, and signatures.
        Some((42..=51, cause)) => {
            let refusal = connector.0.verifier.refusal(cause);
            let reason = ConnectError::Certificate { alert: cause.to_owned() };
            Err(Attempt { reason, untrusted: true, refusal })
        }
        _ => Err(ConnectError::Handshake { address, source }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing is asked of the system, whose answer might lead elsewhere.
    #[tokio::test]
    async fn names_of_this_machine_lead_to_this_machine() {
        for host in ["localhost", "LocalHost.", "build.localhost", "a.b.LOCALHOST."] {
            let found = addresses(host, 4433).await.unwrap();
            assert!(found.len() == 2 && found.iter().all(|address| address.ip().is_loopback()), "{host}: {found:?}");
        }
    }
}
