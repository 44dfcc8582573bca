//! The same request over every version of HTTP, and as a session.

use bytes::Bytes;
use h3cast::client::ClientError;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, response::Parts};
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
    fn of(status: StatusCode, headers: HeaderMap) -> Self {
        Self { status, headers, body: String::new() }
    }

    /// Takes a piece of the body. Whether that is enough: a feed does not end.
    fn has_enough(&mut self, piece: &[u8]) -> bool {
        self.body.push_str(&String::from_utf8_lossy(piece));
        let is_feed = self.header("h3cast-resource") == "feed" && self.status == StatusCode::OK;
        is_feed && self.body.contains("chunk")
    }

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
            Answer { body: String::from_utf8(body).unwrap(), ..Answer::of(StatusCode::OK, HeaderMap::new()) }
        }
        Err(ClientError::Refused { status, headers }) => Answer::of(status, headers),
        Err(error) => panic!("{path}: {error}"),
    }
}

async fn http3(server: &TestServer, method: Method, path: &str, headers: &HeaderMap, body: &str) -> Answer {
    let connection = server.connect().await;
    let mut response = connection.send(request(method, server.uri(path), headers, body)).await.unwrap();
    let mut answer = Answer::of(response.status, response.headers);
    while let Ok(Some(bytes)) = response.body.next().await {
        if answer.has_enough(&bytes) {
            break;
        }
    }
    answer
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
    let mut answer = Answer::of(head.status, head.headers);
    while let Some(Ok(frame)) = body.frame().await {
        if answer.has_enough(&frame.into_data().unwrap_or_default()) {
            break;
        }
    }
    answer
}

fn request(method: Method, uri: Uri, headers: &HeaderMap, body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::from(body.to_owned())));
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    request.headers_mut().extend(headers.clone());
    request
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
    let mut request = match way {
        Way::Http2 => request(method, server.uri(path), headers, body),
        _ => request(method, path.parse().unwrap(), headers, body),
    };
    if way == Way::Http2 {
        *request.version_mut() = Version::HTTP_2;
    } else if !headers.contains_key("host") {
        request.headers_mut().insert("host", format!("localhost:{port}").parse().unwrap());
    }
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
