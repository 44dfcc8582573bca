//! The cryptography of JSON web tokens: ring's, which TLS uses too.

use std::sync::Once;

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{self as signing, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair, UnparsedPublicKey},
};
use signature::{Signer, Verifier};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(RingSigner::new(*algorithm, key)?)),
    verifier_factory: |algorithm, key| Ok(Box::new(RingVerifier::new(*algorithm, key)?)),
    // Thumbprints and the like, of which nothing is used here.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes jsonwebtoken use it, unless the program has chosen another.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = PROVIDER.install_default();
    });
}

fn family(algorithm: Algorithm) -> AlgorithmFamily {
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => AlgorithmFamily::Hmac,
        Algorithm::ES256 | Algorithm::ES384 => AlgorithmFamily::Ec,
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        _ => AlgorithmFamily::Rsa,
    }
}

fn hash_of(algorithm: Algorithm) -> hmac::Algorithm {
    match algorithm {
        Algorithm::HS384 => hmac::HMAC_SHA384,
        Algorithm::HS512 => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    }
}

fn wrong_key() -> Error {
    ErrorKind::InvalidKeyFormat.into()
}

enum Pair {
    Hmac(hmac::Key),
    Rsa(RsaKeyPair, &'static dyn signing::RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

struct RingSigner(Algorithm, Pair);

impl RingSigner {
    fn new(algorithm: Algorithm, key: &EncodingKey) -> Result<Self, Error> {
        if key.family() != family(algorithm) {
            return Err(wrong_key());
        }
        let bytes = key.as_bytes();
        let random = SystemRandom::new();
        let ec = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, bytes, &random).map(Pair::Ec).map_err(|_| wrong_key());
        let rsa = |encoding| RsaKeyPair::from_der(bytes).map(|pair| Pair::Rsa(pair, encoding)).map_err(|_| wrong_key());
        let pair = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                Pair::Hmac(hmac::Key::new(hash_of(algorithm), bytes))
            }
            Algorithm::ES256 => ec(&signing::ECDSA_P256_SHA256_FIXED_SIGNING)?,
            Algorithm::ES384 => ec(&signing::ECDSA_P384_SHA384_FIXED_SIGNING)?,
            // What OpenSSL writes lacks the public half, by which ring would check it.
            Algorithm::EdDSA => {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map(Pair::Ed).map_err(|_| wrong_key())?
            }
            Algorithm::RS256 => rsa(&signing::RSA_PKCS1_SHA256)?,
            Algorithm::RS384 => rsa(&signing::RSA_PKCS1_SHA384)?,
            Algorithm::RS512 => rsa(&signing::RSA_PKCS1_SHA512)?,
            Algorithm::PS256 => rsa(&signing::RSA_PSS_SHA256)?,
            Algorithm::PS384 => rsa(&signing::RSA_PSS_SHA384)?,
            Algorithm::PS512 => rsa(&signing::RSA_PSS_SHA512)?,
            _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
        };
        Ok(Self(algorithm, pair))
    }
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let random = SystemRandom::new();
        Ok(match &self.1 {
            Pair::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Pair::Ec(pair) => pair.sign(&random, message).map_err(|_| signature::Error::new())?.as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair, encoding) => {
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, message, &mut signed).map_err(|_| signature::Error::new())?;
                signed
            }
        })
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        self.0
    }
}

struct RingVerifier(Algorithm, DecodingKey);

impl RingVerifier {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        if key.family() != family(algorithm) {
            return Err(wrong_key());
        }
        Ok(Self(algorithm, key.clone()))
    }

    fn is_signed(&self, message: &[u8], signed: &[u8]) -> Option<()> {
        let key = self.1.kind();
        let plain = |algorithm: &'static dyn signing::VerificationAlgorithm| match key {
            DecodingKeyKind::SecretOrDer(bytes) => {
                UnparsedPublicKey::new(algorithm, bytes).verify(message, signed).ok()
            }
            DecodingKeyKind::RsaModulusExponent { .. } => None,
        };
        let rsa = |algorithm: &'static signing::RsaParameters| match key {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                signing::RsaPublicKeyComponents { n, e }.verify(algorithm, message, signed).ok()
            }
            DecodingKeyKind::SecretOrDer(_) => plain(algorithm),
        };
        match self.0 {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                let secret = self.1.try_get_as_bytes().ok()?;
                hmac::verify(&hmac::Key::new(hash_of(self.0), secret), message, signed).ok()
            }
            Algorithm::ES256 => plain(&signing::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => plain(&signing::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => plain(&signing::ED25519),
            Algorithm::RS256 => rsa(&signing::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => rsa(&signing::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => rsa(&signing::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => rsa(&signing::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => rsa(&signing::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => rsa(&signing::RSA_PSS_2048_8192_SHA512),
            _ => None,
        }
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), signature::Error> {
        self.is_signed(message, signed).ok_or_else(signature::Error::new)
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.0
    }
}
