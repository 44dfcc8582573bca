//! What a certificate says about itself.

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use x509_parser::{oid_registry as oid, prelude::X509Certificate, public_key::PublicKey};

use super::{DAY, Fingerprint};
use crate::origin::is_loopback;

/// The name in every certificate that this program creates, by which it recognises them.
pub(super) const COMMON_NAME: &str = "h3cast on localhost";

/// A certificate, and what others must know of it.
#[derive(Clone)]
pub struct Certificate(Arc<Facts>);

struct Facts {
    der: CertificateDer<'static>,
    hash: Fingerprint,
    spki_hash: Fingerprint,
    not_before: SystemTime,
    not_after: SystemTime,
    names: Vec<String>,
    subject: String,
    issuer: String,
    key: KeyKind,
    version_3: bool,
    weak_signature: bool,
    server_auth: bool,
    unknown_critical: Option<String>,
    made_here: bool,
}

/// The kinds of keys that make a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    P256,
    P384,
    P521,
    OtherCurve,
    Rsa(usize),
    Ed25519,
    Other,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::P256 => f.write_str("ECDSA P-256"),
            Self::P384 => f.write_str("ECDSA P-384"),
            Self::P521 => f.write_str("ECDSA P-521"),
            Self::OtherCurve => f.write_str("an elliptic curve that TLS does not use"),
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other => f.write_str("an algorithm that TLS does not use"),
        }
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("hash", &self.0.hash.hex())
            .field("names", &self.0.names)
            .field("not_after", &super::rfc3339(self.0.not_after))
            .finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads a certificate.
    pub(crate) fn from_der(der: CertificateDer<'static>) -> Result<Self, String> {
        let (_, x509) = x509_parser::parse_x509_certificate(&der).map_err(|error| error.to_string())?;
        let at = |time: x509_parser::time::ASN1Time| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(time.timestamp().try_into().unwrap_or_default())
        };
        let (not_before, not_after) = (at(x509.validity().not_before), at(x509.validity().not_after));
        let names = x509
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|names| names.value.general_names.iter().filter_map(name_in_words).collect())
            .unwrap_or_default();
        let facts = Facts {
            hash: Fingerprint::of(&der),
            spki_hash: Fingerprint::of(x509.public_key().raw),
            not_before,
            not_after,
            names,
            subject: x509.subject().to_string(),
            issuer: x509.issuer().to_string(),
            key: key_kind(&x509),
            version_3: x509.version() == x509_parser::x509::X509Version::V3,
            weak_signature: weak_signature(&x509),
            server_auth: server_auth(&x509),
            unknown_critical: unknown_critical(&x509),
            made_here: made_here(&x509),
            der: der.clone(),
        };
        Ok(Self(Arc::new(facts)))
    }

    /// The hash of the certificate (DER), by which WebTransport trusts it.
    #[must_use]
    pub fn hash(&self) -> Fingerprint {
        self.0.hash
    }

    /// The hash of its public key (SPKI), by which Chromium's command line trusts it.
    #[must_use]
    pub fn spki_hash(&self) -> Fingerprint {
        self.0.spki_hash
    }

    /// When it begins to be valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// When it is no longer valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// The host names and addresses that it is for.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0.names
    }

    /// The certificate itself, as DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    pub(super) fn to_der(&self) -> CertificateDer<'static> {
        self.0.der.clone()
    }

    /// Whom it is for, as X.509 writes it.
    pub(crate) fn subject(&self) -> &str {
        &self.0.subject
    }

    /// Who signed it, as X.509 writes it: `C=US, O=Let's Encrypt, CN=E7`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Whether it names itself as the one that signed it, so that no certificate authority did.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.0.subject == self.0.issuer
    }

    pub(super) fn key_kind(&self) -> KeyKind {
        self.0.key
    }

    /// Whether it has the form that TLS asks for (RFC 5280, version 3).
    pub(super) fn is_version_3(&self) -> bool {
        self.0.version_3
    }

    /// Whether it is signed by way of a hash that browsers refuse.
    pub(super) fn has_weak_signature(&self) -> bool {
        self.0.weak_signature
    }

    /// Whether its extended key usage, if it has one, allows servers.
    pub(super) fn is_for_servers(&self) -> bool {
        self.0.server_auth
    }

    /// The object identifier of a critical extension that clients need not know.
    pub(super) fn unknown_critical(&self) -> Option<&str> {
        self.0.unknown_critical.as_deref()
    }

    /// Whether this program created it, this version or an earlier one.
    pub fn is_made_here(&self) -> bool {
        self.0.made_here
    }

    /// Whether it is for this host, as it stands in a URL (RFC 9525 §6.3). Addresses, which cannot be
    /// made to point elsewhere, and names of this machine always are.
    pub fn is_for(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok() || is_loopback(host) || self.names_host(host)
    }

    /// Whether it names this host.
    pub(crate) fn names_host(&self, host: &str) -> bool {
        let host = plain_host(host);
        let address = host.parse::<IpAddr>().ok();
        self.0.names.iter().any(|name| match (name.strip_prefix("*."), address) {
            (_, Some(address)) => name.parse() == Ok(address),
            (Some(parent), None) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
            (None, None) => name.eq_ignore_ascii_case(host),
        })
    }

    /// How long it is still valid.
    pub(super) fn left(&self, now: SystemTime) -> Duration {
        self.0.not_after.duration_since(now).unwrap_or_default()
    }

    /// Whether it is valid now.
    pub(super) fn is_valid(&self, now: SystemTime) -> bool {
        self.0.not_before <= now && now < self.0.not_after
    }

    /// Why clients refuse it now, as far as its dates go.
    #[doc(hidden)]
    #[must_use]
    pub fn refused_now(&self) -> Option<String> {
        let now = SystemTime::now();
        super::own::dates(self, now).filter(|_| !self.is_valid(now))
    }

    /// From its first to its last moment.
    #[must_use]
    pub fn validity(&self) -> Duration {
        self.0.not_after.duration_since(self.0.not_before).unwrap_or_default()
    }

    /// Whether browsers trust it now by its hash alone: the conditions of the W3C's WebTransport,
    /// "custom certificate requirements".
    pub(super) fn is_trusted_by_hash(&self, now: SystemTime) -> bool {
        self.0.version_3 && self.0.key == KeyKind::P256 && self.validity() <= 14 * DAY && self.is_valid(now)
    }
}

/// A host without what a URL adds to it.
fn plain_host(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.')
}

fn name_in_words(name: &x509_parser::extensions::GeneralName<'_>) -> Option<String> {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
        },
        _ => None,
    }
}

fn key_kind(x509: &X509Certificate<'_>) -> KeyKind {
    let algorithm = &x509.public_key().algorithm;
    if algorithm.algorithm == oid::OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == oid::OID_EC_P256 => KeyKind::P256,
            Some(curve) if curve == oid::OID_NIST_EC_P384 => KeyKind::P384,
            Some(curve) if curve == oid::OID_NIST_EC_P521 => KeyKind::P521,
            _ => KeyKind::OtherCurve,
        };
    }
    match x509.public_key().parsed() {
        Ok(PublicKey::RSA(rsa)) => KeyKind::Rsa(rsa.key_size()),
        _ if algorithm.algorithm == oid::OID_SIG_ED25519 => KeyKind::Ed25519,
        _ => KeyKind::Other,
    }
}

/// Signed by way of MD5 or SHA-1.
fn weak_signature(x509: &X509Certificate<'_>) -> bool {
    const WEAK: [&str; 5] =
        ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.3.14.3.2.25", "1.3.14.3.2.29", "1.2.840.10045.4.1"];
    WEAK.contains(&x509.signature_algorithm.algorithm.to_id_string().as_str())
}

fn server_auth(x509: &X509Certificate<'_>) -> bool {
    match x509.extended_key_usage() {
        Ok(Some(usage)) => usage.value.server_auth || usage.value.any,
        _ => true,
    }
}

/// A critical extension that is none of those which RFC 5280 has every client know.
fn unknown_critical(x509: &X509Certificate<'_>) -> Option<String> {
    const KNOWN: [&str; 8] =
        ["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.30", "2.5.29.32", "2.5.29.36", "2.5.29.37", "2.5.29.54"];
    let critical = x509.extensions().iter().filter(|extension| extension.critical);
    critical.map(|extension| extension.oid.to_id_string()).find(|oid| !KNOWN.contains(&oid.as_str()))
}

/// The shape of every certificate that this program ever created: self-signed, with our name and
/// nothing but that, short-lived, on P-256, with exactly three extensions.
fn made_here(x509: &X509Certificate<'_>) -> bool {
    let extensions =
        [oid::OID_X509_EXT_SUBJECT_ALT_NAME, oid::OID_X509_EXT_KEY_USAGE, oid::OID_X509_EXT_EXTENDED_KEY_USAGE];
    let validity = x509.validity().not_after.timestamp() - x509.validity().not_before.timestamp();
    x509.subject().to_string() == format!("CN={COMMON_NAME}")
        && x509.subject().as_raw() == x509.issuer().as_raw()
        && key_kind(x509) == KeyKind::P256
        && x509.signature_algorithm.algorithm == oid::OID_SIG_ECDSA_WITH_SHA256
        && Duration::from_secs(validity.try_into().unwrap_or_default()) <= 14 * DAY
        && x509.extensions().len() == extensions.len()
        && extensions.iter().all(|wanted| x509.extensions().iter().any(|extension| extension.oid == *wanted))
}
