//! Viewers of a feed on each transport, and what they got in the end.

#![allow(unreachable_pub, reason = "a module of a test")]

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use h3cast::client::{Connection, Trust};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};

use crate::{
    common::{TestServer, soon},
    serving::{Reading, Serving},
};

/// Where a server can be reached.
#[derive(Debug, Clone)]
pub struct Host {
    pub port: u16,
    pub certificate: PathBuf,
}

impl From<&Serving> for Host {
    fn from(server: &Serving) -> Self {
        Self { port: server.port, certificate: server.certificate() }
    }
}

impl From<&TestServer> for Host {
    fn from(server: &TestServer) -> Self {
        Self { port: server.port(), certificate: server.certificate() }
    }
}

impl Host {
    pub fn uri(&self, path: &str) -> Uri {
        format!("https://localhost:{}{path}", self.port).parse().unwrap()
    }

    async fn connect(&self) -> Connection {
        let trust = Trust::Files(vec![self.certificate.clone()]);
        soon("a connection", Connection::open(&self.uri("/"), &trust)).await.unwrap()
    }
}

/// How a viewer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Http3,
    Session,
    Http2,
    Http1,
}

pub const ALL: [Over; 4] = [Over::Http3, Over::Session, Over::Http2, Over::Http1];

/// A connection with as many viewers as its protocol lets it have.
pub enum Link {
    Quic(Box<Connection>, Over),
    Http2(hyper::client::conn::http2::SendRequest<Empty<Bytes>>),
    Http1(hyper::client::conn::http1::SendRequest<Empty<Bytes>>),
}

/// A viewer whose feed has begun.
pub enum Viewing {
    Quic(Reading),
    Tcp(hyper::body::Incoming),
}

/// Viewers of several feeds, who read what comes all the time, on as few connections as they need.
pub struct Audience {
    over: Over,
    reading: JoinSet<(String, Got)>,
    /// They end with these.
    links: Vec<Link>,
}

impl Audience {
    /// Begins with each of these, and waits until it has the head of its response, or its stream.
    pub async fn gather(server: &Host, over: Over, paths: &[String]) -> Self {
        let (mut reading, mut links) = (JoinSet::new(), Vec::new());
        for paths in paths.chunks(Link::viewers(over)) {
            let mut link = Link::open(server, over).await;
            for path in paths {
                let (viewing, path) = (link.view(server, path).await, path.clone());
                reading.spawn(async move { (path, viewing.rest().await) });
            }
            links.push(link);
        }
        Self { over, reading, links }
    }

    /// Waits for their ends: what is wrong with what each got, in words.
    pub async fn judge(self, wrong: impl Fn(&Got) -> Option<String>) -> Vec<String> {
        let got = self.reading.join_all().await;
        drop(self.links);
        let wrong = |(path, got): &(String, Got)| wrong(got).map(|wrong| format!("{:?} {path}: {wrong}", self.over));
        got.iter().filter_map(wrong).collect()
    }
}

/// All that a viewer got.
#[derive(Debug)]
pub struct Got {
    pub bytes: Vec<u8>,
    /// Why it broke off; `None` when it looks whole.
    pub cut: Option<String>,
}

impl Link {
    pub async fn open(server: &Host, over: Over) -> Self {
        match over {
            Over::Http3 | Over::Session => Self::Quic(Box::new(server.connect().await), over),
            Over::Http2 => {
                let io = TokioIo::new(tls(server, b"h2").await);
                let (send, connection) =
                    soon("HTTP/2", hyper::client::conn::http2::handshake(TokioExecutor::new(), io)).await.unwrap();
                // Its end shows in each response.
                tokio::spawn(connection);
                Self::Http2(send)
            }
            Over::Http1 => {
                let io = TokioIo::new(tls(server, b"http/1.1").await);
                let (send, connection) = soon("HTTP/1.1", hyper::client::conn::http1::handshake(io)).await.unwrap();
                tokio::spawn(connection);
                Self::Http1(send)
            }
        }
    }

    /// How many viewers one such connection is given by the tests.
    pub fn viewers(over: Over) -> usize {
        match over {
            // Also the most that a client may have.
            Over::Session => 10,
            Over::Http3 | Over::Http2 => 10,
            Over::Http1 => 1,
        }
    }

    pub async fn view(&mut self, server: &Host, path: &str) -> Viewing {
        let uri = server.uri(path);
        let request = |uri: &str| {
            Request::get(uri).header(header::HOST, format!("localhost:{}", server.port)).body(Empty::new()).unwrap()
        };
        let response = match self {
            Self::Quic(connection, over) => {
                return Viewing::Quic(Reading::open(connection, &uri, *over == Over::Session).await);
            }
            Self::Http2(send) => {
                soon("the head", send.send_request(Request::get(&uri).body(Empty::new()).unwrap())).await
            }
            Self::Http1(send) => soon("the head", send.send_request(request(path))).await,
        };
        let response = response.unwrap_or_else(|error| panic!("no status line from {path}: {error}"));
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Viewing::Tcp(response.into_body())
    }
}

impl Viewing {
    /// What comes next: bytes, the clean end, or why it broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        match self {
            Self::Quic(reading) => reading.next().await,
            Self::Tcp(body) => loop {
                return match soon("more", body.frame()).await {
                    None => Ok(None),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(bytes) => Ok(Some(bytes)),
                        Err(_) => continue,
                    },
                    Some(Err(error)) => Err(format!("{error}: {:?}", std::error::Error::source(&error))),
                };
            },
        }
    }

    /// All that comes, to whatever end.
    pub async fn rest(mut self) -> Got {
        let mut bytes = Vec::new();
        let cut = loop {
            match self.next().await {
                Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        Got { bytes, cut }
    }
}

async fn tls(server: &Host, protocol: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&server.certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let tcp = soon("a connection", TcpStream::connect(("localhost", server.port))).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    soon("TLS", TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.unwrap()
}
