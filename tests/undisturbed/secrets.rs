//! What the program leaves for tools that look into its connections: the secrets of TLS.

use std::{
    fs,
    net::TcpStream,
    process::Command,
    sync::{Arc, Mutex},
};

use rustls::{ClientConfig, ClientConnection, KeyLog, RootCertStore, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{
    access::lines,
    server::{Server, program, until},
};

#[test]
fn the_secrets_of_tls_are_written_where_the_environment_says() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("server.keys"), dir.path().join("client.keys"));
    let mut command = program(&[]);
    command.stderr(fs::File::create(dir.path().join("stderr")).unwrap()).env("SSLKEYLOGFILE", &ours);
    let mut server = Server::start(command, &["--count", "1"]);
    let port = server.tls();
    let url = format!("https://127.0.0.1:{port}/stream");
    let get = Command::new(env!("CARGO_BIN_EXE_h3cast"))
        .args(["get", "--insecure", &url])
        .env("SSLKEYLOGFILE", &theirs)
        .env("HOME", dir.path())
        .output()
        .unwrap();
    assert!(get.status.success(), "{get:?}");
    let said = String::from_utf8_lossy(&get.stderr).into_owned();
    assert!(said.contains("SSLKEYLOGFILE is set") && said.contains("client.keys"), "{said}");
    assert!(fs::read_to_string(dir.path().join("stderr")).unwrap().contains("SSLKEYLOGFILE is set"));
    let mut keys = lines(&theirs);
    keys.sort();
    assert!(keys.iter().any(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 ")), "{keys:?}");
    until("the server has written them", || {
        let has = lines(&ours);
        keys.iter().all(|key| has.contains(key))
    });
    // Over TCP too.
    let seen = Arc::<Secrets>::default();
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(server.dir.path().join("certs/cert.pem")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.key_log = seen.clone();
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(tls), name).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).unwrap();
    }
    let seen = seen.0.lock().unwrap();
    assert!(!seen.is_empty());
    until("the server has written those of TLS over TCP", || {
        let has = lines(&ours);
        seen.iter().all(|random| has.iter().any(|line| line.contains(random)))
    });
}

/// The random values of a client's connections, which tell whose secrets a line has.
#[derive(Debug, Default)]
struct Secrets(Mutex<Vec<String>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.0.lock().unwrap().push(format!("{label} {} {}", hexadecimal(client_random), hexadecimal(secret)));
    }
}
