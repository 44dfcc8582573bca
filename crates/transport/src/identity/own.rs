//! A certificate that its owner gives and renews: what is wrong with it, and what soon will be.

use std::{path::Path, time::SystemTime};

use super::{
    Certificate, DAY, IdentityError, PemError,
    certificate::KeyKind,
    key::{Generation, Key},
    pem, rfc3339,
};

/// How often files are read that are replaced while they are.
const READS: u32 = 5;

/// Reads a certificate chain and its key. A file that holds both is read once. Where they do not fit together, one of
/// two files may have been replaced between the reads: they are read again until nothing changes.
pub(super) fn load(certificate: &Path, key: &Path) -> Result<(Generation, Vec<Certificate>), IdentityError> {
    load_by(pem::read, certificate, key)
}

fn load_by(
    mut read: impl FnMut(&Path) -> Result<Vec<u8>, IdentityError>,
    certificate: &Path,
    key: &Path,
) -> Result<(Generation, Vec<Certificate>), IdentityError> {
    let mut read = || {
        let chain = read(certificate)?;
        let private = if certificate == key { chain.clone() } else { read(key)? };
        Ok::<_, IdentityError>((chain, private))
    };
    let (mut texts, mut reads) = (read()?, 1);
    loop {
        let (chain, private) = (pem::certificates(certificate, &texts.0)?, pem::key(key, &texts.1)?);
        let fit = fitting(chain, private, certificate, key);
        if reads == READS || !matches!(fit, Err(IdentityError::Mismatch { .. } | IdentityError::Order { .. })) {
            return fit;
        }
        let again = read()?;
        if again == texts {
            return fit;
        }
        (texts, reads) = (again, reads + 1);
    }
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

#[cfg(all(test, feature = "self-signed"))]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    fn created() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["cast.example".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// Reads two files, of which each read finds the next text, and the last one for good. Gives how often that was.
    fn read(chains: &[&str], keys: &[&str]) -> (Result<(), IdentityError>, u32) {
        let (mut chains, mut keys, mut reads) = (chains.iter(), keys.iter(), 0);
        let loaded = load_by(
            |path| {
                let texts = if path == Path::new("cert.pem") { &mut chains } else { &mut keys };
                reads += 1;
                let text = texts.next().unwrap();
                if texts.len() == 0 {
                    *texts = std::slice::from_ref(text).iter();
                }
                Ok(text.as_bytes().to_vec())
            },
            Path::new("cert.pem"),
            Path::new("key.pem"),
        );
        (loaded.map(drop), reads)
    }

    #[test]
    fn two_files_are_read_until_they_fit_together() {
        let ((old, old_key), (new, new_key)) = (created(), created());
        let (old, old_key, new, new_key) = (old.as_str(), old_key.as_str(), new.as_str(), new_key.as_str());
        // Nothing is replaced; the chain before the key is; the key before the chain is.
        for (chains, keys, pairs) in [
            (&[new][..], &[new_key][..], 1),
            (&[old, new], &[new_key], 2),
            (&[new], &[old_key, new_key], 2),
            (&[old, new, old, new], &[new_key, old_key, new_key], 4),
        ] {
            let (loaded, reads) = read(chains, keys);
            assert!(loaded.is_ok(), "{loaded:?}");
            assert_eq!(reads, 2 * pairs);
        }
        // Two that never fit are no reason to wait, and two that always change none to read for ever.
        let always: Vec<_> = [old, new].repeat(READS as usize);
        let never: Vec<_> = [new_key, old_key].repeat(READS as usize);
        for (chains, keys, pairs) in [(&[old][..], &[new_key][..], 2), (&always, &never, READS)] {
            let (loaded, reads) = read(chains, keys);
            assert!(matches!(loaded, Err(IdentityError::Mismatch { .. })), "{loaded:?}");
            assert_eq!(reads, 2 * pairs);
        }
    }

    /// Files that are replaced all the time, as by a second server: what is read always fits together.
    #[test]
    fn what_is_replaced_while_it_is_read_fits_together() {
        let folder = tempfile::tempdir().unwrap();
        let pairs = [created(), created()];
        let put = |name: &str, text: &str| {
            fs::write(folder.path().join("new"), text).unwrap();
            fs::rename(folder.path().join("new"), folder.path().join(name)).unwrap();
        };
        let both = |(certificate, key): &(String, String)| put("both.pem", &format!("{key}{certificate}"));
        both(&pairs[0]);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for pair in pairs.iter().cycle() {
                    both(pair);
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let path = folder.path().join("both.pem");
            let failed = (0..1000).find_map(|_| load(&path, &path).err());
            done.store(true, Ordering::Relaxed);
            assert!(failed.is_none(), "{failed:?}");
        });
    }
}
