//! Who can read and write what is in `certs/`.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use h3cast::{Identity, identity::Lifetimes};

use super::{
    FREE, Serving,
    folder::{certs, ours, until},
    program::soon,
};

/// Between the look at the lock and its opening, a link takes its place.
#[cfg(all(target_os = "linux", debug_assertions))]
#[tokio::test]
async fn a_lock_that_becomes_a_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, _) = certs(dir.path());
    fs::create_dir(&folder).unwrap();
    let (lock, theirs) = (folder.join(".lock"), dir.path().join("theirs"));
    for path in [&lock, &theirs] {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let mut command = super::program::command(dir.path(), &[&["serve"], &FREE[..]].concat());
    command.env("H3CAST_FAULT", "certs-lock=stop");
    let server = super::Program::of(command);
    super::stopped(&server).await;
    fs::remove_file(&lock).unwrap();
    std::os::unix::fs::symlink(&theirs, &lock).unwrap();
    server.signal("CONT");
    until("the certificate is created", || folder.join("key.pem").exists()).await;
    assert_eq!(fs::metadata(&theirs).unwrap().permissions().mode() & 0o777, 0o644);
}

#[tokio::test]
async fn a_key_that_others_can_know_is_warned_of() {
    const OTHERS: &str = "key.pem can be read or written by other users";
    type Arrange = fn(&Path);
    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let cases: [(Option<&str>, Arrange); 6] = [
        (None, |_| {}),
        (None, |certs| mode(&certs.join("key.pem"), 0o640)),
        // As git checks it out.
        (Some(OTHERS), |certs| mode(&certs.join("key.pem"), 0o644)),
        (Some(OTHERS), |certs| mode(&certs.join("key.pem"), 0o660)),
        (Some("next-key.pem can be read"), |certs| {
            fs::copy(certs.join("key.pem"), certs.join("next-key.pem")).unwrap();
            mode(&certs.join("next-key.pem"), 0o644);
        }),
        (Some("key.pem belongs to another user (uid 65534)"), |certs| {
            std::os::unix::fs::chown(certs.join("key.pem"), Some(65534), None).expect("tests run as root");
        }),
    ];
    for (expected, arrange) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = certs(dir.path());
        ours(&folder);
        arrange(&folder);
        let mut serving = Serving::start(dir.path(), &FREE).await;
        match expected {
            Some(expected) => drop(serving.program.told(expected).await),
            None => {
                // Also when that is changed while it runs.
                mode(&folder.join("key.pem"), 0o604);
                let mut told = String::new();
                while !told.contains(OTHERS) {
                    told += &soon("a warning", serving.program.stderr.next_line()).await.unwrap().unwrap();
                }
                assert!(told.contains("(mode 0604)"), "{told}");
            }
        }
    }
}

#[test]
fn a_renewal_keeps_whom_the_owner_lets_read() {
    const GROUP: Option<u32> = Some(65533);
    let default = (0o600, 0o644);
    for (modes, after) in [
        ((0o600, 0o644), default),
        ((0o640, 0o640), (0o640, 0o640)),
        ((0o400, 0o600), (0o400, 0o600)),
        ((0o644, 0o666), default),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let mut expiring = Lifetimes::default();
        expiring.validity = Duration::from_secs(3600);
        expiring.announce = Duration::ZERO;
        let before = Identity::self_signed(at, &[], expiring).unwrap().current().hash();
        for (name, mode) in [("key.pem", modes.0), ("cert.pem", modes.1)] {
            std::os::unix::fs::chown(at.join(name), Some(65534), GROUP).expect("tests run as root");
            fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_ne!(ours(at).current().hash(), before);
        for (name, mode) in [("key.pem", after.0), ("cert.pem", after.1)] {
            let there = fs::metadata(at.join(name)).unwrap();
            let owner = (std::os::unix::fs::MetadataExt::uid(&there), std::os::unix::fs::MetadataExt::gid(&there));
            assert_eq!((there.permissions().mode() & 0o7777, owner), (mode, (65534, 65533)), "{name} {modes:?}");
        }
    }
}
