//! What can be wrong with a certificate.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::PemError;

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// A file, or a text from memory, does not hold what it should.
    #[error("{} holds no {wanted} in PEM form: {reason}", path.display())]
    Pem {
        /// What was looked for.
        wanted: &'static str,
        /// In which file.
        path: PathBuf,
        /// What is wrong.
        reason: PemError,
    },
    /// The key is not that of the certificate.
    #[error("the certificate {} and the key {} do not fit together: {reason}", certificate.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What each of them is.
        reason: String,
    },
    /// The server's certificate is not the first one of its file.
    #[error(
        "{} has its certificates in the wrong order: the key belongs to certificate {position} ({subject}); the server's own certificate comes first, then the one that signed it",
        path.display()
    )]
    Order {
        /// The certificate's file.
        path: PathBuf,
        /// Which one the key belongs to, counted from 1.
        position: usize,
        /// Its subject.
        subject: String,
    },
    /// The certificate or the key is of a kind that TLS cannot use.
    #[error("{} cannot be used: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The folder holds a file that is not of this library's making, where one of its own would be.
    #[error(
        "{} {found}; only what was created here and can be read is replaced, and this file is left alone: choose another folder, move the file away, or use it as a certificate of your own",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was found there, as in `holds an RSA key`.
        found: String,
    },
    /// The folder holds a part of what another program is about to put there.
    #[error("{}: {found}: waiting for the rest", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// What is not complete.
        found: String,
    },
    /// There is no certificate.
    #[error("there is no certificate in {}", dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// A certificate could not be created.
    #[cfg(feature = "self-signed")]
    #[error("cannot create a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

impl IdentityError {
    /// What could not be done with a file, and why.
    pub(super) fn file(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::File { action, path: path.into(), source }
    }
}
