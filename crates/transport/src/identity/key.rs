//! A private key, and what it is served with.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    pki_types::PrivateKeyDer,
    sign::{CertifiedKey, SigningKey},
};
use sha2::{Digest, Sha256};

use super::{Certificate, Fingerprint};
use crate::crypto::any_supported_type;

/// The curve's object identifier, as DER has it.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// The object identifier of P-521, as DER has it.
const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// A private key.
#[derive(Clone)]
pub(super) struct Key(Arc<KeyParts>);

struct KeyParts {
    der: PrivateKeyDer<'static>,
    signing: Arc<dyn SigningKey>,
    spki_hash: Fingerprint,
    p256: bool,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.0.spki_hash.hex()).finish()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.spki_hash == other.0.spki_hash
    }
}

impl Key {
    /// Reads a key; none when it is of a kind that TLS cannot use.
    pub(super) fn from_der(der: PrivateKeyDer<'static>) -> Option<Self> {
        let signing = any_supported_type(&der).ok()?;
        let spki = signing.public_key()?;
        // Of the cryptography, aws-lc-rs takes P-521; browsers refuse it.
        if spki.windows(P521.len()).any(|window| window == P521) {
            return None;
        }
        let p256 = spki.windows(P256.len()).any(|window| window == P256);
        let spki_hash = Fingerprint::of(&spki);
        Some(Self(Arc::new(KeyParts { der, signing, spki_hash, p256 })))
    }

    /// Whether it is of the kind that this program creates.
    pub(super) fn is_p256(&self) -> bool {
        self.0.p256
    }

    pub(super) fn is_of(&self, certificate: &Certificate) -> bool {
        certificate.spki_hash() == self.0.spki_hash
    }

    /// The key itself.
    pub(super) fn der(&self) -> &PrivateKeyDer<'static> {
        &self.0.der
    }
}

/// A key with its certificates, at least one.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub(super) key: Key,
    newest: Served,
    /// The newer ones first.
    older: Vec<Served>,
}

#[derive(Debug, Clone)]
struct Served {
    certificate: Certificate,
    tls: Arc<CertifiedKey>,
}

impl Served {
    fn new(key: &Key, chain: &[Certificate], leaf: &Certificate) -> Self {
        let chain = chain.iter().map(Certificate::to_der).collect();
        Self { certificate: leaf.clone(), tls: Arc::new(CertifiedKey::new(chain, key.0.signing.clone())) }
    }
}

impl Generation {
    /// A key and self-signed certificates of it, the newest first.
    pub(super) fn new(key: Key, newest: &Certificate, older: &[Certificate]) -> Self {
        let served = |one: &Certificate| Served::new(&key, std::slice::from_ref(one), one);
        Self { newest: served(newest), older: older.iter().map(served).collect(), key }
    }

    /// A key, its certificate, and the chain of that, which it begins.
    pub(super) fn chain(key: Key, leaf: &Certificate, chain: &[Certificate]) -> Self {
        Self { newest: Served::new(&key, chain, leaf), older: Vec::new(), key }
    }

    fn served(&self) -> impl DoubleEndedIterator<Item = &Served> {
        std::iter::once(&self.newest).chain(&self.older)
    }

    pub(super) fn certificates(&self) -> impl DoubleEndedIterator<Item = &Certificate> {
        self.served().map(|served| &served.certificate)
    }

    /// The one with the most names.
    pub(super) fn newest(&self) -> &Certificate {
        &self.newest.certificate
    }

    /// The oldest one for this host, since that is what most clients know already.
    fn pick(&self, host: &str) -> &Served {
        let named = |served: &&Served| served.certificate.names_host(host);
        self.served().rfind(named).unwrap_or(self.older.last().unwrap_or(&self.newest))
    }

    pub(super) fn certificate_for(&self, host: &str) -> &Certificate {
        &self.pick(host).certificate
    }

    pub(super) fn tls_for(&self, host: &str) -> Arc<CertifiedKey> {
        self.pick(host).tls.clone()
    }

    /// What only who has the key knows, for other purposes than TLS: the same each time that the
    /// server is started with it.
    pub(super) fn secret(&self) -> [u8; 32] {
        Sha256::new().chain_update(b"h3cast secret").chain_update(self.key.0.der.secret_der()).finalize().into()
    }

    /// How long any of it is still valid.
    pub(super) fn left(&self, now: SystemTime) -> Duration {
        self.certificates().map(|certificate| certificate.left(now)).max().unwrap_or_default()
    }
}
