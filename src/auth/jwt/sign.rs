//! Making tokens.

use std::fmt;

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
