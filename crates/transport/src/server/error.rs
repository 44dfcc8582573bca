//! Why a server does not start, or stops.

use std::{io, net::SocketAddr};

use tokio::task::JoinError;

use crate::{identity::IdentityError, limits::BadLimit, listen::ListenError, quic};

/// Why a server could not be started. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The address for plain HTTP cannot be listened on.
    #[error(transparent)]
    PlainHttp(ListenError),
    /// The address where plain HTTP is redirected cannot be listened on.
    #[error(transparent)]
    Redirect(ListenError),
    /// There is no certificate that can be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A limit cannot be kept.
    #[error(transparent)]
    Limits(#[from] BadLimit),
    /// Listeners expect the PROXY protocol, and no proxy is trusted to send it.
    #[error("listeners expect the PROXY protocol, but no proxy is trusted: name those that send it with `trust_proxy`")]
    NoTrustedProxy,
    /// TLS cannot be set up with the certificate, and with what [`tls`](super::ServerBuilder::tls) makes of it.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// [`tls`](super::ServerBuilder::tls) has taken HTTP/3 away from a QUIC listener.
    #[error(
        "`alpn_protocols` of the QUIC listener at {host} lacks `h3`: change it for other listeners only, or add to it"
    )]
    Alpn {
        /// Where it listens.
        host: String,
    },
    /// QUIC needs a cipher suite that the TLS configuration lacks.
    #[error("TLS cannot be used for QUIC")]
    Quic(#[from] quic::NoInitialCipherSuite),
    /// A socket that was bound cannot be used.
    #[error("cannot use a socket")]
    Socket(#[from] io::Error),
    /// The certificate could not be stored: the runtime is shutting down, or that panicked.
    #[error("the certificate was not stored")]
    Task(#[from] JoinError),
}

/// Why a server stopped without being asked to. Everything of it has ended then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A UDP socket can no longer be read.
    #[error("the socket of the QUIC listener at {address} can no longer be read")]
    Socket {
        /// Where it listened.
        address: SocketAddr,
        /// What the system said, if it did.
        source: Option<io::Error>,
    },
    /// A task of the server ended early.
    #[error("a task of the server ended early")]
    Task(#[from] JoinError),
}
