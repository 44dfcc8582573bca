//! The certificate: how it is made, kept, renewed while running, and what is said of a bad one.

use h3cast_transport::{
    Identity, Listen, Server,
    client::{ClientError, Connection, Trust},
    identity::{Fingerprint, IdentityError, Lifetimes},
};
use std::{
    fs,
    time::{Duration, SystemTime},
};
use tokio_util::sync::CancellationToken;

/// Waits for an event, or fails the test.
async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), event).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen in time: {what}"),
    }
}

fn seconds(validity: u64, announce: u64, replace: u64) -> Lifetimes {
    let mut lifetimes = Lifetimes::default();
    lifetimes.validity = Duration::from_secs(validity);
    lifetimes.announce = Duration::from_secs(announce);
    lifetimes.replace = Duration::from_secs(replace);
    lifetimes
}

#[test]
fn what_browsers_ask_of_a_certificate_that_they_trust_by_hash() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::self_signed(dir.path(), &[], Default::default()).unwrap();
    let der = identity.current().der().to_vec();
    let (_, x509) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert_eq!(x509.version(), x509_parser::x509::X509Version::V3);
    let key = x509.public_key().parsed().unwrap();
    let x509_parser::public_key::PublicKey::EC(point) = key else { panic!("{key:?}") };
    assert_eq!(point.key_size(), 256);
    let validity = x509.validity().not_after.timestamp() - x509.validity().not_before.timestamp();
    assert!(validity <= 13 * 24 * 60 * 60, "{validity} s");
    let begun = SystemTime::now().duration_since(identity.current().not_before()).unwrap();
    assert!(begun >= Duration::from_secs(60 * 60 - 1), "backdated by {begun:?}");
    let names = format!("{:?}", x509.subject_alternative_name().unwrap().unwrap().value.general_names);
    assert!(names.contains("localhost") && names.contains("[127, 0, 0, 1]"), "{names}");
    assert_eq!(identity.hashes(), [Fingerprint::of(&der)]);
    assert!(!x509.is_ca());
}

#[cfg(unix)]
#[test]
fn the_key_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::self_signed(dir.path(), &[], Default::default()).unwrap();
    let mode = fs::metadata(identity.key_path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn it_is_kept_over_restarts_and_made_again_when_it_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let start = |names: &[&str], lifetimes| {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let identity = Identity::self_signed(dir.path(), &names, lifetimes).unwrap();
        identity.current().hash()
    };
    let first = start(&[], Lifetimes::default());
    assert_eq!(start(&[], Lifetimes::default()), first);
    let named = start(&["example.test", "192.0.2.1"], Lifetimes::default());
    assert_ne!(named, first);
    assert_eq!(start(&[], Lifetimes::default()), named, "more names than needed do no harm");
    fs::remove_file(dir.path().join("key.pem")).unwrap();
    let again = start(&[], Lifetimes::default());
    assert_ne!(again, named);
    // Less than `replace` left: as good as expired.
    let short = start(&[], seconds(100, 5, 1));
    assert_eq!(short, again);
    fs::remove_file(dir.path().join("cert.pem")).unwrap();
    let short = start(&[], seconds(100, 5, 1));
    assert_ne!(start(&[], seconds(1000, 500, 200)), short);
}

#[tokio::test]
async fn it_is_renewed_while_running_and_both_hashes_are_announced() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::self_signed(dir.path(), &[], seconds(8, 6, 3)).unwrap();
    let server = Server::builder(identity.clone()).listen(Listen::localhost(0)).build().await.unwrap();
    let uri = format!("https://{}/", server.addresses().tls[0]).parse().unwrap();
    let stop = CancellationToken::new();
    let run = server.run(stop.clone());
    let running = tokio::spawn(async { run.await.unwrap() });
    let old = identity.current().hash();

    // The successor is announced while the old one is still served.
    let announced = soon("the successor is announced", async {
        loop {
            if let [first, second, ..] = identity.hashes()[..] {
                assert_eq!(first, old);
                return second;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let early = Connection::open(&uri, &Trust::Hashes(vec![old])).await.unwrap();
    soon("the successor takes over", async {
        while identity.current().hash() != announced {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // New handshakes get the new one, a page that knows both gets through at any time, and what was
    // open stays.
    Connection::open(&uri, &Trust::Hashes(vec![announced])).await.unwrap();
    let refused = Connection::open(&uri, &Trust::Hashes(vec![old])).await.unwrap_err();
    assert!(matches!(refused, ClientError::Untrusted { .. }), "{refused}");
    Connection::open(&uri, &Trust::Files(vec![dir.path().join("cert.pem")])).await.unwrap();
    assert!(identity.hashes().contains(&old), "pages may still hold the old one");
    assert_eq!(soon("an answer", early.get(&uri)).await.unwrap().status, 404);
    stop.cancel();
    soon("the server stops", running).await.unwrap();
}

#[test]
fn files_of_the_users_own() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| {
        let made = Identity::self_signed(&dir.path().join(name), &[], Default::default()).unwrap();
        (made.certificate_path(), made.key_path())
    });
    assert!(Identity::from_pem(&a.0, &a.1).is_ok());
    let mismatch = Identity::from_pem(&a.0, &b.1).unwrap_err();
    assert!(matches!(mismatch, IdentityError::Mismatch { .. }), "{mismatch}");
    let swapped = Identity::from_pem(&a.1, &a.0).unwrap_err();
    assert!(matches!(swapped, IdentityError::Pem { .. }), "{swapped}");
    let missing = Identity::from_pem(&dir.path().join("none.pem"), &a.1).unwrap_err();
    assert!(matches!(missing, IdentityError::File { .. }), "{missing}");
    assert!(missing.to_string().contains("none.pem"), "{missing}");
}

#[tokio::test]
async fn a_client_trusts_only_what_it_should() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::self_signed(dir.path(), &[], Default::default()).unwrap();
    let server = Server::builder(identity.clone()).listen(Listen::localhost(0)).build().await.unwrap();
    let uri = format!("https://{}/", server.addresses().tls[0]).parse().unwrap();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(server.run(stop));
    let other = Identity::self_signed(&dir.path().join("other"), &[], Default::default()).unwrap();

    for trust in
        [Trust::Hashes(vec![identity.current().hash()]), Trust::Files(vec![identity.certificate_path()]), Trust::Anyone]
    {
        Connection::open(&uri, &trust).await.unwrap();
    }
    for trust in [
        Trust::System,
        Trust::Hashes(vec![other.current().hash(), identity.current().spki_hash()]),
        Trust::Files(vec![other.certificate_path()]),
    ] {
        let refused = Connection::open(&uri, &trust).await.unwrap_err();
        assert!(refused.to_string().contains("not trusted"), "{refused}");
    }
    let unusable = Connection::open(&uri, &Trust::Files(vec![identity.key_path()])).await.unwrap_err();
    assert!(matches!(unusable, ClientError::Certificate { .. }), "{unusable}");
}

#[test]
fn several_at_once_on_one_folder_agree() {
    let dir = tempfile::tempdir().unwrap();
    let start = |names: Vec<String>| Identity::self_signed(dir.path(), &names, Lifetimes::default()).unwrap();
    let hashes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| start(Vec::new()).current().hash())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    // Two servers with names of their own end with one certificate for both.
    let (a, b) = (vec!["192.0.2.1".to_owned()], vec!["192.0.2.2".to_owned()]);
    start(a.clone());
    let both = start(b).current().hash();
    assert_eq!(start(a).current().hash(), both);
}

#[test]
fn a_rotation_that_was_cut_off_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::self_signed(dir.path(), &[], seconds(1000, 2000, 10)).unwrap();
    let [_, next] = identity.hashes()[..] else { panic!("the successor is announced at once") };
    // Between the two renames.
    fs::rename(dir.path().join("next-key.pem"), dir.path().join("key.pem")).unwrap();
    let identity = Identity::self_signed(dir.path(), &[], seconds(1000, 5, 1)).unwrap();
    assert_eq!(identity.current().hash(), next);
}
