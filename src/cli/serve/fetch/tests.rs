//! Keys from servers that are as they should be, and others.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::https::WAIT;

const KEYS: &str = r#"{"keys":[]}"#;

/// A CA, whose certificate is in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(["ca.test".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file, _folder: folder }
    }

    /// A server for `name` that answers each request with that.
    async fn serve(&self, name: &str, expired: bool, answer: Answer) -> Served {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if expired {
            (params.not_before, params.not_after) =
                (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
        }
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let tls = tls.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heads = asked.clone();
        let running = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                if let Answer::NoTls = answer {
                    std::future::pending::<()>().await;
                }
                let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                heads.lock().unwrap().push(String::from_utf8(head).unwrap());
                answer.give(&mut stream).await;
                let _ = stream.shutdown().await;
            }
        });
        Served { port, asked, _running: AbortOnDropHandle::new(running) }
    }
}

/// What a server answers.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// It accepts, and does not speak TLS.
    NoTls,
    /// It reads the request, and says nothing.
    Nothing,
    Text(&'static str),
    /// A body without end, as fast as it is taken.
    Endless,
    /// A body without end, a byte a second.
    Slow,
}

impl Answer {
    async fn give(self, stream: &mut (impl tokio::io::AsyncWrite + Unpin)) {
        const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        match self {
            Self::NoTls | Self::Nothing => std::future::pending().await,
            Self::Text(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Self::Endless => {
                let _ = stream.write_all(HEAD).await;
                while stream.write_all(&[b' '; 16 << 10]).await.is_ok() {}
            }
            Self::Slow => {
                let _ = stream.write_all(HEAD).await;
                while stream.write_all(b" ").await.is_ok() {
                    let _ = stream.flush().await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

struct Served {
    port: u16,
    /// The heads of the requests.
    asked: Arc<Mutex<Vec<String>>>,
    _running: AbortOnDropHandle<()>,
}

impl Served {
    async fn fetch(&self, ca: Option<&Path>) -> Result<String, String> {
        let url = format!("https://localhost:{}/jwks.json?a=b", self.port);
        let fetch = fetcher(&super::url(&url).unwrap().unwrap(), ca).unwrap();
        let fetched = tokio::time::timeout(Duration::from_secs(20), fetch()).await.expect("it ends");
        fetched.map(|bytes| String::from_utf8(bytes).unwrap()).map_err(|error| error.to_string())
    }
}

const GOOD: Answer = Answer::Text("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}");

#[test]
fn a_url_that_is_refused_keeps_its_password() {
    for text in ["https://me:geheim@host/jwks.json", "ftp://me:geheim@host/", "https://me:geheim@ho st/"] {
        let told = url(text).unwrap_err().in_words();
        assert!(told.contains("--auth") && told.contains('…') && !told.contains("geheim"), "{told}");
    }
}

#[tokio::test]
async fn a_server_of_a_private_ca_is_trusted_with_its_certificate_only() {
    let (authority, other) = (Authority::new(), Authority::new());
    let served = authority.serve("localhost", false, GOOD).await;
    assert_eq!(served.fetch(Some(&authority.file)).await, Ok(KEYS.into()));
    let head = served.asked.lock().unwrap().pop().unwrap();
    assert!(head.starts_with("GET /jwks.json?a=b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: localhost:{}\r\n", served.port)), "{head}");
    for ca in [None, Some(&*other.file)] {
        let error = served.fetch(ca).await.unwrap_err();
        assert!(error.contains("not trusted") || error.contains("CA"), "{ca:?}: {error}");
    }
    assert!(served.asked.lock().unwrap().is_empty(), "it was asked for nothing");
}

#[tokio::test]
async fn a_certificate_must_be_valid_and_for_the_host() {
    let authority = Authority::new();
    for (name, expired, word) in [("other.test", false, "localhost"), ("localhost", true, "expired")] {
        let served = authority.serve(name, expired, GOOD).await;
        let error = served.fetch(Some(&authority.file)).await.unwrap_err();
        assert!(error.contains(word), "{name}: {error}");
        assert!(served.asked.lock().unwrap().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn other_answers_are_no_keys() {
    let authority = Authority::new();
    let far = "HTTP/1.1 302 Found\r\nlocation: https://else.example/jwks.json\r\ncontent-length: 0\r\n\r\n";
    for (answer, word) in [
        (Answer::Text(far), "302"),
        (Answer::Text("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"), "500"),
        (Answer::Text("HTTP/1.1 204 No Content\r\n\r\n"), "204"),
        (Answer::Text("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":"), "reading a body"),
        (Answer::Text("SSH-2.0-OpenSSH_9.2\r\n"), "invalid"),
        (Answer::Endless, "1048576 bytes"),
    ] {
        let served = authority.serve("localhost", false, answer).await;
        let error = served.fetch(Some(&authority.file)).await.unwrap_err();
        assert!(error.contains(word), "{answer:?}: {error}");
    }
}

/// The clock runs when nothing else does.
#[tokio::test(start_paused = true)]
async fn one_that_hangs_is_given_up() {
    let authority = Authority::new();
    for answer in [Answer::NoTls, Answer::Nothing, Answer::Slow] {
        let served = authority.serve("localhost", false, answer).await;
        let started = tokio::time::Instant::now();
        let error = served.fetch(Some(&authority.file)).await.unwrap_err();
        assert_eq!(error, "no answer within 10 s", "{answer:?}");
        assert!((WAIT..WAIT * 2).contains(&started.elapsed()), "{answer:?}: {:?}", started.elapsed());
    }
}
