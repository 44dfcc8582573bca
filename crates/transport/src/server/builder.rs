//! What a server is told before it starts, and its start.

use std::{sync::Arc, time::Duration};

use axum_core::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use super::{Addresses, Advertise, DEFAULT_PORT, PlainHttp, Server, ServerId, StartError, Via, tls};
use crate::{
    connection::{Admit, ConnectionEnd, ConnectionHandle, Hooks, Incoming},
    fault,
    guard::Limits,
    identity::{Identity, IdentityError},
    listen::{Bound, Listen, ListenError, Sockets},
    origin::Origins,
    quic,
    service::{Context, HttpService},
    tcp::{Listener, TlsAcceptor},
    webtransport::Handlers,
};

/// What is bound at each address.
const SOCKETS: Sockets = if cfg!(feature = "tcp") { Sockets::UdpAndTcp } else { Sockets::Udp };

/// Makes a [`Server`].
#[derive(Debug)]
pub struct ServerBuilder {
    identity: Identity,
    listen: Vec<Listen>,
    http: PlainHttp,
    service: HttpService,
    pub(super) handlers: Handlers,
    limits: Limits,
    pub(super) max_sessions: usize,
    pub(super) origins: Origins,
    grace: Duration,
    server_id: Option<ServerId>,
    advertise: Option<Arc<Advertise>>,
    hooks: Hooks,
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
            http: PlainHttp::Off,
            service: BoxCloneSyncService::new(not_found),
            handlers: Handlers::default(),
            limits: Limits { max_field_section_size: 16 * 1024, head_timeout: Duration::from_secs(10) },
            max_sessions: 16,
            origins: Origins::default(),
            grace: Duration::from_secs(5),
            server_id: None,
            advertise: None,
            hooks: Hooks::default(),
        }
    }

    /// Adds an address to listen on. Without any, the server listens on `localhost:4433`.
    #[must_use]
    pub fn listen(mut self, listen: Listen) -> Self {
        self.listen.push(listen);
        self
    }

    /// Where plain HTTP is served, on loopback only. The default is nowhere.
    #[cfg(feature = "tcp")]
    #[must_use]
    pub fn plain_http(mut self, http: PlainHttp) -> Self {
        self.http = http;
        self
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

    /// Decides about each client that wants to connect, over QUIC and TCP alike, before its handshake. Without it
    /// all are accepted.
    ///
    /// The hook runs in the task of that connection, so that it never holds up others that want to connect; like
    /// all that runs on a worker of tokio it must not block. When it panics, that client is refused, and the panic
    /// is logged.
    ///
    /// ```no_run
    /// # use h3cast_transport::{Identity, Server, connection::Admit};
    /// # fn doc(identity: Identity) {
    /// let server = Server::builder(identity).on_accept(|incoming| match incoming.remote_address.ip().is_loopback() {
    ///     true => Admit::Accept,
    ///     false if incoming.validated => Admit::Refuse,
    ///     // Refused when the address is known not to be forged.
    ///     false => Admit::Retry,
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn on_accept(mut self, hook: impl Fn(&Incoming) -> Admit + Send + Sync + 'static) -> Self {
        self.hooks.on_accept(hook);
        self
    }

    /// Looks at each connection when its handshake is complete and before its first request, which waits for that.
    /// The hook refuses a connection by [closing](ConnectionHandle::close) it: nothing of it reaches a handler then.
    ///
    /// With this hook there is no [early data](crate::EarlyData): such requests wait for the handshake as well.
    ///
    /// The hook's future runs in the task of that connection. When it takes longer than 10 s, it is dropped and the
    /// connection closed; when it panics, the connection is closed, and the panic is logged.
    ///
    /// ```no_run
    /// # use h3cast_transport::{ConnectionHandle, Identity, Server, http3::code};
    /// # fn doc(identity: Identity) {
    /// let server = Server::builder(identity).on_connect(async |connection: ConnectionHandle| {
    ///     if connection.tls().is_some_and(|tls| tls.peer_certificates.is_empty()) {
    ///         connection.close(code::H3_REQUEST_REJECTED, "show a certificate");
    ///     }
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn on_connect<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(ConnectionHandle) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.hooks.on_connect(hook);
        self
    }

    /// Is called at the end of each connection whose handshake was complete, once: also of one that
    /// [`on_connect`](Self::on_connect) has closed.
    ///
    /// The hook must not block. When it panics, that is logged.
    #[must_use]
    pub fn on_close(mut self, hook: impl Fn(&ConnectionHandle, &ConnectionEnd) + Send + Sync + 'static) -> Self {
        self.hooks.on_close(hook);
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
            bound.push(listen.bind(SOCKETS, "--listen").await?);
        }
        let (http, http_moved) = bind_http(self.http).await?;
        let http_port = http.as_ref().map(|bound| bound.port);
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
        let tickets = tls::tickets();
        let keys = quic::server::Keys::new(&self.identity.secret(), self.server_id.as_ref());
        let (mut endpoints, mut tcp) = (Vec::new(), Vec::new());
        for bound in bound {
            let via = Via { tls: true, tls_port: bound.port };
            let acceptor =
                TlsAcceptor::from(Arc::new(tls::tls(&self.identity, &bound.host, &[b"h2", b"http/1.1", b"http/1.0"])?));
            let config = quic::server::Config::new(tls::early_tls(&self.identity, &bound.host, tickets.clone())?)?;
            for udp in bound.udp {
                endpoints.push((quic::server::Endpoint::new(udp, &keys, &config)?, via));
            }
            for listener in bound.tcp {
                tcp.push(Listener::new(listener, Some(acceptor.clone()), via)?);
            }
        }
        let via = Via { tls: false, tls_port: first_port };
        for listener in http.into_iter().flat_map(|bound| bound.tcp) {
            tcp.push(Listener::new(listener, None, via)?);
        }
        let context = Context {
            service: self.service,
            handlers: self.handlers,
            limits: self.limits,
            max_sessions: self.max_sessions,
            origins: self.origins,
            plain_port: http_port,
            advertise: self.advertise,
            hooks: self.hooks,
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
