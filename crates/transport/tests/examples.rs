//! The example as a reader runs it. `cargo test` builds it; `cargo test --test examples` alone needs
//! `cargo build -p h3cast-transport --examples` first.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use h3cast_transport::client::{Client, Trust};
use http_body_util::{BodyExt, Empty};
use rustls::pki_types::{CertificateDer, pem::PemObject};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn hello_over_every_http() {
    // `target/debug/deps/examples-…` knows where the others are.
    let folder = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples");
    let program = folder.join(format!("hello{}", std::env::consts::EXE_SUFFIX));
    assert!(program.is_file(), "{} is not built: cargo build -p h3cast-transport --examples", program.display());
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    let mut server = Killed(command.arg("127.0.0.1:0").current_dir(dir.path()).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("ready ").unwrap();
    let certificate = dir.path().join("certs/cert.pem");

    let client = Client::new(&Trust::Files(vec![certificate.clone()])).unwrap();
    let response = client.send(http::Request::get(url).body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello over HTTP/3.0\n");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = Arc::new(tls.with_root_certificates(roots).with_no_client_auth());
    let name = "127.0.0.1".try_into().unwrap();
    let authority = url.strip_prefix("https://").unwrap().trim_end_matches('/');
    let (mut tls, mut tcp) =
        (rustls::ClientConnection::new(tls, name).unwrap(), TcpStream::connect(authority).unwrap());
    let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
    write!(stream, "GET / HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nhello over HTTP/1.1\n"), "{answer}");
}
