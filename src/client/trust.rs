//! Which servers a client trusts.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use super::ClientError;
use crate::identity::{Fingerprint, provider};

/// Which servers to trust.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Trust {
    /// Those whose certificate the system's roots vouch for.
    #[default]
    System,
    /// Those whose certificate is in one of these PEM files, or vouched for by one that is, beside
    /// those that the system's roots vouch for.
    Files(Vec<PathBuf>),
    /// Those whose certificate has one of these hashes, as WebTransport in browsers does; names and
    /// dates are not looked at.
    Hashes(Vec<Fingerprint>),
    /// All. Whoever is on the way can read and change everything.
    Anyone,
}

/// The TLS configuration of a client that trusts so, for one protocol (ALPN).
pub(crate) fn tls(trust: &Trust, protocol: &[u8]) -> Result<rustls::ClientConfig, ClientError> {
    let builder = rustls::ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let pinned = |hashes: Option<Vec<Fingerprint>>| Arc::new(Pinned { hashes, provider: provider() });
    let mut config = match trust {
        Trust::System => builder.with_root_certificates(roots(&[])?).with_no_client_auth(),
        Trust::Files(files) => builder.with_root_certificates(roots(files)?).with_no_client_auth(),
        Trust::Hashes(hashes) => {
            builder.dangerous().with_custom_certificate_verifier(pinned(Some(hashes.clone()))).with_no_client_auth()
        }
        Trust::Anyone => builder.dangerous().with_custom_certificate_verifier(pinned(None)).with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

fn roots(files: &[PathBuf]) -> Result<rustls::RootCertStore, ClientError> {
    let mut roots = rustls::RootCertStore::empty();
    // A machine without roots, or with one that cannot be read, can still use its own files.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for file in files {
        let unusable = |reason: String| ClientError::Certificate { path: file.clone(), reason };
        let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect)
            .map_err(|error| unusable(error.to_string()))?;
        if certificates.is_empty() {
            return Err(unusable("it holds no certificate in PEM form".into()));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
    }
    Ok(roots)
}

/// Trusts certificates by their hash, or all of them.
#[derive(Debug)]
struct Pinned {
    hashes: Option<Vec<Fingerprint>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.hashes {
            Some(hashes) if !hashes.contains(&Fingerprint::of(certificate)) => {
                Err(rustls::CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    // The server must still prove that it has the certificate's key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
