//! Why a server does not start, or stops.

use crate::{identity::IdentityError, listen::ListenError, quic};

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
    pub(super) task: String,
    pub(super) reason: String,
}
