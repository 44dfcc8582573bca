//! What h3cast did not create stays as it is.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use super::{FREE, P256, RSA, Serving, openssl, output, own, refused, snapshot, text};

/// A server, `cert` and `open` on a folder with something foreign: the server refuses and names
/// `what`, none of them changes anything.
async fn left_alone(dir: &Path, what: &str) {
    let before = snapshot(&dir.join("certs"));
    let said = refused(dir, &FREE).await;
    assert!(said.contains(what), "`{what}` in: {said}");
    assert!(said.contains("--cert") && said.contains("--key"), "{said}");
    for args in [&["cert"][..], &["cert", "--json"], &["open", "firefox"]] {
        let _ = super::program::command(dir, args).env("PATH", "").output().await;
    }
    assert_eq!(snapshot(&dir.join("certs")), before, "{what}");
}

/// A folder with `certs/`, and in it what `fill` puts there.
fn with(fill: impl FnOnce(&Path, &Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    fs::create_dir(&certs).unwrap();
    fill(dir.path(), &certs);
    dir
}

/// As this program writes them.
fn ours(certs: &Path) {
    h3cast::Identity::self_signed(certs, &[], Default::default()).unwrap();
}

fn put(certs: &Path, name: &str) {
    fs::rename(certs.join(format!("{name}.pem")), certs.join("cert.pem")).unwrap();
    fs::rename(certs.join(format!("{name}.key")), certs.join("key.pem")).unwrap();
}

#[tokio::test]
async fn a_pair_of_ones_own() {
    for (key, days, what) in [(RSA, 90, "RSA 2048"), (P256, 10, "ECDSA P-256"), (P256, 365, "ECDSA P-256")] {
        let dir = with(|_, certs| {
            own(certs, "own", key, days);
            put(certs, "own");
        });
        left_alone(dir.path(), what).await;
        // It is shown, and said whose it is.
        let got = output(dir.path(), &["cert"]).await;
        assert!(got.status.success() && text(&got.stdout).contains("localhost"), "{}", text(&got.stderr));
        assert!(text(&got.stderr).contains("did not create"), "{}", text(&got.stderr));
        // And it serves where it is named.
        Serving::start(dir.path(), &[&FREE[..], &["--cert", "certs/cert.pem", "--key", "certs/key.pem"]].concat())
            .await;
    }
}

#[tokio::test]
async fn a_pair_with_our_name_that_we_did_not_create() {
    let dir = with(|_, certs| {
        openssl(certs, &format!("genpkey {P256} -out key.pem"));
        let request =
            ["req", "-x509", "-key", "key.pem", "-out", "cert.pem", "-days", "365", "-subj", "/CN=h3cast on localhost"];
        assert!(std::process::Command::new("openssl").current_dir(certs).args(request).status().unwrap().success());
    });
    left_alone(dir.path(), "cert.pem holds the certificate").await;
}

#[tokio::test]
async fn half_a_pair() {
    let only_key = with(|_, certs| openssl(certs, &format!("genpkey {RSA} -out key.pem")));
    left_alone(only_key.path(), "key.pem holds a private key").await;
    let only_p256 = with(|_, certs| openssl(certs, &format!("genpkey {P256} -out key.pem")));
    left_alone(only_p256.path(), "key.pem holds a private key").await;
    let only_certificate = with(|_, certs| {
        own(certs, "own", P256, 10);
        put(certs, "own");
        fs::remove_file(certs.join("key.pem")).unwrap();
    });
    left_alone(only_certificate.path(), "cert.pem holds the certificate").await;
    // Beside one of ours.
    let other_key = with(|_, certs| {
        ours(certs);
        openssl(certs, &format!("genpkey {RSA} -out key.pem"));
    });
    left_alone(other_key.path(), "key.pem holds a private key").await;
    let got = output(other_key.path(), &["cert"]).await;
    assert!(text(&got.stderr).contains("refuses this folder") && text(&got.stderr).contains("key.pem holds"));
    let other_certificate = with(|_, certs| {
        ours(certs);
        own(certs, "own", P256, 10);
        fs::rename(certs.join("own.pem"), certs.join("cert.pem")).unwrap();
        fs::remove_file(certs.join("own.key")).unwrap();
    });
    left_alone(other_certificate.path(), "cert.pem holds the certificate").await;
    let next = with(|_, certs| {
        ours(certs);
        openssl(certs, &format!("genpkey {RSA} -out next-key.pem"));
    });
    left_alone(next.path(), "next-key.pem holds a private key").await;
}

#[tokio::test]
async fn a_mark_alone_makes_nothing_ours() {
    let first_line = |file: &Path| format!("{}\n", fs::read_to_string(file).unwrap().lines().next().unwrap());
    let rsa = with(|_, certs| {
        ours(certs);
        openssl(certs, &format!("genpkey {RSA} -out rsa"));
        let text = first_line(&certs.join("key.pem")) + &fs::read_to_string(certs.join("rsa")).unwrap();
        fs::write(certs.join("key.pem"), text).unwrap();
    });
    left_alone(rsa.path(), "key.pem holds a private key of another kind").await;
    for rest in ["notes of the user\n", "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg"] {
        let alone = with(|_, certs| {
            ours(certs);
            let text = first_line(&certs.join("key.pem")) + rest;
            fs::write(certs.join("key.pem"), text).unwrap();
            fs::remove_file(certs.join("cert.pem")).unwrap();
        });
        left_alone(alone.path(), "key.pem holds no private key").await;
    }
}

#[tokio::test]
async fn what_cannot_be_read() {
    let encrypted = with(|_, certs| {
        ours(certs);
        openssl(certs, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:secret -out key.pem");
    });
    left_alone(encrypted.path(), "encrypted").await;
    for name in ["key.pem", "cert.pem", "next-key.pem"] {
        let garbage = with(|_, certs| {
            ours(certs);
            fs::write(certs.join(name), "garbage").unwrap();
        });
        left_alone(garbage.path(), &format!("{name} holds no ")).await;
        let empty = with(|_, certs| {
            ours(certs);
            fs::write(certs.join(name), "").unwrap();
        });
        left_alone(empty.path(), "the file is empty").await;
        let folder = with(|_, certs| {
            ours(certs);
            let _ = fs::remove_file(certs.join(name));
            fs::create_dir(certs.join(name)).unwrap();
        });
        left_alone(folder.path(), &format!("{name} is a folder")).await;
        let link = with(|dir, certs| {
            ours(certs);
            let _ = fs::rename(certs.join(name), dir.join("elsewhere"));
            symlink("../elsewhere", certs.join(name)).unwrap();
        });
        left_alone(link.path(), "is a symbolic link to ../elsewhere").await;
        let pipe = with(|_, certs| {
            ours(certs);
            let _ = fs::remove_file(certs.join(name));
            let made = std::process::Command::new("mkfifo").arg(certs.join(name)).status();
            assert!(made.unwrap().success());
        });
        left_alone(pipe.path(), &format!("{name} is not a regular file")).await;
    }
}

#[tokio::test]
async fn what_may_not_be_read() {
    // Root may read everything, so the program runs as somebody else.
    let dir = with(|dir, certs| {
        ours(certs);
        for path in [dir, certs] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    });
    let before = snapshot(&dir.path().join("certs"));
    let got = super::as_nobody(dir.path(), &[&["serve"], &FREE[..]].concat()).output().await.unwrap();
    let said = text(&got.stderr);
    assert_eq!(got.status.code(), Some(2), "{said}");
    assert!(said.contains("key.pem cannot be read") && said.contains("--cert"), "{said}");
    assert_eq!(snapshot(&dir.path().join("certs")), before);
}

#[tokio::test]
async fn cert_and_open_create_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    for certs in ["certs", "empty", "not/there"] {
        for args in [&["cert"][..], &["cert", "--json"], &["open", "chrome"], &["open", "firefox"]] {
            let got = output(dir.path(), &[args, &["--certs", certs]].concat()).await;
            assert_eq!(got.status.code(), Some(1), "{args:?}");
            assert!(
                text(&got.stderr).contains(&format!("there is no certificate in {certs}")),
                "{}",
                text(&got.stderr)
            );
            assert_eq!(text(&got.stdout), "");
        }
    }
    assert_eq!(snapshot(dir.path()).keys().collect::<Vec<_>>(), ["empty"]);
    assert!(snapshot(&dir.path().join("empty")).is_empty());
    // Nor do they lock or renew what is there.
    let certs = dir.path().join("expiring");
    let mut lifetimes = h3cast::identity::Lifetimes::default();
    lifetimes.validity = std::time::Duration::from_secs(3600);
    h3cast::Identity::self_signed(&certs, &[], lifetimes).unwrap();
    fs::remove_file(certs.join(".lock")).unwrap();
    let before = snapshot(&certs);
    assert!(output(dir.path(), &["cert", "--certs", "expiring"]).await.status.success());
    assert_eq!(snapshot(&certs), before);
}

#[tokio::test]
async fn a_start_that_fails_changes_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("localhost:{}", taken.local_addr().unwrap().port());
    let failing: [&[&str]; 6] = [
        &["--listen", "nosuchhost.invalid:0", "--http", "off"],
        &["--listen", &taken, "--http", "off"],
        &["--listen", "127.0.0.2:0", "--listen", "203.0.113.1:0", "--http", "off"],
        &["--listen", "127.0.0.2:0", "--http", &taken],
        &["--listen", "127.0.0.2:0", "--http", "off", "--static", "nowhere"],
        &["tail:nowhere/at/all", "--listen", "127.0.0.2:0", "--http", "203.0.113.1:0"],
    ];
    let dir = tempfile::tempdir().unwrap();
    for args in failing {
        refused(dir.path(), args).await;
        assert!(snapshot(dir.path()).is_empty(), "{args:?}");
    }
    ours(&dir.path().join("certs"));
    let before = snapshot(&dir.path().join("certs"));
    for args in failing {
        refused(dir.path(), args).await;
        assert_eq!(snapshot(&dir.path().join("certs")), before, "{args:?}");
    }
}

/// Between the last look at a file of ours and its replacement, its owner puts another one there.
#[cfg(all(target_os = "linux", debug_assertions))]
#[tokio::test]
async fn what_comes_at_the_very_moment_of_a_renewal_stays() {
    // The next key is written, then the certificates, then the key is replaced.
    for (nth, name) in [(1, "next-key.pem"), (2, "cert.pem"), (3, "key.pem")] {
        let dir = with(|dir, certs| {
            let mut expiring = h3cast::identity::Lifetimes::default();
            expiring.validity = std::time::Duration::from_secs(3600);
            expiring.announce = std::time::Duration::ZERO;
            h3cast::Identity::self_signed(certs, &[], expiring).unwrap();
            own(dir, "own", RSA, 90);
        });
        let theirs = fs::read(dir.path().join(if name == "cert.pem" { "own.pem" } else { "own.key" })).unwrap();
        let mut command = super::program::command(dir.path(), &[&["serve"], &FREE[..]].concat());
        command.env("H3CAST_FAULT", format!("certs-replace=stop@{nth}"));
        let server = super::Program::of(command);
        super::stopped(&server).await;
        fs::write(dir.path().join("certs").join(name), &theirs).unwrap();
        server.signal("CONT");
        let (_, said, code) = server.end().await;
        assert_eq!(code, Some(2), "{name}: {said}");
        assert!(said.contains(&format!("{name} holds")) && said.contains("--cert"), "{said}");
        assert_eq!(fs::read(dir.path().join("certs").join(name)).unwrap(), theirs, "{name}");
        assert!(!snapshot(&dir.path().join("certs")).keys().any(|name| name.ends_with(".part")));
    }
}
