//! A certificate that its owner gives and renews: what is wrong with it, and what soon will be.

use std::{path::Path, time::SystemTime};

use super::{
    Certificate, DAY, IdentityError, PemError,
    certificate::KeyKind,
    key::{Generation, Key},
    pem, rfc3339,
};

/// Reads a certificate chain and its key.
pub(super) fn load(certificate: &Path, key: &Path) -> Result<(Generation, Vec<Certificate>), IdentityError> {
    let chain = pem::certificates(certificate, &pem::read(certificate)?)?;
    let private = pem::key(key, &pem::read(key)?)?;
    fitting(chain, private, certificate, key)
}

/// What a server can use of a chain and its key; the paths are for messages.
pub(super) fn fitting(
    chain: Vec<Certificate>,
    private: Key,
    certificate: &Path,
    key: &Path,
) -> Result<(Generation, Vec<Certificate>), IdentityError> {
    let Some(leaf) = chain.first() else {
        let reason = PemError::Other("there is none".into());
        return Err(IdentityError::Pem { wanted: "certificate", path: certificate.into(), reason });
    };
    if !private.is_of(leaf) {
        return Err(match chain.iter().position(|one| private.is_of(one)) {
            Some(at) => IdentityError::Order {
                path: certificate.into(),
                position: at + 1,
                subject: chain[at].subject().to_owned(),
            },
            None => IdentityError::Mismatch {
                certificate: certificate.into(),
                key: key.into(),
                reason: format!("the key is not that of {}", described(leaf)),
            },
        });
    }
    if !leaf.is_version_3() {
        let reason = format!(
            "{} is an X.509 certificate of version 1, which names no hosts and which TLS refuses; have it signed with extensions (`openssl x509 -req … -copy_extensions copy`)",
            described(leaf)
        );
        return Err(IdentityError::Unusable { path: certificate.into(), reason });
    }
    Ok((Generation::chain(private, leaf, &chain), chain))
}

/// A certificate in a few words.
pub(crate) fn described(certificate: &Certificate) -> String {
    let names = match certificate.names() {
        [] => certificate.subject().to_owned(),
        names => names.iter().take(3).cloned().collect::<Vec<_>>().join(", "),
    };
    let signed = match certificate.issuer() == certificate.subject() {
        true => "self-signed".to_owned(),
        false => format!("issued by {}", certificate.issuer()),
    };
    format!("the certificate for {names} ({}, {signed})", certificate.key_kind())
}

/// What will keep some clients away, though it can be served.
pub(super) fn warnings(chain: &[Certificate], hosts: &[String]) -> Vec<String> {
    let Some(leaf) = chain.first() else { return Vec::new() };
    let mut warnings = Vec::new();
    if leaf.names().is_empty() {
        warnings.push("it names no host (subjectAltName): browsers refuse it".into());
    } else {
        let missing: Vec<_> = hosts.iter().filter(|host| !leaf.names_host(host)).map(String::as_str).collect();
        if !missing.is_empty() {
            let names = leaf.names().join(", ");
            warnings.push(format!(
                "it is not for {}, where this server listens, but for {names}: clients refuse it unless they come by one of its names",
                missing.join(", ")
            ));
        }
    }
    if !leaf.is_for_servers() {
        warnings.push("its extended key usage does not include serverAuth: clients refuse it".into());
    }
    if let Some(oid) = leaf.unknown_critical() {
        warnings.push(format!("it has a critical extension ({oid}) that clients do not know: they refuse it"));
    }
    if leaf.key_kind() == KeyKind::Ed25519 {
        warnings.push("its key is Ed25519, which browsers refuse; use ECDSA P-256".into());
    }
    if leaf.has_weak_signature() {
        warnings.push("it is signed with SHA-1 or MD5, which clients refuse".into());
    }
    if let Some(at) = chain.windows(2).position(|pair| pair[0].issuer() != pair[1].subject()) {
        warnings.push(format!(
            "certificate {} of its file did not sign certificate {}: each one must be followed by the one that signed it, or some clients refuse it",
            at + 2,
            at + 1
        ));
    }
    warnings
}

/// What is to be said of its dates.
pub(super) fn dates(certificate: &Certificate, now: SystemTime) -> Option<String> {
    let end = rfc3339(certificate.not_after());
    if now < certificate.not_before() {
        return Some(format!(
            "it is not valid before {}: clients refuse it until then (is this machine's clock right?)",
            rfc3339(certificate.not_before())
        ));
    }
    let left = certificate.left(now);
    if left.is_zero() {
        return Some(format!("it expired on {end}: clients refuse it"));
    }
    let soon = (certificate.validity() / 3).min(14 * DAY);
    let days = left.as_secs() / DAY.as_secs();
    match (left <= soon, days) {
        (false, _) => None,
        (true, 0) => Some(format!("it expires within a day, at {end}: renew it")),
        (true, 1) => Some(format!("it expires in 1 day, at {end}: renew it")),
        (true, days) => Some(format!("it expires in {days} days, on {end}: renew it")),
    }
}
