//! Keys that verify tokens, each for one algorithm: a secret, public keys in PEM, or a JWKS (RFC 7517).

use std::fmt;

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde_json::Value;
use tracing::warn;

/// The shortest secret, in bytes: that of HS256's hash (RFC 7518 §3.2).
pub(super) const SHORTEST_SECRET: usize = 32;
/// The shortest RSA key, in bits (RFC 7518 §3.3).
const SHORTEST_RSA: usize = 2048;
/// More keys than this are no set of keys.
const MOST_KEYS: usize = 256;

/// A text holds no keys that verify tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It is no format of public keys. It is not taken for a secret: what is not known to be one may be public.
    #[error("it holds no keys: public keys in PEM or a JWKS are expected (a secret is a setting of its own)")]
    Unknown,
    /// It holds a key that can be told from a secret.
    #[error("it holds a key and not a secret: public keys are a setting of their own")]
    NotSecret,
    /// A secret is too short to be one.
    #[error(
        "the secret has {0} bytes, fewer than the {SHORTEST_SECRET} of HS256: take a random one, as `openssl rand -hex 32` prints"
    )]
    Short(usize),
    /// The keys are the private ones.
    #[error("it holds a private key: give the public one, as `openssl pkey -in FILE -pubout` prints it")]
    Private,
    /// It holds a certificate.
    #[error("it holds a certificate: give its public key, as `openssl x509 -in FILE -pubkey -noout` prints it")]
    Certificate,
    /// A key is of a kind that is not supported.
    #[error(
        "a key is not supported: RSA of at least {SHORTEST_RSA} bits (RS256), P-256 (ES256) and Ed25519 (EdDSA) are"
    )]
    Kind,
    /// It looks like JSON, and is no set of keys.
    #[error("it is not a JWKS: {0}")]
    Jwks(String),
    /// No key of the set can be used.
    #[error("none of its {0} keys can verify a token: RS256, ES256, EdDSA and HS256 are supported")]
    NoneUsable(usize),
}

/// A key and the one algorithm that it is for.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// Keys that may have signed a token.
#[derive(Clone, Default)]
pub(in crate::auth) struct KeySet {
    keys: Vec<Key>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.iter().map(|key| (key.algorithm, key.kid.as_deref()));
        f.debug_list().entries(keys).finish()
    }
}

impl KeySet {
    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    pub(in crate::auth) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether a key of it is a secret, which others must not read.
    pub(in crate::auth) fn is_secret(&self) -> bool {
        self.keys.iter().any(|key| key.algorithm == Algorithm::HS256)
    }

    /// Reads keys: a JWKS or JWK, public keys in PEM, or a secret, as is said where they are from. Nothing is taken
    /// for a secret because it is nothing else: with a public key as a secret, everyone could sign.
    pub(in crate::auth) fn parse(bytes: &[u8], kind: KeyKind) -> Result<Self, KeyError> {
        // Editors of some systems begin a file so.
        let bytes = match kind {
            KeyKind::Secret => bytes,
            _ => bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes),
        };
        let is_pem = bytes.windows(11).any(|part| part == b"-----BEGIN ");
        let keys = match (bytes.trim_ascii_start(), kind) {
            ([], _) => return Err(KeyError::Empty),
            ([b'{', ..], KeyKind::Secret) => return Err(KeyError::NotSecret),
            (_, KeyKind::Secret) if is_pem => return Err(KeyError::NotSecret),
            (_, KeyKind::Secret) => vec![secret(bytes)?],
            ([b'{', ..], _) => jwks(bytes, kind)?,
            _ if is_pem => pem(bytes)?,
            _ => return Err(KeyError::Unknown),
        };
        Ok(Self { keys })
    }
}

/// What keys are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) enum KeyKind {
    /// Public ones; in a JWKS there may be secrets, which say that they are.
    Keys,
    /// Public ones that anyone can ask for.
    Served,
    /// A secret.
    Secret,
}

/// The bytes of a secret: those of the file without the line's end, which editors add.
pub(super) fn secret_bytes(bytes: &[u8]) -> Result<&[u8], KeyError> {
    let secret = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    match secret.len() {
        0 => Err(KeyError::Empty),
        len if len < SHORTEST_SECRET => Err(KeyError::Short(len)),
        // A public key in DER, or one of SSH.
        _ if secret.starts_with(&[0x30]) && !secret.is_ascii() || secret.starts_with(b"ssh-") => {
            Err(KeyError::NotSecret)
        }
        _ => Ok(secret),
    }
}

fn secret(bytes: &[u8]) -> Result<Key, KeyError> {
    Ok(Key { kid: None, algorithm: Algorithm::HS256, decoding: DecodingKey::from_secret(secret_bytes(bytes)?) })
}

/// The blocks of a PEM file, each with its label.
pub(super) fn blocks(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices("-----BEGIN ").filter_map(|(at, _)| {
        let block = &text[at..];
        let label = block["-----BEGIN ".len()..].split("-----").next()?;
        let end = format!("-----END {label}-----");
        let len = block.find(&end)? + end.len();
        Some((label, &block[..len]))
    })
}

fn pem(bytes: &[u8]) -> Result<Vec<Key>, KeyError> {
    let text = std::str::from_utf8(bytes).map_err(|_| KeyError::Kind)?;
    let keys: Vec<_> = blocks(text)
        .map(|(label, block)| match label {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => public(block.as_bytes()),
            "CERTIFICATE" => Err(KeyError::Certificate),
            label if label.ends_with("PRIVATE KEY") => Err(KeyError::Private),
            _ => Err(KeyError::Kind),
        })
        .collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(KeyError::Kind) } else { Ok(keys) }
}

fn public(block: &[u8]) -> Result<Key, KeyError> {
    let key = |algorithm, decoding| Key { kid: None, algorithm, decoding };
    let read = |result: Result<DecodingKey, _>, algorithm| result.ok().map(|decoding| key(algorithm, decoding));
    let found = read(DecodingKey::from_ed_pem(block), Algorithm::EdDSA)
        .or_else(|| read(DecodingKey::from_ec_pem(block), Algorithm::ES256))
        .or_else(|| read(DecodingKey::from_rsa_pem(block), Algorithm::RS256));
    found.filter(is_usable).ok_or(KeyError::Kind)
}

/// Whether a key has the size that its algorithm asks for.
fn is_usable(key: &Key) -> bool {
    match (key.algorithm, key.decoding.kind()) {
        (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret)) => secret.len() >= SHORTEST_SECRET,
        // An uncompressed point.
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => point.len() == 65 && point[0] == 4,
        (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(point)) => point.len() == 32,
        // The modulus, the exponent and what frames them.
        (Algorithm::RS256, DecodingKeyKind::SecretOrDer(der)) => der.len() > SHORTEST_RSA / 8,
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, .. }) => n.len() >= SHORTEST_RSA / 8,
        _ => false,
    }
}

fn jwks(bytes: &[u8], kind: KeyKind) -> Result<Vec<Key>, KeyError> {
    let wrong = |text: &str| KeyError::Jwks(text.to_owned());
    // Positions in the text say enough: what stands there may be a secret.
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| KeyError::Jwks(format!("no JSON at line {}, column {}", error.line(), error.column())))?;
    let list = match value.get("keys") {
        Some(Value::Array(list)) => list.clone(),
        Some(_) => return Err(wrong("its `keys` is not a list")),
        None if value.get("kty").is_some() => vec![value],
        None => return Err(wrong("it has no `keys`")),
    };
    if list.len() > MOST_KEYS {
        return Err(wrong("it has more than 256 keys"));
    }
    let all = list.len();
    let mut keys: Vec<_> = list.into_iter().filter_map(jwk).collect();
    // A secret that is served is none.
    keys.retain(|key| kind != KeyKind::Served || key.algorithm != Algorithm::HS256);
    if keys.is_empty() { Err(KeyError::NoneUsable(all)) } else { Ok(keys) }
}

/// A key of a set, if it is one that verifies tokens here. Others are for others.
fn jwk(value: Value) -> Option<Key> {
    let kid = value.get("kid").and_then(Value::as_str).map(String::from);
    let read = || {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|kind| *kind != PublicKeyUse::Signature) {
            return None;
        }
        if jwk.common.key_operations.as_ref().is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
            return None;
        }
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
            _ => return None,
        };
        let named = jwk.common.key_algorithm;
        let same = |named: KeyAlgorithm| named.to_string() == format!("{algorithm:?}");
        if named.is_some_and(|named| !same(named)) {
            return None;
        }
        let key = Key { kid: jwk.common.key_id.clone(), algorithm, decoding: DecodingKey::from_jwk(&jwk).ok()? };
        is_usable(&key).then_some(key)
    };
    let key = read();
    if key.is_none() {
        warn!(kid, "a key of the JWKS is ignored: it cannot verify RS256, ES256, EdDSA or HS256");
    }
    key
}
