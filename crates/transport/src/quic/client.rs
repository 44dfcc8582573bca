//! The client's end: sockets that open connections.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use quinn::crypto::rustls::QuicClientConfig;

use super::{ConnectError, Connection, ConnectionError, NoInitialCipherSuite, TransportConfig, config::receive_window};

/// How connections begin: TLS, and what each may cost.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    engine: quinn::ClientConfig,
    /// The receive window, so that connections can be [kept alive](Connection::keep_alive).
    window: u64,
}

impl Config {
    pub(crate) fn new(tls: rustls::ClientConfig, transport: TransportConfig) -> Result<Self, NoInitialCipherSuite> {
        let mut engine = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let window = receive_window(&transport).unwrap_or(0);
        engine.transport_config(Arc::new(transport));
        Ok(Self { engine, window })
    }
}

/// A UDP socket that opens connections.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint(quinn::Endpoint);

impl Endpoint {
    pub(crate) fn new(udp: UdpSocket) -> io::Result<Self> {
        let runtime = Arc::new(quinn::TokioRuntime);
        Ok(Self(quinn::Endpoint::new(quinn::EndpointConfig::default(), None, udp, runtime)?))
    }

    pub(crate) fn connect(&self, config: &Config, address: SocketAddr, host: &str) -> Result<Connecting, ConnectError> {
        #[cfg_attr(not(feature = "qlog"), allow(unused_mut, reason = "changed to be traced"))]
        let mut engine = config.engine.clone();
        #[cfg(feature = "qlog")]
        if let Some(transport) = super::qlog::of_client() {
            engine.transport_config(Arc::new(transport));
        }
        let (connecting, bound) = (self.0.connect_with(engine, address, host)?, self.0.local_addr().ok());
        Ok(Connecting { connecting, bound, window: config.window })
    }
}

/// A connection whose handshake has begun. Waiting for it completes it.
#[derive(Debug)]
pub(crate) struct Connecting {
    connecting: quinn::Connecting,
    bound: Option<SocketAddr>,
    window: u64,
}

impl Connecting {
    /// Waits until the server has sent something that the handshake goes on with, or it has failed. After a call that was
    /// dropped the next one returns at once: the engine hands out only once what is waited for.
    pub(crate) async fn heard(&mut self) {
        // Waiting for the connection gives the error.
        let _ = self.connecting.handshake_data().await;
    }

    /// The connection before its handshake is complete, if there is a ticket for it.
    pub(crate) fn early(self) -> Result<Connection, Self> {
        let Self { connecting, bound, window } = self;
        let early = connecting.into_0rtt().map(|(conn, _)| connection(conn, bound, window));
        early.map_err(|connecting| Self { connecting, bound, window })
    }
}

impl Future for Connecting {
    type Output = Result<Connection, ConnectionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (bound, window) = (self.bound, self.window);
        Pin::new(&mut self.connecting).poll(cx).map_ok(|conn| connection(conn, bound, window))
    }
}

fn connection(engine: quinn::Connection, bound: Option<SocketAddr>, window: u64) -> Connection {
    let remote = engine.remote_address();
    Connection::with_window(engine, bound, remote, window)
}

/// The TLS alert that ended a handshake, and the reason that this side gave for it. Alerts travel as QUIC codes
/// 0x100 + alert (RFC 9001 §4.8).
pub(crate) fn alert(error: &ConnectionError) -> Option<(u8, &str)> {
    let ConnectionError::TransportError(error) = error else { return None };
    let alert = u64::from(error.code).checked_sub(0x100)?;
    Some((u8::try_from(alert).ok()?, &error.reason))
}
