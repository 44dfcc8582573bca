//! Publications over each version of HTTP and over WebTransport, from one address or another.

#![allow(unreachable_pub, reason = "a module of a test")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use futures_util::stream;
use h3cast::{
    client::{Connection, RequestBody, ResponseFuture},
    webtransport::{RecvStream, SendStream, Session},
};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

use crate::common::{TestServer, soon};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    H1,
    H2,
    H3,
    Session,
}

pub const WAYS: [Way; 4] = [Way::H1, Way::H2, Way::H3, Way::Session];

/// What a publication was answered with: a status, its body, and how long to wait.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: serde_json::Value,
    pub retry_after: Option<String>,
}

/// A publication whose body has not ended.
pub enum Publishing {
    Tcp { body: mpsc::Sender<Bytes>, answer: JoinHandle<Answer> },
    H3 { _connection: Connection, body: RequestBody, answer: ResponseFuture },
    Session { _connection: Connection, _session: Session, send: SendStream, recv: RecvStream },
}

/// A connection to the server's plain port from another loopback address than everyone's.
async fn tcp(server: &TestServer, from: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into()).unwrap();
    let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), server.http_port());
    soon("a connection", socket.connect(to)).await.unwrap()
}

impl Publishing {
    /// Begins one; over TCP, from 127.0.0.`from`.
    pub async fn begin(server: &TestServer, way: Way, from: u8, path: &str) -> Self {
        let request = |uri: String| Request::builder().method(Method::POST).uri(uri);
        match way {
            Way::H1 | Way::H2 => {
                let io = TokioIo::new(tcp(server, from).await);
                let (body, mut pieces) = mpsc::channel::<Bytes>(1);
                let frames = stream::poll_fn(move |cx| {
                    pieces
                        .poll_recv(cx)
                        .map(|piece| Some(Ok::<_, std::convert::Infallible>(http_body::Frame::data(piece?))))
                });
                let host = format!("localhost:{}", server.http_port());
                let body_out = StreamBody::new(frames);
                let response = if way == Way::H1 {
                    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                    tokio::spawn(connection);
                    let request = request(path.into()).header("host", host).body(body_out).unwrap();
                    futures_util::future::Either::Left(async move { sender.send_request(request).await })
                } else {
                    let (mut sender, connection) =
                        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
                    tokio::spawn(connection);
                    let request = request(format!("http://{host}{path}")).body(body_out).unwrap();
                    futures_util::future::Either::Right(async move { sender.send_request(request).await })
                };
                let answer = tokio::spawn(async move {
                    let response = response.await.unwrap();
                    let (head, body) = response.into_parts();
                    let text = body.collect().await.unwrap().to_bytes();
                    answer(head.status.as_u16(), &head.headers, &text)
                });
                Self::Tcp { body, answer }
            }
            Way::H3 => {
                let connection = server.connect().await;
                let request = request(server.uri(path).to_string()).body(()).unwrap();
                let (body, answer) = soon("the request", connection.send_request(request)).await.unwrap();
                Self::H3 { _connection: connection, body, answer }
            }
            Way::Session => {
                let connection = server.connect().await;
                let query = if path.contains('?') { "&limit=0" } else { "?limit=0" };
                let uri = server.uri(&format!("{path}{query}"));
                let session = soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
                let (send, recv) = soon("a stream", session.open_bi()).await.unwrap();
                Self::Session { _connection: connection, _session: session, send, recv }
            }
        }
    }

    pub async fn send(&mut self, bytes: &'static [u8]) {
        let bytes = Bytes::from_static(bytes);
        match self {
            Self::Tcp { body, .. } => soon("the piece is taken", body.send(bytes)).await.unwrap(),
            Self::H3 { body, .. } => soon("the piece is taken", body.send(bytes)).await.unwrap(),
            Self::Session { send, .. } => soon("the piece is taken", send.write_bytes(bytes)).await.unwrap(),
        }
    }

    /// The answer, before the body has ended.
    pub async fn answer(self) -> Answer {
        match self {
            Self::Tcp { body: _body, answer } => soon("the answer", answer).await.unwrap(),
            Self::H3 { _connection, body: _body, answer: pending } => h3(pending).await,
            Self::Session { _connection, _session, send: _send, recv } => session(recv).await,
        }
    }

    /// Ends the body; gives the answer.
    pub async fn finish(self) -> Answer {
        match self {
            Self::Tcp { body, answer } => {
                drop(body);
                soon("the answer", answer).await.unwrap()
            }
            Self::H3 { _connection, body, answer: pending } => {
                let _ = body.finish().await;
                h3(pending).await
            }
            Self::Session { _connection, _session, mut send, recv } => {
                let _ = send.finish();
                session(recv).await
            }
        }
    }
}

fn answer(status: u16, headers: &HeaderMap, text: &[u8]) -> Answer {
    let retry_after = headers.get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    Answer { status, body: serde_json::from_slice(text).unwrap_or_default(), retry_after }
}

async fn h3(pending: ResponseFuture) -> Answer {
    let mut response = soon("the answer", pending).await.unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = soon("its body", response.body.next()).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    answer(response.status.as_u16(), &response.headers, &text)
}

/// A session's stream has no status, and a problem has it in its text.
async fn session(mut recv: RecvStream) -> Answer {
    let mut text = Vec::new();
    while let Some(bytes) = soon("the answer", recv.read_bytes(usize::MAX)).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    let body: serde_json::Value = serde_json::from_slice(&text).unwrap();
    Answer { status: body["status"].as_u64().map_or(200, |status| status as u16), body, retry_after: None }
}

impl Publishing {
    /// The same, after something was sent.
    pub async fn sent(mut self, bytes: &'static [u8]) -> Self {
        self.send(bytes).await;
        self
    }
}

impl TestServer {
    /// Waits until a number that /metrics has is that.
    pub async fn gauge(&self, name: &str, value: u64) {
        let connection = self.connect().await;
        let line = format!("{name} {value}");
        let mut last = String::new();
        let reached = async {
            loop {
                let mut response = connection.get(&self.uri("/metrics")).await.unwrap();
                let mut text = Vec::new();
                while let Some(bytes) = response.body.next().await.unwrap() {
                    text.extend_from_slice(&bytes);
                }
                last = String::from_utf8(text).unwrap();
                if last.lines().any(|found| found == line) {
                    return;
                }
                // Nothing tells when it changes.
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(crate::common::DEADLINE, reached).await.is_err() {
            panic!("`{line}` is not in\n{last}");
        }
    }
}
