//! What connections of a client may be told before they are opened.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use super::{
    ClientError, Connector, Trust,
    connector::{Local, Settings},
    trust,
};
use crate::quic::{KEEP_ALIVE, TransportConfig, transport};

/// How long the handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest field section accepted from a server, in bytes.
const MAX_FIELD_SECTION: u64 = 64 * 1024;

/// The round trip that an eager client assumes before it has seen one.
const EAGER_RTT: Duration = Duration::from_millis(60);

type Tls = Box<dyn FnOnce(&mut rustls::ClientConfig) + Send>;

/// Settings of a [`Connector`]. Nothing happens before [`build`](Self::build).
///
/// ```no_run
/// # fn doc(chain: Vec<rustls::pki_types::CertificateDer<'static>>, key: rustls::pki_types::PrivateKeyDer<'static>)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use std::{sync::Arc, time::Duration};
///
/// use h3cast_transport::client::{Client, Connector, Trust};
/// use rustls::sign::{CertifiedKey, SingleCertAndKey};
///
/// let connector = Connector::builder()
///     .trust(Trust::pem(&std::fs::read("ca.pem")?)?)
///     .connect_timeout(Duration::from_secs(3))
///     .tls(|tls| {
///         // A certificate of the client's own (mutual TLS), and the secrets for Wireshark.
///         let own = CertifiedKey::from_der(chain, key, tls.crypto_provider()).expect("a matching key");
///         tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(own));
///         tls.key_log = Arc::new(rustls::KeyLogFile::new());
///     })
///     .quic(|quic| {
///         quic.keep_alive_interval(Some(Duration::from_secs(5)));
///     })
///     .build()?;
/// let client = Client::with(connector);
/// # Ok(()) }
/// ```
pub struct ConnectorBuilder {
    trust: Trust,
    protocol: Vec<u8>,
    tls: Vec<Tls>,
    transport: TransportConfig,
    /// Where to connect from; empty for any address.
    local: Vec<(SocketAddr, Local)>,
    settings: Settings,
}

impl fmt::Debug for ConnectorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorBuilder").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Default for ConnectorBuilder {
    fn default() -> Self {
        Self {
            trust: Trust::default(),
            protocol: b"h3".to_vec(),
            tls: Vec::new(),
            transport: transport(Some(KEEP_ALIVE)),
            local: Vec::new(),
            settings: Settings {
                connect_timeout: CONNECT_TIMEOUT,
                max_field_section_size: MAX_FIELD_SECTION,
                eager: false,
            },
        }
    }
}

impl ConnectorBuilder {
    /// Which servers to trust (default: those whose certificate is signed by a CA that the system trusts).
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Changes the TLS configuration, after this library has set it up: certificates of the client's own, key log,
    /// session tickets, cipher suites. [`Trust`] decides which servers are trusted, by the verifier that is set
    /// already. Called again, it changes the result.
    #[must_use]
    pub fn tls(mut self, change: impl FnOnce(&mut rustls::ClientConfig) + Send + 'static) -> Self {
        self.tls.push(Box::new(change));
        self
    }

    /// Changes the settings of the QUIC connections: windows, keep-alive (default: every 12 s), idle timeout
    /// (default: 30 s), congestion control, path MTU discovery. Called again, it changes the result.
    ///
    /// Servers need 3 unidirectional streams for HTTP/3 itself, and sessions need datagrams: allow both. How many
    /// streams a server may open grows with use, to 100 of each kind.
    #[must_use]
    pub fn quic(mut self, change: impl FnOnce(&mut TransportConfig)) -> Self {
        change(&mut self.transport);
        self
    }

    /// The local address to connect from (default: any). It is for servers with addresses of the same family;
    /// others are not reached unless a second call, or [`socket`](Self::socket), gives one of their family.
    /// With port 0 the system chooses one.
    #[must_use]
    pub fn bind(mut self, local: SocketAddr) -> Self {
        self.local.push((local, Local::At(local)));
        self
    }

    /// A bound UDP socket to connect from, as with [`bind`](Self::bind): one with options of its own, or that was
    /// opened with other privileges. All connections share it.
    ///
    /// # Errors
    ///
    /// If the socket has no address.
    pub fn socket(mut self, socket: UdpSocket) -> io::Result<Self> {
        self.local.push((socket.local_addr()?, Local::Socket(socket)));
        Ok(self)
    }

    /// How long connecting may take after the name was resolved (default: 10 s).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// The largest field section (the head of a response, or its trailers) accepted from a server, in bytes as
    /// [RFC 9114 §4.2.2](https://www.rfc-editor.org/rfc/rfc9114#section-4.2.2) counts them (default: 64 KiB).
    #[must_use]
    pub fn max_field_section_size(mut self, bytes: u64) -> Self {
        self.settings.max_field_section_size = bytes;
        self
    }

    /// For a server that may start at any moment.
    pub(super) fn eager(mut self) -> Self {
        // The first packet is sent again after three times that.
        self.transport.initial_rtt(EAGER_RTT);
        self.settings.eager = true;
        self
    }

    /// The protocol (ALPN).
    pub(super) fn protocol(mut self, protocol: &[u8]) -> Self {
        self.protocol = protocol.to_vec();
        self
    }

    /// Other settings of QUIC from the beginning.
    pub(super) fn transport(mut self, transport: TransportConfig) -> Self {
        self.transport = transport;
        self
    }

    /// The connector, which opens its sockets when they are needed.
    ///
    /// # Errors
    ///
    /// If a file of certificates cannot be used, or the TLS configuration does not do for QUIC: it needs TLS 1.3
    /// and the cipher suite `TLS_AES_128_GCM_SHA256`.
    pub fn build(self) -> Result<Connector, ClientError> {
        let (mut tls, verifier) = trust::tls(&self.trust, &self.protocol)?;
        // Used by `Connector::get` alone.
        tls.enable_early_data = true;
        for change in self.tls {
            change(&mut tls);
        }
        let any = [(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
        let mut local = match self.local.is_empty() {
            true => any.map(Local::At),
            false => [Local::None, Local::None],
        };
        for (address, given) in self.local {
            local[usize::from(address.is_ipv6())] = given;
        }
        Connector::of(tls, verifier, self.transport, local, self.settings)
    }
}
