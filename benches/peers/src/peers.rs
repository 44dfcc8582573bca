//! The peers: one file for each, as small as its library allows.

pub(crate) mod h3;
#[cfg(feature = "http1")]
pub(crate) mod http1;
pub(crate) mod quinn;
#[cfg(feature = "s2n")]
pub(crate) mod s2n;
#[cfg(feature = "salvo")]
pub(crate) mod salvo;
#[cfg(feature = "tokio-quiche")]
pub(crate) mod tokio_quiche;
#[cfg(feature = "web-transport-quinn")]
pub(crate) mod web_transport_quinn;
#[cfg(feature = "wtransport")]
pub(crate) mod wtransport;

use std::{
    io::Write,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use ::quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime, crypto::rustls::QuicServerConfig};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{feed::Feed, tls::Identity};

/// What a UDP socket is asked for: one holds the packets of all viewers, and the system's default
/// (about 200 KiB) loses handshakes when many come at once. h3cast asks for the same.
const UDP_BUFFER: usize = 4 << 20;

/// What every peer is given.
pub(crate) struct Setup {
    pub(crate) listen: SocketAddr,
    pub(crate) feed: Feed,
    pub(crate) identity: Identity,
}

impl Setup {
    pub(crate) fn udp(&self) -> anyhow::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(self.listen), Type::DGRAM, Some(Protocol::UDP))?;
        // The system may give less than is asked for.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        let _ = socket.set_send_buffer_size(UDP_BUFFER);
        socket.set_nonblocking(true)?;
        socket.bind(&self.listen.into())?;
        Ok(socket.into())
    }

    /// For the peers on quinn that take an endpoint. Its transport settings are quinn's defaults:
    /// no example of these peers sets any.
    pub(crate) fn endpoint(&self, tls: rustls::ServerConfig) -> anyhow::Result<Endpoint> {
        let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), self.udp()?, Arc::new(TokioRuntime))?;
        Ok(endpoint)
    }
}

/// Says that clients may come.
pub(crate) fn ready(address: SocketAddr) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "ready {}", address.port())?;
    Ok(out.flush()?)
}
