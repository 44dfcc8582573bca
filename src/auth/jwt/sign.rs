//! Making tokens.

use std::fmt;

use ::ring::{
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

use super::{
    Claims, KeyError,
    keys::{blocks, secret_bytes},
    ring,
};

/// A token cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The key is public.
    #[error("it holds a public key, which verifies tokens: give the private one")]
    Public,
    /// The key is in another format.
    #[error("its private key is in a format of its own: `openssl pkcs8 -topk8 -nocrypt -in FILE` converts it")]
    Format,
    /// It is not a private key that is supported.
    #[error("its private key is not supported: RSA (RS256), P-256 (ES256) and Ed25519 (EdDSA) are")]
    Kind,
    /// It is not a secret.
    #[error(transparent)]
    Secret(#[from] KeyError),
}

/// A key that signs tokens: a private key, or a secret.
pub struct SigningKey {
    algorithm: Algorithm,
    key: EncodingKey,
}

/// What precedes the point of a P-256 key in its SubjectPublicKeyInfo (RFC 5480 §2).
const SPKI_OF_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Bytes as RFC 7468 writes them.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads a private key (PEM, in PKCS #8), or a secret of at least 32 bytes, of which a newline at its end is no
    /// part.
    ///
    /// # Errors
    ///
    /// When it holds neither.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignError> {
        ring::install();
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let Some((label, block)) = blocks(text).next() else {
            let key = EncodingKey::from_secret(secret_bytes(bytes)?);
            return Ok(Self { algorithm: Algorithm::HS256, key });
        };
        match label {
            "PRIVATE KEY" | "RSA PRIVATE KEY" => {}
            "EC PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => return Err(SignError::Format),
            "PUBLIC KEY" | "RSA PUBLIC KEY" => return Err(SignError::Public),
            _ => return Err(SignError::Kind),
        }
        let block = block.as_bytes();
        let tried = [
            (Algorithm::EdDSA, EncodingKey::from_ed_pem(block)),
            (Algorithm::ES256, EncodingKey::from_ec_pem(block)),
            (Algorithm::RS256, EncodingKey::from_rsa_pem(block)),
        ];
        for (algorithm, key) in tried {
            // Whether it really is one of that kind shows when it signs.
            if let Ok(key) = key
                && jsonwebtoken::crypto::sign(b"", &key, algorithm).is_ok()
            {
                return Ok(Self { algorithm, key });
            }
        }
        Err(SignError::Kind)
    }

    /// A new key of ES256: the private one, and the public one, both in PEM.
    ///
    /// # Panics
    ///
    /// When the system has no random bytes.
    #[must_use]
    pub fn generate() -> (String, String) {
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = SystemRandom::new();
        let private = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("the system has random bytes");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref(), &random).expect("it has just been made");
        let public = [&SPKI_OF_P256, pair.public_key().as_ref()].concat();
        (pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", &public))
    }

    /// Whether it is a secret, which servers must have as well.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.algorithm == Algorithm::HS256
    }

    /// Signs a token with these claims. `kid` names the key, where a server has several.
    ///
    /// # Errors
    ///
    /// When the key cannot sign.
    pub fn sign(&self, claims: &Claims, kid: Option<&str>) -> Result<String, SignError> {
        let mut header = Header::new(self.algorithm);
        header.kid = kid.map(String::from);
        encode(&header, claims, &self.key).map_err(|_| SignError::Kind)
    }
}
