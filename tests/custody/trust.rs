//! Whom a client trusts, and what it says of a server that it does not trust.

use std::{fs, path::Path, process::Command, sync::Arc};

use h3cast::identity::Fingerprint;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use time::{Duration, OffsetDateTime};
use tokio::net::TcpListener;

use crate::{
    note::{User, demo},
    program::{Program, Serving, command, output, soon, text},
};

/// Creates FOLDER/NAME.pem and NAME.key as a user would, with OpenSSL: it is a CA's.
pub(crate) fn self_signed(folder: &Path, name: &str, hosts: &str) {
    openssl(folder, name, &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], hosts);
}

fn openssl(folder: &Path, name: &str, key: &[&str], hosts: &str) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost"]).args(key);
    if !hosts.is_empty() {
        command.arg("-addext").arg(format!("subjectAltName={hosts}"));
    }
    command.arg("-keyout").arg(folder.join(format!("{name}.key"))).arg("-out").arg(folder.join(format!("{name}.pem")));
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
}

fn hash_of(pem: &Path) -> String {
    Fingerprint::of(&CertificateDer::from_pem_file(pem).unwrap()).hex()
}

/// A server with a certificate of its user's own, whose notes nobody else finds.
async fn serve_with(folder: &Path, name: &str, more: &[&str]) -> Serving {
    let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let args = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap(), "--interval", "1ms"];
    Serving::start(folder, 0, &[&["demo"], &args[..], more].concat()).await
}

#[tokio::test]
async fn cacert_trusts_what_curl_does() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let elsewhere = tempfile::tempdir().unwrap();
    let elliptic = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    for (name, key, hosts) in [
        ("rsa", &["-newkey", "rsa:2048"][..], "DNS:localhost"),
        ("elliptic", &elliptic, "DNS:localhost,IP:127.0.0.1"),
        ("common-name", &elliptic, ""),
    ] {
        openssl(folder, name, key, hosts);
        let server = serve_with(folder, name, &[]).await;
        let url = server.url("/stream");
        let pem = folder.join(format!("{name}.pem"));
        let x509 = fs::read(&pem).unwrap();
        let der = CertificateDer::from_pem_slice(&x509).unwrap();
        assert!(x509_parser::parse_x509_certificate(&der).unwrap().1.is_ca(), "{name}");
        fs::write(folder.join("cert.der"), &der).unwrap();
        // Not the first of several.
        self_signed(folder, "other", "DNS:localhost");
        let bundle = [fs::read(folder.join("other.pem")).unwrap(), x509].concat();
        fs::write(folder.join("bundle.pem"), bundle).unwrap();
        let curl = ["-sS", "--max-time", "20", &url, "--cacert", pem.to_str().unwrap()];
        let curled = Command::new("curl").args(curl).output().unwrap();
        assert_eq!(text(&curled.stdout), demo(), "{name}: {}", text(&curled.stderr));
        for file in [pem.clone(), folder.join("cert.der"), folder.join("bundle.pem")] {
            let file = file.to_str().unwrap();
            for more in [&[][..], &["--webtransport"], &["--resume"]] {
                let got = output(elsewhere.path(), &[&["get", &url, "--cacert", file], more].concat()).await;
                assert_eq!(text(&got.stdout), demo(), "{name} {file} {more:?}: {}", text(&got.stderr));
            }
        }
        for version in ["h1", "h2"] {
            let args = ["bench", &url, "-c", "1", "-d", "20", "--warm-up", "0", "--http", version, "--cacert"];
            let got = output(elsewhere.path(), &[&args[..], &[pem.to_str().unwrap()]].concat()).await;
            assert!(got.status.success(), "{name} {version}: {}", text(&got.stderr));
        }
        // The other one alone is not enough.
        let other = folder.join("other.pem");
        let got = output(elsewhere.path(), &["get", &url, "--cacert", other.to_str().unwrap()]).await;
        assert_eq!(got.status.code(), Some(1), "{name}");
    }
}

#[tokio::test]
async fn a_file_that_holds_no_certificate_is_told() {
    let dir = tempfile::tempdir().unwrap();
    self_signed(dir.path(), "own", "DNS:localhost");
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::write(dir.path().join("text"), "hello\n").unwrap();
    for (file, part) in [
        ("empty", "the file is empty"),
        ("text", "holds no certificate"),
        ("own.key", "private key"),
        ("nothing", "there is no such file"),
        (".", "it is a folder"),
    ] {
        for words in [&["get"][..], &["publish"], &["bench"], &["bench", "--http", "h1"]] {
            let got = output(dir.path(), &[words, &["https://localhost:1/stream", "--cacert", file]].concat()).await;
            let said = text(&got.stderr);
            assert_eq!(got.status.code(), Some(2), "{words:?} {file}: {said}");
            assert!(said.contains(file) && said.contains(part), "{words:?} {file}: {said}");
        }
    }
}

/// A folder that was cloned or unpacked may hold `certs/cert.pem` of anyone's. Without a network there is no
/// other address than loopback; `client::trust` has a test that needs none.
#[tokio::test]
async fn certs_in_the_current_folder_are_for_this_machine_only() {
    let interfaces = if_addrs::get_if_addrs().unwrap();
    let other = interfaces.iter().map(if_addrs::Interface::ip).find(|ip| ip.is_ipv4() && !ip.is_loopback());
    let Some(other) = other else { return eprintln!("skipped: this machine has no address but loopback") };
    let dir = tempfile::tempdir().unwrap();
    self_signed(dir.path(), "own", &format!("IP:{other},IP:127.0.0.1"));
    let (listen, cert) = ("0.0.0.0:0", ["--cert", "own.pem", "--key", "own.key"]);
    let args = [&["serve", "--listen", listen, "--http", "off", "--interval", "1ms"], &cert[..]].concat();
    let server = Serving::of(Program::start(dir.path(), &args)).await;
    let cloned = tempfile::tempdir().unwrap();
    fs::create_dir(cloned.path().join("certs")).unwrap();
    let planted = cloned.path().join("certs/cert.pem");
    fs::copy(dir.path().join("own.pem"), &planted).unwrap();
    let web = format!("https://{other}:{}/stream", server.port);
    for words in [
        &["get"][..],
        &["get", "--webtransport"],
        &["get", "--resume"],
        &["publish"],
        &["bench", "-c", "1", "--warm-up", "0"],
        &["bench", "-c", "1", "--warm-up", "0", "--http", "h2"],
        &["bench", "-c", "1", "--warm-up", "0", "--http", "h1"],
    ] {
        let got = output(cloned.path(), &[words, &[&web]].concat()).await;
        let said = text(&got.stderr);
        assert_eq!(got.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains("this machine only") && said.contains("--certs certs"), "{words:?}: {said}");
    }
    // `open` would have a browser trust it.
    let got = output(cloned.path(), &["open", "chrome", &web]).await;
    assert_eq!((got.status.code(), text(&got.stdout).as_str()), (Some(1), ""));
    let here = format!("https://127.0.0.1:{}/stream", server.port);
    let got = output(cloned.path(), &["get", &here]).await;
    assert_eq!(text(&got.stdout), demo(), "{}", text(&got.stderr));
    for named in [["--certs", "certs"], ["--cacert", "certs/cert.pem"]] {
        let got = output(cloned.path(), &["get", &web, named[0], named[1]]).await;
        assert_eq!(text(&got.stdout), demo(), "{named:?}: {}", text(&got.stderr));
    }
    let mut command = command(cloned.path(), &["get", &web]);
    let got = soon("its end", command.env("H3CAST_CERTS", "certs").output()).await.unwrap();
    assert_eq!(text(&got.stdout), demo(), "{}", text(&got.stderr));
    // What is no certificate there hinders nobody from using others.
    fs::write(&planted, "garbage").unwrap();
    let got = output(cloned.path(), &["get", &here]).await;
    assert_eq!(got.status.code(), Some(1));
    assert!(text(&got.stderr).contains("holds no certificate"), "{}", text(&got.stderr));
    let got = output(cloned.path(), &["get", &here, "--certs", "certs"]).await;
    assert_eq!(got.status.code(), Some(2), "{}", text(&got.stderr));
}

/// A server that gets no further than its certificate, over UDP and TCP.
struct Bare {
    port: u16,
    pem: String,
    hash: String,
    _tasks: tokio::task::JoinSet<()>,
}

impl Bare {
    async fn start(from: i64, to: i64, names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "evil\u{1b}[2J");
        params.not_before = OffsetDateTime::now_utc() + Duration::hours(from);
        params.not_after = OffsetDateTime::now_utc() + Duration::hours(to);
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        let hash = Fingerprint::of(&der).hex();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut tls = builder.unwrap().with_no_client_auth().with_single_cert(vec![der], key).unwrap();
        tls.alpn_protocols = [&b"h3"[..], b"h2", b"http/1.1"].map(<[u8]>::to_vec).into();
        // The port of TCP has to be free over UDP as well.
        let (bound, port) = loop {
            let (v4, v6, port) = listeners().await;
            let udp = |tcp: &TcpListener| std::net::UdpSocket::bind(tcp.local_addr().unwrap());
            if let (Ok(udp_v4), Ok(udp_v6)) = (udp(&v4), udp(&v6)) {
                break ([(v4, udp_v4), (v6, udp_v6)], port);
            }
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls.clone()));
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let mut tasks = tokio::task::JoinSet::new();
        for (listener, udp) in bound {
            let (runtime, ours) = (Arc::new(quinn::TokioRuntime), quinn::EndpointConfig::default());
            let endpoint = quinn::Endpoint::new(ours, Some(config.clone()), udp, runtime).unwrap();
            let acceptor = acceptor.clone();
            tasks.spawn(async move {
                while let Some(incoming) = endpoint.accept().await {
                    tokio::spawn(async move {
                        if let Ok(conn) = incoming.await {
                            conn.close(0_u8.into(), b"");
                        }
                    });
                }
            });
            tasks.spawn(async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move { acceptor.accept(tcp).await.is_ok() });
                }
            });
        }
        Self { port, pem, hash, _tasks: tasks }
    }
}

/// On both addresses of localhost, at one port that is free at both.
async fn listeners() -> (TcpListener, TcpListener, u16) {
    loop {
        let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = v4.local_addr().unwrap().port();
        if let Ok(v6) = TcpListener::bind(("::1", port)).await {
            return (v4, v6, port);
        }
    }
}

/// Runs every command that connects against it, and gives what each said. All must fail.
async fn refused(folder: &Path, host: &str, server: &Bare, trust: &[&str]) -> Vec<String> {
    let url = format!("https://{host}:{}/stream", server.port);
    let mut all = Vec::new();
    for words in [
        &["get"][..],
        &["get", "--resume"],
        &["get", "--resume", "-o", "out"],
        &["publish"],
        &["publish", "--webtransport"],
        &["bench", "-c", "2", "--warm-up", "0"],
        &["bench", "-c", "2", "--warm-up", "0", "--http", "h2"],
        &["bench", "-c", "2", "--warm-up", "0", "--http", "h1"],
    ] {
        let got = output(folder, &[words, &[&url], trust].concat()).await;
        let said = text(&got.stderr);
        assert_eq!(got.status.code(), Some(1), "{words:?}: {said}");
        let head = said.find(&format!("cannot connect to {host}:{}: the server's certificate is not", server.port));
        let said = said[head.unwrap_or_else(|| panic!("{words:?}: {said}"))..].to_owned();
        // Which certificate the server has.
        for part in [&server.hash, "valid 20", "self-signed", "CN=evil\\u{1b}[2J"] {
            assert!(said.contains(part), "{words:?}: `{part}` is not in:\n{said}");
        }
        assert!(!said.contains('\u{1b}'), "{words:?}: {said:?}");
        all.push(said);
    }
    all
}

fn all_say(all: &[String], parts: &[&str]) {
    for (said, part) in all.iter().flat_map(|said| parts.iter().map(move |part| (said, part))) {
        assert!(said.contains(part), "`{part}` is not in:\n{said}");
    }
}

#[tokio::test]
async fn an_unknown_server_and_another_hash() {
    let dir = tempfile::tempdir().unwrap();
    let server = Bare::start(-1, 24, &["localhost", "example.test"]).await;
    // Nothing is there that could be expected.
    let all = refused(dir.path(), "localhost", &server, &[]).await;
    let pin = format!("--cert-hash {}", server.hash);
    let names = "for localhost, example.test";
    all_say(&all, &["no trusted CA signed it", "certs/cert.pem (there is no such file)", &pin, "--certs DIR", names]);
    fs::create_dir(dir.path().join("certs")).unwrap();
    self_signed(&dir.path().join("certs"), "cert", "DNS:localhost");
    let expected = format!("certs/cert.pem, SHA-256 {}", hash_of(&dir.path().join("certs/cert.pem")));
    all_say(&refused(dir.path(), "localhost", &server, &[]).await, &[&expected, &pin]);
    let all = refused(dir.path(), "localhost", &server, &["--cacert", "certs/cert.pem"]).await;
    all_say(&all, &[&expected, &pin]);
    let given = "0".repeat(64);
    let all = refused(dir.path(), "localhost", &server, &["--cert-hash", &given]).await;
    all_say(&all, &["its SHA-256 is not the one that was given", &format!("SHA-256 {given}"), &pin, "h3cast cert"]);
    // The command that it names helps: what fails then is something else.
    let url = format!("https://localhost:{}/", server.port);
    let got = output(dir.path(), &["get", &url, "--cert-hash", &server.hash]).await;
    assert!(!text(&got.stderr).contains("not trusted"), "{}", text(&got.stderr));
}

#[tokio::test]
async fn expired_too_early_and_wrong_names() {
    let dir = tempfile::tempdir().unwrap();
    let trust = ["--cacert", "server.pem"];
    let write = |server: &Bare| fs::write(dir.path().join("server.pem"), &server.pem).unwrap();
    let expired = Bare::start(-99, -49, &["localhost"]).await;
    write(&expired);
    let all = refused(dir.path(), "localhost", &expired, &trust).await;
    all_say(&all, &["it has expired", "2 days ago", "restart the server", "h3cast serve", "check the clock"]);
    let early = Bare::start(5, 24, &["localhost"]).await;
    write(&early);
    let all = refused(dir.path(), "localhost", &early, &trust).await;
    all_say(&all, &["it is not valid yet", "in 4 h", "check the clock"]);
    let other = Bare::start(-1, 24, &["127.0.0.1"]).await;
    write(&other);
    let all = refused(dir.path(), "localhost", &other, &trust).await;
    let pin = format!("--cert-hash {}", other.hash);
    let url = format!("https://127.0.0.1:{}/", other.port);
    let listen = format!("--listen localhost:{}", other.port);
    all_say(&all, &["it is not for localhost", "for 127.0.0.1", &url, &listen, &pin]);
}

/// Another program took over the port of a server that was killed, or of one at another address.
#[tokio::test]
async fn a_port_that_another_server_has_now() {
    let user = User::new();
    let folder = user.folder("one");
    let server = user.serve("one", &["demo"]).await;
    let other = user.serve("other", &["demo"]).await;
    let hash = |folder: &Path| hash_of(&folder.join("certs/cert.pem"));
    let stranger = Bare::start(-1, 24, &["localhost"]).await;
    let url = format!("https://localhost:{}/stream", stranger.port);
    // Servers at other ports were not expected at this one.
    let (code, _, said) = user.runs(&["get", &url]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains(&hash(&folder)) && !said.contains(&hash(&user.folder("other"))), "{said}");
    // One whose note says that it has this port, and which runs.
    let note = user
        .notes()
        .into_iter()
        .find(|note| fs::read_to_string(note).unwrap().contains(&format!("localhost:{}", server.port)));
    let text = fs::read_to_string(note.as_ref().unwrap()).unwrap();
    let changed = text.replace(&format!("localhost:{}", server.port), &format!("localhost:{}", stranger.port));
    // In place, so that it stays the file that the server holds; it is put right within a second otherwise.
    fs::write(note.unwrap(), changed).unwrap();
    let (code, _, said) = user.runs(&["get", &url]).await;
    assert_eq!(code, Some(1), "{said}");
    for part in [&hash(&folder), &format!("process id {}", server.program.id()), &stranger.hash] {
        assert!(said.contains(part), "`{part}` is not in:\n{said}");
    }
    drop(other);
}

/// What a server's user gets to see whose server uses another folder: what to give, ready to copy.
#[tokio::test]
async fn the_advice_for_ones_own_server_helps() {
    let user = User::new();
    let server = user.serve("one", &["demo"]).await;
    let stranger = tempfile::tempdir().unwrap();
    let mut get = Program::start(stranger.path(), &["get", &server.url("/stream")]);
    let line = get.told("--cert-hash").await;
    let advice = line.split("--cert-hash ").nth(1).unwrap().trim().to_owned();
    let got = output(stranger.path(), &["get", &server.url("/stream"), "--cert-hash", &advice]).await;
    assert_eq!(text(&got.stdout), demo(), "{}", text(&got.stderr));
}

#[tokio::test]
async fn what_a_shell_passes_as_cacert_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    self_signed(dir.path(), "own", "DNS:localhost");
    let server = serve_with(dir.path(), "own", &[]).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let pem = dir.path().join("own.pem");
    let bash = |script: &str| {
        let mut bash = tokio::process::Command::new("bash");
        let h3cast = command(elsewhere.path(), &[]);
        bash.args(["-c", script]).arg(h3cast.as_std().get_program()).arg(server.url("/stream")).arg(&pem);
        bash.current_dir(elsewhere.path()).env("HOME", elsewhere.path()).env_remove("XDG_RUNTIME_DIR");
        bash.env_remove("XDG_STATE_HOME").kill_on_drop(true);
        bash
    };
    for how in ["", "--http h2", "--webtransport"] {
        // More connections than share a socket, each with a configuration of its own.
        let script =
            format!("exec \"$0\" bench \"$1\" -c 20 --stalled 20 -d 1 --warm-up 0 {how} --cacert <(cat \"$2\")");
        let ran = soon("the bench ends", bash(&script).output()).await.unwrap();
        let shown = text(&ran.stdout);
        assert!(ran.status.success() && shown.contains("errors        0"), "{how}: {shown} {}", text(&ran.stderr));
    }
    // A pipe with a name, whose writer writes once.
    let fifo = "mkfifo once; cat \"$2\" > once & exec \"$0\" bench \"$1\" -c 20 -d 1 --warm-up 0 --cacert once";
    let ran = soon("the bench ends", bash(fifo).output()).await.unwrap();
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let wrong = bash("exec \"$0\" get \"$1\" --cacert <(echo nothing)").output();
    let ran = soon("it refuses", wrong).await.unwrap();
    assert_eq!(ran.status.code(), Some(2));
    assert!(text(&ran.stderr).contains("holds no certificate"), "{}", text(&ran.stderr));
}
