//! The folder of the certificates that this program creates: what is in it, and writing to it.
//!
//! - `cert.pem`: first the certificates of `key.pem`, then that of `next-key.pem`, then those before,
//!   as long as they are valid. A client that trusts this file trusts every server that uses the
//!   folder, before, while and after a certificate is replaced.
//! - `key.pem`, `next-key.pem`: the key now, and the one that will take its place.
//! - `.lock`: see [`super::lock`].
//!
//! What was not created here is never written over: keys carry a [mark](MARK), certificates are
//! recognised by what is in them. Files appear whole or not at all, and what another program puts there
//! meanwhile stays: see [`super::part`].

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    access::{self, Access},
    issue,
    part::{self, Part},
};
use crate::identity::{Certificate, IdentityError, key::Key, own::described, pem};

pub(super) const CERTIFICATES: &str = "cert.pem";
pub(super) const KEY: &str = "key.pem";
pub(super) const NEXT_KEY: &str = "next-key.pem";
/// Where earlier versions put the next certificate.
const NEXT_CERTIFICATE: &str = "next-cert.pem";

/// The first line of the files that this program writes. PEM allows text before its blocks.
const MARK: &str = "Created and renewed by h3cast. For a certificate of your own use --cert and --key.\n";
/// What a file has to begin with to be ours.
const MARK_BEGINS: &str = "Created and renewed by h3cast.";

/// How the base64 of every P-256 key begins that is written here (PKCS #8), and that of certificates.
const KEY_BEGINS: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
const CERTIFICATE_BEGINS: &str = "MII";

/// A file of the folder.
#[derive(Debug)]
pub(super) enum FileState<T> {
    Absent,
    /// Ours by its mark, and not complete.
    Broken(Vec<u8>),
    Ours(T, Vec<u8>),
}

impl<T> FileState<T> {
    pub(super) fn value(&self) -> Option<&T> {
        match self {
            Self::Ours(value, _) => Some(value),
            _ => None,
        }
    }

    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Absent => None,
            Self::Broken(bytes) | Self::Ours(_, bytes) => Some(bytes),
        }
    }
}

/// What is in the folder, all of it ours.
#[derive(Debug)]
pub(super) struct FolderContents {
    dir: PathBuf,
    pub(super) certificates: FileState<Vec<Certificate>>,
    pub(super) key: FileState<Key>,
    pub(super) next_key: FileState<Key>,
    /// Of an earlier version, in a file of its own.
    pub(super) next_certificates: Vec<Certificate>,
}

impl FolderContents {
    /// Looks at the folder.
    ///
    /// # Errors
    ///
    /// When there is something that is not ours, or that cannot be read.
    pub(super) fn read(dir: &Path) -> Result<Self, IdentityError> {
        if let Ok(metadata) = fs::metadata(dir)
            && !metadata.is_dir()
        {
            let not_a_folder = io::ErrorKind::NotADirectory;
            return Err(IdentityError::File {
                action: "use the folder",
                path: dir.into(),
                source: not_a_folder.into(),
            });
        }
        let certificates = read_certificates(&dir.join(CERTIFICATES))?;
        // Nothing but what earlier versions left there is of interest.
        let next_certificates = match read_certificates(&dir.join(NEXT_CERTIFICATE)) {
            Ok(FileState::Ours(certificates, _)) => certificates,
            _ => Vec::new(),
        };
        let known: Vec<_> = certificates.value().into_iter().flatten().chain(&next_certificates).cloned().collect();
        Ok(Self {
            key: read_key(&dir.join(KEY), &known)?,
            next_key: read_key(&dir.join(NEXT_KEY), &known)?,
            certificates,
            next_certificates,
            dir: dir.into(),
        })
    }

    /// All certificates, in the order of their files.
    pub(super) fn all(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.value().into_iter().flatten().chain(&self.next_certificates)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The first of the files that are not complete.
    pub(super) fn broken(&self) -> Option<&'static str> {
        match (&self.certificates, &self.key, &self.next_key) {
            (FileState::Broken(_), _, _) => Some(CERTIFICATES),
            (_, FileState::Broken(_), _) => Some(KEY),
            (_, _, FileState::Broken(_)) => Some(NEXT_KEY),
            _ => None,
        }
    }

    /// The first of the files that are not there and should be.
    pub(super) fn missing(&self) -> Option<&'static str> {
        match (&self.certificates, &self.key) {
            (FileState::Absent, _) => Some(CERTIFICATES),
            (_, FileState::Absent) => Some(KEY),
            _ => None,
        }
    }
}

/// The bytes of a file, unless it is something that cannot be ours.
pub(super) fn bytes(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    let foreign = |found: String| IdentityError::Foreign { path: path.into(), found };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(foreign(format!("cannot be read ({error})"))),
        Ok(metadata) if metadata.is_symlink() => {
            let target = fs::read_link(path).unwrap_or_default();
            return Err(foreign(format!("is a symbolic link to {}", target.display())));
        }
        Ok(metadata) if metadata.is_dir() => return Err(foreign("is a folder".into())),
        Ok(metadata) if !metadata.is_file() => return Err(foreign("is not a regular file".into())),
        Ok(_) => {}
    }
    match pem::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        // Removed just now.
        Err(IdentityError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(IdentityError::File { source, .. }) => Err(foreign(format!("cannot be read ({source})"))),
        Err(error) => Err(error),
    }
}

fn is_marked(bytes: &[u8]) -> bool {
    bytes.starts_with(MARK_BEGINS.as_bytes())
}

fn read_certificates(path: &Path) -> Result<FileState<Vec<Certificate>>, IdentityError> {
    bytes(path)?.map_or(Ok(FileState::Absent), |bytes| certificates_in(path, bytes))
}

fn certificates_in(path: &Path, bytes: Vec<u8>) -> Result<FileState<Vec<Certificate>>, IdentityError> {
    let foreign = |found| Err(IdentityError::Foreign { path: path.into(), found });
    match pem::certificates(path, &bytes) {
        Ok(certificates) => match certificates.iter().find(|certificate| !certificate.is_made_here()) {
            Some(other) => foreign(format!("holds {}", described(other))),
            None => Ok(FileState::Ours(certificates, bytes)),
        },
        Err(_) if pem::is_cut(&bytes, MARK, "CERTIFICATE", CERTIFICATE_BEGINS) => Ok(FileState::Broken(bytes)),
        Err(error) => foreign(format!("holds no certificate in PEM form: {}", reason(error))),
    }
}

fn read_key(path: &Path, known: &[Certificate]) -> Result<FileState<Key>, IdentityError> {
    bytes(path)?.map_or(Ok(FileState::Absent), |bytes| key_in(path, bytes, known))
}

/// A key is ours by its mark; earlier versions set none, but theirs has a certificate of ours.
fn key_in(path: &Path, bytes: Vec<u8>, known: &[Certificate]) -> Result<FileState<Key>, IdentityError> {
    let foreign = |found| Err(IdentityError::Foreign { path: path.into(), found });
    match pem::key(path, &bytes) {
        Ok(key) if !key.is_p256() => {
            foreign("holds a private key of another kind than h3cast creates, which is ECDSA P-256".into())
        }
        Ok(key) if is_marked(&bytes) || known.iter().any(|certificate| key.is_of(certificate)) => {
            Ok(FileState::Ours(key, bytes))
        }
        Ok(_) if known.is_empty() => foreign("holds a private key without a certificate that h3cast created".into()),
        Ok(_) => foreign("holds a private key that does not belong to the certificate next to it".into()),
        Err(_) if pem::is_cut(&bytes, MARK, "PRIVATE KEY", KEY_BEGINS) => Ok(FileState::Broken(bytes)),
        Err(error) => foreign(format!("holds no private key in PEM form: {}", reason(error))),
    }
}

fn reason(error: IdentityError) -> String {
    match error {
        IdentityError::Pem { reason, .. } => reason.to_string(),
        IdentityError::Unusable { reason, .. } => reason,
        error => error.to_string(),
    }
}

/// One change of the folder.
#[derive(Debug)]
pub(super) enum FolderStep {
    /// Puts this key in the place of the next.
    NextKey(Key),
    /// Puts these certificates in their file.
    Certificates(Vec<Certificate>),
    /// The next key becomes the key.
    Promote,
    /// Puts a key where there is none.
    Key(Key),
}

/// Why a step was not taken.
#[derive(Debug)]
pub(super) enum StepError {
    /// The folder is not as it was read.
    Changed,
    Failed(IdentityError),
}

impl From<IdentityError> for StepError {
    fn from(error: IdentityError) -> Self {
        Self::Failed(error)
    }
}

impl FolderContents {
    /// Takes a step. When the program dies in the middle of it or between two, what is there is ours
    /// and can be read.
    pub(super) fn take(&mut self, step: &FolderStep) -> Result<(), StepError> {
        match step {
            FolderStep::Certificates(certificates) => {
                let text = format!("{MARK}{}", issue::pem(certificates)).into_bytes();
                self.put(CERTIFICATES, &text, self.access(CERTIFICATES, 0o644, 0o644), self.certificates.bytes())?;
                self.certificates = FileState::Ours(certificates.clone(), text);
                if !self.next_certificates.is_empty() {
                    let path = self.path(NEXT_CERTIFICATE);
                    let _ = part::remove(&path, |found| {
                        matches!(certificates_in(&path, found.into()), Ok(FileState::Ours(..)))
                    });
                }
            }
            FolderStep::NextKey(key) => {
                let text = marked(key)?;
                self.put(NEXT_KEY, &text, self.key_access(), self.next_key.bytes())?;
                self.next_key = FileState::Ours(key.clone(), text);
            }
            FolderStep::Key(key) => {
                let text = marked(key)?;
                self.put(KEY, &text, self.key_access(), self.key.bytes())?;
                self.key = FileState::Ours(key.clone(), text);
            }
            FolderStep::Promote => {
                let FileState::Ours(key, text) = &self.next_key else { return Err(StepError::Changed) };
                // There for as long as the other is: a crash in between loses nothing.
                self.put(KEY, text, self.key_access(), self.key.bytes())?;
                self.key = FileState::Ours(key.clone(), text.clone());
                let path = self.path(NEXT_KEY);
                if let FileState::Ours(_, text) = &self.key {
                    part::remove(&path, |found| found == text).map_err(IdentityError::file("remove", &path))?;
                }
                self.next_key = FileState::Absent;
                sync(&self.dir);
            }
        }
        Ok(())
    }

    /// As the file of that name has it.
    fn access(&self, name: &str, usual: u32, most: u32) -> Access {
        Access::like(&self.path(name), usual, most)
    }

    /// As the owner has set it for the key now: the next one is for the same.
    fn key_access(&self) -> Access {
        self.access(KEY, 0o600, 0o640)
    }

    /// Writes a file whole or not at all, in the place of what was read there.
    fn put(&self, name: &str, text: &[u8], access: Access, expected: Option<&[u8]>) -> Result<(), StepError> {
        let path = self.path(name);
        let failed = IdentityError::file("write", &path);
        let put = Part::write(&self.dir, text, access).and_then(|part| part.put(&path, expected)).map_err(failed)?;
        sync(&self.dir);
        put.then_some(()).ok_or(StepError::Changed)
    }
}

/// A key as it is written.
fn marked(key: &Key) -> Result<Vec<u8>, IdentityError> {
    Ok(format!("{MARK}{}", key.to_pem()?).into_bytes())
}

/// Why a key of the folder may be known to others.
pub(super) fn exposed(dir: &Path) -> Option<String> {
    access::exposed(&[KEY, NEXT_KEY].map(|name| dir.join(name)))
}

/// The files that are looked after.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    [CERTIFICATES, KEY, NEXT_KEY].map(|name| dir.join(name)).into()
}

/// Creates the folder.
pub(super) fn create(dir: &Path, with_parents: bool) -> Result<(), IdentityError> {
    let created = match with_parents {
        true => fs::create_dir_all(dir),
        false => fs::create_dir(dir),
    };
    match created {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(IdentityError::File { action: "create the folder", path: dir.into(), source: error })
        }
        _ => Ok(()),
    }
}

/// The parts that a program that died, or one that is writing, has left.
fn parts(dir: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(part::is_part))
}

pub(super) fn has_parts(dir: &Path) -> bool {
    parts(dir).next().is_some()
}

/// Removes what a program that died left behind: who has the lock, at once. One that died while it exchanged
/// two files may have left its owner's, which stays.
pub(super) fn clean(dir: &Path, now: SystemTime, locked: bool) {
    for entry in parts(dir) {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let old =
            locked || modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > Duration::from_secs(60)));
        if old {
            let path = entry.path();
            let _ = part::remove(&path, |found| {
                MARK.as_bytes().starts_with(found)
                    || certificates_in(&path, found.into()).is_ok()
                    || key_in(&path, found.into(), &[]).is_ok()
            });
        }
    }
}

/// Has the folder's entries written to the disk.
fn sync(dir: &Path) {
    #[cfg(unix)]
    let _ = fs::File::open(dir).and_then(|dir| dir.sync_all());
    #[cfg(not(unix))]
    let _ = dir;
}
