//! A server that runs, as its application may change it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::warn;

use super::{BadLimit, Limits, StartError, TrustedProxies};
use crate::{admission::Counters, counts::Counts, quic, service::Context};

/// A server that runs. Clones are of the same server, and may outlive it.
///
/// ```no_run
/// # async fn doc(identity: h3cast_transport::Identity) -> Result<(), Box<dyn std::error::Error>> {
/// use h3cast_transport::{Limits, Server};
///
/// let server = Server::builder(identity).listen("localhost:0".parse()?).build().await?;
/// let handle = server.handle();
/// tokio::spawn(server.serve());
/// // Later, as when a file of settings has changed:
/// handle.set_limits(Limits::default().requests_per_address(100))?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ServerHandle(Arc<Running>);

struct Running {
    context: Arc<Context>,
    /// How connections begin at each UDP socket.
    beginnings: Vec<quic::server::Beginning>,
    /// Some listeners have proxies that begin with the PROXY protocol.
    announced: bool,
    /// One change at a time.
    changing: Mutex<()>,
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("limits", &self.limits()).finish_non_exhaustive()
    }
}

impl ServerHandle {
    pub(super) fn new(context: Arc<Context>, beginnings: Vec<quic::server::Beginning>, announced: bool) -> Self {
        Self(Arc::new(Running { context, beginnings, announced, changing: Mutex::default() }))
    }

    /// What the server has admitted and refused.
    #[must_use]
    pub fn admission(&self) -> &Counters {
        self.0.context.admission.counters()
    }

    /// What the server has counted of its connections and requests.
    ///
    /// ```no_run
    /// # fn doc(server: &h3cast_transport::Server) {
    /// use h3cast_transport::counts::Protocol;
    ///
    /// let now = server.handle().counts().snapshot();
    /// println!("{} connections of HTTP/3", now.connections(Protocol::Http3));
    /// # }
    /// ```
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.0.context.counts
    }

    /// The limits that hold for clients that come now.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.0.context.limits()
    }

    /// Replaces all limits. What is open stays open, also where there is more of it than may be from now on.
    ///
    /// | limit | applies |
    /// |---|---|
    /// | connections, handshakes, requests and sessions in all and per address, Retry | at once, to whatever comes next, also on connections that are open |
    /// | [`send_timeout`](Limits::send_timeout) | over TCP, to clients that acknowledge nothing: at once; else to new connections |
    /// | everything else: sizes, timeouts, streams, sessions and frames of one connection | to new connections |
    ///
    /// Where [`ServerBuilder::quic`](super::ServerBuilder::quic) has changed QUIC, the
    /// [`idle_timeout`](Limits::idle_timeout) stays as it was at the start.
    ///
    /// # Errors
    ///
    /// When a limit cannot be kept. Then nothing changes.
    pub fn set_limits(&self, mut limits: Limits) -> Result<(), BadLimit> {
        limits.check()?;
        let _one = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.0.context.grows {
            // The engine's own, which goes by what the application has set, must not differ.
            limits.idle_timeout = self.limits().idle_timeout;
        }
        if limits == self.limits() {
            return Ok(());
        }
        for excess in limits.excesses() {
            warn!("{excess}");
        }
        if self.0.context.grows {
            let transport = Arc::new(quic::server_transport(&limits));
            self.0.beginnings.iter().for_each(|beginning| beginning.set_transport(transport.clone()));
        }
        self.0.context.admission.set_limits(limits);
        Ok(())
    }

    /// Replaces the proxies that are trusted ([`ServerBuilder::trust_proxy`](super::ServerBuilder::trust_proxy)), for
    /// requests that come from now on, also on connections that are open.
    ///
    /// # Errors
    ///
    /// When there are none, and [`ServerBuilder::proxy_protocol`](super::ServerBuilder::proxy_protocol) needs some.
    /// Then nothing changes.
    pub fn set_trusted_proxies(&self, proxies: TrustedProxies) -> Result<(), StartError> {
        if self.0.announced && proxies.is_empty() {
            return Err(StartError::NoTrustedProxy);
        }
        *self.0.context.proxies.write().unwrap_or_else(PoisonError::into_inner) = proxies;
        Ok(())
    }
}
