//! Ways into NATS: client certificates, tokens, WebSocket, and systems that each have their own.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::{
    cluster::{Cluster, free_ports, listens},
    edge::{Edge, chunk_texts, publish, read},
    serving::Serving,
    told::refused,
    within,
};

/// A CA, and what it signs, as files.
pub(crate) struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a CA of the test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// `NAME.pem` and `NAME.key` for these hosts, or for a client if there are none.
    pub(crate) fn sign(&self, name: &str, hosts: &[&str]) {
        let mut params =
            CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![match hosts.is_empty() {
            true => ExtendedKeyUsagePurpose::ClientAuth,
            false => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// The arguments of a nats-server that shows `NAME.pem`.
    pub(crate) fn server(&self, name: &str, clients: bool) -> Vec<String> {
        let [cert, key] = ["pem", "key"].map(|end| self.path(&format!("{name}.{end}")));
        let mut args: Vec<String> = ["--tls", "--tlscert", &cert, "--tlskey", &key].map(String::from).into();
        if clients {
            args.extend(["--tlsverify".into(), "--tlscacert".into(), self.path("ca.pem")]);
        }
        args
    }
}

fn serve(args: &[&str]) -> Serving {
    tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()))
}

/// What is published comes back, by way of NATS.
async fn works(serving: &Serving) {
    let edge = Edge::of(serving);
    publish(std::slice::from_ref(&edge), &mut 0, &mut None, "key", "safe\n").await;
    assert_eq!(chunk_texts(&read(&edge, "/stream/chat?from=start", 1).await), ["safe\n"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn with_a_client_certificate() {
    let authority = Authority::new();
    authority.sign("server", &["localhost", "127.0.0.1"]);
    authority.sign("client", &[]);
    let mut cluster = Cluster::start_with(1, &authority.server("server", true));
    let engine = format!("--engine=tls://localhost:{}", cluster.nodes[0].port);
    let [ca, cert, key] = [("ca", "ca.pem"), ("cert", "client.pem"), ("key", "client.key")]
        .map(|(flag, file)| format!("--nats-{flag}={}", authority.path(file)));
    let args = ["chat=publish", &engine, "--ensure-stream", &ca, &cert, &key];
    let serving = serve(&args);
    works(&serving).await;

    let told = refused(authority.dir(), &args[..4]).await;
    assert!(told.contains("requires a TLS client certificate") && told.contains("--nats-cert"), "{told}");
    let told = refused(authority.dir(), &[args[0], args[1], args[2], args[4], args[5]]).await;
    assert!(told.contains("not signed by a trusted CA") && told.contains("--nats-ca"), "{told}");
    let other = Authority::new();
    other.sign("client", &[]);
    let [cert, key] = [("cert", "client.pem"), ("key", "client.key")]
        .map(|(flag, file)| format!("--nats-{flag}={}", other.path(file)));
    let told = refused(authority.dir(), &[args[0], args[1], args[2], args[3], &cert, &key]).await;
    assert!(told.contains("rejected the TLS client certificate"), "{told}");
    // Each of these is told once, and not by the client library too.
    assert_eq!(told.lines().filter(|line| line.contains("certificate")).count(), 1, "{told}");
    let told = refused(authority.dir(), &[args[0], args[1], "--nats-cert=missing", "--nats-key=missing"]).await;
    assert!(told.contains("cannot read the client certificate for NATS in missing"), "{told}");

    // Under an edge that runs, they are exchanged for those of another CA, and nats-server is restarted with them.
    other.sign("server", &["localhost", "127.0.0.1"]);
    for file in ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"] {
        std::fs::copy(other.path(file), authority.path(file)).unwrap();
    }
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    within("it connects again", async {
        while !std::fs::read_to_string(serving.dir().join("stderr")).unwrap().contains("connected to NATS again") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn with_a_certificate_of_another_name() {
    let authority = Authority::new();
    authority.sign("server", &["nats.example"]);
    let cluster = Cluster::start_with(1, &authority.server("server", false));
    let engine = format!("--engine=tls://localhost:{}", cluster.nodes[0].port);
    let ca = format!("--nats-ca={}", authority.path("ca.pem"));
    let told = refused(authority.dir(), &["chat=publish", &engine, &ca]).await;
    assert!(told.contains("TLS certificate is for another name") && told.contains("nats.example"), "{told}");
}

/// Two systems, each with its own token; and the third has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn each_system_has_its_own_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other, open] = [&["--auth", "s3cret/1"][..], &["--auth", "s3cret2"], &[]]
        .map(|args| Cluster::start_with(1, &args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>()));
    let file = dir.path().join("to&ken");
    std::fs::write(&file, "s3cret2\n").unwrap();
    let common = dir.path().join("common");
    std::fs::write(&common, "s3cret/1\n").unwrap();
    let file = file.display().to_string().replace('&', "%26");
    let feeds = [
        "chat=publish".to_owned(),
        format!("--engine=nats://127.0.0.1:{}?token-file={file}", other.nodes[0].port),
        format!("common=nats://127.0.0.1:{}/common", one.nodes[0].port),
        format!("in-the-url=nats://s3cret%2F1@127.0.0.1:{}/url", one.nodes[0].port),
        format!("open=nats://127.0.0.1:{}/open", open.nodes[0].port),
        "--ensure-stream".to_owned(),
        format!("--nats-token-file={}", common.display()),
    ];
    let feeds: Vec<_> = feeds.iter().map(String::as_str).collect();
    works(&serve(&feeds)).await;
    // The common token is not that of the other system.
    let without = feeds[1].split('?').next().unwrap();
    let told = refused(dir.path(), &[feeds[0], without, feeds[6]]).await;
    assert!(told.contains("authorization violation"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn over_websocket() {
    let authority = Authority::new();
    authority.sign("server", &["localhost"]);
    let [plain, secure] = free_ports();
    let config = |port: u16, tls: &str| {
        let text = format!("websocket {{ listen: \"127.0.0.1:{port}\", {tls} }}\n");
        let path = authority.path(&format!("{port}.conf"));
        std::fs::write(&path, text).unwrap();
        vec!["-c".to_owned(), path]
    };
    let [cert, key] = [authority.path("server.pem"), authority.path("server.key")];
    let tls = format!("tls {{ cert_file: {cert:?}, key_file: {key:?} }}");
    let _plain = Cluster::start_with(1, &config(plain, "no_tls: true"));
    let _secure = Cluster::start_with(1, &config(secure, &tls));
    let ca = format!("--nats-ca={}", authority.path("ca.pem"));
    let engine = format!("--engine=ws://localhost:{plain}");
    works(&serve(&["chat=publish", &engine, "--ensure-stream"])).await;
    let engine = format!("--engine=wss://localhost:{secure}");
    works(&serve(&["chat=publish", &engine, "--ensure-stream", &ca])).await;
    let told = refused(authority.dir(), &["chat=publish", &engine]).await;
    assert!(told.contains("not signed by a trusted CA"), "{told}");
}

/// Servers without TLS do not get it by waiting; one that is not there yet may have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn servers_without_tls_are_told_at_once() {
    let authority = Authority::new();
    authority.sign("server", &["localhost"]);
    let (one, other) = (Cluster::start(1), Cluster::start(1));
    let [websocket, nothing] = free_ports();
    let path = authority.path("websocket.conf");
    std::fs::write(&path, format!("websocket {{ listen: \"127.0.0.1:{websocket}\", no_tls: true }}\n")).unwrap();
    let also = Cluster::start_with(1, &["-c".to_owned(), path]);
    for cluster in [&one, &other, &also] {
        cluster.listens().await;
    }
    listens(websocket).await;
    let ports = [&one, &other].map(|cluster| cluster.nodes[0].port);
    let ca = format!("--nats-ca={}", authority.path("ca.pem"));
    let words = "the server does not offer TLS: write nats:// in place of tls:// (ws:// for wss://)";
    for args in [
        &[&format!("--engine=tls://localhost:{}", ports[0])][..],
        &[&format!("--engine=tls://localhost:{},localhost:{}", ports[0], ports[1])],
        &[&format!("--engine=nats://localhost:{}", ports[0]), &ca],
        &[&format!("--engine=wss://localhost:{websocket}"), &ca],
    ] {
        let args: Vec<_> =
            ["chat=publish", "--ensure-stream"].into_iter().chain(args.iter().map(|arg| arg.as_str())).collect();
        let began = std::time::Instant::now();
        let told = refused(authority.dir(), &args).await;
        assert!(told.contains(words) && !told.contains("waiting"), "{args:?}: {told}");
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{args:?}: {:?}", began.elapsed());
    }
    let engine = format!("--engine=tls://localhost:{},localhost:{nothing}", ports[0]);
    let told = refused(authority.dir(), &["chat=publish", &engine, "--ensure-stream", "--nats-wait=2s"]).await;
    assert!(told.contains("waiting up to 2 s for NATS: cannot connect"), "{told}");
    assert!(!told.contains("write nats://"), "{told}");
}
