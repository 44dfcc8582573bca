//! An identity from memory: no file is read or written.

use std::{path::Path, sync::PoisonError, time::SystemTime};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Certificate, Generations, Identity, IdentityError, Origin, key::Key, own, pem};

/// What messages call them.
const CERTIFICATE: &str = "the certificate from memory";
const KEY: &str = "the key from memory";

impl Identity {
    /// A certificate chain and its key in PEM form, the server's own certificate first. No file is touched.
    ///
    /// Nothing renews it: give the next one to [`replace`](Self::replace) before this one expires.
    ///
    /// # Errors
    ///
    /// When they are no PEM, do not fit together, or are of a kind that TLS cannot use.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "self-signed")] {
    /// use h3cast_transport::Identity;
    ///
    /// // As they come from a store of secrets, or from `include_bytes!`.
    /// let made = rcgen::generate_simple_self_signed(["cast.example".to_owned()])?;
    /// let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    /// let identity = Identity::from_pem_bytes(chain.as_bytes(), key.as_bytes())?;
    /// assert_eq!(identity.current().names(), ["cast.example"]);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_pem_bytes(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let certificates = pem::certificates(Path::new(CERTIFICATE), chain)?;
        Self::from_memory(certificates, pem::key(Path::new(KEY), key)?)
    }

    /// The same in DER form: the chain, the server's own certificate first, and its key (PKCS #8, SEC 1 or
    /// PKCS #1).
    ///
    /// # Errors
    ///
    /// When they cannot be read, do not fit together, or are of a kind that TLS cannot use.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "self-signed")] {
    /// use h3cast_transport::Identity;
    ///
    /// let made = rcgen::generate_simple_self_signed(["cast.example".to_owned()])?;
    /// let identity = Identity::from_der(vec![made.cert.into()], made.signing_key.into())?;
    /// assert_eq!(identity.current().names(), ["cast.example"]);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_der(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, IdentityError> {
        let wrong = |wanted, path: &str, reason| IdentityError::Unusable {
            path: path.into(),
            reason: format!("it is not a valid {wanted} in DER form ({reason})"),
        };
        let certificates = chain.into_iter().map(Certificate::from_der).collect::<Result<_, _>>();
        let certificates = certificates.map_err(|error| wrong("certificate", CERTIFICATE, error))?;
        let private = Key::from_der(key).ok_or_else(|| wrong("key", KEY, "of a kind that TLS can use".into()))?;
        Self::from_memory(certificates, private)
    }

    fn from_memory(chain: Vec<Certificate>, key: Key) -> Result<Self, IdentityError> {
        let (current, chain) = own::fitting(chain, key, Path::new(CERTIFICATE), Path::new(KEY))?;
        Ok(Self::new(Origin::Memory { chain }, Generations { current, next: None, previous: Vec::new() }))
    }

    /// Serves with the certificate of `other` from the next handshake on, also in a server that runs. Pages
    /// that hold the hash of the one before still find it among [`hashes`](Self::hashes).
    ///
    /// It is for identities from memory. One from files returns to these at its next look at them.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "self-signed")] {
    /// use h3cast_transport::Identity;
    ///
    /// let (running, renewed) = (Identity::localhost()?, Identity::localhost()?);
    /// running.replace(&renewed);
    /// assert_eq!(running.current().names(), renewed.current().names());
    /// # }
    /// # Ok::<(), h3cast_transport::identity::IdentityError>(())
    /// ```
    pub fn replace(&self, other: &Self) {
        // A look at the clock or the files that goes on meanwhile would put back what it began with.
        let _keeping = self.0.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        self.adopt(&self.state(), (*other.state()).clone(), SystemTime::now());
    }
}

#[cfg(all(test, feature = "self-signed"))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn created() -> Identity {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Identity::from_der(vec![made.cert.into()], made.signing_key.into()).unwrap()
    }

    /// A server looks at the clock now and then.
    #[test]
    fn a_certificate_that_was_replaced_does_not_come_back() {
        let (identity, two, stop) = (created(), [created(), created()], AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    identity.refresh(SystemTime::now());
                }
            });
            let mut came_back = 0;
            for round in 0..5000 {
                let next = &two[round % 2];
                identity.replace(next);
                std::thread::yield_now();
                came_back += u32::from(identity.current() != next.current());
            }
            stop.store(true, Ordering::Relaxed);
            assert_eq!(came_back, 0);
        });
    }
}
