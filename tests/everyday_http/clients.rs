//! One request over each version of HTTP.

#![allow(unreachable_pub, reason = "modules of one test binary")]

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use h3cast::client::{Connection, Trust};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::common::{TestServer, soon};

/// How a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Http3,
    Http2,
    Http1,
    PlainHttp1,
}

pub const ALL: [Over; 4] = [Over::Http3, Over::Http2, Over::Http1, Over::PlainHttp1];

/// Where a server is.
#[derive(Debug, Clone)]
pub struct At<'a> {
    pub port: u16,
    pub http_port: u16,
    pub certificate: &'a Path,
    /// What a client calls it.
    pub authority: String,
}

impl<'a> At<'a> {
    pub fn of(server: &TestServer, certificate: &'a Path) -> Self {
        let (port, http_port) = (server.port(), server.http_port());
        Self { port, http_port, certificate, authority: format!("localhost:{port}") }
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// What a problem says.
    pub fn problem(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status.as_u16());
        problem["detail"].as_str().unwrap().to_owned()
    }
}

fn tls_config(certificate: &Path, alpn: &str) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(certificate).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![alpn.into()];
    tls
}

async fn tls(at: &At<'_>, alpn: &str) -> TlsStream<TcpStream> {
    let tcp = soon("a connection", TcpStream::connect(("127.0.0.1", at.port))).await.unwrap();
    let connector = TlsConnector::from(Arc::new(tls_config(at.certificate, alpn)));
    soon("TLS", connector.connect(ServerName::try_from("localhost").unwrap(), tcp)).await.unwrap()
}

/// Sends bytes over TLS, as HTTP/1, and gives all that comes.
pub async fn raw_tls(at: &At<'_>, request: &str) -> String {
    let mut stream = tls(at, "http/1.1").await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Some servers end without TLS's own end.
    let _ = soon("the answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

/// Sends bytes to a port as they are, and gives all that comes.
pub async fn raw(port: u16, request: &[u8]) -> String {
    let mut stream = soon("a connection", TcpStream::connect(("127.0.0.1", port))).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// One request and its whole answer.
pub async fn ask(at: &At<'_>, over: Over, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let absolute = format!("https://{}{path}", at.authority);
    match over {
        Over::Http3 => http3(at, request.uri(&absolute).body(()).unwrap()).await,
        Over::Http2 => {
            let stream = TokioIo::new(tls(at, "h2").await);
            let (mut send, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            let driver = tokio::spawn(driver);
            let request = request.uri(&absolute).body(Empty::<Bytes>::new()).unwrap();
            let answer = whole(soon("the head", send.send_request(request)).await.unwrap()).await;
            driver.abort();
            answer
        }
        Over::Http1 | Over::PlainHttp1 => {
            let authority = match over {
                Over::PlainHttp1 if at.authority.starts_with("localhost:") => format!("localhost:{}", at.http_port),
                _ => at.authority.clone(),
            };
            let request = request.uri(path).header("host", authority).body(Empty::<Bytes>::new()).unwrap();
            let (mut send, driver) = match over {
                Over::Http1 => {
                    let stream = TokioIo::new(tls(at, "http/1.1").await);
                    let (send, driver) = hyper::client::conn::http1::handshake(stream).await.unwrap();
                    (send, tokio::spawn(driver))
                }
                _ => {
                    let stream = TcpStream::connect(("127.0.0.1", at.http_port)).await.unwrap();
                    let (send, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
                    (send, tokio::spawn(driver))
                }
            };
            let answer = whole(soon("the head", send.send_request(request)).await.unwrap()).await;
            driver.abort();
            answer
        }
    }
}

async fn whole(response: http::Response<hyper::body::Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = soon("the body", body.collect()).await.unwrap().to_bytes().to_vec();
    Answer { status: head.status, headers: head.headers, body }
}

async fn http3(at: &At<'_>, request: Request<()>) -> Answer {
    let to: Uri = format!("https://localhost:{}/", at.port).parse().unwrap();
    let trust = Trust::Files(vec![at.certificate.to_owned()]);
    let connection = soon("a connection", Connection::open(&to, &trust)).await.unwrap();
    let mut response = soon("the head", connection.request(request)).await.unwrap();
    let mut body = Vec::new();
    while let Some(bytes) = soon("the body", response.body.next()).await.unwrap() {
        body.extend_from_slice(&bytes);
    }
    Answer { status: response.status, headers: response.headers, body }
}
