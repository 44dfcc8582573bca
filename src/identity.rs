//! Who the server is to its clients: a certificate and its key.
//!
//! Made by ourselves for localhost, it is short-lived, as browsers ask for when they are to trust
//! a certificate by its hash alone, and so it is renewed while the server runs. Its successor is
//! made and announced well before it takes over: a page that was loaded before the change knows
//! both hashes.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::origin::is_loopback;

/// A SHA-256 hash of something about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// In hexadecimal, lower case.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// In base64.
    #[must_use]
    pub fn base64(&self) -> String {
        BASE64_STANDARD.encode(self.0)
    }

    /// Reads 64 hexadecimal digits; colons between them are allowed.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).map(|digit| digit as u8))
            .collect::<Option<_>>()?;
        let bytes: Vec<u8> =
            digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
        (digits.len() == 64).then(|| bytes.try_into().ok().map(Self)).flatten()
    }
}

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
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {wanted} in PEM form: {reason}", path.display())]
    Pem {
        /// What was looked for.
        wanted: &'static str,
        /// In which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate and the key do not fit together, or neither is of a kind that can be used.
    #[error("the certificate {} and the key {} do not fit together: {source}", certificate.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// How long the certificates live that are made here.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Lifetimes {
    /// From its making to its end. Browsers refuse 14 days and more.
    pub validity: Duration,
    /// How long before its making a certificate is already valid, for clocks that are behind.
    pub backdate: Duration,
    /// How long before its end the successor is made and announced.
    pub announce: Duration,
    /// How long before its end the successor takes over.
    pub replace: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Lifetimes {
    fn default() -> Self {
        let backdate = Duration::from_secs(60 * 60);
        Self { validity: 13 * DAY - backdate, backdate, announce: 3 * DAY, replace: DAY }
    }
}

/// A certificate with its key, and what others must know of it.
#[derive(Debug, Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    hash: Fingerprint,
    spki_hash: Fingerprint,
    not_before: SystemTime,
    not_after: SystemTime,
    names: Vec<String>,
    by_hash: bool,
    secret: Secret,
}

#[derive(Clone)]
struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Certificate {
    /// The hash of the certificate (DER), by which WebTransport trusts it.
    #[must_use]
    pub fn hash(&self) -> Fingerprint {
        self.hash
    }

    /// The hash of its public key (SPKI), by which Chromium's command line trusts it.
    #[must_use]
    pub fn spki_hash(&self) -> Fingerprint {
        self.spki_hash
    }

    /// When it begins to be valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When it is no longer valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether it is for this host, as it stands in a URL (RFC 9525 §6.3). Addresses, which cannot be
    /// made to point elsewhere, and names of this machine always are.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let named = |name: &String| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
            None => name.eq_ignore_ascii_case(host),
        };
        bare.parse::<std::net::IpAddr>().is_ok() || is_loopback(host) || self.names.iter().any(named)
    }

    /// What only who has the key knows, for other purposes than TLS: the same each time that the
    /// server is started with it.
    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret.0
    }

    /// The certificate itself, as DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        // `load` refuses an empty chain.
        self.key.cert.first().map_or(&[], |der| der.as_ref())
    }

    /// Reads a certificate chain and its key.
    fn load(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let pem = |wanted, path: &Path, error: rustls::pki_types::pem::Error| match error {
            rustls::pki_types::pem::Error::Io(source) => {
                IdentityError::File { action: "read", path: path.into(), source }
            }
            error => IdentityError::Pem { wanted, path: path.into(), reason: error.to_string() },
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(|error| pem("certificate", certificate, error))?;
        let not_x509 = |reason: String| IdentityError::Pem { wanted: "certificate", path: certificate.into(), reason };
        let leaf = chain.first().cloned().ok_or_else(|| not_x509("it is empty".into()))?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| pem("private key", key, error))?;
        let secret = Sha256::new().chain_update(b"h3cast secret").chain_update(private.secret_der()).finalize();
        let key = CertifiedKey::from_der(chain, private, &provider()).map_err(|source| IdentityError::Mismatch {
            certificate: certificate.into(),
            key: key.into(),
            source,
        })?;
        let (_, x509) = x509_parser::parse_x509_certificate(&leaf).map_err(|error| not_x509(error.to_string()))?;
        let at = |time: x509_parser::time::ASN1Time| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(time.timestamp().try_into().unwrap_or_default())
        };
        let validity = x509.validity();
        let (not_before, not_after) = (at(validity.not_before), at(validity.not_after));
        let names = x509
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|names| names.value.general_names.iter().filter_map(name_in_words).collect())
            .unwrap_or_default();
        // The conditions of the W3C's WebTransport §"Verify a certificate hash" and of browsers.
        let ecdsa = x509.public_key().algorithm.algorithm == x509_parser::oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY;
        let short = not_after.duration_since(not_before).is_ok_and(|validity| validity < 14 * DAY);
        Ok(Self {
            hash: Fingerprint::of(&leaf),
            spki_hash: Fingerprint::of(x509.public_key().raw),
            not_before,
            not_after,
            names,
            by_hash: ecdsa && short,
            secret: Secret(secret.into()),
            key: Arc::new(key),
        })
    }

    fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }
}

fn name_in_words(name: &x509_parser::extensions::GeneralName<'_>) -> Option<String> {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
        },
        _ => None,
    }
}

/// The server's certificate, as it is now and as it will be next.
#[derive(Debug, Clone)]
pub struct Identity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    origin: Origin,
    state: RwLock<State>,
}

/// Where the certificate comes from.
#[derive(Debug)]
enum Origin {
    /// Made here, for these names.
    Made { dir: PathBuf, names: Vec<String>, lifetimes: Lifetimes },
    /// Given by the user, who renews it.
    Given { certificate: PathBuf, key: PathBuf },
}

#[derive(Debug, Clone)]
struct State {
    current: Certificate,
    next: Option<Certificate>,
    /// The hash of the one before, which pages may still hold, and when it ends.
    previous: Option<(Fingerprint, SystemTime)>,
}

/// The names that every certificate made here is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// How often an identity looks at the clock and at its files. Short, since a computer that sleeps
/// stops timers but not the validity of certificates.
const CHECK_EVERY: Duration = Duration::from_secs(60);

impl Identity {
    /// The certificate for localhost (and `names` beside it) in `dir`, made there if there is none
    /// that can be used.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read or written.
    pub fn self_signed(dir: &Path, names: &[String], lifetimes: Lifetimes) -> Result<Self, IdentityError> {
        let mut all: Vec<String> = NAMES.map(String::from).into();
        all.extend(names.iter().filter(|name| !NAMES.contains(&name.as_str())).cloned());
        fs::create_dir_all(dir).map_err(|source| IdentityError::File {
            action: "make the folder",
            path: dir.into(),
            source,
        })?;
        let origin = Origin::Made { dir: dir.into(), names: all, lifetimes };
        let state = origin.settle(None, SystemTime::now())?;
        Ok(Self(Arc::new(Shared { origin, state: RwLock::new(state) })))
    }

    /// A certificate chain and its key from files. Changed files are read again while running.
    ///
    /// # Errors
    ///
    /// When they cannot be read, are no PEM, or do not fit together.
    pub fn from_pem(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let origin = Origin::Given { certificate: certificate.into(), key: key.into() };
        let state = origin.settle(None, SystemTime::now())?;
        Ok(Self(Arc::new(Shared { origin, state: RwLock::new(state) })))
    }

    fn state(&self) -> State {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The certificate that is served now.
    #[must_use]
    pub fn current(&self) -> Certificate {
        self.state().current
    }

    /// The certificate that is served now and, once it is announced, its successor.
    #[must_use]
    pub fn certificates(&self) -> Vec<Certificate> {
        let state = self.state();
        [Some(state.current), state.next].into_iter().flatten().collect()
    }

    /// The hashes by which a browser may trust this server now and in the near future. Empty when
    /// the certificate is not one that browsers trust by hash, and must be trusted otherwise.
    #[must_use]
    pub fn hashes(&self) -> Vec<Fingerprint> {
        let state = self.state();
        if !state.current.by_hash {
            return Vec::new();
        }
        let next = state.next.map(|next| next.hash);
        let previous = state.previous.map(|(hash, _)| hash);
        [Some(state.current.hash), next, previous].into_iter().flatten().collect()
    }

    /// The file of the certificate.
    #[must_use]
    pub fn certificate_path(&self) -> PathBuf {
        match &self.0.origin {
            Origin::Made { dir, .. } => dir.join("cert.pem"),
            Origin::Given { certificate, .. } => certificate.clone(),
        }
    }

    /// The file of the key.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        match &self.0.origin {
            Origin::Made { dir, .. } => dir.join("key.pem"),
            Origin::Given { key, .. } => key.clone(),
        }
    }

    /// Renews the certificate when its time comes, until `stop`.
    pub async fn keep_fresh(&self, stop: CancellationToken) {
        let every = match &self.0.origin {
            // Never without a pause, whatever the lifetimes.
            Origin::Made { lifetimes, .. } => (lifetimes.replace / 4).clamp(Duration::from_millis(100), CHECK_EVERY),
            Origin::Given { .. } => CHECK_EVERY,
        };
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            self.refresh(SystemTime::now());
        }
    }

    /// Looks at the clock and the files once. A failure leaves everything as it is.
    fn refresh(&self, now: SystemTime) {
        let before = self.state();
        match self.0.origin.settle(Some(before.clone()), now) {
            Ok(state) => {
                if state.current.hash != before.current.hash {
                    info!(sha256 = state.current.hash.hex(), "the certificate was renewed");
                }
                *self.0.state.write().unwrap_or_else(PoisonError::into_inner) = state;
            }
            Err(error) => warn!(%error, "cannot renew the certificate: still using the old one"),
        }
    }

    /// What rustls asks for the certificate at each handshake.
    pub(crate) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::new(self.clone())
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.state.read().unwrap_or_else(PoisonError::into_inner).current.key.clone())
    }
}

impl Origin {
    /// What the identity should be at `now`, given what it was. Files are made as needed.
    fn settle(&self, before: Option<State>, now: SystemTime) -> Result<State, IdentityError> {
        let (current, next) = match self {
            Self::Given { certificate, key } => (Certificate::load(certificate, key)?, None),
            Self::Made { dir, names, lifetimes } => settle_made(dir, names, *lifetimes, now)?,
        };
        let previous = match before {
            Some(before) if before.current.hash != current.hash => {
                Some((before.current.hash, before.current.not_after))
            }
            Some(before) => before.previous.filter(|(_, until)| now < *until),
            None => None,
        };
        Ok(State { current, next, previous })
    }
}

fn settle_made(
    dir: &Path,
    names: &[String],
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<(Certificate, Option<Certificate>), IdentityError> {
    let [(cert, key), (next_cert, next_key)] =
        [("cert.pem", "key.pem"), ("next-cert.pem", "next-key.pem")].map(|(cert, key)| (dir.join(cert), dir.join(key)));
    // Another process on the same folder must not write between our look and our own writing.
    let lock = dir.join(".lock");
    let _locked = match fs::File::create(&lock).and_then(|file| file.lock().map(|()| file)) {
        Ok(file) => Some(file),
        // What may only be read can still be used; if it must be written, that will fail by itself.
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            None
        }
        Err(source) => return Err(IdentityError::File { action: "lock", path: lock, source }),
    };
    let usable = |certificate: &Certificate| {
        certificate.by_hash
            && certificate.not_before <= now
            && certificate.left(now) > lifetimes.replace
            && names.iter().all(|name| certificate.names.contains(name))
    };
    // What is there and cannot be used was made by us and is made again.
    let load = |cert: &Path, key: &Path| Certificate::load(cert, key).ok().filter(usable);
    // The names of what is there are kept: another server may need them.
    let mut all = names.to_vec();
    if let Ok(made) = Certificate::load(&cert, &key) {
        all.extend(made.names.into_iter().filter(|name| !names.contains(name)));
    }
    // The last: a rotation that was cut off between its two renames.
    let current = match load(&cert, &key) {
        Some(current) => current,
        None if load(&next_cert, &next_key).is_some() => {
            rename(&next_key, &key)?;
            rename(&next_cert, &cert)?;
            Certificate::load(&cert, &key)?
        }
        None if load(&next_cert, &key).is_some() => {
            rename(&next_cert, &cert)?;
            Certificate::load(&cert, &key)?
        }
        None => generate(&cert, &key, &all, lifetimes, now)?,
    };
    let next = match current.left(now) <= lifetimes.announce {
        false => None,
        true => Some(match load(&next_cert, &next_key) {
            Some(next) => next,
            None => generate(&next_cert, &next_key, &all, lifetimes, now)?,
        }),
    };
    Ok((current, next))
}

fn rename(from: &Path, to: &Path) -> Result<(), IdentityError> {
    fs::rename(from, to).map_err(|source| IdentityError::File { action: "replace", path: to.into(), source })
}

fn generate(
    cert: &Path,
    key: &Path,
    names: &[String],
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<Certificate, IdentityError> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "h3cast on localhost");
    params.not_before = OffsetDateTime::from(now - lifetimes.backdate);
    params.not_after = OffsetDateTime::from(now + lifetimes.validity);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let made = params.self_signed(&pair)?;
    // The key first: a certificate without its key is found out at the next start.
    write(key, &pair.serialize_pem(), 0o600)?;
    write(cert, &made.pem(), 0o644)?;
    Certificate::load(cert, key)
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
    let partial = path.with_extension("pem.part");
    let written = (|| {
        // One left behind by a crash could have another mode.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let mut file = options.open(&partial)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, path)
    })();
    written.map_err(|source| IdentityError::File { action: "write", path: path.into(), source })
}

/// The cryptography of every TLS connection.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A time as RFC 3339 writes it, in UTC.
#[must_use]
pub fn rfc3339(at: SystemTime) -> String {
    // Fails only for years that no certificate reaches.
    OffsetDateTime::from(at).format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
