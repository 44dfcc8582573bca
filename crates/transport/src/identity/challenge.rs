//! Certificates that prove to a certificate authority that a name leads to this server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{server::ClientHello, sign::CertifiedKey};

use super::Identity;

/// The protocol that an ACME server asks for when it validates a name, and nobody else does (RFC 8737 §6.2).
pub(crate) const PROTOCOL: &[u8] = b"acme-tls/1";

/// The certificates that are shown then, by name in lower case.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers(Arc<Mutex<HashMap<String, Arc<CertifiedKey>>>>);

impl Answers {
    fn with<T>(&self, with: impl FnOnce(&mut HashMap<String, Arc<CertifiedKey>>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The certificate for a client that validates a name; `None` within when there is none for it. A client that
    /// offers other protocols too is an ordinary one.
    pub(super) fn for_client(&self, hello: &ClientHello<'_>) -> Option<Option<Arc<CertifiedKey>>> {
        let mut offered = hello.alpn()?;
        let validates = offered.next() == Some(PROTOCOL) && offered.next().is_none();
        let named = || self.with(|answers| answers.get(&hello.server_name()?.to_ascii_lowercase()).cloned());
        validates.then(named)
    }
}

/// While it is kept, ACME servers that validate a name get the certificate which answers their challenge.
#[derive(Debug)]
#[must_use = "dropped, it takes the answer back"]
pub struct ChallengeAnswer {
    answers: Answers,
    name: String,
    shown: Arc<CertifiedKey>,
}

impl Drop for ChallengeAnswer {
    fn drop(&mut self) {
        self.answers.with(|answers| {
            // One more answer may have taken its place.
            if answers.get(&self.name).is_some_and(|shown| Arc::ptr_eq(shown, &self.shown)) {
                answers.remove(&self.name);
            }
        });
    }
}

impl Identity {
    /// Shows the certificate of `answer` to ACME servers that validate `name` (the TLS-ALPN-01 challenge, RFC 8737),
    /// until what it returns is dropped. They ask the listeners of TLS over TCP; browsers and other clients see
    /// nothing of it. One more answer for the same name takes the place of the one before.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "self-signed")] {
    /// use h3cast_transport::Identity;
    ///
    /// let mut params = rcgen::CertificateParams::new(["cast.example".to_owned()])?;
    /// // The hash of the challenge's key authorization, as the ACME server wants to see it.
    /// params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(&[0; 32])];
    /// let key = rcgen::KeyPair::generate()?;
    /// let answer = Identity::from_der(vec![params.self_signed(&key)?.into()], key.into())?;
    ///
    /// let identity = Identity::localhost()?;
    /// let shown = identity.answer_challenge("cast.example", &answer);
    /// // Now ask the ACME server to validate the name, and poll it until it has.
    /// drop(shown);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn answer_challenge(&self, name: &str, answer: &Self) -> ChallengeAnswer {
        let name = name.to_ascii_lowercase();
        let shown = answer.state().current.tls_for(&name);
        let answers = self.0.answers.clone();
        answers.with(|answers| answers.insert(name.clone(), shown.clone()));
        ChallengeAnswer { answers, name, shown }
    }
}
