//! No TCP: HTTP/3 and WebTransport alone.

use std::{io, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{reached::Via, service::Context};

/// There is none.
pub(crate) enum Listener {}

impl Listener {
    pub(crate) fn new(_: std::net::TcpListener, _: Option<TlsAcceptor>, _: Via, _: bool, _: bool) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn duplicate(&self) -> io::Result<std::net::TcpListener> {
        match *self {}
    }

    pub(crate) fn redirecting(_: std::net::TcpListener, _: Via) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What nobody asks for TLS.
#[derive(Clone)]
pub(crate) struct TlsAcceptor;

impl From<Arc<rustls::ServerConfig>> for TlsAcceptor {
    fn from(_: Arc<rustls::ServerConfig>) -> Self {
        Self
    }
}

pub(crate) async fn serve(listener: Listener, _: Arc<Context>, _: CancellationToken) {
    match listener {}
}
