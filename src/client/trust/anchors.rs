//! The certificates that a client trusts, and where they are from.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use rustls::pki_types::{CertificateDer, pem, pem::PemObject};

use super::{ClientError, Expected};
use crate::{
    identity::Fingerprint,
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
    /// What running servers on this machine have left, as last read; `None` where notes do not count.
    notes: Option<Mutex<Vec<Note>>>,
    /// What could not be used, and why.
    pub(super) problems: Vec<Expected>,
}

/// A certificate from a file.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) hash: Fingerprint,
    pub(super) file: PathBuf,
    /// Whether it is good for any host, and not only for this machine.
    pub(super) anywhere: bool,
}

/// No certificate, and no bundle of all the CAs of the web, is larger.
const LARGEST_FILE: u64 = 16 << 20;

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
                Err(problem) => self.problem(file, problem),
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
        self.notes = Some(Mutex::new(note::find()));
    }

    /// The notes, as last read.
    pub(super) fn notes(&self) -> Vec<Note> {
        let notes = self.notes.as_ref().map(|notes| notes.lock().unwrap_or_else(PoisonError::into_inner).clone());
        notes.unwrap_or_default()
    }

    /// Whether a running server has left a note of that certificate. It may have done so since notes were read
    /// last: a client that tries to connect is answered as soon as its server is there.
    pub(super) fn is_noted(&self, certificate: &Fingerprint) -> bool {
        let Some(notes) = &self.notes else { return false };
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |notes: &[Note]| notes.iter().any(|note| note.names_certificate(certificate));
        if !named(&notes) {
            *notes = note::find();
        }
        named(&notes)
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

/// The certificates in a file, of which there is at least one; else why not, in words.
pub(crate) fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let meta = fs::metadata(file).map_err(|error| in_words(&error))?;
    if meta.is_dir() {
        return Err("it is a folder: name a file of certificates in it".into());
    }
    if meta.len() > LARGEST_FILE {
        return Err(format!("it has {} bytes: give a file of certificates in PEM form", meta.len()));
    }
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).map_err(|error| in_words(&error))?;
    // A pipe does not say how long it is.
    opened.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(|error| in_words(&error))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err("it is too long: give a file of certificates in PEM form".into());
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("it is empty: give a file with a certificate in PEM form".into());
    }
    if !bytes.windows(10).any(|window| window == b"-----BEGIN") {
        return match x509_parser::parse_x509_certificate(&bytes) {
            Ok(([], _)) => Ok(vec![CertificateDer::from(bytes)]),
            _ if is_pkcs12(&bytes) => {
                Err("it is PKCS#12: extract its certificate with `openssl pkcs12 -in FILE -nokeys -out cert.pem`"
                    .into())
            }
            _ => Err("it holds no certificate, neither in PEM form nor in DER form".into()),
        };
    }
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(damaged)?;
    if certificates.is_empty() {
        return Err(match label(&bytes) {
            Some(label) if label.contains("PRIVATE KEY") => {
                "it holds a private key and no certificate: give the certificate's file, and keep the key secret".into()
            }
            Some(label) if label.contains("CERTIFICATE REQUEST") => {
                "it holds a request for a certificate: give the certificate that the CA has made of it".into()
            }
            Some("TRUSTED CERTIFICATE") => {
                "it is in OpenSSL's own form: convert it with `openssl x509 -in FILE -out cert.pem`".into()
            }
            Some(label) => format!("it holds no certificate in PEM form, but `{}`", label.escape_debug()),
            None => "it holds no certificate in PEM form".into(),
        });
    }
    match certificates.iter().find_map(|der| x509_parser::parse_x509_certificate(der).err()) {
        // Bundles may carry one that nobody can read; of one or two certificates each counts.
        Some(error) if certificates.len() < 3 => Err(format!("its certificate cannot be read: {error}")),
        _ => Ok(certificates),
    }
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        _ => error.to_string(),
    }
}

fn damaged(error: pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "its last certificate is cut off: it has no END line".into(),
        error => format!("its PEM form is damaged: {error}"),
    }
}

/// What the first section of a PEM file says that it is.
fn label(bytes: &[u8]) -> Option<&str> {
    let start = bytes.windows(11).position(|window| window == b"-----BEGIN ")? + 11;
    let rest = &bytes[start..];
    let end = rest.windows(5).position(|window| window == b"-----")?;
    str::from_utf8(&rest[..end]).ok()
}

/// PFX is a SEQUENCE that begins with version 3 (RFC 7292 §4).
fn is_pkcs12(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x30) && bytes.get(1..12).is_some_and(|head| head.windows(3).any(|head| head == [2, 1, 3]))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let problem = write(bytes).unwrap_err();
            assert!(problem.contains(part), "`{part}` is not in `{problem}`");
        }
        assert!(read(dir.path()).unwrap_err().contains("is a folder"));
        #[cfg(unix)]
        for pipe in ["cert.pem", "next-cert.pem"] {
            let folder = tempfile::tempdir().unwrap();
            let made = std::process::Command::new("mkfifo").arg(folder.path().join(pipe)).status().unwrap();
            assert!(made.success());
            // It does not wait for somebody to write.
            let mut anchors = Anchors::system();
            anchors.add_folder(folder.path(), false).unwrap();
            assert_eq!(anchors.problems.len(), 1, "{pipe}");
        }
        assert!(read(&dir.path().join("none")).unwrap_err().contains("no such file"));
    }
}
