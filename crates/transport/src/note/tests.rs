use std::fs;

use super::*;

fn note(port: u16, hash: &[u8]) -> Note {
    let hash = Fingerprint::of(hash).hex();
    Note {
        pid: std::process::id(),
        addresses: vec![format!("[::1]:{port}")],
        http: None,
        certificate: "cert.pem".into(),
        certificates: [Hashes { sha256: hash.clone(), spki_sha256: hash, current: true }].into(),
    }
}

#[test]
fn a_note_lasts_as_long_as_it_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a/b");
    let first = Left::leave_in(&folder, note(1, b"1")).unwrap();
    let mut second = Left::leave_in(&folder, note(2, b"2")).unwrap();
    let ports = || {
        let mut ports: Vec<_> = files::running(&folder).into_iter().map(|note| note.addresses[0].clone()).collect();
        ports.sort();
        ports
    };
    assert_eq!(ports(), ["[::1]:1", "[::1]:2"]);
    assert!(note(2, b"").has_port(2) && !note(2, b"").has_port(1));
    assert!(!second.update(note(2, b"2")).unwrap(), "there is nothing to do");
    assert!(second.update(note(3, b"2")).unwrap());
    assert_eq!(ports(), ["[::1]:1", "[::1]:3"]);
    fs::remove_file(second.path()).unwrap();
    assert!(second.update(note(3, b"2")).unwrap(), "it was gone");
    // One that nobody holds any more.
    fs::copy(first.path(), folder.join("serve-0-0.json")).unwrap();
    fs::write(folder.join("serve-0-1.part"), "half").unwrap();
    fs::write(folder.join("other.json"), "of others").unwrap();
    assert_eq!(ports(), ["[::1]:1", "[::1]:3"]);
    drop(Left::leave_in(&folder, note(4, b"4")).unwrap());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "two notes, and what is not ours");
    drop((first, second));
    assert_eq!(ports(), [""; 0]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

/// Clients, and servers that clean up, do not take each other for the server that left it.
#[cfg(unix)]
#[test]
fn any_number_may_look_at_once_at_what_a_killed_server_left() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("notes");
    let left = Left::leave_in(&folder, note(1, b"1")).unwrap();
    fs::copy(left.path(), folder.join("serve-0-0.json")).unwrap();
    std::thread::scope(|scope| {
        let looking = || (0..2000).map(|_| files::running(&folder).len()).max();
        let looking: Vec<_> = (0..4).map(|_| scope.spawn(looking)).collect();
        for most in looking {
            assert_eq!(most.join().unwrap(), Some(1));
        }
    });
    // It is removed while somebody looks.
    let looked_at = fs::File::open(folder.join("serve-0-0.json")).unwrap();
    looked_at.lock_shared().unwrap();
    files::clean(&folder);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn what_others_could_have_written_is_no_note() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("notes");
    let left = Left::leave_in(&folder, note(1, b"1")).unwrap();
    let found = || files::running(&folder).len();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(left.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(found(), 1);
    mode(left.path(), 0o622);
    assert_eq!(found(), 0);
    mode(left.path(), 0o600);
    mode(&folder, 0o770);
    assert_eq!(found(), 0);
    Left::leave_in(&folder, note(2, b"2")).unwrap_err();
    mode(&folder, 0o700);
    assert_eq!(found(), 1);
    // Of another user: only root can give a file away.
    if rustix::process::geteuid().is_root() {
        for path in [left.path(), &folder] {
            std::os::unix::fs::chown(path, Some(12345), None).unwrap();
            assert_eq!(found(), 0, "{}", path.display());
            std::os::unix::fs::chown(path, Some(0), None).unwrap();
        }
    }
    // A link, and a pipe that nobody writes to, which must not be waited for.
    symlink(left.path(), folder.join("serve-1-1.json")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(folder.join("serve-2-2.json")).status().unwrap().success());
    assert_eq!(found(), 1);
    let linked = dir.path().join("linked");
    symlink(&folder, &linked).unwrap();
    assert!(files::running(&linked).is_empty());
    Left::leave_in(&linked, note(3, b"3")).unwrap_err();
}
