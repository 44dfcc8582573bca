//! The same request over every version of HTTP, and as a session.

use bytes::Bytes;
use h3cast::client::ClientError;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, response::Parts};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::sync::Arc;
use tokio::net::TcpStream;

use crate::common::{TestServer, soon};

/// How a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// HTTP/1.1 without TLS.
    Plain,
    Http1,
    Http2,
    Http3,
    /// A WebTransport session.
    Session,
}

pub(crate) const WAYS: [Way; 5] = [Way::Plain, Way::Http1, Way::Http2, Way::Http3, Way::Session];

/// What came back: of a body, its beginning.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let name = |name: &str| name.parse::<HeaderName>().unwrap();
    pairs.iter().map(|(key, value)| (name(key), HeaderValue::from_str(value).unwrap())).collect()
}

/// Asks for `path`, and reads the beginning of what comes: all of an answer that is not a feed.
pub(crate) async fn ask(
    server: &TestServer,
    way: Way,
    method: Method,
    path: &str,
    headers: &HeaderMap,
    body: &str,
) -> Answer {
    let asked = async {
        match way {
            Way::Session => session(server, path, headers).await,
            Way::Http3 => http3(server, method, path, headers, body).await,
            way => over_tcp(server, way, method, path, headers, body).await,
        }
    };
    soon(&format!("an answer: {way:?} {path}"), asked).await
}

async fn session(server: &TestServer, path: &str, headers: &HeaderMap) -> Answer {
    let connection = server.connect().await;
    match connection.webtransport(&server.uri(path), headers.clone(), &[]).await {
        Ok(session) => {
            let mut body = Vec::new();
            // One that views nothing has a stream that ends.
            if let Ok(mut stream) = session.accept_uni().await
                && let Ok(Some(bytes)) = stream.read_bytes(1 << 16).await
            {
                body = bytes.to_vec();
            }
            Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: String::from_utf8(body).unwrap() }
        }
        Err(ClientError::Refused { status, headers }) => Answer { status, headers, body: String::new() },
        Err(error) => panic!("{path}: {error}"),
    }
}

async fn http3(server: &TestServer, method: Method, path: &str, headers: &HeaderMap, body: &str) -> Answer {
    let connection = server.connect().await;
    let mut request = Request::builder().method(method).uri(server.uri(path));
    request.headers_mut().unwrap().extend(headers.clone());
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let mut response = connection.send(request).await.unwrap();
    let is_feed = response.headers.get("h3cast-resource").is_some_and(|kind| kind == "feed");
    let mut read = Vec::new();
    while let Ok(Some(bytes)) = response.body.next().await {
        read.extend_from_slice(&bytes);
        if is_feed && response.status == StatusCode::OK && bytes.windows(5).any(|part| part == b"chunk") {
            break;
        }
    }
    let body = String::from_utf8_lossy(&read).into_owned();
    Answer { status: response.status, headers: response.headers, body }
}

async fn over_tcp(
    server: &TestServer,
    way: Way,
    method: Method,
    path: &str,
    headers: &HeaderMap,
    body: &str,
) -> Answer {
    let (head, mut body) = begin(server, way, method, path, headers, body).await;
    let is_feed = head.headers.get("h3cast-resource").is_some_and(|kind| kind == "feed");
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.into_data().unwrap_or_default();
        read.extend_from_slice(&bytes);
        if is_feed && head.status == StatusCode::OK && bytes.windows(5).any(|part| part == b"chunk") {
            break;
        }
    }
    Answer { status: head.status, headers: head.headers, body: String::from_utf8_lossy(&read).into_owned() }
}

/// The head of what comes over TCP, and its body.
pub(crate) async fn begin(
    server: &TestServer,
    way: Way,
    method: Method,
    path: &str,
    headers: &HeaderMap,
    body: &str,
) -> (Parts, Incoming) {
    let port = if way == Way::Plain { server.http_port() } else { server.port() };
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let absolute = format!("https://localhost:{port}{path}");
    let mut request = Request::builder().method(method);
    request = match way {
        Way::Http2 => request.uri(absolute).version(Version::HTTP_2),
        _ => request.uri(path).header("host", format!("localhost:{port}")),
    };
    request.headers_mut().unwrap().extend(headers.clone());
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let response = if way == Way::Plain {
        let (mut send, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        send.send_request(request).await.unwrap()
    } else {
        let alpn: &[u8] = if way == Way::Http2 { b"h2" } else { b"http/1.1" };
        let stream =
            TokioIo::new(tls(server, alpn).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap());
        if way == Way::Http2 {
            let (mut send, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(driver);
            send.send_request(request).await.unwrap()
        } else {
            let (mut send, driver) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(driver);
            send.send_request(request).await.unwrap()
        }
    };
    response.into_parts()
}

fn tls(server: &TestServer, alpn: &[u8]) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(server.certificate()).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(tls).into()
}
