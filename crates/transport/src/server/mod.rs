//! The server: bound sockets, one service for every version of HTTP, WebTransport handlers.

mod accept;
mod builder;
mod error;
mod handle;
#[cfg_attr(not(unix), path = "no_handover.rs")]
mod handover;
#[cfg(feature = "webtransport")]
mod sessions;
mod start;
mod tls;

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

#[cfg(not(unix))]
use self::handover::Inherited;
#[cfg(unix)]
pub use self::handover::{Handover, Inherited, InheritedUdp, Line, Offer};
pub use self::{
    builder::ServerBuilder,
    error::{RunError, StartError},
    handle::ServerHandle,
};
use crate::{
    admission::Counters,
    fault,
    identity::Identity,
    listen::Listen,
    panics::{self, Restarts},
    quic,
    service::Context,
    tcp,
};
pub use crate::{
    limits::{BadLimit, Limits},
    listen::{Addresses, DEFAULT_HTTP_PORT, DEFAULT_PORT},
    proxy::{BadProxy, Forwarded, ProxyProtocol, TrustedProxies},
    quic::{BadServerId, ServerId},
    reached::{Advertise, BadAdvertise, Via, base, base_of},
};
/// The body of a request as a service gets it: axum's.
#[doc(no_inline)]
pub use axum_core::body::Body;

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
/// server.serve().await?;
/// # Ok(()) }
/// ```
pub struct Server {
    identity: Identity,
    addresses: Addresses,
    context: Arc<Context>,
    endpoints: Vec<(quic::server::Endpoint, Via)>,
    tcp: Vec<tcp::Listener>,
    grace: Duration,
    handle: ServerHandle,
}

/// How long the last packets may take to leave when the grace time is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Server {
    /// Begins to describe a server with this identity.
    #[must_use]
    pub fn builder(identity: Identity) -> ServerBuilder {
        ServerBuilder::new(identity)
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

    /// What it has admitted and refused.
    #[must_use]
    pub fn admission(&self) -> &Counters {
        self.context.admission.counters()
    }

    /// What changes it while it runs: take it before [`run`](Self::run).
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// By what another server takes over from this one, while it runs. Its sockets are bound until that is dropped.
    ///
    /// # Errors
    ///
    /// If file descriptors have run out.
    #[cfg(unix)]
    pub fn handover(&self) -> std::io::Result<Handover> {
        let relays = self.endpoints.iter().map(|(endpoint, _)| endpoint.relay().clone());
        let tcp = self.tcp.iter().map(tcp::Listener::duplicate).collect::<Result<_, _>>()?;
        Ok(Handover::new(relays.collect(), tcp, self.context.given.clone()))
    }

    /// Serves until the process ends: [`run`](Self::run) without a stop.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    ///
    /// # Cancel safety
    ///
    /// When dropped, everything ends at once.
    pub async fn serve(self) -> Result<(), RunError> {
        self.run(CancellationToken::new()).await
    }

    /// Serves until `stop` is done, whatever it gives, and then as [`run`](Self::run) after its token.
    ///
    /// ```no_run
    /// # async fn doc(server: h3cast_transport::Server) -> Result<(), Box<dyn std::error::Error>> {
    /// server.run_until(tokio::signal::ctrl_c()).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    ///
    /// # Cancel safety
    ///
    /// When dropped, everything ends at once.
    pub async fn run_until<F: Future>(self, stop: F) -> Result<(), RunError> {
        let token = CancellationToken::new();
        let mut running = std::pin::pin!(self.run(token.clone()));
        tokio::select! {
            ended = running.as_mut() => return ended,
            _ = stop => token.cancel(),
        }
        running.await
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
        for listener in self.tcp {
            let serving = tcp::serve(listener, self.context.clone(), stop.clone());
            tasks.spawn(async {
                serving.await;
                Ok(())
            });
        }
        let mut endpoints: Vec<_> = self.endpoints.iter().map(|(endpoint, _)| Some(endpoint.clone())).collect();
        let lost = self.endpoints.iter().enumerate().map(|(at, (endpoint, _))| endpoint.lost().map(move |()| at));
        let mut lost: FuturesUnordered<_> = lost.collect();
        for (endpoint, via) in self.endpoints {
            endpoint.open();
            tasks.spawn(accept::serve(endpoint, self.context.clone(), via, stop.clone()));
        }
        let mut failed = Ok(());
        let all = async {
            loop {
                let ended = tokio::select! {
                    ended = tasks.join_next() => ended,
                    // Its port is free once its connections are closed.
                    Some(at) = lost.next() => {
                        endpoints[at] = None;
                        continue;
                    }
                };
                let Some(ended) = ended else { break };
                let error = match ended {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error,
                    Err(error) => error.into(),
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
            for endpoint in endpoints.into_iter().flatten() {
                endpoint.wait_idle().await;
            }
        };
        // A client that is gone without a word must not hold us.
        let _ = tokio::time::timeout(LAST_WORDS, told).await;
        failed
    }
}
