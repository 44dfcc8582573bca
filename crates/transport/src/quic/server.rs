//! The server's end: a UDP socket that accepts connections.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
};

use futures_util::FutureExt;
use quinn::crypto::rustls::QuicServerConfig;

use super::{
    Connection, ConnectionError, Loss, NoInitialCipherSuite, ServerId, TransportConfig, receive_window,
    relay::{Owner, Relay},
    reset,
    routing::Ids,
    runtime::{Failure, Runtime, Wrap},
    varint,
};
use crate::crypto::rand::{SecureRandom, SystemRandom};

/// Connections whose first packet waits until we accept or refuse it. The packets of further ones are dropped; their
/// clients send them again. It is a fraction of a second's worth in a flood.
const MAX_INCOMING: usize = 1024;
/// What is kept of the packets that follow such a first one, in bytes for each and for all: early data, for the
/// moment until the connection is accepted.
const INCOMING_BUFFER: u64 = 64 << 10;
const INCOMING_BUFFERS: u64 = 4 << 20;

/// How connections begin: TLS, and what each may cost.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    engine: quinn::ServerConfig,
    /// What a peer may send on a connection before it is read, in bytes; 0 where that is not known.
    window: u64,
}

impl Config {
    pub(crate) fn new(
        tls: rustls::ServerConfig,
        transport: Arc<TransportConfig>,
    ) -> Result<Self, NoInitialCipherSuite> {
        let window = receive_window(&transport).unwrap_or(0);
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config
            .transport_config(transport)
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFERS);
        Ok(Self { engine: config, window })
    }
}

/// How the connections of a socket begin, which may change.
#[derive(Debug, Clone)]
pub(crate) struct Beginning(Arc<RwLock<Arc<quinn::ServerConfig>>>);

impl Beginning {
    fn new(config: quinn::ServerConfig) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    fn now(&self) -> Arc<quinn::ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What each connection may cost that begins from now on.
    pub(crate) fn set_transport(&self, transport: Arc<TransportConfig>) {
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut config = (**now).clone();
        config.transport_config(transport);
        *now = Arc::new(config);
    }
}

/// What the sockets of a server have in common: connection ids, and the key of its stateless resets.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    config: quinn::EndpointConfig,
    ids: Ids,
}

impl Keys {
    /// From a secret that stays over restarts. `others` are the processes that have connections on these sockets.
    pub(crate) fn new<'a>(
        secret: &[u8],
        server: Option<&ServerId>,
        others: impl Iterator<Item = &'a Owner> + Clone,
        seed: Option<[u8; 32]>,
    ) -> Self {
        let mut process = [0];
        // Without randomness there will be no handshake.
        let _ = SystemRandom::new().fill(&mut process);
        let [mut process] = process;
        // There are never 256 of them: each has two descriptors.
        while others.clone().any(|other| other.process() == process) {
            process = process.wrapping_add(1);
        }
        let ids = Ids::new(server.cloned(), reset::secret_of_ids(secret), process);
        let mut config = reset::endpoint(secret, &ids);
        // Without one, of the system's randomness.
        config.rng_seed(seed);
        Self { config, ids }
    }
}

/// A UDP socket that accepts connections.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    engine: quinn::Endpoint,
    address: SocketAddr,
    window: u64,
    beginning: Beginning,
    failure: Failure,
    relay: Arc<Relay>,
}

impl Endpoint {
    /// An endpoint on a socket that is its own; or, with `owners`, that of other processes until it is
    /// [opened](Self::open), and whose connections stay theirs.
    pub(crate) fn new(
        udp: UdpSocket,
        keys: &Keys,
        config: &Config,
        owners: Option<Vec<Owner>>,
        wrap: Option<Wrap>,
    ) -> io::Result<Self> {
        let relay = Arc::new(Relay::new(&udp, keys.ids.clone(), owners)?);
        let runtime = Runtime { relay: Some(relay.clone()), wrap, ..Runtime::default() };
        let failure = runtime.failure.clone();
        let engine = quinn::Endpoint::new(keys.config.clone(), Some(config.engine.clone()), udp, Arc::new(runtime))?;
        let beginning = Beginning::new(config.engine.clone());
        Ok(Self { address: engine.local_addr()?, engine, window: config.window, beginning, failure, relay })
    }

    /// Begins to read a socket that was another process's.
    pub(crate) fn open(&self) {
        self.relay.open();
    }

    /// By what another process may read the socket.
    #[cfg(unix)]
    pub(crate) fn relay(&self) -> &Arc<Relay> {
        &self.relay
    }

    /// Waits until its connections get no packets any more, as the process that read the socket for this one has ended.
    pub(crate) fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let relay = self.relay.clone();
        async move { relay.lost().await }
    }

    /// How its connections begin.
    pub(crate) fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Why the socket can no longer be read. It is reported once.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Waits for a client; `None` when the socket can no longer be read. Cancel-safe.
    pub(crate) async fn accept(&self) -> Option<Incoming> {
        let incoming = self.engine.accept().await?;
        let config = self.beginning.now();
        Some(Incoming { incoming, config, bound: Some(self.address), window: self.window })
    }

    /// Refuses handshakes that begin from now on. If another process reads the socket, those that wait to be accepted
    /// are left to it: their clients send their first packets again.
    pub(crate) fn refuse_new(&self) {
        if self.relay.is_given() {
            while let Some(Some(incoming)) = self.engine.accept().now_or_never() {
                incoming.ignore();
            }
        }
        self.engine.set_server_config(None);
    }

    /// Closes every connection.
    pub(crate) fn close(&self, code: u64, reason: &[u8]) {
        self.engine.close(varint(code), reason);
    }

    /// Waits until the clients have learnt that their connections are closed.
    pub(crate) async fn wait_idle(&self) {
        self.engine.wait_idle().await;
    }
}

/// A client whose first packet has come.
#[derive(Debug)]
pub(crate) struct Incoming {
    incoming: quinn::Incoming,
    config: Arc<quinn::ServerConfig>,
    bound: Option<SocketAddr>,
    window: u64,
}

/// Why a connection did not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    /// Its first packet was bad; nothing is left of it.
    #[error(transparent)]
    NotBegun(ConnectionError),
    #[error(transparent)]
    Lost(#[from] ConnectionError),
    /// A server's side can always send.
    #[error("a connection cannot begin before its handshake is complete")]
    TooEarly,
}

impl BeginError {
    /// How it was lost.
    pub(crate) fn loss(&self) -> Loss {
        match self {
            Self::NotBegun(error) | Self::Lost(error) => error.into(),
            Self::TooEarly => Loss::Engine,
        }
    }
}

impl Incoming {
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// The address to which it sent its first packet.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        let bound = self.bound?;
        Some(SocketAddr::new(self.incoming.local_ip().map_or(bound.ip(), |ip| ip.to_canonical()), bound.port()))
    }

    /// Whether it has shown that it receives what is sent to its address.
    pub(crate) fn is_validated(&self) -> bool {
        self.incoming.remote_address_validated()
    }

    /// Has it show that ([RFC 9000 §8.1](https://www.rfc-editor.org/rfc/rfc9000#section-8.1)). Gives it back when
    /// it has been asked before.
    pub(crate) fn retry(self) -> Option<Self> {
        let Self { incoming, config, bound, window } = self;
        incoming.retry().err().map(|error| Self { incoming: error.into_incoming(), config, bound, window })
    }

    /// Leaves it without an answer.
    pub(crate) fn ignore(self) {
        self.incoming.ignore();
    }

    pub(crate) fn refuse(self) {
        self.incoming.refuse();
    }

    /// Has it traced, with settings that are its alone.
    #[cfg(feature = "qlog")]
    pub(crate) fn traced(mut self, qlog: &super::qlog::Qlog, mut settings: TransportConfig) -> Self {
        let id = Some(self.incoming.orig_dst_cid().to_string());
        super::qlog::trace(&mut settings, qlog, &super::QlogConnection { is_server: true, id });
        let mut config = (*self.config).clone();
        config.transport_config(Arc::new(settings));
        self.config = Arc::new(config);
        self
    }

    /// Begins the connection when the client's first words are complete. Its handshake is still to be completed.
    pub(crate) async fn begin(self) -> Result<(Connection, Handshake), BeginError> {
        // Before the engine can have seen the connection move.
        let remote = self.incoming.remote_address();
        let mut connecting = self.incoming.accept_with(self.config).map_err(BeginError::NotBegun)?;
        // The client's first words may take several packets. Before they are all there, nobody knows how many
        // streams it takes, and quinn does not notify those who wait for one.
        connecting.handshake_data().await?;
        let (conn, handshake) = connecting.into_0rtt().map_err(|_| BeginError::TooEarly)?;
        Ok((Connection::with_window(conn, self.bound, remote, self.window), Handshake(handshake)))
    }
}

/// Ends with the handshake, whether it was completed or has failed.
pub(crate) struct Handshake(quinn::ZeroRttAccepted);

impl Future for Handshake {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // On a server's side the answer says whether, and not what of.
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}
