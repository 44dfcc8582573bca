//! What is kept: the account, and each certificate with its key in one file, so that they change together.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use http::Uri;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

use super::order::Failed;
use crate::{
    Identity,
    identity::{Certificate, Fingerprint, IdentityError},
};

/// How long the certificate is valid that stands in for one that is not issued yet: browsers trust it by its hash.
const STAND_IN: std::time::Duration = std::time::Duration::from_secs(13 * 24 * 3600);

/// A folder for one authority.
#[derive(Debug, Clone)]
pub(super) struct Store {
    folder: PathBuf,
    certificate: PathBuf,
}

impl Store {
    pub(super) fn new(folder: &Path, directory: &Uri, names: &[String]) -> Self {
        let authority = directory.authority().map_or("", |authority| authority.as_str());
        // Accounts of one authority may be of several directories.
        let path = directory.path().trim_matches('/').replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_");
        let folder = folder.join(format!("{}-{path}", authority.replace(':', "_")));
        // Each set of names has its own: servers that share the folder may be for different ones.
        let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let first = names.first().map_or("", String::as_str);
        let certificate = folder.join(match sorted.len() {
            0 | 1 => format!("{first}.pem"),
            _ => format!("{first}-{}.pem", &Fingerprint::of(sorted.join(",").as_bytes()).hex()[..12]),
        });
        Self { folder, certificate }
    }

    /// Does something with the files, which blocks.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        does: impl FnOnce(&Self) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failed> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || does(&store)).await.map_err(Failed::local)?
    }

    /// The file of the certificate, its chain and its key.
    pub(super) fn certificate(&self) -> &Path {
        &self.certificate
    }

    pub(super) fn account_file(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    /// Makes the folder, and a certificate that stands in until one is issued. Blocks.
    pub(super) fn prepare(&self, names: &[String]) -> Result<(), IdentityError> {
        let failed =
            |source: io::Error| IdentityError::File { action: "write", path: self.certificate.clone(), source };
        let mut folders = fs::DirBuilder::new();
        folders.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folders, 0o700);
        folders.create(&self.folder).map_err(failed)?;
        if self.certificate.exists() {
            return Ok(());
        }
        let pair = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "h3cast, until a certificate is issued");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = SystemTime::now();
        (params.not_before, params.not_after) = (now.into(), (now + STAND_IN).into());
        let certificate = params.self_signed(&pair)?;
        let pem = pair.serialize_pem() + &certificate.pem();
        write(&self.certificate, pem.as_bytes()).map_err(failed)
    }

    /// Whether a certificate stands in for one that is not issued yet.
    pub(super) fn is_stand_in(&self, certificate: &Certificate) -> bool {
        certificate.is_self_signed()
    }

    pub(super) fn account(&self) -> Result<Option<Vec<u8>>, Failed> {
        match fs::read(self.account_file()) {
            Ok(account) => Ok(Some(account)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failed::local(format!("cannot read {}: {error}", self.account_file().display()))),
        }
    }

    pub(super) fn keep_account(&self, account: &[u8]) -> Result<(), Failed> {
        write(&self.account_file(), account).map_err(|error| cannot_write(&self.account_file(), &error))
    }

    /// Moves an account away that the authority does not know any more.
    pub(super) fn forget_account(&self) -> Result<(), Failed> {
        let file = self.account_file();
        fs::rename(&file, file.with_extension("json.old")).map_err(|error| cannot_write(&file, &error))
    }

    /// The certificate that is kept; `None` if it cannot be read.
    pub(super) fn stored(&self) -> Result<Option<Certificate>, Failed> {
        Ok(Identity::from_pem(&self.certificate, &self.certificate).ok().map(|identity| identity.current()))
    }

    /// Keeps a key and its chain.
    pub(super) fn keep(&self, pem: &str) -> Result<(), Failed> {
        write(&self.certificate, pem.as_bytes()).map_err(|error| cannot_write(&self.certificate, &error))
    }

    /// The lock of whoever orders certificates; `None` if that is another server.
    pub(super) fn lock(&self) -> Result<Option<File>, Failed> {
        let file = self.folder.join(".lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&file);
        let lock = lock.map_err(|error| cannot_write(&file, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(cannot_write(&file, &error)),
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failed {
    Failed::local(format!("cannot write {}: {error}", path.display()))
}

/// Replaces a file as a whole, for its owner only, and durably.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Made for its owner only.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}
