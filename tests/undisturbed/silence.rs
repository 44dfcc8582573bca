//! A stop is not held up by clients that say nothing more, and what they are still to get is delivered.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpStream, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::server::{DEADLINE, Server, program};

/// Longer than a test waits.
const GRACE: &str = "--grace=200s";
/// As in `stopping`: a stop that waits for a silent client takes 10 s.
const PROMPT: Duration = Duration::from_secs(8);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A client of HTTP/2 that answers nothing by itself.
struct Silent(TcpStream);

impl Silent {
    fn ask(server: &Server, path: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // GET and http, of the static table; the path and the authority as they are.
        let mut head = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
        head.extend(path.as_bytes());
        head.extend([0x01, 9]);
        head.extend(b"localhost");
        let head = frame(HEADERS, END | 4, 1, &head);
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &head].concat()).unwrap();
        Self(stream)
    }

    /// The next frame; `None` at the end of the connection.
    fn frame(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
            Err(error) => panic!("{error}"),
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).unwrap();
        Some((head[3], head[4], payload))
    }

    /// Reads to the end of a response; gives its body.
    fn response(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let (kind, flags, payload) = self.frame().expect("the response ends before the connection");
            if kind == DATA {
                body.extend(payload);
            }
            if matches!(kind, DATA | HEADERS) && flags & END != 0 {
                return body;
            }
        }
    }
}

#[test]
fn an_http2_client_that_has_its_response_does_not_hold_a_stop() {
    let mut server = Server::start(program(&[]), &["demo", GRACE]);
    let mut client = Silent::ask(&server, "/healthz");
    client.response();
    let began = Instant::now();
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    // It is notified before.
    let rest: Vec<_> = std::iter::from_fn(|| client.frame()).map(|(kind, ..)| kind).collect();
    assert!(rest.contains(&GOAWAY), "{rest:?}");
}

/// A response that waits for its client is delivered, however long that takes.
#[test]
fn an_http2_response_is_delivered_though_the_server_stops() {
    const LENGTH: usize = 200_000;
    let big = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(big.path(), vec![b'x'; LENGTH]).unwrap();
    let mut server = Server::start(program(&[]), &[&format!("file:{}", big.path().display()), GRACE]);
    let mut client = Silent::ask(&server, "/stream");
    // The window of the connection and of the stream: 65,535 bytes. The server waits then.
    let mut received = 0;
    while received < 65_535 {
        let (kind, _, payload) = client.frame().unwrap();
        received += if kind == DATA { payload.len() } else { 0 };
    }
    server.signal("TERM");
    while !matches!(client.frame(), Some((GOAWAY, ..))) {}
    // Longer than a server waits for one that has everything.
    std::thread::sleep(Duration::from_secs(3));
    assert!(!server.has_ended());
    let more = u32::try_from(LENGTH).unwrap().to_be_bytes();
    let more = [frame(WINDOW_UPDATE, 0, 0, &more), frame(WINDOW_UPDATE, 0, 1, &more)].concat();
    client.0.write_all(&more).unwrap();
    let began = Instant::now();
    assert_eq!(received + client.response().len(), LENGTH);
    assert_eq!(server.end(), Some(0));
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
}

/// A client that allows no streams, so that HTTP/3 cannot begin.
fn without_streams(server: &Server) -> quinn::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let path = server.dir.path().join("certs/cert.pem");
    for certificate in CertificateDer::pem_file_iter(path).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_uni_streams(0_u8.into()).keep_alive_interval(Some(Duration::from_secs(1)));
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    config
}

#[tokio::test]
async fn a_quic_client_that_allows_no_streams_does_not_hold_a_stop() {
    let mut server = Server::start(program(&[]), &["demo", GRACE]);
    let address = ([127, 0, 0, 1], server.tls()).into();
    let config = without_streams(&server);
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connect = || endpoint.connect_with(config.clone(), address, "localhost").unwrap();
    // Without a stop it has 10 s: it keeps itself alive, and is closed.
    let connection = connect().await.unwrap();
    tokio::time::timeout(DEADLINE, connection.closed()).await.expect("it is closed");
    let connection = connect().await.unwrap();
    let began = Instant::now();
    server.signal("TERM");
    let code = tokio::task::spawn_blocking(move || server.end()).await.unwrap();
    assert_eq!(code, Some(0));
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    drop(connection);
}

/// A client hello of several packets, of which one comes.
#[tokio::test]
async fn half_a_client_hello_does_not_hold_a_stop() {
    let mut server = Server::start(program(&[]), &["demo", GRACE]);
    let port = server.tls();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    tls.alpn_protocols = (0..20).map(|number| vec![b'a' + number; 200]).collect();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    // It talks to a socket of ours, which passes on one packet.
    let between = UdpSocket::bind("127.0.0.1:0").unwrap();
    between.set_read_timeout(Some(DEADLINE)).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, between.local_addr().unwrap(), "localhost").unwrap();
    let passed = tokio::task::spawn_blocking(move || {
        let mut packet = [0; 2048];
        let (length, _) = between.recv_from(&mut packet).unwrap();
        between.send_to(&packet[..length], ("127.0.0.1", port)).unwrap();
        // The server has it when it acknowledges it.
        while between.recv_from(&mut packet).unwrap().1.port() != port {}
    });
    passed.await.unwrap();
    let began = Instant::now();
    server.signal("TERM");
    let code = tokio::task::spawn_blocking(move || server.end()).await.unwrap();
    assert_eq!(code, Some(0));
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    drop(connecting);
}

/// An answer to HTTP/1.0 ends with its connection: that of a server that is killed was cut.
#[test]
fn an_http10_answer_of_a_server_that_is_killed_does_not_look_whole() {
    let mut server = Server::start(program(&[]), &["exec:echo one; exec sleep 1000"]);
    let mut client = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"GET /stream?from=start HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\none\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    server.signal("KILL");
    server.end();
    assert_eq!(client.read_to_end(&mut answer).unwrap_err().kind(), ErrorKind::ConnectionReset);
}
