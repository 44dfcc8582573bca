//! What connections of one client share.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{StatusCode, Uri};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::debug;

use super::{
    ClientError, ClientResponse, ConnectError, Connection, ConnectorBuilder, ProtocolError, Refusal, Trust, dial,
    trust::Verifier, url::target,
};
use crate::{
    listen::enlarge_buffers,
    quic::{self, TransportConfig, client::Endpoint},
};

/// Servers of which the address is remembered, with a ticket or without.
const MAX_KNOWN: usize = 256;

/// Where connections to addresses of one family come from.
#[derive(Debug)]
pub(super) enum Local {
    /// Such addresses are not reached.
    None,
    /// A socket with this address, once it is needed.
    At(SocketAddr),
    /// One that was handed in.
    Socket(UdpSocket),
    Open(Endpoint),
}

/// The settings of a client's connections.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) connect_timeout: Duration,
    /// In bytes.
    pub(super) max_field_section_size: u64,
    /// Whether attempts to connect begin again while the server sends nothing.
    pub(super) eager: bool,
}

/// What connections of one client share: whom they trust, their sockets, and the tickets that
/// servers gave for the next time. Clones share them too.
///
/// ```no_run
/// # async fn doc() -> Result<(), h3cast_transport::client::ClientError> {
/// use h3cast_transport::client::{Connector, Trust};
///
/// let uri = "https://localhost:4433/".parse().unwrap();
/// let connector = Connector::new(&Trust::System)?;
/// let (connection, response) = connector.get(&uri).await?;
/// drop((connection, response));
/// // From the second connection on, the request is in the very first packets.
/// let (_connection, mut response) = connector.get(&uri).await?;
/// while let Some(bytes) = response.body.next().await? {
///     println!("{} bytes", bytes.len());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Connector(Arc<ConnectorInner>);

#[derive(Debug)]
struct ConnectorInner {
    config: quic::client::Config,
    /// Knows why a server was refused.
    verifier: Arc<Verifier>,
    /// For IPv4 and IPv6, opened when they are needed.
    local: Mutex<[Local; 2]>,
    settings: Settings,
    /// Where each server was reached last.
    known: Mutex<HashMap<String, SocketAddr>>,
}

impl Connector {
    /// A connector with default settings that trusts these servers.
    ///
    /// # Errors
    ///
    /// If a file of certificates cannot be used.
    pub fn new(trust: &Trust) -> Result<Self, ClientError> {
        Self::builder().trust(trust.clone()).build()
    }

    /// A connector with settings: TLS, QUIC, where to connect from, timeouts.
    #[must_use]
    pub fn builder() -> ConnectorBuilder {
        ConnectorBuilder::default()
    }

    /// One that speaks another protocol (ALPN), or gives other credit.
    #[doc(hidden)]
    pub fn with(trust: &Trust, protocol: &[u8], transport: TransportConfig) -> Result<Self, ClientError> {
        Self::builder().trust(trust.clone()).protocol(protocol).transport(transport).build()
    }

    pub(super) fn of(
        tls: rustls::ClientConfig,
        verifier: Arc<Verifier>,
        transport: TransportConfig,
        local: [Local; 2],
        settings: Settings,
    ) -> Result<Self, ClientError> {
        let config = quic::client::Config::new(tls, transport);
        let config = config.map_err(|error| ProtocolError::Engine(error.into()))?;
        let (local, known) = (Mutex::new(local), Mutex::default());
        Ok(Self(Arc::new(ConnectorInner { config, verifier, local, settings, known })))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Why a server was refused with this cause.
    pub(super) fn refusal(&self, cause: &str) -> Option<Refusal> {
        self.0.verifier.refusal(cause)
    }

    /// Those of the addresses that there is a socket for, or all if that leaves none.
    pub(super) fn reachable(&self, addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let local = lock(&self.0.local);
        let has_socket = |address: &&SocketAddr| !matches!(local[usize::from(address.is_ipv6())], Local::None);
        let reachable: Vec<_> = addresses.iter().filter(has_socket).copied().collect();
        if reachable.is_empty() { addresses } else { reachable }
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
        Connection::over(self.quic(uri).await?, target(uri)?.0, self).await
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
            let connection = Connection::over(conn, host, self).await?;
            let mut response = connection.get(uri).await?;
            if early && response.status == StatusCode::TOO_EARLY {
                // RFC 8470 §5.2: once more. An answer comes after the handshake is complete.
                response = connection.get(uri).await?;
            }
            Ok::<_, ClientError>((connection, response))
        };
        match tokio::time::timeout(self.0.settings.connect_timeout, early).await {
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
        let conn = dial::connect_any(host, port, self).await?;
        let mut known = lock(&self.0.known);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(format!("{host}:{port}"), conn.remote_address());
        drop(known);
        Ok(conn)
    }

    pub(super) fn begin(&self, address: SocketAddr, host: &str) -> Result<quic::client::Connecting, ConnectError> {
        let no_socket = |source: io::Error| ConnectError::Socket { address, source: source.into() };
        let socket = self.socket(address.is_ipv6()).map_err(no_socket)?;
        socket.connect(&self.0.config, address, host).map_err(|source| ConnectError::Begin { address, source })
    }

    fn socket(&self, v6: bool) -> io::Result<Endpoint> {
        let mut local = lock(&self.0.local);
        let local = &mut local[usize::from(v6)];
        let endpoint = match local {
            Local::Open(endpoint) => return Ok(endpoint.clone()),
            Local::None => return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no local address of its kind")),
            Local::At(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::DGRAM, Some(Protocol::UDP))?;
                enlarge_buffers(&socket);
                socket.bind(&(*address).into())?;
                Endpoint::new(socket.into())?
            }
            Local::Socket(socket) => {
                socket.set_nonblocking(true)?;
                Endpoint::new(socket.try_clone()?)?
            }
        };
        // A socket that was handed in is now the endpoint's alone.
        *local = Local::Open(endpoint.clone());
        Ok(endpoint)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
