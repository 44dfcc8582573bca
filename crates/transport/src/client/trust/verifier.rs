//! Decides whether a server is trusted, and remembers why one was not.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, DigitallySignedStruct, OtherError, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::certificate::X509Certificate;

use super::{Expected, Presented, Reason, Refusal, anchors::Anchors, refusal};
use crate::{
    identity::{Fingerprint, provider},
    origin::is_loopback,
};

/// Verifies the certificates of servers.
#[derive(Debug)]
pub struct Verifier {
    rule: Rule,
    provider: Arc<CryptoProvider>,
    refusals: Mutex<Refusals>,
}

#[derive(Debug)]
enum Rule {
    Anchors(Box<Anchors>),
    Pinned(Vec<Fingerprint>),
    Anyone,
}

impl Rule {
    /// What would have been trusted for that host.
    fn expected(&self, name: &ServerName<'_>) -> Vec<Expected> {
        let pinned = |hash: &Fingerprint| Expected {
            file: PathBuf::new(),
            sha256: Some(*hash),
            problem: None,
            only_here: false,
            server: None,
        };
        match self {
            Self::Anyone => Vec::new(),
            Self::Pinned(hashes) => hashes.iter().map(pinned).collect(),
            Self::Anchors(anchors) => anchors.expected(name),
        }
    }
}

/// The latest refusals, by their number.
#[derive(Debug, Default)]
struct Refusals {
    next: u64,
    latest: VecDeque<(u64, Refusal)>,
}

/// Those that are remembered. Equal ones count once, so this is the number of servers at once.
const REMEMBERED: usize = 64;

/// The most certificates of one file that are listed one by one.
const LISTED: usize = 4;

/// What rustls gets to see of a refusal. quinn hands errors on as text only, and sends that text to
/// the server too: so it has a number to find the refusal by, and nothing that is ours.
struct Numbered(u64);

const NUMBERED: &str = "untrusted certificate, refusal ";

impl fmt::Display for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NUMBERED}{}.", self.0)
    }
}

impl fmt::Debug for Numbered {
    // In an error of rustls's, this is what is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Numbered {}

impl Verifier {
    pub(super) fn of(anchors: Anchors) -> Self {
        Self::new(Rule::Anchors(Box::new(anchors)))
    }

    pub(super) fn pinned(hashes: Vec<Fingerprint>) -> Self {
        Self::new(Rule::Pinned(hashes))
    }

    pub(super) fn anyone() -> Self {
        Self::new(Rule::Anyone)
    }

    fn new(rule: Rule) -> Self {
        Self { rule, provider: provider(), refusals: Mutex::default() }
    }

    /// The refusal that an error of TLS speaks of, if it does.
    pub fn refusal(&self, error: &str) -> Option<Refusal> {
        let (_, number) = error.split_once(NUMBERED)?;
        let number: u64 = number.split('.').next()?.parse().ok()?;
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.latest.iter().find(|(known, _)| *known == number).map(|(_, refusal)| refusal.clone())
    }

    fn refuse(&self, refusal: Refusal) -> rustls::Error {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let known = refusals.latest.iter().find(|(_, known)| *known == refusal).map(|(number, _)| *number);
        let number = known.unwrap_or_else(|| {
            let number = refusals.next;
            refusals.next += 1;
            refusals.latest.push_back((number, refusal));
            if refusals.latest.len() > REMEMBERED {
                refusals.latest.pop_front();
            }
            number
        });
        CertificateError::Other(OtherError(Arc::new(Numbered(number)))).into()
    }
}

impl Anchors {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
        algorithms: &[&dyn rustls::pki_types::SignatureVerificationAlgorithm],
    ) -> Result<(), Reason> {
        let here = is_loopback(&name.to_str());
        let hash = Fingerprint::of(certificate);
        // The server itself told its user of this certificate, whose key nobody else has: what names
        // it has, and to which port its user connects, does not matter.
        let noted = || verify_dates(&read(certificate)?, now);
        if here && self.is_noted(&hash) {
            return noted();
        }
        match self.verify_files(certificate, chain, name, now, algorithms, &hash) {
            // Files are read for it, so it comes last.
            Err(_) if here && self.is_noted_now(&hash) => noted(),
            verified => verified,
        }
    }

    /// Whether it is trusted by a file of the user's, or the system.
    fn verify_files(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
        algorithms: &[&dyn rustls::pki_types::SignatureVerificationAlgorithm],
        hash: &Fingerprint,
    ) -> Result<(), Reason> {
        let here = is_loopback(&name.to_str());
        if self.known.iter().any(|known| known.hash == *hash && (known.anywhere || here)) {
            return verify_known(certificate, name, now);
        }
        let parsed = ParsedCertificate::try_from(certificate).map_err(reason(name))?;
        let roots = if here { Cow::Owned(self.all()) } else { Cow::Borrowed(&self.anywhere) };
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, chain, now, algorithms).map_err(reason(name))?;
        verify_server_name(&parsed, name).map_err(reason(name))
    }

    /// The CAs for this machine.
    fn all(&self) -> rustls::RootCertStore {
        let mut all = self.anywhere.clone();
        all.roots.extend(self.here.roots.iter().cloned());
        all
    }

    /// What would have been trusted for that host.
    fn expected(&self, name: &ServerName<'_>) -> Vec<Expected> {
        let here = is_loopback(&name.to_str());
        let known = self.known.iter().map(|known| {
            // Of a bundle of CAs nobody wants to read each one.
            let many = self.known.iter().filter(|other| other.file == known.file).count();
            let usable = known.anywhere || here;
            Expected {
                file: known.file.clone(),
                sha256: (usable && many <= LISTED).then_some(known.hash),
                problem: (usable && many > LISTED).then(|| format!("{many} certificates")),
                only_here: !usable,
                server: None,
            }
        });
        let notes = self.notes();
        let notes = notes.iter().filter(|_| here).flat_map(|note| {
            note.hashes().map(|hash| Expected {
                file: note.certificate.clone(),
                sha256: Some(hash),
                problem: None,
                only_here: false,
                server: Some(note.clone()),
            })
        });
        let mut expected: Vec<Expected> = Vec::new();
        for one in known.chain(notes).chain(self.problems.iter().cloned()) {
            // A server's note and its folder name the same one.
            let same = |known: &Expected| *known == one || (known.sha256.is_some() && known.sha256 == one.sha256);
            if !expected.iter().any(same) {
                expected.push(one);
            }
        }
        expected
    }
}

fn read<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Reason> {
    x509_parser::parse_x509_certificate(certificate)
        .map(|(_, x509)| x509)
        .map_err(|error| Reason::Unusable(format!("it cannot be read: {error}")))
}

/// A certificate that the user has, a CA's or not: it needs no signature of anyone's.
fn verify_known(certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Reason> {
    let x509 = read(certificate)?;
    verify_dates(&x509, now)?;
    if let Ok(Some(usage)) = x509.extended_key_usage()
        && !usage.value.server_auth
        && !usage.value.any
    {
        return Err(Reason::Unusable("it is not for servers (its extended key usage has no serverAuth)".into()));
    }
    let host = name.to_str();
    match refusal::names(&x509).iter().any(|named| is_for(named, &host)) {
        true => Ok(()),
        false => Err(Reason::WrongName(host.into_owned())),
    }
}

fn verify_dates(x509: &X509Certificate<'_>, now: UnixTime) -> Result<(), Reason> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if x509.validity().not_after.timestamp() < now {
        return Err(Reason::Expired);
    }
    if x509.validity().not_before.timestamp() > now {
        return Err(Reason::NotYetValid);
    }
    Ok(())
}

/// Whether a name of a certificate is that of a host (RFC 9525 §6.3).
fn is_for(name: &str, host: &str) -> bool {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return name.parse() == Ok(ip);
    }
    let host = host.trim_end_matches('.');
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => name.eq_ignore_ascii_case(host),
    }
}

/// Why rustls refuses it.
fn reason(name: &ServerName<'_>) -> impl Fn(rustls::Error) -> Reason {
    let name = name.to_str().into_owned();
    move |error| match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Reason::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Reason::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Reason::WrongName(name.clone())
            }
            // The latter two: a CA of the same name, with another key, is trusted.
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Reason::Unknown,
            CertificateError::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => Reason::Unknown,
            CertificateError::Other(error) if error.to_string().contains("UnsupportedCriticalExtension") => {
                Reason::Unusable("it has a critical extension that TLS clients like this one do not support".into())
            }
            error => Reason::Unusable(error.to_string()),
        },
        error => Reason::Unusable(error.to_string()),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = match &self.rule {
            Rule::Anyone => Ok(()),
            Rule::Pinned(hashes) => match hashes.contains(&Fingerprint::of(certificate)) {
                true => Ok(()),
                false => Err(Reason::OtherHash),
            },
            Rule::Anchors(anchors) => {
                let algorithms = self.provider.signature_verification_algorithms.all;
                anchors.verify(certificate, chain, name, now, algorithms)
            }
        };
        // TLS reads the certificate once more, for the server's signature: what it cannot use fails here,
        // where it can be explained, under every rule.
        let verified = verified.and_then(|()| ParsedCertificate::try_from(certificate).map(drop).map_err(reason(name)));
        verified.map(|()| ServerCertVerified::assertion()).map_err(|reason| {
            let expected = self.rule.expected(name);
            self.refuse(Refusal { reason, presented: Presented::read(certificate), expected })
        })
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Identity;

    fn name(host: &str) -> ServerName<'static> {
        ServerName::try_from(host.to_owned()).unwrap()
    }

    #[test]
    fn a_folder_that_nobody_named_is_for_this_machine_only() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::self_signed(dir.path(), &["web.example".into()], Default::default()).unwrap();
        let der = CertificateDer::from(identity.current().der().to_vec());
        let folder = |dir: &Path, anywhere| {
            let mut anchors = Anchors::system();
            anchors.add_folder(dir, anywhere).unwrap();
            Verifier::of(anchors)
        };
        let verify = |verifier: &Verifier, host: &str, now: UnixTime| {
            verifier
                .verify_server_cert(&der, &[], &name(host), &[], now)
                .map(drop)
                .map_err(|error| Box::new(verifier.refusal(&error.to_string()).expect("it is remembered")))
        };
        let now = UnixTime::now();
        for host in ["localhost", "127.0.0.1", "::1"] {
            assert_eq!(verify(&folder(dir.path(), false), host, now), Ok(()), "{host}");
        }
        let refusal = verify(&folder(dir.path(), false), "web.example", now).unwrap_err();
        assert_eq!(refusal.reason, Reason::Unknown);
        assert!(refusal.expected[0].only_here, "{refusal}");
        let named = folder(dir.path(), true);
        assert_eq!(verify(&named, "web.example", now), Ok(()));
        let later = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_secs() + 40 * 24 * 3600));
        for (host, now, reason) in [
            ("other.example", now, Reason::WrongName("other.example".into())),
            ("app.localhost", now, Reason::WrongName("app.localhost".into())),
            ("127.0.0.2", now, Reason::WrongName("127.0.0.2".into())),
            ("localhost", later, Reason::Expired),
            ("localhost", UnixTime::since_unix_epoch(Default::default()), Reason::NotYetValid),
        ] {
            let refusal = verify(&named, host, now).unwrap_err();
            assert_eq!(refusal.reason, reason);
            assert_eq!(refusal.presented.sha256, identity.current().hash());
            assert!(refusal.presented.self_signed && refusal.presented.names.contains(&"web.example".to_owned()));
        }
        // Equal ones are remembered once, and of others only some.
        let refusals = || named.refusals.lock().unwrap().latest.len();
        let before = refusals();
        verify(&named, "other.example", now).unwrap_err();
        assert_eq!(refusals(), before);
        for host in 0..2 * REMEMBERED {
            verify(&named, &format!("host-{host}.example"), now).unwrap_err();
        }
        assert_eq!(refusals(), REMEMBERED);
        assert_eq!(named.refusal("something else"), None);
    }

    #[test]
    fn an_unknown_critical_extension_is_refused_in_words() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
        let der = params.self_signed(&key).unwrap().der().clone();
        let (dir, now) = (tempfile::tempdir().unwrap(), UnixTime::now());
        std::fs::write(dir.path().join("cert.pem"), &der).unwrap();
        let mut anchors = Anchors::system();
        anchors.add_folder(dir.path(), true).unwrap();
        for verifier in [Verifier::of(anchors), Verifier::pinned(vec![Fingerprint::of(&der)]), Verifier::anyone()] {
            let error = verifier.verify_server_cert(&der, &[], &name("localhost"), &[], now).unwrap_err();
            let refusal = verifier.refusal(&error.to_string()).expect("it is remembered");
            assert!(refusal.reason.to_string().contains("critical extension"), "{refusal}");
        }
    }

    #[test]
    fn names_of_certificates() {
        for (name, host) in
            [("a.b", "A.b"), ("*.b", "a.b"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("a.b", "a.b.")]
        {
            assert!(is_for(name, host), "{name} {host}");
        }
        for (name, host) in [("*.b", "b"), ("*.b", "a.a.b"), ("a.b", "x.a.b"), ("*.0.0.1", "127.0.0.1"), ("", "a")] {
            assert!(!is_for(name, host), "{name} {host}");
        }
    }
}
