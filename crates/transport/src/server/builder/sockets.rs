//! Where a server listens.

use std::{
    net::{TcpListener, UdpSocket},
    sync::Arc,
};

use super::ServerBuilder;
#[cfg(unix)]
use crate::server::Inherited;
#[cfg(feature = "tcp")]
use crate::server::PlainHttp;
use crate::{
    listen::{Listen, Sockets},
    quic::{Wrap, engine::AsyncUdpSocket},
};

impl ServerBuilder {
    /// Adds an address to listen on. Without any, and without sockets that are handed in, the server listens on
    /// `localhost:4433`.
    #[must_use]
    pub fn listen(mut self, listen: Listen) -> Self {
        self.listen.push(listen);
        self
    }

    /// Binds no TCP listener at the addresses to [`listen`](Self::listen) on: HTTP/3 and WebTransport alone.
    #[must_use]
    pub fn udp_only(mut self) -> Self {
        self.sockets = Sockets::Udp;
        self
    }

    /// Binds no UDP socket at the addresses to [`listen`](Self::listen) on: HTTP/1.1 and HTTP/2 alone, without
    /// `Alt-Svc`.
    #[cfg(feature = "tcp")]
    #[must_use]
    pub fn tcp_only(mut self) -> Self {
        self.sockets = Sockets::Tcp;
        self
    }

    /// Adds a UDP socket that is already bound, for HTTP/3 and WebTransport. Its receive buffer is enlarged.
    ///
    /// Socket activation (systemd's `ListenDatagram=` and `ListenStream=`) and port 443 without privileges work
    /// so. For `Alt-Svc` to name it, a TCP listener must have the same port.
    ///
    /// ```no_run
    /// # async fn doc(identity: h3cast_transport::Identity) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::net::{TcpListener, UdpSocket};
    ///
    /// let server = h3cast_transport::Server::builder(identity)
    ///     .udp_socket(UdpSocket::bind("0.0.0.0:443")?)
    ///     .tcp_listener(TcpListener::bind("0.0.0.0:443")?)
    ///     .build()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn udp_socket(mut self, socket: UdpSocket) -> Self {
        self.handed.udp.push(socket);
        self
    }

    /// Has the packets of every UDP socket pass through what `wrap` makes of it: to count, delay or lose them in a test,
    /// or to carry them in memory. It is called for each socket once it is bound. The last call counts.
    ///
    /// What takes over from this server ([`Server::handover`](crate::server::Server::handover)) gets the bound sockets.
    ///
    /// ```no_run
    /// # fn doc(identity: h3cast_transport::Identity) {
    /// use std::sync::Arc;
    /// use h3cast_transport::quic::engine::AsyncUdpSocket;
    ///
    /// let server = h3cast_transport::Server::builder(identity).wrap_udp(|bound: Arc<dyn AsyncUdpSocket>| {
    ///     // Or an `AsyncUdpSocket` of your own, which may use `bound`.
    ///     bound
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn wrap_udp(
        mut self,
        wrap: impl Fn(Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> + Send + Sync + 'static,
    ) -> Self {
        self.wrap = Some(Wrap::new(wrap));
        self
    }

    /// What the QUIC engine draws at random is the same each time: which packet numbers it skips, above all. For counts that
    /// must repeat, and for nothing else: peers could foresee what they must not.
    #[doc(hidden)]
    #[must_use]
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Adds a TCP listener that is already bound, for HTTP/2 and HTTP/1.1 over TLS.
    #[cfg(feature = "tcp")]
    #[must_use]
    pub fn tcp_listener(mut self, listener: TcpListener) -> Self {
        self.handed.tcp.push(listener);
        self
    }

    /// Adds a TCP listener that is already bound, for [plain HTTP](Self::plain_http), on loopback only.
    #[cfg(feature = "tcp")]
    #[must_use]
    pub fn plain_http_listener(mut self, listener: TcpListener) -> Self {
        self.handed.plain.push(listener);
        self
    }

    /// Where plain HTTP is served, on loopback only. The default is nowhere.
    #[cfg(feature = "tcp")]
    #[must_use]
    pub fn plain_http(mut self, http: PlainHttp) -> Self {
        self.http = http;
        self
    }

    /// Adds an address where plain HTTP from any machine is redirected to HTTPS (308), as in `0.0.0.0:80`. Paths below
    /// `/.well-known/acme-challenge/` are answered by the [service](Self::http_service), so that a certificate
    /// authority can validate a name (RFC 8555 §8.3). By default there is none. Hooks, limits and trusted proxies are
    /// those of every other listener.
    #[cfg(feature = "tcp")]
    #[must_use]
    pub fn redirect_http(mut self, listen: Listen) -> Self {
        self.redirect.push(listen);
        self
    }

    /// Adds a TCP listener that is already bound, where plain HTTP is [redirected to HTTPS](Self::redirect_http).
    ///
    /// ```no_run
    /// # fn doc(identity: h3cast_transport::Identity) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::net::TcpListener;
    ///
    /// let server = h3cast_transport::Server::builder(identity).redirect_listener(TcpListener::bind("0.0.0.0:80")?);
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "tcp")]
    #[must_use]
    pub fn redirect_listener(mut self, listener: TcpListener) -> Self {
        self.handed.redirect.push(listener);
        self
    }

    /// Takes over from another server: uses its sockets for the addresses that it is to listen on, in place of binding
    /// them, and leaves to it the connections that it has. See [`Handover`](crate::server::Handover). Sockets that are not
    /// needed are closed. The server reads and accepts nothing before [`Server::run`](crate::server::Server::run).
    #[cfg(unix)]
    #[must_use]
    pub fn inherit(mut self, inherited: Inherited) -> Self {
        self.inherited = Some(inherited);
        self
    }
}
