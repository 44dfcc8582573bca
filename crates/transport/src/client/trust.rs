//! Which servers a client trusts.

mod anchors;
mod refusal;
mod verifier;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::pki_types::CertificateDer;

use super::ClientError;
use crate::identity::{Fingerprint, PemError, provider, trusted, trusted_bytes};
use crate::keys;
use anchors::Anchors;
pub use refusal::{Expected, Presented, Reason, Refusal};
pub use verifier::Verifier;

/// Which servers to trust.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Trust {
    /// Those whose certificate is signed by a CA that the system trusts.
    #[default]
    System,
    /// Those whose certificate is in one of these files (PEM or DER), or signed by one that is; and
    /// those that the system trusts. A certificate that is in a file itself may be a CA's, as
    /// `openssl req -x509` creates it.
    Files(Vec<PathBuf>),
    /// The same with the certificates themselves (DER), for what cannot be read again, as a pipe.
    Certificates {
        /// Where they are from, for messages.
        from: PathBuf,
        /// The certificates.
        der: Vec<Vec<u8>>,
    },
    /// What the command line trusts unless it is told otherwise: servers on this machine that left a
    /// [note](crate::note) for this user, those whose certificate is in a folder, and those that
    /// the system trusts. Notes and folder are read again for every [`Connector`](super::Connector).
    Local {
        /// The folder of a server's own certificate. It may be missing.
        certs: Option<PathBuf>,
        /// Whether the folder's certificates are good for any host, and not only for this machine.
        /// Say so only of a folder that the user has named: one that happens to be in the current
        /// folder may have come with files of a stranger.
        anywhere: bool,
    },
    /// Those whose certificate has one of these hashes, as WebTransport in browsers does. Names and
    /// dates are not checked.
    Hashes(Vec<Fingerprint>),
    /// All. Anyone between client and server can read and change everything.
    Anyone,
}

impl Trust {
    /// Trusts as with [`Files`](Self::Files), the certificates in this text (PEM).
    ///
    /// # Errors
    ///
    /// [`ClientError::Certificate`] if it holds none, or one that cannot be read.
    pub fn pem(text: &[u8]) -> Result<Self, ClientError> {
        Self::from_memory(|from| trusted_bytes(from, text.to_vec()))
    }

    /// Trusts as with [`Files`](Self::Files), these certificates (DER).
    ///
    /// # Errors
    ///
    /// [`ClientError::Certificate`] if one of them cannot be read.
    pub fn der(certificates: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, ClientError> {
        Self::from_memory(|from| {
            let read = certificates.into_iter().map(|der| trusted_bytes(from, der)).collect::<Result<Vec<_>, _>>()?;
            Ok(read.concat())
        })
    }

    fn from_memory(
        read: impl FnOnce(&Path) -> Result<Vec<CertificateDer<'static>>, PemError>,
    ) -> Result<Self, ClientError> {
        let path = PathBuf::from("memory");
        match read(&path) {
            Ok(der) => Ok(Self::Certificates { from: path, der: der.iter().map(|one| one.to_vec()).collect() }),
            Err(reason) => Err(ClientError::Certificate { path, reason }),
        }
    }

    /// Trusts as with [`Files`](Self::Files), and reads what is not a regular file, and may be spent then, at once.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// When that holds no certificate.
    pub fn file(file: PathBuf) -> Result<Self, ClientError> {
        if std::fs::metadata(&file).map_or(true, |meta| meta.is_file() || meta.is_dir()) {
            return Ok(Self::Files(vec![file]));
        }
        match trusted(&file) {
            Ok(der) => Ok(Self::Certificates { from: file, der: der.iter().map(|one| one.to_vec()).collect() }),
            Err(reason) => Err(ClientError::Certificate { path: file, reason }),
        }
    }
}

/// The TLS configuration of a client that trusts so, for one protocol (ALPN), and its verifier, which
/// knows why a server was refused.
pub fn tls(trust: &Trust, protocol: &[u8]) -> Result<(rustls::ClientConfig, Arc<Verifier>), ClientError> {
    let verifier = Arc::new(match trust {
        Trust::System => Verifier::of(Anchors::system()),
        Trust::Files(files) => {
            let mut anchors = Anchors::system();
            for file in files {
                anchors.add_file(file)?;
            }
            Verifier::of(anchors)
        }
        Trust::Certificates { from, der } => {
            let mut anchors = Anchors::system();
            anchors.add(from, der.iter().cloned().map(Into::into).collect(), true);
            Verifier::of(anchors)
        }
        Trust::Local { certs, anywhere } => {
            let mut anchors = Anchors::system();
            if let Some(folder) = certs {
                anchors.add_folder(folder, *anywhere)?;
            }
            anchors.add_notes();
            Verifier::of(anchors)
        }
        Trust::Hashes(hashes) => Verifier::pinned(hashes.clone()),
        Trust::Anyone => Verifier::anyone(),
    });
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    keys::apply(&mut config);
    Ok((config, verifier))
}
