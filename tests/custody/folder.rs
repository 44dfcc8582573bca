//! The folder `certs/` while servers use it: shared, locked, read-only, emptied, copied into.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use h3cast::{
    Identity,
    identity::{Fingerprint, Lifetimes},
};

use super::{FREE, RSA, Serving, as_nobody, openssl, output, program::soon, snapshot, text};

pub(super) fn ours(certs: &Path) -> Identity {
    Identity::self_signed(certs, &[], Default::default()).unwrap()
}

/// That a client is served, which trusts as `trust` says.
async fn reached(url: &str, trust: &[&str]) {
    let elsewhere = tempfile::tempdir().unwrap();
    let got = output(elsewhere.path(), &[&["get", url], trust].concat()).await;
    assert!(got.status.success() && text(&got.stdout).contains("data chunk #9"), "{trust:?}: {}", text(&got.stderr));
}

/// Waits until a file is as it should be.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

fn hashes(file: &Path) -> Vec<Fingerprint> {
    let text = fs::read(file).unwrap_or_default();
    x509_parser::pem::Pem::iter_from_buffer(&text).flatten().map(|pem| Fingerprint::of(&pem.contents)).collect()
}

/// `--certs` and a folder.
pub(super) fn certs(dir: &Path) -> (PathBuf, String) {
    let certs = dir.join("certs");
    (certs.clone(), certs.display().to_string())
}

#[tokio::test]
async fn a_new_name_invalidates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, named) = certs(dir.path());
    let mut one = Serving::start(dir.path(), &FREE).await;
    let old = hashes(&folder.join("cert.pem"))[0].hex();
    let copy = dir.path().join("copy.pem").display().to_string();
    fs::copy(folder.join("cert.pem"), &copy).unwrap();
    let two =
        Serving::start(dir.path(), &["--listen", "127.0.0.2:0", "--listen", "localhost:0", "--http", "off"]).await;
    let three = Serving::start(dir.path(), &["--listen", "127.0.0.3:0", "--http", "off"]).await;
    let stored = hashes(&folder.join("cert.pem"));
    assert_eq!(stored.len(), 3, "one for each set of names");
    assert!(stored.iter().any(|hash| hash.hex() == old));
    // The first one has noticed: it announces all, and serves what its clients know.
    one.program.told(&stored[0].hex()).await;
    for trust in [&["--certs", &named][..], &["--cacert", &copy], &["--cert-hash", &old]] {
        reached(&one.url("localhost"), trust).await;
        reached(&one.url("127.0.0.1"), trust).await;
    }
    reached(&two.url("127.0.0.2"), &["--certs", &named]).await;
    reached(&three.url("127.0.0.3"), &["--certs", &named]).await;
    // After a restart too, with fewer names or more, whatever the order.
    drop((one, two));
    let one =
        Serving::start(dir.path(), &["--listen", "localhost:0", "--listen", "127.0.0.3:0", "--http", "off"]).await;
    for trust in [&["--certs", &named][..], &["--cacert", &copy], &["--cert-hash", &old]] {
        reached(&one.url("localhost"), trust).await;
    }
    assert_eq!(hashes(&folder.join("cert.pem")), stored, "nothing was missing");
    let shown = output(dir.path(), &["cert", "--json"]).await;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["sha256"], old.as_str(), "what a server at localhost has");
    assert_eq!(shown["others"].as_array().unwrap().len(), 2);
    // What OpenSSL makes of it.
    let curl = tokio::process::Command::new("curl")
        .args(["-sS", "--cacert", &format!("{named}/cert.pem"), &one.url("localhost")])
        .output();
    let curl = soon("curl ends", curl).await.unwrap();
    assert!(text(&curl.stdout).contains("data chunk #9"), "{}", text(&curl.stderr));
}

#[tokio::test]
async fn a_held_lock_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, named) = certs(dir.path());
    fs::create_dir(&folder).unwrap();
    // As earlier versions left it: anyone could open it, and so hold it.
    let lock = folder.join(".lock");
    fs::write(&lock, "").unwrap();
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).unwrap();
    let held = fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    let serving = Serving::start(dir.path(), &FREE).await;
    reached(&serving.url("localhost"), &["--certs", &named]).await;
    assert_eq!(fs::metadata(&lock).unwrap().permissions().mode() & 0o777, 0o600);
    // Also while it runs.
    fs::remove_file(folder.join("cert.pem")).unwrap();
    until("the certificate is restored", || !hashes(&folder.join("cert.pem")).is_empty()).await;
    reached(&serving.url("localhost"), &["--certs", &named]).await;
}

#[tokio::test]
async fn what_is_no_lock_is_left_alone() {
    for fill in [
        |lock: &Path| fs::write(lock, "notes of the user").unwrap(),
        |lock: &Path| fs::create_dir(lock).unwrap(),
        |lock: &Path| std::os::unix::fs::symlink("/nowhere", lock).unwrap(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fill(&dir.path().join(".lock"));
        let before = snapshot(dir.path())[".lock"].clone();
        ours(dir.path());
        assert_eq!(snapshot(dir.path())[".lock"], before);
    }
    // Another name of the user's file.
    let dir = tempfile::tempdir().unwrap();
    let theirs = dir.path().join("theirs");
    fs::write(&theirs, "").unwrap();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o644)).unwrap();
    fs::hard_link(&theirs, dir.path().join(".lock")).unwrap();
    ours(dir.path());
    assert_eq!(snapshot(dir.path())["theirs"].1 & 0o777, 0o644);
    let dir = tempfile::tempdir().unwrap();
    ours(dir.path());
    let modes = [(".lock", 0o600), ("key.pem", 0o600), ("cert.pem", 0o644)];
    let found = snapshot(dir.path());
    assert_eq!(found.len(), modes.len(), "nothing is left behind: {:?}", found.keys());
    for (name, mode) in modes {
        assert_eq!(found[name].1 & 0o777, mode, "{name}");
    }
}

#[tokio::test]
async fn a_read_only_folder_serves() {
    // Root may write everywhere, so the program runs as somebody else.
    for (days, warned) in [(13, false), (2, true)] {
        let dir = tempfile::tempdir().unwrap();
        let (folder, named) = certs(dir.path());
        let mut lifetimes = Lifetimes::default();
        lifetimes.validity = Duration::from_secs(days * 24 * 60 * 60 - 7200);
        // By default there would be a next one already.
        lifetimes.announce = Duration::ZERO;
        Identity::self_signed(&folder, &[], lifetimes).unwrap();
        for path in [dir.path(), &folder] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(folder.join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        let before = snapshot(&folder);
        let mut serving = Serving::of(as_nobody(dir.path(), &[&["serve"], &FREE[..]].concat()), dir.path()).await;
        reached(&serving.url("localhost"), &["--certs", &named]).await;
        if warned {
            let told = serving.program.told("should be renewed, but that is not possible").await;
            assert!(told.contains("ermission denied"), "{told}");
        }
        // A name that it lacks is no reason to stop either.
        let args = ["serve", "--listen", "127.0.0.2:0", "--listen", "localhost:0", "--http", "off"];
        let mut named_too = Serving::of(as_nobody(dir.path(), &args), dir.path()).await;
        let told = named_too.program.told("should be renewed, but that is not possible").await;
        assert!(told.contains("It is not valid for 127.0.0.2"), "{told}");
        assert_eq!(snapshot(&folder), before);
    }
}

#[tokio::test]
async fn what_is_removed_or_cut_short_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, named) = certs(dir.path());
    let serving = Serving::start(dir.path(), &FREE).await;
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.join(name));
    let before = [&certificate, &key].map(|file| fs::read(file).unwrap());
    let cut = |file: &Path| fs::write(file, &fs::read(file).unwrap()[..150]).unwrap();
    let harms: [(&str, &dyn Fn()); 6] = [
        // Out of the way first: files that the server puts back meanwhile would keep a folder from being removed.
        ("the folder removed", &|| {
            fs::rename(&folder, dir.path().join("going")).unwrap();
            fs::remove_dir_all(dir.path().join("going")).unwrap();
        }),
        ("the folder moved away", &|| fs::rename(&folder, dir.path().join("moved")).unwrap()),
        ("the certificate removed", &|| fs::remove_file(&certificate).unwrap()),
        ("the key removed", &|| fs::remove_file(&key).unwrap()),
        ("the certificate cut short", &|| cut(&certificate)),
        ("the key cut short", &|| cut(&key)),
    ];
    for (what, harm) in harms {
        harm();
        until(what, || [&certificate, &key].map(|file| fs::read(file).unwrap_or_default()) == before).await;
        reached(&serving.url("localhost"), &["--certs", &named]).await;
    }
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_its_owner_copies_in_is_awaited_and_never_mixed() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, named) = certs(dir.path());
    let other = dir.path().join("other");
    let hash = ours(&other).current().hash().hex();
    for order in [["cert.pem", "key.pem"], ["key.pem", "cert.pem"]] {
        let _ = fs::remove_dir_all(&folder);
        let mut serving = Serving::start(dir.path(), &FREE).await;
        fs::copy(other.join(order[0]), folder.join(order[0])).unwrap();
        serving.program.told("waiting for the rest").await;
        assert_eq!(fs::read(folder.join(order[0])).unwrap(), fs::read(other.join(order[0])).unwrap());
        fs::copy(other.join(order[1]), folder.join(order[1])).unwrap();
        serving.program.told(&hash).await;
        for name in order {
            assert_eq!(fs::read(folder.join(name)).unwrap(), fs::read(other.join(name)).unwrap(), "{name}");
        }
        reached(&serving.url("localhost"), &["--certs", &named]).await;
    }
}

#[tokio::test]
async fn what_is_put_there_and_foreign_stays_while_the_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, named) = certs(dir.path());
    let mut serving = Serving::start(dir.path(), &FREE).await;
    openssl(&folder, &format!("genpkey {RSA} -out key.pem"));
    let before = snapshot(&folder);
    serving.program.told("still using the previous certificate").await;
    fs::remove_file(folder.join(".lock")).unwrap();
    reached(&serving.url("localhost"), &["--certs", &named]).await;
    let mut after = snapshot(&folder);
    after.insert(".lock".into(), before[".lock"].clone());
    assert_eq!(after, before);
    // When it is gone, ours comes back.
    fs::remove_file(folder.join("key.pem")).unwrap();
    until("the key is restored", || folder.join("key.pem").exists()).await;
}

#[test]
fn pairs_of_earlier_versions_are_recognised_and_renewed() {
    let unmark = |file: &Path| {
        let text = fs::read_to_string(file).unwrap();
        fs::write(file, &text[text.find("-----BEGIN").unwrap()..]).unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let first = ours(at).current().hash();
    unmark(&at.join("cert.pem"));
    unmark(&at.join("key.pem"));
    assert_eq!(ours(at).current().hash(), first);
    // Its time is over.
    let mut lifetimes = Lifetimes::default();
    lifetimes.backdate = Duration::ZERO;
    lifetimes.validity = Duration::from_secs(13 * 24 * 60 * 60);
    lifetimes.replace = lifetimes.validity - Duration::from_secs(60);
    let second = Identity::self_signed(at, &[], lifetimes).unwrap().current().hash();
    assert_ne!(second, first);
    // A rotation of an earlier version that was cut off between its two renames.
    let next = tempfile::tempdir().unwrap();
    let third = ours(next.path()).current().hash();
    unmark(&next.path().join("cert.pem"));
    unmark(&next.path().join("key.pem"));
    fs::rename(next.path().join("cert.pem"), at.join("next-cert.pem")).unwrap();
    fs::rename(next.path().join("key.pem"), at.join("key.pem")).unwrap();
    assert_eq!(ours(at).current().hash(), third);
    assert!(!at.join("next-cert.pem").exists());
}

#[test]
fn wherever_a_crash_strikes_the_next_start_goes_on() {
    // A rotation writes the next key, then its certificate, and then renames the key.
    let mut early = Lifetimes::default();
    early.announce = Duration::from_secs(20 * 24 * 60 * 60);
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    ours(at);
    let single = fs::read(at.join("cert.pem")).unwrap();
    let old = hashes(&at.join("cert.pem"))[0];
    Identity::self_signed(at, &[], early).unwrap();
    let both = fs::read(at.join("cert.pem")).unwrap();
    // The certificate of the next key was not written yet.
    fs::write(at.join("cert.pem"), &single).unwrap();
    let identity = Identity::self_signed(at, &[], early).unwrap();
    assert_eq!((identity.hashes()[0], identity.hashes().len()), (old, 2));
    // The key was renamed, and the certificates are in the old order.
    fs::write(at.join("cert.pem"), &both).unwrap();
    fs::rename(at.join("next-key.pem"), at.join("key.pem")).unwrap();
    let identity = ours(at);
    assert_eq!(hashes(&at.join("cert.pem"))[0], identity.current().hash());
    assert!(identity.hashes().contains(&old), "pages still have it");
    // A first start wrote the key alone.
    let alone = tempfile::tempdir().unwrap();
    fs::copy(at.join("key.pem"), alone.path().join("key.pem")).unwrap();
    assert_eq!(ours(alone.path()).current().spki_hash(), identity.current().spki_hash());
    // What was being written has been left behind.
    let part = alone.path().join(".h3cast-0123456789abcdef.part");
    fs::write(&part, "Created and ren").unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(&part).unwrap().set_modified(long_ago).unwrap();
    fs::remove_file(alone.path().join("cert.pem")).unwrap();
    ours(alone.path());
    assert!(!part.exists());
    // The key was replaced by the next one, which was still there.
    fs::copy(at.join("key.pem"), at.join("next-key.pem")).unwrap();
    let current = ours(at).current().spki_hash();
    assert_eq!(ours(at).current().spki_hash(), current);
    Identity::self_signed(at, &[], early).unwrap();
    assert_ne!(fs::read(at.join("key.pem")).unwrap(), fs::read(at.join("next-key.pem")).unwrap());
    // Two files were exchanged, and one of them was the owner's.
    let part = at.join(".h3cast-0123456789abcdef.part");
    fs::write(&part, "theirs").unwrap();
    ours(at);
    assert_eq!(fs::read_to_string(&part).unwrap(), "theirs");
}

#[tokio::test]
async fn what_is_copied_in_slowly_is_not_undone() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, _) = certs(dir.path());
    let other = dir.path().join("other");
    let hash = ours(&other).current().hash().hex();
    let mut last = None;
    for order in [["cert.pem", "key.pem"], ["key.pem", "cert.pem"]] {
        drop(last.take());
        let _ = fs::remove_dir_all(&folder);
        let mut serving = Serving::start(dir.path(), &FREE).await;
        let [first, second] = order.map(|name| (folder.join(name), fs::read(other.join(name)).unwrap()));
        let (begun, rest) = first.1.split_at(first.1.len() / 2);
        let mut file = fs::File::create(&first.0).unwrap();
        std::io::Write::write_all(&mut file, begun).unwrap();
        // This is logged at the second look at what has not changed since the first.
        serving.program.told(&format!("{}: it is not complete", order[0])).await;
        assert_eq!(fs::read(&first.0).unwrap(), begun);
        std::io::Write::write_all(&mut file, rest).unwrap();
        fs::write(&second.0, &second.1).unwrap();
        serving.program.told(&hash).await;
        for (path, whole) in [first, second] {
            assert_eq!(fs::read(&path).unwrap(), whole, "{}", path.display());
        }
        last = Some(serving);
    }
    // What stays cut short is restored, and that is logged once.
    let mut serving = last.unwrap();
    let certificate = folder.join("cert.pem");
    let whole = fs::read(&certificate).unwrap();
    fs::write(&certificate, &whole[..150]).unwrap();
    serving.program.told("it was restored").await;
    assert_eq!(fs::read(&certificate).unwrap(), whole);
    serving.program.signal("TERM");
    let (_, told, _) = serving.program.end().await;
    assert!(!told.contains("restor"), "{told}");
}

#[tokio::test]
async fn what_cannot_be_restored_is_logged_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, _) = certs(dir.path());
    ours(&folder);
    for path in [dir.path(), &folder] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::os::unix::fs::chown(folder.join("key.pem"), Some(65534), None).expect("tests run as root");
    let certificate = folder.join("cert.pem");
    let whole = fs::read(&certificate).unwrap();
    let mut serving = Serving::of(as_nobody(dir.path(), &[&["serve"], &FREE[..]].concat()), dir.path()).await;
    let mut told = async |until: &str| {
        let mut all = String::new();
        while !all.contains(until) {
            let line = soon(until, serving.program.stderr.next_line()).await.unwrap();
            all += &line.unwrap_or_else(|| panic!("`{until}` was not told: {all}"));
        }
        assert!(!all.contains("restoring it") && !all.contains("was restored") && !all.contains("renewed"), "{all}");
    };
    fs::write(&certificate, &whole[..150]).unwrap();
    told("cert.pem is damaged and cannot be restored: ").await;
    fs::write(&certificate, &whole).unwrap();
    told("in order again").await;
    fs::remove_file(&certificate).unwrap();
    told("cert.pem is missing and cannot be restored: ").await;
}

#[tokio::test]
async fn what_a_killed_server_was_writing_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, _) = certs(dir.path());
    ours(&folder);
    let part = folder.join(".h3cast-0123456789abcdef.part");
    fs::copy(folder.join("key.pem"), &part).unwrap();
    let _serving = Serving::start(dir.path(), &FREE).await;
    assert!(!part.exists());
}
