//! What is kept: the account, and each certificate with its key in one file, so that they change together.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use http::Uri;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use tempfile::NamedTempFile;

use super::order::Failed;
use crate::{
    Identity,
    identity::{Certificate, Fingerprint, IdentityError},
};

/// How long the certificate is valid that stands in for one that is not issued yet: browsers trust it by its hash.
const STAND_IN: Duration = Duration::from_secs(13 * 24 * 3600);
/// How long before its end it is replaced. Longer than the longest pause between two attempts.
const STAND_IN_LEFT: Duration = Duration::from_secs(24 * 3600);

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

    /// Creates the folder, and a certificate that stands in until one is issued. Of several servers that do so at once,
    /// one creates it, and none replaces what another was issued. Blocks.
    pub(super) fn prepare(&self, names: &[String]) -> Result<(), IdentityError> {
        let failed =
            |source: io::Error| IdentityError::File { action: "write", path: self.certificate.clone(), source };
        let mut folders = fs::DirBuilder::new();
        folders.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folders, 0o700);
        folders.create(&self.folder).map_err(failed)?;
        let made = match self.certificate.exists() {
            // Whoever holds the lock renews it.
            true => match self.lock() {
                Ok(Some(_lock)) if self.stand_in_ends() => self.stand_in(names, Persist::Replace),
                _ => Ok(()),
            },
            false => self.stand_in(names, Persist::New),
        };
        match made {
            Err(IdentityError::File { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    /// Replaces a certificate that stands in and ends soon.
    pub(super) fn renew_stand_in(&self, names: &[String]) -> Result<(), Failed> {
        match self.stand_in_ends() {
            true => self.stand_in(names, Persist::Replace).map_err(Failed::local),
            false => Ok(()),
        }
    }

    /// Whether what is stored stands in, and ends soon.
    fn stand_in_ends(&self) -> bool {
        let stored = self.stored().ok().flatten();
        let soon = SystemTime::now() + STAND_IN_LEFT;
        stored.is_some_and(|stored| self.is_stand_in(&stored) && stored.not_after() < soon)
    }

    fn stand_in(&self, names: &[String], persist: Persist) -> Result<(), IdentityError> {
        let failed =
            |source: io::Error| IdentityError::File { action: "write", path: self.certificate.clone(), source };
        let pair = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "h3cast, until a certificate is issued");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = SystemTime::now();
        (params.not_before, params.not_after) = (now.into(), (now + STAND_IN).into());
        let certificate = params.self_signed(&pair)?;
        let pem = pair.serialize_pem() + &certificate.pem();
        match persist {
            Persist::Replace => write(&self.certificate, pem.as_bytes()),
            Persist::New => self.write_new(pem.as_bytes()),
        }
        .map_err(failed)
    }

    /// Writes the first certificate, if none is there.
    fn write_new(&self, bytes: &[u8]) -> io::Result<()> {
        match written(&self.certificate, bytes)?.persist_noclobber(&self.certificate) {
            Ok(_) => sync_folder(&self.certificate),
            Err(failed)
                if matches!(failed.error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) =>
            {
                self.place_without_links(failed.file)
            }
            Err(failed) => Err(failed.error),
        }
    }

    /// Puts the first certificate into its place on a volume without hard links, if none is there: others that do the
    /// same wait for the lock.
    fn place_without_links(&self, file: NamedTempFile) -> io::Result<()> {
        let _lock = match self.certificate.exists() {
            true => return Err(io::ErrorKind::AlreadyExists.into()),
            false => {
                let lock = self.lock_file()?;
                lock.lock()?;
                lock
            }
        };
        if self.certificate.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        file.persist(&self.certificate).map_err(|error| error.error)?;
        sync_folder(&self.certificate)
    }

    fn lock_path(&self) -> PathBuf {
        self.folder.join(".lock")
    }

    fn lock_file(&self) -> io::Result<File> {
        File::options().create(true).truncate(false).write(true).open(self.lock_path())
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
        let file = self.lock_path();
        let lock = self.lock_file().map_err(|error| cannot_write(&file, &error))?;
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

/// Whether a file may be there already.
#[derive(Debug, Clone, Copy)]
enum Persist {
    Replace,
    New,
}

/// Replaces a file as a whole, for its owner only, and durably.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    written(path, bytes)?.persist(path).map_err(|error| error.error)?;
    sync_folder(path)
}

/// What is to be that file, in its folder, for its owner only.
fn written(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Makes the name of a file durable.
#[cfg_attr(not(unix), allow(clippy::unnecessary_wraps, unused_variables, reason = "only here it is all"))]
fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedIssuer, IsCa};

    use super::*;

    const NAME: &str = "cast.example";

    fn store(folder: &Path) -> Store {
        Store::new(folder, &Uri::from_static("https://ca.example/directory"), &[NAME.to_owned()])
    }

    /// What is valid for so many hours more, self-signed or of an authority.
    fn ending(hours: u64, issued: bool) -> String {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
        let now = SystemTime::now();
        params.not_after = (now + Duration::from_secs(hours * 3600)).into();
        let certificate = match issued {
            true => {
                let mut root = CertificateParams::new([]).unwrap();
                root.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
                root.distinguished_name.push(DnType::CommonName, "an authority");
                let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
                params.signed_by(&pair, &root).unwrap()
            }
            false => params.self_signed(&pair).unwrap(),
        };
        pair.serialize_pem() + &certificate.pem()
    }

    /// Of two servers that started at once, the second replaced what the first was serving or had been issued.
    #[test]
    fn what_stands_in_replaces_nothing_that_came_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.prepare(&[NAME.to_owned()]).unwrap();
        let before = store.stored().unwrap();
        let again = store.stand_in(&[NAME.to_owned()], Persist::New).unwrap_err();
        assert!(matches!(again, IdentityError::File { source, .. } if source.kind() == io::ErrorKind::AlreadyExists));
        store.prepare(&[NAME.to_owned()]).unwrap();
        assert_eq!(store.stored().unwrap(), before);
    }

    #[test]
    fn without_hard_links_the_first_certificate_stays_too() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        fs::create_dir_all(&store.folder).unwrap();
        let place = |content: &str| {
            let file = written(store.certificate(), content.as_bytes()).unwrap();
            store.place_without_links(file).map_err(|error| error.kind())
        };
        assert_eq!(place("first"), Ok(()));
        assert_eq!(place("second"), Err(io::ErrorKind::AlreadyExists));
        assert_eq!(fs::read_to_string(store.certificate()).unwrap(), "first");
    }

    #[tokio::test]
    async fn a_running_server_replaces_what_stands_in_while_no_authority_answers() {
        let folder = tempfile::tempdir().unwrap();
        let acme = crate::acme::Acme::new(folder.path(), [NAME.to_owned()]).unwrap();
        // Nothing answers at this port.
        let acme = acme.directory(Uri::from_static("https://localhost:1/directory"));
        acme.identity().unwrap();
        let store = acme.store();
        store.keep(&ending(20, false)).map_err(|failed| failed.to_string()).unwrap();
        let identity = Identity::from_pem(store.certificate(), store.certificate()).unwrap();
        let late = identity.current().not_after() + Duration::from_secs(11 * 24 * 3600);
        let replaced = async {
            while store.stored().ok().flatten().is_none_or(|stored| stored.not_after() < late) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            never = acme.keep(&identity) => match never {},
            replaced = tokio::time::timeout(Duration::from_secs(60), replaced) => replaced.unwrap(),
        }
    }

    #[test]
    fn what_stands_in_is_replaced_before_it_ends_and_what_was_issued_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (store, names) = (store(folder.path()), [NAME.to_owned()]);
        let stored = || fs::read_to_string(store.certificate()).unwrap();
        store.prepare(&names).unwrap();
        let first = stored();
        store.prepare(&names).unwrap();
        store.renew_stand_in(&names).unwrap();
        assert_eq!(stored(), first);
        let both: [fn(&Store, &[String]); 2] = [
            |store, names| store.prepare(names).unwrap(),
            |store, names| store.renew_stand_in(names).map_err(|failed| failed.to_string()).unwrap(),
        ];
        for replace in both {
            store.keep(&ending(20, false)).map_err(|failed| failed.to_string()).unwrap();
            replace(&store, &names);
            let left = store.stored().ok().flatten().unwrap().not_after().duration_since(SystemTime::now()).unwrap();
            assert!(left > Duration::from_secs(12 * 24 * 3600), "{left:?}");
            let issued = ending(1, true);
            store.keep(&issued).map_err(|failed| failed.to_string()).unwrap();
            replace(&store, &names);
            assert_eq!(stored(), issued);
        }
    }
}
