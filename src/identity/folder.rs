//! The folder of the certificates that this program creates: what is in it, and writing to it.
//!
//! - `cert.pem`: first the certificates of `key.pem`, then that of `next-key.pem`, then those before,
//!   as long as they are valid. A client that trusts this file trusts every server that uses the
//!   folder, before, while and after a certificate is replaced.
//! - `key.pem`, `next-key.pem`: the key now, and the one that will take its place by a rename.
//! - `.lock`: see [`super::lock`].
//!
//! What was not created here is never written over: keys carry a [mark](MARK), certificates are
//! recognised by what is in them. Files appear whole or not at all.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    Certificate, IdentityError,
    key::{self, Key},
    own::described,
    pem,
};

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
pub(super) enum Slot<T> {
    Absent,
    /// Ours by its mark, and not complete.
    Broken(Vec<u8>),
    Ours(T, Vec<u8>),
}

impl<T> Slot<T> {
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
pub(super) struct Contents {
    dir: PathBuf,
    pub(super) certificates: Slot<Vec<Certificate>>,
    pub(super) key: Slot<Key>,
    pub(super) next_key: Slot<Key>,
    /// Of an earlier version, in a file of its own.
    pub(super) next_certificates: Vec<Certificate>,
}

impl Contents {
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
            Ok(Slot::Ours(certificates, _)) => certificates,
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
            (Slot::Broken(_), _, _) => Some(CERTIFICATES),
            (_, Slot::Broken(_), _) => Some(KEY),
            (_, _, Slot::Broken(_)) => Some(NEXT_KEY),
            _ => None,
        }
    }
}

/// The bytes of a file, unless it is something that cannot be ours.
fn bytes(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
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

fn read_certificates(path: &Path) -> Result<Slot<Vec<Certificate>>, IdentityError> {
    let Some(bytes) = bytes(path)? else { return Ok(Slot::Absent) };
    let foreign = |found| Err(IdentityError::Foreign { path: path.into(), found });
    match pem::certificates(path, &bytes) {
        Ok(certificates) => match certificates.iter().find(|certificate| !certificate.is_made_here()) {
            Some(other) => foreign(format!("holds {}", described(other))),
            None => Ok(Slot::Ours(certificates, bytes)),
        },
        Err(_) if pem::is_cut(&bytes, MARK, "CERTIFICATE", CERTIFICATE_BEGINS) => Ok(Slot::Broken(bytes)),
        Err(error) => foreign(format!("holds no certificate in PEM form: {}", reason(error))),
    }
}

/// A key is ours by its mark; earlier versions set none, but theirs has a certificate of ours.
fn read_key(path: &Path, known: &[Certificate]) -> Result<Slot<Key>, IdentityError> {
    let Some(bytes) = bytes(path)? else { return Ok(Slot::Absent) };
    let foreign = |found| Err(IdentityError::Foreign { path: path.into(), found });
    match pem::key(path, &bytes) {
        Ok(key) if !key.is_p256() => {
            foreign("holds a private key of another kind than h3cast creates, which is ECDSA P-256".into())
        }
        Ok(key) if is_marked(&bytes) || known.iter().any(|certificate| key.is_of(certificate)) => {
            Ok(Slot::Ours(key, bytes))
        }
        Ok(_) if known.is_empty() => foreign("holds a private key without a certificate that h3cast created".into()),
        Ok(_) => foreign("holds a private key that is not that of the certificate beside it".into()),
        Err(_) if pem::is_cut(&bytes, MARK, "PRIVATE KEY", KEY_BEGINS) => Ok(Slot::Broken(bytes)),
        Err(error) => foreign(format!("holds no private key in PEM form: {}", reason(error))),
    }
}

fn reason(error: IdentityError) -> String {
    match error {
        IdentityError::Pem { reason, .. } | IdentityError::Unusable { reason, .. } => reason,
        error => error.to_string(),
    }
}

/// One change of the folder.
#[derive(Debug)]
pub(super) enum Step {
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
pub(super) enum Stopped {
    /// The folder is not as it was read.
    Changed,
    Failed(IdentityError),
}

impl From<IdentityError> for Stopped {
    fn from(error: IdentityError) -> Self {
        Self::Failed(error)
    }
}

impl Contents {
    /// Takes a step. When the program dies in the middle of it or between two, what is there is ours
    /// and can be read.
    pub(super) fn take(&self, step: &Step) -> Result<(), Stopped> {
        match step {
            Step::Certificates(certificates) => {
                let text = format!("{MARK}{}", key::pem(certificates));
                self.put(CERTIFICATES, &text, 0o644, self.certificates.bytes())?;
                if !self.next_certificates.is_empty() {
                    let _ = fs::remove_file(self.path(NEXT_CERTIFICATE));
                }
            }
            Step::NextKey(key) => {
                let text = format!("{MARK}{}", key.to_pem()?);
                self.put(NEXT_KEY, &text, 0o600, self.next_key.bytes())?;
            }
            Step::Key(key) => {
                let text = format!("{MARK}{}", key.to_pem()?);
                self.put(KEY, &text, 0o600, self.key.bytes())?;
            }
            Step::Promote => {
                let path = self.path(KEY);
                self.unchanged(&path, self.key.bytes())?;
                fs::rename(self.path(NEXT_KEY), &path).map_err(IdentityError::file("replace", &path))?;
                sync(&self.dir);
            }
        }
        Ok(())
    }

    fn unchanged(&self, path: &Path, expected: Option<&[u8]>) -> Result<(), Stopped> {
        match bytes(path) {
            Ok(found) if found.as_deref() == expected => Ok(()),
            _ => Err(Stopped::Changed),
        }
    }

    /// Writes a file whole or not at all, in the place of what was read there.
    fn put(&self, name: &str, text: &str, mode: u32, expected: Option<&[u8]>) -> Result<(), Stopped> {
        let path = self.path(name);
        let failed = IdentityError::file("write", &path);
        let part = Part::write(&self.dir, text, mode).map_err(&failed)?;
        match expected {
            // Not over what came there in the meantime.
            None => match fs::hard_link(&part.0, &path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Stopped::Changed),
                // A file system without links.
                Err(_) => {
                    self.unchanged(&path, None)?;
                    fs::rename(&part.0, &path).map_err(&failed)?;
                }
            },
            Some(_) => {
                self.unchanged(&path, expected)?;
                fs::rename(&part.0, &path).map_err(&failed)?;
            }
        }
        sync(&self.dir);
        Ok(())
    }
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

/// A file that is not complete, removed when dropped.
struct Part(PathBuf);

const PART_BEGINS: &str = ".h3cast-";
const PART_ENDS: &str = ".part";

impl Part {
    fn write(dir: &Path, text: &str, mode: u32) -> io::Result<Self> {
        let mut random = [0; 8];
        let _ = super::provider().secure_random.fill(&mut random);
        let name = format!("{PART_BEGINS}{:016x}{PART_ENDS}", u64::from_be_bytes(random));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let part = Self(dir.join(name));
        let mut file = options.open(&part.0)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        Ok(part)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Not there any more when it was renamed.
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether a program that died, or one that is writing, has left something.
pub(super) fn has_parts(dir: &Path) -> bool {
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_str().is_some_and(is_part))
}

fn is_part(name: &str) -> bool {
    name.starts_with(PART_BEGINS) && name.ends_with(PART_ENDS)
}

/// Removes what a program that died left behind: who has the lock, at once.
pub(super) fn clean(dir: &Path, now: SystemTime, locked: bool) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PART_BEGINS) && name.ends_with(PART_ENDS));
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let old =
            locked || modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > Duration::from_secs(60)));
        if ours && old {
            let _ = fs::remove_file(entry.path());
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
