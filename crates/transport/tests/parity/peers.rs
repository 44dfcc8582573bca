//! Both servers, and a client for each version of HTTP that says what it has seen.

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header},
};
use bytes::{Buf, Bytes};
use futures_util::stream;
use h3cast_transport::{Identity, Listen, PlainHttp, Server};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cases::{Case, Sent};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    H1,
    H2,
    H3,
}

/// What a client has seen of a response.
#[derive(Default, PartialEq)]
pub(crate) struct Answer {
    /// 0 if there was none.
    pub(crate) status: u16,
    headers: BTreeMap<String, Vec<HeaderValue>>,
    pub(crate) body: Vec<u8>,
    trailers: BTreeMap<String, Vec<HeaderValue>>,
    /// It broke off, and the client knows.
    pub(crate) cut: bool,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(400)]);
        let cut = if self.cut { " cut" } else { "" };
        write!(f, "{} {:?} {body:?} ({}) {:?}{cut}", self.status, self.headers, self.body.len(), self.trailers)
    }
}

/// What belongs to a version of HTTP, to the moment, or to the server.
const OF_THE_VERSION: [HeaderName; 4] = [header::CONNECTION, header::TRANSFER_ENCODING, header::ALT_SVC, header::DATE];

fn fields(headers: &HeaderMap) -> BTreeMap<String, Vec<HeaderValue>> {
    let names = headers.keys().filter(|name| !OF_THE_VERSION.contains(name));
    names.map(|name| (name.to_string(), headers.get_all(name).iter().cloned().collect())).collect()
}

impl Answer {
    /// The only value of a field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|values| values[0].to_str().ok())
    }

    /// Of a response that breaks off only that matters: how much of it arrives is chance.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        (self.cut && other.cut) || self == other
    }
}

type Body = BoxBody<Bytes, Infallible>;

/// What every request names, whatever the port of the server.
const AUTHORITY: &str = "parity.test:8443";

/// The target of a request over HTTP/2 or HTTP/3.
fn target(case: &Case) -> Uri {
    match case.unnamed {
        true => Uri::builder().path_and_query(case.path).build().unwrap(),
        false => Uri::builder().scheme("https").authority(AUTHORITY).path_and_query(case.path).build().unwrap(),
    }
}

fn request(case: &Case, uri: Uri) -> Request<Body> {
    let mut request = Request::builder().method(case.method.clone()).uri(uri);
    for (name, value) in &case.headers {
        request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
    }
    let frames =
        |frames: Vec<Frame<Bytes>>| StreamBody::new(stream::iter(frames.into_iter().map(Ok::<_, Infallible>))).boxed();
    let body = match &case.body {
        Sent::Nothing => Full::default().boxed(),
        Sent::Sized(bytes) => {
            request = request.header(header::CONTENT_LENGTH, bytes.len());
            Full::new(bytes.clone()).boxed()
        }
        Sent::Streamed(pieces) => frames(pieces.iter().map(|piece| Frame::data(Bytes::from(*piece))).collect()),
        Sent::Trailed(text) => {
            request = request.header(header::TRAILER, "x-sum");
            let trailers = [(HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))].into_iter().collect();
            frames(vec![Frame::data(Bytes::from(*text)), Frame::trailers(trailers)])
        }
    };
    request.body(body).unwrap()
}

/// Asks over TCP, on a connection of its own.
async fn over_tcp(address: SocketAddr, version: Version, case: &Case) -> Answer {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let sent = if version == Version::H1 {
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(1 << 20)
            .max_headers(1000)
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = request(case, Uri::builder().path_and_query(case.path).build().unwrap());
        request.headers_mut().entry(header::HOST).or_insert(HeaderValue::from_static(AUTHORITY));
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(1 << 20)
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        sender.send_request(request(case, target(case))).await
    };
    let Ok(response) = sent else { return Answer { cut: true, ..Answer::default() } };
    let (head, mut body) = response.into_parts();
    let mut answer = Answer { status: head.status.as_u16(), headers: fields(&head.headers), ..Answer::default() };
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => answer.body.extend_from_slice(&data),
            Ok(Err(frame)) => answer.trailers = frame.trailers_ref().map(fields).unwrap_or_default(),
            Err(_) => {
                answer.cut = true;
                break;
            }
        }
    }
    // Not hyper's own look at it over HTTP/2.
    let length = answer.headers.get("content-length").and_then(|length| length[0].to_str().unwrap().parse().ok());
    let bodiless = case.method == "HEAD" || answer.status == 304;
    answer.cut |= !bodiless && length.is_some_and(|length: usize| length != answer.body.len());
    answer
}

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(30);

async fn soon<T>(case: &Case, answer: impl Future<Output = T>) -> T {
    in_time(case.name, answer).await
}

pub(crate) async fn in_time<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(event) => event,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// `axum::serve`.
pub(crate) struct Axum {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Axum {
    pub(crate) async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { address, serving }
    }

    pub(crate) async fn ask(&self, version: Version, case: &Case) -> Answer {
        soon(case, over_tcp(self.address, version, case)).await
    }
}

impl Drop for Axum {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Our server.
pub(crate) struct Ours {
    pub(crate) http: SocketAddr,
    quic: SocketAddr,
    certs: tempfile::TempDir,
    _stop: DropGuard,
}

impl Ours {
    pub(crate) async fn start(router: Router) -> Self {
        let certs = tempfile::tempdir().unwrap();
        let identity = Identity::self_signed(certs.path(), &[], Default::default()).unwrap();
        let listen = || "127.0.0.1:0".parse::<Listen>().unwrap();
        let server = Server::builder(identity).listen(listen()).plain_http(PlainHttp::At(listen()));
        let server = server.http_service(router).build().await.unwrap();
        let http = server.addresses().http.as_ref().unwrap().parse().unwrap();
        let quic = server.addresses().udp[0];
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone()));
        Self { http, quic, certs, _stop: stop.drop_guard() }
    }

    pub(crate) async fn ask(&self, version: Version, case: &Case) -> Answer {
        match version {
            Version::H1 | Version::H2 => soon(case, over_tcp(self.http, version, case)).await,
            Version::H3 => self.h3().await.ask(case).await,
        }
    }

    pub(crate) async fn h3(&self) -> H3 {
        H3::open(self.quic, &self.certs.path().join("cert.pem")).await
    }
}

/// A connection of the h3 crate's client.
pub(crate) struct H3 {
    pub(crate) requests: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    pub(crate) connection: quinn::Connection,
    endpoint: quinn::Endpoint,
}

impl H3 {
    async fn open(address: SocketAddr, certificate: &Path) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(certificate).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(config);
        let connection = endpoint.connect(address, "localhost").unwrap().await.unwrap();
        let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection.clone())).await.unwrap();
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Self { requests, connection, endpoint }
    }

    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("https://{AUTHORITY}{path}").parse().unwrap()
    }

    /// Moves to another port, as behind a router that was restarted; gives it.
    pub(crate) fn migrate(&self) -> u16 {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        self.endpoint.rebind(socket).unwrap();
        self.endpoint.local_addr().unwrap().port()
    }

    pub(crate) async fn ask(&self, case: &Case) -> Answer {
        let mut answer = Answer::default();
        let asked = soon(case, self.exchange(case, &mut answer)).await;
        answer.cut = asked.is_err();
        let length = answer.headers.get("content-length").and_then(|length| length[0].to_str().unwrap().parse().ok());
        let bodiless = case.method == "HEAD" || answer.status == 304;
        answer.cut |= !bodiless && length.is_some_and(|length: usize| length != answer.body.len());
        answer
    }

    async fn exchange(&self, case: &Case, answer: &mut Answer) -> Result<(), h3::error::StreamError> {
        let (head, mut body) = request(case, target(case)).into_parts();
        let (mut send, mut recv) = self.requests.clone().send_request(Request::from_parts(head, ())).await?.split();
        // An answer may come before it has all been sent, which ends that.
        let sending = async {
            while let Some(frame) = body.frame().await {
                let sent = match frame.unwrap().into_data() {
                    Ok(data) => send.send_data(data).await,
                    Err(frame) => send.send_trailers(frame.into_trailers().unwrap()).await,
                };
                if sent.is_err() {
                    return;
                }
            }
            let _ = send.finish().await;
        };
        let receiving = async {
            let mut response = recv.recv_response().await?;
            while response.status().is_informational() {
                response = recv.recv_response().await?;
            }
            (answer.status, answer.headers) = (response.status().as_u16(), fields(response.headers()));
            while let Some(mut data) = recv.recv_data().await? {
                answer.body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
            if let Some(trailers) = recv.recv_trailers().await? {
                answer.trailers = fields(&trailers);
            }
            Ok(())
        };
        tokio::join!(sending, receiving).1
    }
}
