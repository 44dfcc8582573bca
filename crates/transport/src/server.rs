//! The server: bound sockets, one service for every version of HTTP, WebTransport handlers.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt, util::BoxCloneSyncService};
use tracing::{Instrument, debug, debug_span, error, warn};

pub use crate::quic::{BadServerId, ServerId};
use crate::{
    fault,
    guard::Limits,
    http3,
    identity::{Identity, IdentityError, provider},
    listen::{Bound, Listen, ListenError, Sockets},
    panics::{self, Restarts},
    quic,
    service::{self, Context, HttpService},
    tcp,
    webtransport::{Handler, Handlers},
};
pub use crate::{
    listen::{Addresses, DEFAULT_HTTP_PORT, DEFAULT_PORT},
    reached::{Advertise, BadAdvertise, Via, base},
};

/// Why a server could not be started. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// There is no certificate that can be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate cannot be used for TLS.
    #[error("the certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    /// QUIC needs a cipher suite that the certificate's configuration lacks.
    #[error("the certificate cannot be used for QUIC: {0}")]
    Quic(#[from] quic::NoInitialCipherSuite),
    /// A socket that was bound cannot be used.
    #[error("cannot use a socket: {0}")]
    Socket(#[from] std::io::Error),
}

/// Why a server stopped without being asked to.
#[derive(Debug, thiserror::Error)]
#[error("{task} is gone: {reason}")]
pub struct RunError {
    task: String,
    reason: String,
}

/// Where plain HTTP is served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlainHttp {
    /// Nowhere.
    Off,
    /// There, or the server does not start.
    At(Listen),
    /// There, or on any free port when another program listens there.
    Near(Listen),
}

/// Makes a [`Server`].
#[derive(Debug)]
pub struct ServerBuilder {
    identity: Identity,
    listen: Vec<Listen>,
    http: PlainHttp,
    service: HttpService,
    handlers: Handlers,
    limits: Limits,
    max_sessions: usize,
    grace: Duration,
    server_id: Option<ServerId>,
    advertise: Option<Arc<Advertise>>,
}

/// A server whose sockets are bound. It serves while [`run`](Self::run) does.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, routing::get};
/// use h3cast_transport::{Identity, Server};
///
/// let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;
/// let server = Server::builder(identity)
///     .http_service(Router::new().route("/", get(|| async { "hello over any HTTP\n" })))
///     .build()
///     .await?;
/// println!("https://{}/", server.addresses().tls[0]);
/// server.run(Default::default()).await?;
/// # Ok(()) }
/// ```
pub struct Server {
    identity: Identity,
    addresses: Addresses,
    context: Arc<Context>,
    endpoints: Vec<(quic::server::Endpoint, Via)>,
    tcp: Vec<(tokio::net::TcpListener, Option<TlsAcceptor>, Via)>,
    grace: Duration,
}

/// QUIC connections at once; the next is refused.
const MAX_CONNECTIONS: usize = 65_536;

/// Tickets that clients may come again with; each takes up to about 1 KiB.
const MAX_TICKETS: usize = 4096;

/// How long the last packets may take to leave when the grace time is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl ServerBuilder {
    /// Adds an address to listen on. Without any, the server listens on `localhost:4433`.
    #[must_use]
    pub fn listen(mut self, listen: Listen) -> Self {
        self.listen.push(listen);
        self
    }

    /// Where plain HTTP is served, on loopback only. The default is nowhere.
    #[must_use]
    pub fn plain_http(mut self, http: PlainHttp) -> Self {
        self.http = http;
        self
    }

    /// What answers requests of every version of HTTP: an axum `Router`, or any service.
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

    /// What answers WebTransport sessions at `path`.
    #[must_use]
    pub fn webtransport(mut self, path: &str, handler: impl Handler) -> Self {
        self.handlers.insert(path, Arc::new(handler));
        self
    }

    /// What answers WebTransport sessions at every other path. Without it they get 404.
    #[must_use]
    pub fn webtransport_fallback(mut self, handler: impl Handler) -> Self {
        self.handlers.set_fallback(Arc::new(handler));
        self
    }

    /// How many WebTransport sessions one connection may have at once (default 16).
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }

    /// How long requests and sessions may go on after the server was told to stop (default 5 s).
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Names this server in its connection ids, for a load balancer that reads them; everybody on the
    /// way can. Without it, they are random.
    #[must_use]
    pub fn server_id(mut self, server: Option<ServerId>) -> Self {
        self.server_id = server;
        self
    }

    /// What clients are told to call this server, in `Alt-Svc` and by the app, where that cannot be seen
    /// from what they use. By default it is the host and port that each client uses.
    #[must_use]
    pub fn advertise(mut self, advertise: Option<Advertise>) -> Self {
        self.advertise = advertise.map(Arc::new);
        self
    }

    /// Binds every socket, then stores a certificate that was only
    /// [planned](Identity::planned). Until [`Server::run`], clients wait.
    ///
    /// # Errors
    ///
    /// When an address cannot be bound or the certificate cannot be used; then none is.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, nothing stays bound.
    pub async fn build(self) -> Result<Server, StartError> {
        let mut listen = self.listen;
        if listen.is_empty() {
            listen.push(Listen::localhost(DEFAULT_PORT));
        }
        let mut bound = Vec::new();
        for listen in &listen {
            bound.push(listen.bind(Sockets::UdpAndTcp, "--listen").await?);
        }
        let (http, http_moved) = bind_http(self.http).await?;
        let first_port = bound.first().map_or(DEFAULT_PORT, |bound| bound.port);
        let addresses = Addresses {
            tls: bound.iter().map(|bound| format!("{}:{}", bound.host, bound.port)).collect(),
            http: http.as_ref().map(|bound| format!("{}:{}", bound.host, bound.port)),
            udp: bound.iter().flat_map(|bound| &bound.udp).filter_map(|udp| udp.local_addr().ok()).collect(),
            http_moved,
        };
        let (identity, hosts) = (self.identity.clone(), hosts(&listen));
        tokio::task::spawn_blocking(move || {
            fault::point("certificate-store");
            identity.commit()?;
            identity.report(&hosts);
            Ok::<_, IdentityError>(())
        })
        .await
        .map_err(std::io::Error::other)??;
        let tickets = rustls::server::ServerSessionMemoryCache::new(MAX_TICKETS);
        let keys = quic::server::Keys::new(&self.identity.secret(), self.server_id.as_ref());
        let (mut endpoints, mut tcp) = (Vec::new(), Vec::new());
        for bound in bound {
            let via = Via { tls: true, tls_port: bound.port };
            let acceptor =
                TlsAcceptor::from(Arc::new(tls(&self.identity, &bound.host, &[b"h2", b"http/1.1", b"http/1.0"])?));
            let config = quic::server::Config::new(early_tls(&self.identity, &bound.host, tickets.clone())?)?;
            for udp in bound.udp {
                endpoints.push((quic::server::Endpoint::new(udp, &keys, &config)?, via));
            }
            for listener in bound.tcp {
                tcp.push((tokio::net::TcpListener::from_std(listener)?, Some(acceptor.clone()), via));
            }
        }
        let via = Via { tls: false, tls_port: first_port };
        for listener in http.into_iter().flat_map(|bound| bound.tcp) {
            tcp.push((tokio::net::TcpListener::from_std(listener)?, None, via));
        }
        let context = Context {
            service: self.service,
            handlers: self.handlers,
            limits: self.limits,
            max_sessions: self.max_sessions,
            advertise: self.advertise,
        };
        Ok(Server { identity: self.identity, addresses, context: Arc::new(context), endpoints, tcp, grace: self.grace })
    }
}

/// The hosts by which clients come: what listens on all addresses has none of its own.
fn hosts(listen: &[Listen]) -> Vec<String> {
    let one = |host: &&str| !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    listen.iter().map(Listen::host).filter(one).map(String::from).collect()
}

async fn bind_http(http: PlainHttp) -> Result<(Option<Bound>, bool), ListenError> {
    let bind = |listen: Listen| async move { listen.bind(Sockets::Tcp, "--http").await };
    match http {
        PlainHttp::Off => Ok((None, false)),
        PlainHttp::At(listen) => Ok((Some(bind(listen).await?), false)),
        PlainHttp::Near(listen) => match bind(listen.clone()).await {
            Err(ListenError::InUse { .. }) => Ok((Some(bind(listen.any_port()).await?), true)),
            other => Ok((Some(other?), false)),
        },
    }
}

/// What a listener at `host` says of itself.
fn tls(identity: &Identity, host: &str, protocols: &[&[u8]]) -> Result<rustls::ServerConfig, rustls::Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(identity.resolver(host));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// The same for QUIC, with early data.
fn early_tls(
    identity: &Identity,
    host: &str,
    tickets: Arc<rustls::server::ServerSessionMemoryCache>,
) -> Result<rustls::ServerConfig, rustls::Error> {
    let mut tls = tls(identity, host, &[b"h3"])?;
    // Each ticket can be used once: rustls keeps them here, in memory, and gives them out
    // no second time, so that a copy of early data is of no use (RFC 8446 §8.1).
    tls.max_early_data_size = u32::MAX;
    // A client comes again with one at a time, and gets a new one with each connection.
    tls.send_tls13_tickets = 1;
    tls.session_storage = tickets;
    Ok(tls)
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Server {
    /// Begins to describe a server with this identity.
    #[must_use]
    pub fn builder(identity: Identity) -> ServerBuilder {
        let not_found = tower::service_fn(|_: Request<Body>| async {
            let mut response = Response::new(Body::from("not found\n"));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            Ok(response)
        });
        ServerBuilder {
            identity,
            listen: Vec::new(),
            http: PlainHttp::Off,
            service: BoxCloneSyncService::new(not_found),
            handlers: Handlers::default(),
            limits: Limits { max_field_section_size: 16 * 1024, head_timeout: Duration::from_secs(10) },
            max_sessions: 16,
            grace: Duration::from_secs(5),
            server_id: None,
            advertise: None,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The identity that it was built with.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Serves until `stop` is cancelled: then accepts no more, tells every client (GOAWAY), lets
    /// requests and sessions end within the grace time, and closes what is left.
    ///
    /// What panics is logged: a request or a connection ends with that, a listener and what renews the
    /// certificate are restarted.
    ///
    /// # Errors
    ///
    /// When a part of the server is gone and cannot be restarted; the rest has been stopped then, as by
    /// `stop`.
    ///
    /// # Cancel safety
    ///
    /// When dropped, everything ends at once.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let stop = stop.child_token();
        let mut tasks = JoinSet::new();
        let (identity, until) = (self.identity.clone(), stop.clone());
        tasks.spawn(async move {
            let mut restarts = Restarts::new("the task that renews the certificate");
            let keeper = || async {
                fault::point("certificate");
                identity.keep_fresh(until.clone()).await;
            };
            while restarts.after(panics::caught_async(keeper()).await, &until).await {}
            Ok(())
        });
        for (listener, tls, via) in self.tcp {
            let serving = tcp::serve(listener, tls, self.context.clone(), via, stop.clone());
            tasks.spawn(async {
                serving.await;
                Ok(())
            });
        }
        let endpoints: Vec<_> = self.endpoints.iter().map(|(endpoint, _)| endpoint.clone()).collect();
        for (endpoint, via) in self.endpoints {
            tasks.spawn(serve_quic(endpoint, self.context.clone(), via, stop.clone()));
        }
        let mut failed = Ok(());
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                let error = match ended {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error,
                    Err(error) => RunError { task: "a task of the server".into(), reason: error.to_string() },
                };
                error!("{error}: stopping");
                failed = Err(error);
                stop.cancel();
            }
        };
        let deadline = async {
            stop.cancelled().await;
            tokio::time::sleep(self.grace).await;
        };
        tokio::select! {
            () = all => {}
            () = deadline => debug!("the grace time is over"),
        }
        // Dropping the tasks ends what is left, and tells the clients; that must still leave, as what was said last.
        tasks.shutdown().await;
        let told = async {
            for endpoint in endpoints {
                endpoint.wait_idle().await;
            }
        };
        // A client that is gone without a word must not hold us.
        let _ = tokio::time::timeout(LAST_WORDS, told).await;
        failed
    }
}

/// Serves one UDP socket until `stop`, and then what it carries to its end.
async fn serve_quic(
    endpoint: quic::server::Endpoint,
    context: Arc<Context>,
    via: Via,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let _close = CloseOnDrop(endpoint.clone());
    let task = match endpoint.local_addr() {
        Ok(address) => format!("the QUIC listener at {address}"),
        Err(_) => "a QUIC listener".to_owned(),
    };
    // Those that are there stay when the loop is restarted.
    let mut connections = JoinSet::new();
    let mut restarts = Restarts::new(task.as_str());
    loop {
        let accepting = accept_quic(&endpoint, &mut connections, &context, via, &stop);
        if !restarts.after(panics::caught_async(accepting).await, &stop).await {
            break;
        }
    }
    if !stop.is_cancelled() {
        // The engine's task that reads the socket; its reason is in the log.
        return Err(RunError { task, reason: "its socket cannot be read any more".into() });
    }
    endpoint.refuse_new();
    while let Some(ended) = connections.join_next().await {
        panics::report("the task of a QUIC connection", ended);
    }
    Ok(())
}

/// Accepts connections until `stop`, or until the endpoint has none to give any more.
async fn accept_quic(
    endpoint: &quic::server::Endpoint,
    connections: &mut JoinSet<()>,
    context: &Arc<Context>,
    via: Via,
    stop: &CancellationToken,
) {
    loop {
        let incoming = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(ended) = connections.join_next() => {
                panics::report("the task of a QUIC connection", ended);
                continue;
            }
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        fault::point("quic-accept");
        if endpoint.open_connections() >= MAX_CONNECTIONS {
            warn!("refusing a connection: there are {MAX_CONNECTIONS} already");
            incoming.refuse();
            continue;
        }
        let (context, stop) = (context.clone(), stop.clone());
        let span = debug_span!("connection", remote = %incoming.remote_address());
        connections.spawn(connect(incoming, context, via, stop).instrument(span));
    }
}

/// Serves a connection, not only when its handshake is complete: what the client sends with its first
/// packets is answered at once, and our SETTINGS leave with our own first packets.
async fn connect(incoming: quic::server::Incoming, context: Arc<Context>, via: Via, stop: CancellationToken) {
    let begun = tokio::select! {
        biased;
        begun = incoming.begin() => begun,
        () = service::overdue(&stop) => return debug!("a client's first words took too long"),
    };
    match begun {
        Ok((conn, handshake)) => http3::server::serve(conn, handshake, context, via, stop).await,
        Err(error) => debug!(%error, "QUIC handshake failed"),
    }
}

/// Tells the clients of an endpoint when its task is dropped before its time.
struct CloseOnDrop(quic::server::Endpoint);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(http3::code::H3_NO_ERROR, b"the server has stopped");
    }
}
