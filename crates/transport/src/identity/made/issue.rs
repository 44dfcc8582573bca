//! Keys and certificates that are created here.

use std::time::SystemTime;

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::identity::{Certificate, IdentityError, certificate::COMMON_NAME, key::Key, provider};

impl Key {
    /// A new key, as browsers want it that are to trust a certificate by its hash.
    pub(in crate::identity) fn generate() -> Result<Self, IdentityError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        Self::from_der(der).ok_or(IdentityError::Generate(rcgen::Error::CouldNotParseKeyPair))
    }

    /// The key in PEM form.
    pub(in crate::identity) fn to_pem(&self) -> Result<String, IdentityError> {
        Ok(KeyPair::try_from(self.der())?.serialize_pem())
    }

    /// A certificate for this key.
    pub(in crate::identity) fn certify(
        &self,
        names: &[String],
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Result<Certificate, IdentityError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
        // Not left to rcgen, which derives it from the key: two certificates of one issuer with the
        // same number are refused by Firefox.
        let mut serial = [0; 16];
        let _ = provider().secure_random.fill(&mut serial);
        serial[0] &= 0x7f;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = OffsetDateTime::from(not_before);
        params.not_after = OffsetDateTime::from(not_after);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let made = params.self_signed(&KeyPair::try_from(self.der())?)?;
        Certificate::from_der(made.der().clone())
            .map_err(|_| IdentityError::Generate(rcgen::Error::CouldNotParseCertificate))
    }
}

/// Certificates in PEM form.
pub(in crate::identity) fn pem(certificates: &[Certificate]) -> String {
    certificates.iter().map(|certificate| pem_block(&certificate.to_der())).collect()
}

fn pem_block(der: &CertificateDer<'_>) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem += line;
        pem.push('\n');
        rest = after;
    }
    pem + "-----END CERTIFICATE-----\n"
}
