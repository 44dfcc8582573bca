//! Reading PEM files, and naming the mistakes that are made with them.

use std::{fs, io, path::Path, sync::Arc};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error, PemObject},
};

use super::{Certificate, IdentityError, key::Key};

/// No certificate file is longer; a bundle of all the web's CAs has 200 KiB.
const LONGEST: u64 = 16 << 20;

/// What a file should hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The certificate of a server.
    Certificate,
    /// The key of that.
    Key,
    /// Certificates that a client trusts.
    Trusted,
}

/// What is wrong with certificates or a key that are to be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// The file cannot be read.
    #[error("{}", match .0.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::IsADirectory => "it is a folder: name a file of certificates in it".into(),
        _ => .0.to_string(),
    })]
    Read(#[source] Arc<io::Error>),
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// The key is encrypted; the text gives the command that decrypts it.
    #[error("{0}")]
    Encrypted(String),
    /// It holds the other one of certificate and key, or what they are derived from, which the text names.
    #[error("{0}")]
    Swapped(String),
    /// It has another form; the text gives the command that converts it.
    #[error("{0}")]
    Form(String),
    /// It is damaged, in the way that the text describes.
    #[error("{0}")]
    Damaged(String),
    /// It holds something else, or nothing that is known; the text says more.
    #[error("{0}")]
    Other(String),
}

/// Reads a file that should be small, and a pipe to its end.
fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, LONGEST + 1), &mut bytes)?;
    match bytes.len() as u64 > LONGEST {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

/// Reads a file that should be small.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let failed = IdentityError::file("read", path);
    let regular = fs::metadata(path).map(|metadata| metadata.is_file() || metadata.is_dir()).map_err(&failed)?;
    // Opening a named pipe would wait for a writer. What a shell passes (`<(…)`) has one.
    if !regular && !path.starts_with("/dev/fd") && !path.starts_with("/proc") {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    read_whole(path).map_err(failed)
}

/// The certificates in a file that a client is to trust, at least one; else why there is none.
pub(crate) fn trusted(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let bytes = read_whole(path).map_err(|error| PemError::Read(error.into()))?;
    trusted_bytes(path, bytes)
}

/// The same of the bytes themselves; `path` is where they are from, for messages.
pub(crate) fn trusted_bytes(path: &Path, bytes: Vec<u8>) -> Result<Vec<CertificateDer<'static>>, PemError> {
    if let Ok(([], _)) = x509_parser::parse_x509_certificate(&bytes) {
        return Ok(vec![CertificateDer::from(bytes)]);
    }
    let all = blocks(Wanted::Trusted, path, without_bom(&bytes))?;
    match all.iter().find_map(|der| x509_parser::parse_x509_certificate(der).err()) {
        // Bundles may carry one that cannot be read; of one or two certificates each counts.
        Some(error) if all.len() < 3 => Err(PemError::Damaged(format!("its certificate cannot be read: {error}"))),
        _ => Ok(all),
    }
}

/// The certificates of a text in PEM form, at least one.
fn blocks(wanted: Wanted, path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let read = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>().map_err(|error| damage(&error))?;
    match read.is_empty() {
        true => Err(mistake(wanted, path, bytes)),
        false => Ok(read),
    }
}

/// The certificates in a file, at least one.
pub(super) fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<Certificate>, IdentityError> {
    let bytes = without_bom(bytes);
    let pem = |reason: PemError| IdentityError::Pem { wanted: "certificate", path: path.into(), reason };
    let read = blocks(Wanted::Certificate, path, bytes).map_err(pem)?;
    let parsed = read.into_iter().map(Certificate::from_der).collect::<Result<_, _>>();
    parsed.map_err(|error| pem(PemError::Damaged(format!("it is damaged ({error})"))))
}

/// The private key in a file.
pub(super) fn key(path: &Path, bytes: &[u8]) -> Result<Key, IdentityError> {
    let bytes = without_bom(bytes);
    let pem = |reason: PemError| IdentityError::Pem { wanted: "private key", path: path.into(), reason };
    // An encrypted key in the old form has the label of a plain one.
    if is_encrypted(bytes) {
        return Err(pem(mistake(Wanted::Key, path, bytes)));
    }
    let der = match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(der) => der,
        Err(Error::NoItemsFound) => return Err(pem(mistake(Wanted::Key, path, bytes))),
        Err(error) => return Err(pem(damage(&error))),
    };
    let reason = unusable_key(&der);
    Key::from_der(der).ok_or_else(|| IdentityError::Unusable { path: path.into(), reason })
}

/// Without the mark that some editors put before UTF-8.
fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// What is wrong with the form, in a sentence.
fn damage(error: &Error) -> PemError {
    PemError::Damaged(match error {
        // The marker is what followed on the BEGIN line.
        Error::MissingSectionEnd { end_marker } if end_marker.len() > 60 => {
            "it is damaged: its line breaks were lost; the BEGIN and END lines must stand alone, with 64 characters on each line between them".into()
        }
        Error::MissingSectionEnd { end_marker } => format!(
            "it is damaged: there is no line `-----END {}-----`; it was cut off",
            String::from_utf8_lossy(end_marker).trim().trim_start_matches("-----END ").trim_end_matches('-')
        ),
        Error::IllegalSectionStart { .. } => {
            "it is damaged: a line that begins with `-----BEGIN` must end with `-----`, and the base64 text follows on lines of its own; were its line breaks lost?".into()
        }
        Error::Base64Decode(_) => "it is damaged: the text between its BEGIN and END lines is not base64".into(),
        error => format!("it is damaged ({error})"),
    })
}

/// Whether a file is the beginning of one that begins with `mark` and holds whole blocks with this
/// label, whose base64 begins with `body`: a write that did not come to its end leaves that.
pub(super) fn is_cut(bytes: &[u8], mark: &str, label: &str, body: &str) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (begin, end) = (format!("-----BEGIN {label}-----\n"), format!("-----END {label}-----\n"));
    let text = text.replace('\r', "");
    let Some(mut rest) = text.strip_prefix(mark) else {
        return !text.is_empty() && text.len() > mark.len() / 2 && mark.starts_with(&text);
    };
    loop {
        if begin.starts_with(rest) {
            return true;
        }
        let Some(inner) = rest.strip_prefix(&begin) else { return false };
        let (base64, tail) = inner.split_at(inner.find('-').unwrap_or(inner.len()));
        let plain = |c: char| c.is_ascii_alphanumeric() || "+/=\n".contains(c);
        if !(base64.starts_with(body) || body.starts_with(base64)) || !base64.chars().all(plain) {
            return false;
        }
        match tail.strip_prefix(&end) {
            // What is whole and cannot be read was not cut off.
            Some("") => return false,
            Some(after) => rest = after,
            None => return end.len() > tail.len() + 1 && end.starts_with(tail),
        }
    }
}

/// What stands between `-----BEGIN ` and `-----`.
fn labels(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes)
        .lines()
        .filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----").map(String::from))
        .collect()
}

fn is_encrypted(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// Why there is nothing of that kind in a file.
fn mistake(wanted: Wanted, path: &Path, bytes: &[u8]) -> PemError {
    use PemError::{Empty, Encrypted, Form, Other, Swapped};

    let (file, labels) = (path.display(), labels(bytes));
    let has = |what: &str| labels.iter().any(|label| label.contains(what));
    match (wanted, bytes) {
        (Wanted::Key, _) if is_encrypted(bytes) => {
            Encrypted(format!("the key is encrypted; decrypt it with `openssl pkey -in {file} -out key.pem`"))
        }
        (Wanted::Key, _) if has("OPENSSH PRIVATE KEY") => {
            Other("it holds a key of OpenSSH, which is not for TLS".into())
        }
        (Wanted::Key, _) if has("CERTIFICATE REQUEST") => Swapped(
            "it holds a certificate signing request (CSR), and not the private key that it was created with".into(),
        ),
        (_, _) if has("CERTIFICATE REQUEST") => {
            Other("it holds a certificate signing request (CSR); use the certificate that your CA issued for it".into())
        }
        (Wanted::Key, _) if has("CERTIFICATE") => {
            Swapped("it holds a certificate; are the certificate and the key swapped?".into())
        }
        (Wanted::Key, _) if has("PRIVATE KEY") => Other("it holds a key of a kind that TLS does not use".into()),
        (Wanted::Key, _) if has("PUBLIC KEY") => Swapped("it holds a public key, and not the private one".into()),
        (Wanted::Key, _) if has("EC PARAMETERS") => Other("it holds the parameters of a curve and no key".into()),
        (Wanted::Key, _) if PrivateKeyDer::try_from(bytes).is_ok() => {
            Form(format!("it is in DER form; convert it with `openssl pkey -inform der -in {file} -out key.pem`"))
        }
        (Wanted::Certificate, _) if has("PRIVATE KEY") => {
            Swapped("it holds a private key; are the certificate and the key swapped?".into())
        }
        (Wanted::Trusted, _) if has("PRIVATE KEY") => {
            Swapped("it holds a private key; give the certificate's file, and keep the key secret".into())
        }
        (_, _) if has("TRUSTED CERTIFICATE") => {
            Form(format!("it is in OpenSSL's own form; convert it with `openssl x509 -in {file} -out cert.pem`"))
        }
        (_, _) if has("PKCS7") => Form(format!(
            "it is in PKCS #7 form; convert it with `openssl pkcs7 -in {file} -print_certs -out cert.pem`"
        )),
        (Wanted::Certificate, [0x30, ..]) if x509_parser::parse_x509_certificate(bytes).is_ok() => {
            Form(format!("it is in DER form; convert it with `openssl x509 -inform der -in {file} -out cert.pem`"))
        }
        _ if bytes.iter().all(u8::is_ascii_whitespace) => Empty,
        (_, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) => Form("it is UTF-16 text; save it as ASCII or UTF-8".into()),
        (Wanted::Trusted, _) if is_pkcs12(bytes) => Form(format!(
            "it is in PKCS #12 form; extract its certificate with `openssl pkcs12 -in {file} -nokeys -out cert.pem`"
        )),
        _ if is_pkcs12(bytes) => Form(format!(
            "it is in PKCS #12 form; convert it with `openssl pkcs12 -in {file} -nodes -out both.pem`, and use both.pem for the certificate and for the key"
        )),
        (Wanted::Trusted, _) => Other("it holds no certificate, neither in PEM form nor in DER form".into()),
        _ => Other(format!(
            "there is no `-----BEGIN {}-----` in it",
            if wanted == Wanted::Key { "PRIVATE KEY" } else { "CERTIFICATE" }
        )),
    }
}

/// Begins as PKCS #12 does: a sequence whose first value is the version 3.
fn is_pkcs12(bytes: &[u8]) -> bool {
    let after_length = match bytes {
        [0x30, length, ..] if *length < 0x80 => 2,
        [0x30, length, ..] => 2 + usize::from(length & 0x7f),
        _ => return false,
    };
    bytes.get(after_length..).is_some_and(|rest| rest.starts_with(&[2, 1, 3]))
}

/// Why TLS cannot use a key.
fn unusable_key(der: &PrivateKeyDer<'_>) -> String {
    const ADVICE: &str = "browsers take ECDSA P-256, ECDSA P-384 and RSA of 2048 to 4096 bits";
    let bytes = der.secret_der();
    let has = |oid: &[u8]| bytes.windows(oid.len()).any(|window| window == oid);
    let what = match der {
        PrivateKeyDer::Pkcs1(_) => "its RSA key is too short or too long",
        // Object identifiers as DER has them.
        _ if has(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10]) => "its key is for RSA-PSS alone",
        _ if has(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]) => "its RSA key is too short or too long",
        _ if has(&[0x2b, 0x81, 0x04, 0x00, 0x23]) => "its key is on the curve P-521, which browsers refuse",
        _ if has(&[0x2b, 0x81, 0x04, 0x00, 0x0a]) => "its key is on the curve secp256k1, which TLS does not use",
        _ if has(&[0x2b, 0x81, 0x04, 0x00, 0x21]) => "its key is on the curve P-224, which browsers refuse",
        _ if has(&[0x2b, 0x65, 0x71]) => "its key is for Ed448, which browsers refuse",
        _ if has(&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1]) => "its key is for DSA, which TLS does not use any more",
        _ if has(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]) => "its key is on a curve that TLS does not use",
        _ => "its key is damaged or of an algorithm that TLS does not use",
    };
    format!("{what}; {ADVICE}")
}
