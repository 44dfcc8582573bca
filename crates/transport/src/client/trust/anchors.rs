//! The certificates that a client trusts, and where they are from.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use rustls::pki_types::CertificateDer;

use super::{ClientError, Expected};
use crate::{
    identity::{Fingerprint, trusted as read},
    note::{self, Note},
};

/// Certificates of the user's, beside the system's.
#[derive(Debug)]
pub(super) struct Anchors {
    /// CAs for any host: the system's, and those of files.
    pub(super) anywhere: rustls::RootCertStore,
    /// CAs for this machine only.
    pub(super) here: rustls::RootCertStore,
    pub(super) known: Vec<Known>,
    /// What running servers on this machine have left; `None` where notes do not count.
    notes: Option<Mutex<Notes>>,
    /// What could not be used, and why.
    pub(super) problems: Vec<Expected>,
}

/// How long a certificate of which there was no note is not looked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// Notes as last read.
#[derive(Debug, Default)]
struct Notes {
    read: Vec<Note>,
    /// The certificate that was looked for in vain last, and when.
    missing: Option<(Fingerprint, Instant)>,
}

impl Notes {
    fn name(&self, certificate: &Fingerprint) -> bool {
        self.read.iter().any(|note| note.names_certificate(certificate))
    }

    /// Whether it is worth while to read them again for that certificate.
    fn are_old(&self, certificate: &Fingerprint, now: Instant) -> bool {
        self.missing.is_none_or(|(missing, when)| missing != *certificate || now.duration_since(when) >= AGAIN)
    }
}

/// A certificate from a file.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) hash: Fingerprint,
    pub(super) file: PathBuf,
    /// Whether it is good for any host, and not only for this machine.
    pub(super) anywhere: bool,
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Anchors {
    /// The system's. A machine that has none, or has some that cannot be read, can still use its own
    /// files.
    pub(super) fn system() -> Self {
        // Hundreds of files on some systems: read once, and not for every connection.
        static SYSTEM: OnceLock<rustls::RootCertStore> = OnceLock::new();
        let system = SYSTEM.get_or_init(|| {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        });
        Self {
            anywhere: system.clone(),
            here: rustls::RootCertStore::empty(),
            known: Vec::new(),
            notes: None,
            problems: Vec::new(),
        }
    }

    /// The certificates in a file that the user has named.
    pub(super) fn add_file(&mut self, file: &Path) -> Result<(), ClientError> {
        let certificates = read(file).map_err(|reason| ClientError::Certificate { path: file.to_owned(), reason })?;
        self.add(file, certificates, true);
        Ok(())
    }

    /// The certificates in a folder of a server's, as far as there are any. What is wrong with them
    /// is an error only if the user has named the folder.
    pub(super) fn add_folder(&mut self, folder: &Path, anywhere: bool) -> Result<(), ClientError> {
        let file = folder.join("cert.pem");
        // A pipe that came with a stranger's folder must not be waited for.
        if !anywhere && fs::metadata(&file).is_ok_and(|meta| !meta.is_file()) {
            self.problem(file, "it is not a regular file".into());
            return Ok(());
        }
        match (file.try_exists(), anywhere) {
            (Ok(true), true) => self.add_file(&file)?,
            (Ok(true), false) => match read(&file) {
                Ok(certificates) => self.add(&file, certificates, false),
                Err(problem) => self.problem(file, problem.to_string()),
            },
            (Ok(false), _) => self.problem(file, "there is no such file".into()),
            (Err(error), _) => self.problem(file, error.to_string()),
        }
        // Where earlier versions put the one that takes over next.
        let next = folder.join("next-cert.pem");
        if next.is_file()
            && let Ok(certificates) = read(&next)
        {
            self.add(&next, certificates, anywhere);
        }
        Ok(())
    }

    fn problem(&mut self, file: PathBuf, problem: String) {
        self.problems.push(Expected { file, sha256: None, problem: Some(problem), only_here: false, server: None });
    }

    pub(super) fn add_notes(&mut self) {
        self.notes = Some(Mutex::new(Notes { read: note::find(), missing: None }));
    }

    /// The notes, as last read.
    pub(super) fn notes(&self) -> Vec<Note> {
        self.notes.as_ref().map(|notes| lock(notes).read.clone()).unwrap_or_default()
    }

    /// Whether a running server has left a note of that certificate, as far as notes have been read.
    pub(super) fn is_noted(&self, certificate: &Fingerprint) -> bool {
        self.notes.as_ref().is_some_and(|notes| lock(notes).name(certificate))
    }

    /// Whether there is such a note now: a client that tries to connect is answered as soon as its server is
    /// there. This reads small files within a handshake, so it does so once a second for the same certificate.
    pub(super) fn is_noted_now(&self, certificate: &Fingerprint) -> bool {
        let Some(notes) = &self.notes else { return false };
        let old = lock(notes).are_old(certificate, Instant::now());
        if old {
            // Other handshakes do not wait for the files.
            let read = note::find();
            let mut notes = lock(notes);
            notes.read = read;
            notes.missing = (!notes.name(certificate)).then(|| (*certificate, Instant::now()));
        }
        lock(notes).name(certificate)
    }

    pub(super) fn add(&mut self, file: &Path, certificates: Vec<CertificateDer<'static>>, anywhere: bool) {
        for certificate in certificates {
            self.known.push(Known { hash: Fingerprint::of(&certificate), file: file.to_owned(), anywhere });
            // One that cannot be a CA is still good for the server that has it.
            let _ = self.here.add(certificate.clone());
            if anywhere {
                let _ = self.anywhere.add(certificate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_once_a_second_for_the_same_certificate() {
        let (one, other, now) = (Fingerprint::of(b"1"), Fingerprint::of(b"2"), Instant::now());
        let mut notes = Notes::default();
        assert!(notes.are_old(&one, now));
        notes.missing = Some((one, now));
        assert!(!notes.are_old(&one, now + AGAIN / 2));
        assert!(notes.are_old(&other, now), "a server that has just come");
        assert!(notes.are_old(&one, now + AGAIN));
    }

    #[test]
    fn what_is_wrong_with_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let identity = crate::Identity::self_signed(dir.path(), &[], Default::default()).unwrap();
        let der = identity.current().der().to_vec();
        let pem = fs::read_to_string(identity.certificate_path()).unwrap();
        let key = fs::read(identity.key_path()).unwrap();
        let file = dir.path().join("file");
        let write = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            read(&file)
        };
        assert_eq!(write(&der).unwrap(), [CertificateDer::from(der.clone())]);
        assert_eq!(write(format!("# two\n{pem}\n{pem}").as_bytes()).unwrap().len(), 2);
        // As with curl, the key may be in the same file.
        assert_eq!(write(&[pem.as_bytes(), &key].concat()).unwrap().len(), 1);
        for (bytes, part) in [
            (b" \n".as_slice(), "is empty"),
            (b"hello", "neither in PEM form nor in DER"),
            (&der[..der.len() - 1], "neither in PEM form nor in DER"),
            (&[&der[..], b"x"].concat(), "neither in PEM form nor in DER"),
            (&[0x30, 0x82, 1, 0, 2, 1, 3, 0, 0, 0, 0, 0, 0], "openssl pkcs12"),
            (&key, "private key"),
            (&pem.as_bytes()[..pem.len() / 2], "cut off"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
            (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "request"),
            (b"-----BEGIN TRUSTED CERTIFICATE-----\nAAAA\n-----END TRUSTED CERTIFICATE-----\n", "openssl x509"),
        ] {
            let problem = write(bytes).unwrap_err().to_string();
            assert!(problem.contains(part), "`{part}` is not in `{problem}`");
        }
        assert!(read(dir.path()).unwrap_err().to_string().contains("is a folder"));
        #[cfg(unix)]
        for pipe in ["cert.pem", "next-cert.pem"] {
            let folder = tempfile::tempdir().unwrap();
            let made = std::process::Command::new("mkfifo").arg(folder.path().join(pipe)).status().unwrap();
            assert!(made.success());
            // It does not wait for a writer.
            let mut anchors = Anchors::system();
            anchors.add_folder(folder.path(), false).unwrap();
            assert_eq!(anchors.problems.len(), 1, "{pipe}");
        }
        assert!(read(&dir.path().join("none")).unwrap_err().to_string().contains("no such file"));
    }
}
