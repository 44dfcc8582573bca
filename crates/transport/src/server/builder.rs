//! The settings of a server before it starts.

mod hooks;
mod sockets;

use std::{
    fmt,
    net::{TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use axum_core::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use rustls::server::danger::ClientCertVerifier;
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use super::{Advertise, Inherited, PlainHttp, Server, ServerId, StartError, start, tls::Tls};
use crate::{
    admission::{AskRoom, Carrier, Counters, Room},
    connection::Hooks,
    counts::Counts,
    exchange::Exchanges,
    identity::Identity,
    limits::Limits,
    listen::{Listen, Sockets},
    origin::Origins,
    proxy::{ProxyProtocol, TrustedProxies},
    quic::{TransportConfig, Wrap},
    service::HttpService,
    webtransport::Handlers,
};

/// What is bound at each address.
const SOCKETS: Sockets = if cfg!(feature = "tcp") { Sockets::UdpAndTcp } else { Sockets::Udp };

/// The settings of a [`Server`], which [`build`](Self::build) binds.
///
/// ```no_run
/// # #[cfg(feature = "axum")]
/// # async fn doc(identity: h3cast_transport::Identity) -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, routing::get};
/// use h3cast_transport::Server;
///
/// let router = Router::new().route("/", get(async || "hello\n"));
/// let server = Server::builder(identity).listen("localhost:0".parse()?).http_service(router).build().await?;
/// println!("{:?}", server.addresses());
/// server.serve().await?;
/// # Ok(()) }
/// ```
pub struct ServerBuilder {
    pub(super) identity: Identity,
    pub(super) listen: Vec<Listen>,
    /// What is bound at these.
    pub(super) sockets: Sockets,
    pub(super) http: PlainHttp,
    pub(super) redirect: Vec<Listen>,
    pub(super) handed: Handed,
    pub(super) inherited: Option<Inherited>,
    /// What its UDP sockets are wrapped in.
    pub(super) wrap: Option<Wrap>,
    pub(super) seed: Option<[u8; 32]>,
    pub(super) service: HttpService,
    pub(super) handlers: Handlers,
    pub(super) limits: Limits,
    pub(super) counters: Counters,
    pub(super) counts: Counts,
    pub(super) room: AskRoom,
    pub(super) status_paths: Vec<String>,
    pub(super) tls: Tls,
    pub(super) quic: Vec<QuicChange>,
    pub(super) grace: Duration,
    pub(super) server_id: Option<ServerId>,
    pub(super) advertise: Option<Arc<Advertise>>,
    pub(super) hooks: Hooks,
    pub(super) exchanges: Exchanges,
    #[cfg(feature = "qlog")]
    pub(super) qlog: Option<crate::quic::qlog::Qlog>,
    pub(super) origins: Origins,
    pub(super) proxies: TrustedProxies,
    /// Where they begin with the PROXY protocol.
    pub(super) announced: Vec<ProxyProtocol>,
}

type QuicChange = Box<dyn FnOnce(&mut TransportConfig) + Send + Sync>;

/// Sockets that the application has bound.
#[derive(Debug, Default)]
pub(super) struct Handed {
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<TcpListener>,
    pub(super) plain: Vec<TcpListener>,
    pub(super) redirect: Vec<TcpListener>,
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("listen", &self.listen)
            .field("http", &self.http)
            .field("handed", &self.handed)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl ServerBuilder {
    pub(super) fn new(identity: Identity) -> Self {
        let not_found = tower::service_fn(|_: Request<Body>| async {
            let mut response = Response::new(Body::from("not found\n"));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            Ok(response)
        });
        Self {
            identity,
            listen: Vec::new(),
            sockets: SOCKETS,
            http: PlainHttp::Off,
            redirect: Vec::new(),
            handed: Handed::default(),
            inherited: None,
            wrap: None,
            seed: None,
            service: BoxCloneSyncService::new(not_found),
            handlers: Handlers::default(),
            limits: Limits::default(),
            counters: Counters::default(),
            counts: Counts::default(),
            room: AskRoom::default(),
            status_paths: Vec::new(),
            tls: Tls::default(),
            quic: Vec::new(),
            origins: Origins::default(),
            grace: Duration::from_secs(5),
            server_id: None,
            advertise: None,
            hooks: Hooks::default(),
            exchanges: Exchanges::default(),
            #[cfg(feature = "qlog")]
            qlog: None,
            proxies: TrustedProxies::default(),
            announced: Vec::new(),
        }
    }

    /// What answers requests of every version of HTTP: an axum `Router`, or any service.
    ///
    /// It is also asked about every WebTransport session, by a CONNECT without a body (RFC 9220), so that
    /// its layers decide about sessions as well. A route opens one by extracting a [`SessionRequest`].
    ///
    /// [`SessionRequest`]: crate::webtransport::SessionRequest
    #[must_use]
    pub fn http_service<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = std::convert::Infallible>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.service = BoxCloneSyncService::new(service.map_response(|response| response.map(Body::new)));
        self
    }

    /// What one client may cost. Replaces all limits that were set before.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Asks for each new connection whether there is room for it: memory, file descriptors, whatever the application
    /// counts. It is called in the accept loops, so it must not block. The last hook counts.
    ///
    /// ```no_run
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use h3cast_transport::{Identity, Server, admission::{Refusal, Room}};
    ///
    /// static SHORT_OF_MEMORY: AtomicBool = AtomicBool::new(false);
    ///
    /// # fn doc(identity: Identity) {
    /// let server = Server::builder(identity).room(|_| match SHORT_OF_MEMORY.load(Ordering::Relaxed) {
    ///     true => Room::Full(Refusal::Memory),
    ///     false => Room::Plenty,
    /// });
    /// # drop(server);
    /// # }
    /// ```
    #[must_use]
    pub fn room(mut self, ask: impl Fn(Carrier) -> Room + Send + Sync + 'static) -> Self {
        self.room = AskRoom::new(ask);
        self
    }

    /// Paths that show the server's status, as `/healthz`. They are answered over plain HTTP on loopback also when no
    /// connection is admitted any more, by limits or for want of [`room`](Self::room) (other than file descriptors):
    /// 16 connections of each such listener are kept for them, beyond all limits. Other requests on these are answered
    /// with 503 at once, where they would wait otherwise. By default there are none.
    ///
    /// ```no_run
    /// # fn doc(identity: h3cast_transport::Identity) {
    /// let server = h3cast_transport::Server::builder(identity).status_paths(["/healthz", "/metrics"]);
    /// # drop(server);
    /// # }
    /// ```
    #[must_use]
    pub fn status_paths<T: Into<String>>(mut self, paths: impl IntoIterator<Item = T>) -> Self {
        self.status_paths = paths.into_iter().map(Into::into).collect();
        self
    }

    /// What the server will have admitted and refused, for what shows it. The same as
    /// [`Server::admission`](super::Server::admission).
    #[must_use]
    pub fn admission(&self) -> &Counters {
        &self.counters
    }

    /// What the server will have counted of its connections and requests, for what shows it. The same as
    /// [`ServerHandle::counts`](super::ServerHandle::counts).
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Changes the TLS configuration of the listeners: the certificate for each name (`cert_resolver`), a key log,
    /// protocols (ALPN), tickets.
    ///
    /// It is called for each address twice, for QUIC and for TCP; only for QUIC, `alpn_protocols` is `h3` alone.
    /// That one must stay (other protocols are removed from a QUIC listener), as must TLS 1.3 for QUIC, and a
    /// `max_early_data_size` of 0 (no early data) or `u32::MAX`; otherwise the server does not start. An empty
    /// `alpn_protocols` stands for ours, so that the configuration may be replaced altogether.
    ///
    /// ```no_run
    /// # fn doc(identity: h3cast_transport::Identity) {
    /// # use std::sync::Arc;
    /// let server = h3cast_transport::Server::builder(identity)
    ///     // To the file that `SSLKEYLOGFILE` names, for Wireshark.
    ///     .tls(|tls| tls.key_log = Arc::new(rustls::KeyLogFile::new()));
    /// # }
    /// ```
    #[must_use]
    pub fn tls(mut self, change: impl Fn(&mut rustls::ServerConfig) + Send + Sync + 'static) -> Self {
        self.tls.change = Some(match self.tls.change.take() {
            None => Box::new(change),
            Some(before) => Box::new(move |tls| {
                before(tls);
                change(tls);
            }),
        });
        self
    }

    /// Asks clients for certificates (mutual TLS), which `verifier` judges, over QUIC and TCP alike.
    ///
    /// ```no_run
    /// # fn doc(identity: h3cast_transport::Identity, roots: rustls::RootCertStore) -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// use rustls::server::WebPkiClientVerifier;
    ///
    /// let provider = Arc::new(rustls::crypto::ring::default_provider());
    /// let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build()?;
    /// let server = h3cast_transport::Server::builder(identity).client_certificates(verifier);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn client_certificates(mut self, verifier: Arc<dyn ClientCertVerifier>) -> Self {
        self.tls.clients = Some(verifier);
        self
    }

    /// Changes how QUIC connections behave: windows, congestion control, keep-alive, packet sizes. What
    /// [`Limits`] have is set already; the number of streams is theirs alone, since it grows with use.
    ///
    /// ```no_run
    /// # fn doc(identity: h3cast_transport::Identity) {
    /// let server = h3cast_transport::Server::builder(identity).quic(|quic| {
    ///     quic.send_window(8 << 20);
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn quic(mut self, change: impl FnOnce(&mut TransportConfig) + Send + Sync + 'static) -> Self {
        self.quic.push(Box::new(change));
        self
    }

    /// Has what QUIC does on each connection written as qlog, JSON-SEQ
    /// ([draft-ietf-quic-qlog-main-schema](https://datatracker.ietf.org/doc/draft-ietf-quic-qlog-main-schema/)): packets,
    /// losses, round-trip times and congestion windows. `make` gives where, for each connection when it begins, or `None`
    /// for one that is not to be traced. What it gives is called where packets are handled, with whole records, so it must
    /// not block, and is dropped at the connection's end.
    ///
    /// With [`quic`](Self::quic), nothing is traced, and the log says so.
    ///
    /// ```no_run
    /// # fn doc(identity: h3cast_transport::Identity) {
    /// use std::io::Write;
    ///
    /// // In memory, for a test; files are for a thread of their own.
    /// let server = h3cast_transport::Server::builder(identity)
    ///     .qlog(|_connection| Some(Box::new(Vec::new()) as Box<dyn Write + Send + Sync>));
    /// # }
    /// ```
    #[cfg(feature = "qlog")]
    #[must_use]
    pub fn qlog<F>(mut self, make: F) -> Self
    where
        F: Fn(&crate::quic::QlogConnection) -> Option<Box<dyn std::io::Write + Send + Sync>> + Send + Sync + 'static,
    {
        self.qlog = Some(crate::quic::qlog::Qlog::new(make));
        self
    }

    /// How long requests and sessions may continue after the server was told to stop (default 5 s).
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Names this server in its connection ids, for a load balancer that reads them; so can everyone on the
    /// network path. By default they are random, and `None` stands for that.
    #[must_use]
    pub fn server_id(mut self, server: impl Into<Option<ServerId>>) -> Self {
        self.server_id = server.into();
        self
    }

    /// The address that clients are told, in `Alt-Svc` and by the app, where that cannot be seen from what they
    /// use. By default it is the host and port that each client uses, and `None` stands for that.
    #[must_use]
    pub fn advertise(mut self, advertise: impl Into<Option<Advertise>>) -> Self {
        self.advertise = advertise.into().map(Arc::new);
        self
    }

    /// Proxies whose word on their clients is believed: the client's address, whether it uses HTTPS, and what it calls
    /// the server. See [`proxy`](crate::proxy) for how they say so. By default there are none, and fields such as
    /// `X-Forwarded-For` are the application's to ignore.
    ///
    /// What a trusted proxy says must be well-formed, and must not contradict itself: otherwise its request is
    /// answered with 400, and logged.
    ///
    /// ```no_run
    /// # fn doc(identity: h3cast_transport::Identity) -> Result<(), Box<dyn std::error::Error>> {
    /// let server = h3cast_transport::Server::builder(identity).trust_proxy("loopback,10.1.0.0/16".parse()?);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn trust_proxy(mut self, proxies: TrustedProxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Has [trusted proxies](Self::trust_proxy) begin every connection to listeners of this kind with the PROXY
    /// protocol, version 1 or 2, within [`Limits::head_timeout`]. Connections of theirs that do not are closed, and
    /// logged. Other clients connect as before: what they send first is never taken for it.
    ///
    /// ```no_run
    /// # fn doc(identity: h3cast_transport::Identity) -> Result<(), Box<dyn std::error::Error>> {
    /// use h3cast_transport::{Server, proxy::ProxyProtocol};
    ///
    /// let server = Server::builder(identity).trust_proxy("10.1.0.7".parse()?).proxy_protocol(ProxyProtocol::Tls);
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "tcp")]
    #[must_use]
    pub fn proxy_protocol(mut self, listeners: ProxyProtocol) -> Self {
        self.announced.push(listeners);
        self
    }

    /// Looks at the settings alone: whether [`build`](Self::build) would refuse them before it binds a socket.
    ///
    /// # Errors
    ///
    /// When a setting cannot be kept.
    pub fn check(&self) -> Result<(), StartError> {
        self.limits.check()?;
        match !self.announced.is_empty() && self.proxies.is_empty() {
            true => Err(StartError::NoTrustedProxy),
            false => Ok(()),
        }
    }

    /// Binds every socket, then stores a certificate that was only
    /// [planned](Identity::planned). Until [`Server::run`], clients wait.
    ///
    /// # Errors
    ///
    /// When an address cannot be bound, the certificate cannot be used, or a setting cannot be kept; then nothing
    /// is bound.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, nothing stays bound.
    pub async fn build(self) -> Result<Server, StartError> {
        start::start(self).await
    }
}
