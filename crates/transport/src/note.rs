//! Notes that running servers leave for their own user, so that a client on the same machine finds
//! their certificate from wherever it is started.
//!
//! A note is a file in a folder of the user's ([`folders`]), which only that user may write. It names
//! the server's certificates by their hashes: a client trusts whoever proves to have the key of one
//! of them, on this machine. The server holds a lock on its note for as long as it runs; a note that
//! nobody holds is left by a server that was killed, counts for nothing, and is removed by the next.
//!
//! The library writes none by itself: [`Left::leave`] does.

mod files;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Identity,
    identity::{Certificate, Fingerprint},
    listen::Addresses,
    origin::split_authority,
};
pub use files::folders;

/// What a running server tells its user's clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Note {
    /// The server's process.
    pub pid: u32,
    /// `HOST:PORT` of each listener for TLS.
    pub addresses: Vec<String>,
    /// `HOST:PORT` of plain HTTP.
    pub http: Option<String>,
    /// The file of its certificate.
    pub certificate: PathBuf,
    certificates: BTreeSet<Hashes>,
}

/// A certificate that a server has, or will have next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Hashes {
    sha256: String,
    spki_sha256: String,
    /// Whether it is the one that is served now, to clients of the first address.
    current: bool,
}

impl Note {
    /// What there is to tell of a server.
    #[must_use]
    pub fn of(addresses: &Addresses, identity: &Identity) -> Self {
        let certificate = identity.certificate_path();
        let host =
            addresses.tls.first().and_then(|address| split_authority(address)).map_or("localhost", |(host, _)| host);
        let now = identity.certificate_for(host).hash();
        let hashes = |certificate: &Certificate| Hashes {
            sha256: certificate.hash().hex(),
            spki_sha256: certificate.spki_hash().hex(),
            current: certificate.hash() == now,
        };
        Self {
            pid: std::process::id(),
            addresses: addresses.tls.clone(),
            http: addresses.http.clone(),
            certificate: std::path::absolute(&certificate).unwrap_or(certificate),
            certificates: identity.certificates().iter().map(hashes).collect(),
        }
    }

    /// Whether the server listens at that port.
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        self.addresses.iter().any(|address| split_authority(address).is_some_and(|(_, its)| its == Some(port)))
    }

    /// Whether the server listens there, at this very address.
    #[must_use]
    pub fn has_address(&self, host: &str, port: u16) -> bool {
        let same = |address: &str| split_authority(address) == Some((host, Some(port)));
        self.addresses.iter().any(|address| same(address))
    }

    /// The hashes of its certificates.
    pub fn hashes(&self) -> impl Iterator<Item = Fingerprint> + '_ {
        self.certificates.iter().filter_map(|hashes| Fingerprint::from_hex(&hashes.sha256))
    }

    /// Whether that is one of its certificates.
    #[must_use]
    pub fn names_certificate(&self, hash: &Fingerprint) -> bool {
        self.hashes().any(|its| its == *hash)
    }

    /// The hashes of the certificate that is served now, and of its public key.
    #[must_use]
    pub fn current(&self) -> Option<(Fingerprint, Fingerprint)> {
        let current = self.certificates.iter().find(|hashes| hashes.current)?;
        Some((Fingerprint::from_hex(&current.sha256)?, Fingerprint::from_hex(&current.spki_sha256)?))
    }
}

/// The notes of this user's servers that are running, in no certain order. What cannot be read, or could be
/// another user's, is left out.
#[must_use]
pub fn find() -> Vec<Note> {
    files::found().into_iter().flat_map(|folder| files::running(&folder)).collect()
}

/// A note that was left. It is removed when this is dropped.
#[derive(Debug)]
pub struct Left {
    note: Note,
    path: PathBuf,
    /// Holds the lock.
    file: File,
}

impl Left {
    /// Leaves a note in the first of the user's [`folders`] that can be written, and removes those
    /// that servers which no longer run have left there.
    ///
    /// # Errors
    ///
    /// When there is no such folder.
    pub fn leave(note: Note) -> io::Result<Self> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "this user has no folder for it");
        for folder in folders() {
            match Self::leave_in(&folder, note.clone()) {
                Ok(left) => return Ok(left),
                Err(error) => failed = io::Error::new(error.kind(), format!("{}: {error}", folder.display())),
            }
        }
        Err(failed)
    }

    /// Leaves a note in that folder, which is created if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be created or written, or others than this user may write it.
    pub fn leave_in(folder: &Path, note: Note) -> io::Result<Self> {
        files::prepare(folder)?;
        files::clean(folder);
        let path = folder.join(files::fresh_name());
        let file = files::write(&path, &note)?;
        Ok(Self { note, path, file })
    }

    /// Changes the note, or leaves it again if it is gone: a folder at run time may be removed when its user
    /// logs out. Says whether there was anything to do.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then it stays as it was.
    pub fn update(&mut self, note: Note) -> io::Result<bool> {
        if note == self.note && files::is_same(&self.path, &self.file) {
            return Ok(false);
        }
        match files::write(&self.path, &note) {
            Ok(file) => (self.note, self.file) = (note, file),
            Err(_) => *self = Self::leave(note)?,
        }
        Ok(true)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        // Nothing of another's: its name is of this process alone.
        let _ = std::fs::remove_file(&self.path);
    }
}
