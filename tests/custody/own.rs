//! Certificates of one's own: each mistake has its sentence, each danger its warning.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use h3cast::Identity;

use super::{FREE, P256, RSA, Serving, openssl, output, own, refused, text};

const P384: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-384";

/// A certificate for `host`, valid from and to so many hours from now.
fn timed(dir: &Path, name: &str, host: &str, from: i64, to: i64) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
    let at = |hours: i64| {
        let by = Duration::from_secs(hours.unsigned_abs() * 3600);
        let now = SystemTime::now();
        time::OffsetDateTime::from(if hours < 0 { now - by } else { now + by })
    };
    (params.not_before, params.not_after) = (at(from), at(to));
    fs::write(dir.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

fn using<'a>(certificate: &'a str, key: &'a str) -> Vec<&'a str> {
    [&FREE[..], &["--cert", certificate, "--key", key]].concat()
}

#[tokio::test]
async fn each_mistake_has_its_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    own(at, "good", P256, 10);
    own(at, "rsa", RSA, 10);
    own(at, "short", "-algorithm RSA -pkeyopt rsa_keygen_bits:1024", 10);
    for curve in ["P-521", "secp256k1", "P-224"] {
        own(at, curve, &format!("-algorithm EC -pkeyopt ec_paramgen_curve:{curve}"), 10);
    }
    openssl(at, "pkey -in good.key -aes256 -passout pass:secret -out encrypted.key");
    openssl(at, "ec -in good.key -aes128 -passout pass:secret -out old-encrypted.key");
    openssl(at, "x509 -in good.pem -outform der -out good.der");
    openssl(at, "pkey -in good.key -outform der -out key.der");
    openssl(at, "req -new -key good.key -subj /CN=localhost -out request.csr");
    openssl(at, "x509 -req -in request.csr -signkey good.key -days 5 -out v1.pem");
    openssl(at, "pkcs12 -export -inkey good.key -in good.pem -passout pass:secret -out good.p12");
    openssl(at, "pkey -in good.key -pubout -out public.key");
    let [good, rsa] = ["good.pem", "rsa.pem"].map(|name| fs::read_to_string(at.join(name)).unwrap());
    fs::write(at.join("reversed.pem"), format!("{rsa}{good}")).unwrap();
    fs::write(at.join("cut.pem"), &good[..good.len() / 2]).unwrap();
    fs::write(at.join("joined.pem"), good.replace('\n', " ")).unwrap();
    fs::write(at.join("empty"), "").unwrap();
    fs::write(
        at.join("utf16.pem"),
        good.encode_utf16().fold(vec![0xff, 0xfe], |text, c| [text, c.to_le_bytes().into()].concat()),
    )
    .unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at.join("pipe")).status().unwrap().success());
    let cases = [
        ("good.pem", "encrypted.key", "the key is encrypted; decrypt it with `openssl pkey -in encrypted.key"),
        ("good.pem", "old-encrypted.key", "the key is encrypted"),
        ("good.der", "good.key", "it is in DER form; convert it with `openssl x509 -inform der -in good.der"),
        ("good.pem", "key.der", "it is in DER form; convert it with `openssl pkey -inform der -in key.der"),
        ("good.p12", "good.key", "PKCS #12"),
        ("good.pem", "rsa.key", "do not fit together"),
        ("reversed.pem", "good.key", "certificates in the wrong order: the key belongs to certificate 2"),
        ("P-521.pem", "P-521.key", "P-521, which browsers refuse"),
        ("secp256k1.pem", "secp256k1.key", "secp256k1, which TLS does not use"),
        ("P-224.pem", "P-224.key", "P-224, which browsers refuse"),
        ("short.pem", "short.key", "RSA key is too short"),
        ("v1.pem", "good.key", "version 1"),
        ("request.csr", "good.key", "certificate signing request (CSR); use the certificate that your CA issued"),
        (
            "good.pem",
            "request.csr",
            "certificate signing request (CSR), and not the private key that it was created with (--cert takes the certificate and --key the key)",
        ),
        (
            "good.key",
            "good.pem",
            "it holds a private key; are the certificate and the key swapped? (--cert takes the certificate and --key the key)",
        ),
        (
            "good.pem",
            "good.pem",
            "it holds a certificate; are the certificate and the key swapped? (--cert takes the certificate and --key the key)",
        ),
        ("good.pem", "public.key", "it holds a public key"),
        ("empty", "good.key", "empty holds no certificate in PEM form: the file is empty"),
        ("good.pem", "empty", "empty holds no private key in PEM form: the file is empty"),
        ("cut.pem", "good.key", "cut.pem holds no certificate in PEM form: it is damaged"),
        ("cut.pem", "good.key", "there is no line `-----END CERTIFICATE-----`"),
        ("joined.pem", "good.key", "its line breaks were lost"),
        ("utf16.pem", "good.key", "UTF-16"),
        ("nothing.pem", "good.key", "cannot read nothing.pem"),
        (".", "good.key", "directory"),
        ("pipe", "good.key", "not a regular file"),
    ];
    for (certificate, key, expected) in cases {
        let said = refused(at, &using(certificate, key)).await;
        assert!(said.contains(expected), "{certificate} {key}: `{expected}` in {said}");
        // `cert` would show it as if all were well.
        for more in [&[][..], &["--json"]] {
            let got = output(at, &[&["cert", "--cert", certificate, "--key", key], more].concat()).await;
            let shown = (got.status.code(), text(&got.stdout), text(&got.stderr));
            assert_eq!(shown, (Some(1), String::new(), said.clone()), "{certificate} {key}");
        }
    }
}

#[tokio::test]
async fn what_can_be_served_is_served_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    timed(at, "expired", "localhost", -48, -24);
    timed(at, "future", "localhost", 24, 48);
    timed(at, "ending", "localhost", -24 * 80, 24 * 3 + 1);
    timed(at, "today", "localhost", -24 * 80, 5);
    timed(at, "elsewhere", "cast.example", -24, 24 * 60);
    timed(at, "fine", "localhost", -24, 24 * 60);
    own(at, "ed", "-algorithm ED25519", 60);
    openssl(at, "req -x509 -key fine.key -out nameless.pem -days 60 -subj /CN=localhost");
    own(at, "other", P256, 60);
    let [fine, other] = ["fine.pem", "other.pem"].map(|name| fs::read_to_string(at.join(name)).unwrap());
    fs::write(at.join("unchained.pem"), format!("{fine}{other}")).unwrap();
    fs::write(at.join("bom.pem"), format!("\u{feff}{fine}")).unwrap();
    let subject = "-days 60 -subj /CN=localhost -addext subjectAltName=DNS:localhost";
    openssl(at, &format!("req -x509 -key fine.key -out client.pem {subject} -addext extendedKeyUsage=clientAuth"));
    openssl(at, &format!("req -x509 -key fine.key -out critical.pem {subject} -addext 1.2.3.4=critical,DER:0500"));
    let cases = [
        ("client.pem", "fine.key", "does not include serverAuth"),
        ("critical.pem", "fine.key", "critical extension (1.2.3.4)"),
        ("expired.pem", "expired.key", "it expired on"),
        ("future.pem", "future.key", "it is not valid before"),
        ("ending.pem", "ending.key", "it expires in 3 days"),
        ("today.pem", "today.key", "it expires within a day"),
        ("elsewhere.pem", "elsewhere.key", "it is not for localhost, where this server listens, but for cast.example"),
        ("ed.pem", "ed.key", "Ed25519, which browsers refuse"),
        ("nameless.pem", "fine.key", "it names no host"),
        ("unchained.pem", "fine.key", "certificate 2 of its file did not sign certificate 1"),
    ];
    fs::set_permissions(at.join("fine.key"), fs::Permissions::from_mode(0o600)).unwrap();
    for (certificate, key, expected) in cases {
        let mut serving = Serving::start(at, &using(certificate, key)).await;
        serving.program.told(expected).await;
        let got = output(at, &[&using(certificate, key)[..], &["--check"]].concat()).await;
        assert!(got.status.success() && text(&got.stderr).contains(expected), "{certificate}: {}", text(&got.stderr));
        // `cert` does not know where a server will listen.
        let elsewhere = certificate == "elsewhere.pem";
        let got = output(at, &["cert", "--cert", certificate, "--key", key]).await;
        assert!(got.status.success() && text(&got.stdout).contains("SHA-256"), "{}", text(&got.stderr));
        assert!(text(&got.stderr).contains(expected) || elsewhere, "{certificate}: {}", text(&got.stderr));
    }
    let got = output(at, &["cert", "--cert", "bom.pem", "--key", "fine.key"]).await;
    assert_eq!((got.status.code(), text(&got.stderr).as_str()), (Some(0), ""));
    let got = output(at, &[&using("bom.pem", "fine.key")[..], &["--check"]].concat()).await;
    assert_eq!((text(&got.stdout).as_str(), text(&got.stderr).as_str()), ("ok\n", ""));
    // What is in order is not talked about.
    let serving = Serving::start(at, &using("bom.pem", "fine.key")).await;
    serving.program.signal("TERM");
    let (_, said, _) = serving.program.end().await;
    assert!(!said.contains("the certificate"), "{said}");
}

/// What a server warns of when it starts, it warns of when that is put in place while it runs.
#[tokio::test]
async fn a_swapped_certificate_is_looked_at_as_the_first_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    timed(at, "fine", "localhost", -24, 24 * 60);
    timed(at, "elsewhere", "cast.example", -24, 24 * 60);
    let swap = |name: &str, mode: u32| {
        for kind in ["key", "pem"] {
            let new = at.join("new");
            fs::copy(at.join(format!("{name}.{kind}")), &new).unwrap();
            fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
            fs::rename(new, at.join(format!("served.{kind}"))).unwrap();
        }
    };
    swap("fine", 0o600);
    let mut serving = Serving::start(at, &using("served.pem", "served.key")).await;
    swap("elsewhere", 0o644);
    let both =
        ["it is not for localhost, where this server listens, but for cast.example", "read the secrets in served.key"];
    // In any order.
    let mut log = String::new();
    while !both.iter().all(|text| log.contains(text)) {
        log += &(serving.program.told("").await + "\n");
    }
    // Once each.
    serving.program.signal("TERM");
    let (_, rest, _) = serving.program.end().await;
    assert!(both.iter().all(|text| (log.clone() + &rest).matches(text).count() == 1), "{log}{rest}");
}

#[test]
fn hashes_are_announced_for_what_browsers_accept_by_hash() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    own(at, "two-weeks", P256, 14);
    own(at, "longer", P256, 15);
    own(at, "p384", P384, 10);
    own(at, "rsa", RSA, 10);
    own(at, "ed", "-algorithm ED25519", 10);
    timed(at, "expired", "localhost", -48, -24);
    timed(at, "future", "localhost", 24, 48);
    timed(at, "now", "localhost", -24, 24);
    for (name, announced) in
        [("two-weeks", 1), ("now", 1), ("longer", 0), ("p384", 0), ("rsa", 0), ("ed", 0), ("expired", 0), ("future", 0)]
    {
        let files = [format!("{name}.pem"), format!("{name}.key")].map(|file| at.join(file));
        let identity = Identity::from_pem(&files[0], &files[1]).unwrap();
        assert_eq!(identity.hashes().len(), announced, "{name}");
    }
}

/// Waits until the certificate in that file is served, and says how long that took.
async fn taken_over(serving: &mut Serving, file: &Path) -> Duration {
    let begun = Instant::now();
    let pem = fs::read(file).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let hash = h3cast::identity::Fingerprint::of(&pem.contents).hex();
    serving.program.told(&hash).await;
    begun.elapsed()
}

/// Less than the minute after which files are looked at anyway, on a machine that has much to do.
const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn changes_are_taken_over_however_they_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    for name in ["one", "two", "three", "four"] {
        timed(at, name, "localhost", -24, 24 * 60);
    }
    let copy = |from: &str, to: &Path| {
        fs::create_dir_all(to).unwrap();
        fs::copy(at.join(format!("{from}.pem")), to.join("tls.crt")).unwrap();
        fs::copy(at.join(format!("{from}.key")), to.join("tls.key")).unwrap();
    };
    // As Kubernetes mounts secrets: the file is a link through a link to a folder that is exchanged.
    let mount = at.join("mount");
    copy("one", &mount.join("..1"));
    symlink("..1", mount.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), mount.join(file)).unwrap();
    }
    let mut serving = Serving::start(at, &using("mount/tls.crt", "mount/tls.key")).await;
    copy("two", &mount.join("..2"));
    symlink("..2", mount.join("..new")).unwrap();
    fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    assert!(taken_over(&mut serving, &at.join("two.pem")).await < SOON);
    fs::remove_dir_all(mount.join("..1")).unwrap();
    // Each link exchanged by itself, as certbot does, the certificate long before its key.
    for (name, from) in [("tls.crt", "three.pem"), ("tls.key", "three.key")] {
        let new = mount.join("new");
        symlink(at.join(from), &new).unwrap();
        fs::rename(&new, mount.join(name)).unwrap();
        if name == "tls.crt" {
            serving.program.told("do not fit together").await;
        }
    }
    assert!(taken_over(&mut serving, &at.join("three.pem")).await < SOON);
    // Written over in place.
    for (from, to) in [("four.pem", "three.pem"), ("four.key", "three.key")] {
        fs::copy(at.join(from), at.join(to)).unwrap();
    }
    assert!(taken_over(&mut serving, &at.join("four.pem")).await < SOON);
}

#[tokio::test]
async fn a_folder_far_above_is_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    timed(at, "three", "localhost", -24, 24 * 60);
    for name in ["one", "two"] {
        timed(at, name, "localhost", -24, 24 * 60);
        let deep = at.join(format!("{name}.d/live/site"));
        fs::create_dir_all(&deep).unwrap();
        fs::copy(at.join(format!("{name}.pem")), deep.join("tls.crt")).unwrap();
        fs::copy(at.join(format!("{name}.key")), deep.join("tls.key")).unwrap();
    }
    let rename = |from: &str, to: &str| fs::rename(at.join(from), at.join(to)).unwrap();
    rename("one.d", "top");
    let files = using("top/live/site/tls.crt", "top/live/site/tls.key");
    let mut serving = Serving::start(at, &files).await;
    // A change that is taken over shows that the first look was taken, and what it follows.
    for (from, to) in [("three.pem", "tls.crt"), ("three.key", "tls.key")] {
        fs::copy(at.join(from), at.join("top/live/site").join(to)).unwrap();
    }
    taken_over(&mut serving, &at.join("three.pem")).await;
    let begun = Instant::now();
    rename("top", "old");
    serving.program.told("still using the previous certificate: cannot read").await;
    rename("two.d", "top");
    taken_over(&mut serving, &at.join("two.pem")).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn changes_are_taken_over_without_inotify() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    timed(at, "one", "localhost", -24, 24 * 60);
    timed(at, "two", "localhost", -24, 24 * 60);
    for (from, to) in [("one.pem", "tls.crt"), ("one.key", "tls.key")] {
        fs::copy(at.join(from), at.join(to)).unwrap();
    }
    // A user namespace has limits of its own.
    let script = "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$@\"";
    let mut command = tokio::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_h3cast"), "serve"]);
    command.args(using("tls.crt", "tls.key")).current_dir(at).kill_on_drop(true);
    let mut serving = Serving::of(command, at).await;
    for (from, to) in [("two.pem", "tls.crt"), ("two.key", "tls.key")] {
        fs::copy(at.join(from), at.join(to)).unwrap();
    }
    assert!(taken_over(&mut serving, &at.join("two.pem")).await < SOON);
}

#[tokio::test]
async fn what_a_shell_passes_is_warned_of_too() {
    let dir = tempfile::tempdir().unwrap();
    timed(dir.path(), "elsewhere", "example.org", -24, 12);
    let serve = super::program::command(dir.path(), &[]);
    let mut command = tokio::process::Command::new("bash");
    let script =
        "exec \"$0\" serve demo --listen localhost:0 --http off --cert <(cat elsewhere.pem) --key <(cat elsewhere.key)";
    command.args(["-c", script]).arg(serve.as_std().get_program()).current_dir(dir.path());
    command.env("HOME", dir.path()).env_remove("XDG_RUNTIME_DIR").env_remove("XDG_STATE_HOME").kill_on_drop(true);
    let server = Serving::of(command, dir.path()).await;
    server.program.signal("TERM");
    let (_, told, code) = server.program.end().await;
    assert_eq!(code, Some(0), "{told}");
    for warning in ["it is not for localhost", "it expires within a day"] {
        assert!(told.contains(warning), "{warning}: {told}");
    }
}
