//! Certificates for tests.

use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate for `name`, signed by itself, and its key.
pub(crate) fn for_name(name: &str) -> (CertificateDer<'static>, Arc<PrivateKeyDer<'static>>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.der().clone(), Arc::new(PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

/// A CA, and a client's certificate that it has signed.
pub(crate) fn of_client() -> (CertificateDer<'static>, (CertificateDer<'static>, Arc<PrivateKeyDer<'static>>)) {
    let mut params = CertificateParams::new(["ca.test".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let client = CertificateParams::new(["client.test".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let key = Arc::new(PrivatePkcs8KeyDer::from(key.serialize_der()).into());
    (ca.der().clone(), (client.der().clone(), key))
}
