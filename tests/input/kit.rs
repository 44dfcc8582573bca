//! A server of commands that take input, and views of them over each version of HTTP.

#![allow(unreachable_pub, reason = "a module of a test")]

use axum::body::Body;
use bytes::Bytes;
use h3cast::{
    App, client,
    client::Connection,
    source::{Options, Source, command::Commands},
};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::common::{TestServer, soon};

pub const SESSION: &str = "h3cast-session";

/// A server of these sources, `[NAME=]exec:COMMAND`.
pub async fn server(sources: &[&str], set: impl FnOnce(App) -> App) -> (TestServer, Commands) {
    let commands = Commands::default();
    let mut options = Options::default();
    (options.per_viewer, options.input, options.commands) = (true, true, commands.clone());
    let mut feeds = Vec::new();
    for source in sources {
        let source: Source = source.parse().unwrap();
        feeds.push(source.start(&options).await.unwrap().feed.unwrap());
    }
    let server = TestServer::start(|builder, identity| set(App::new(feeds, identity)).install(builder)).await;
    (server, commands)
}

/// What a request was answered with.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn is(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.body.to_string().contains(words), "{words}: {self:?}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    H1,
    H2,
    H3,
}

pub const WAYS: [Way; 3] = [Way::H1, Way::H2, Way::H3];

/// The body of a view.
enum Out {
    Tcp(hyper::body::Incoming),
    H3 { _connection: Box<Connection>, body: Box<client::Body> },
}

/// A view over HTTP.
pub struct View {
    pub id: String,
    out: Out,
    read: Vec<u8>,
}

impl View {
    pub async fn open(server: &TestServer, way: Way, path: &str) -> Self {
        let (status, headers, out) = Self::asked(server, way, path, &[]).await;
        assert_eq!(status, StatusCode::OK);
        let id = headers[SESSION].to_str().unwrap().to_owned();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(!headers.contains_key("access-control-allow-origin"), "{headers:?}");
        Self { id, out, read: Vec::new() }
    }

    async fn asked(
        server: &TestServer,
        way: Way,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, HeaderMap, Out) {
        let mut request = request(server, way, Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if way != Way::H3 {
            let response = over_tcp(server, way, request.body(Body::empty()).unwrap()).await;
            let (head, body) = response.into_parts();
            return (head.status, head.headers, Out::Tcp(body));
        }
        let connection = server.connect().await;
        let response = soon("the head", connection.request(request.body(()).unwrap())).await.unwrap();
        (
            response.status,
            response.headers,
            Out::H3 { _connection: Box::new(connection), body: Box::new(response.body) },
        )
    }

    /// The status and the session of a view with these headers.
    pub async fn status(server: &TestServer, way: Way, headers: &[(&str, &str)]) -> (u16, Option<String>) {
        let (status, headers, _) = Self::asked(server, way, "/stream", headers).await;
        (status.as_u16(), headers.get(SESSION).map(|id| id.to_str().unwrap().to_owned()))
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        match &mut self.out {
            Out::Tcp(body) => loop {
                let bytes = soon("more", body.frame()).await?.unwrap().into_data().unwrap();
                // As HTTP/2 may end.
                if !bytes.is_empty() {
                    return Some(bytes);
                }
            },
            Out::H3 { body, .. } => soon("more", body.next()).await.unwrap(),
        }
    }

    /// Waits for a line.
    pub async fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=at).collect();
                return String::from_utf8(line).unwrap();
            }
            let more = self.next().await.expect("a line");
            self.read.extend_from_slice(&more);
        }
    }

    /// All that is left, to the clean end.
    pub async fn rest(mut self) -> String {
        while let Some(more) = self.next().await {
            self.read.extend_from_slice(&more);
        }
        String::from_utf8(self.read).unwrap()
    }

    /// Sends input in one request.
    pub async fn say(&self, server: &TestServer, way: Way, path: &str, body: impl Into<Body>) -> Answer {
        post(server, way, path, &[(SESSION, &self.id)], body).await
    }
}

fn request(server: &TestServer, way: Way, method: Method, path: &str) -> http::request::Builder {
    let host = format!("localhost:{}", server.http_port());
    let request = Request::builder().method(method);
    match way {
        Way::H1 => request.uri(path).header("host", host),
        Way::H2 => request.uri(format!("http://{host}{path}")),
        Way::H3 => request.uri(server.uri(path)),
    }
}

async fn over_tcp(server: &TestServer, way: Way, request: Request<Body>) -> hyper::Response<hyper::body::Incoming> {
    let stream = soon("a connection", TcpStream::connect(("127.0.0.1", server.http_port()))).await.unwrap();
    let stream = TokioIo::new(stream);
    if way == Way::H1 {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        return soon("the head", sender.send_request(request)).await.unwrap();
    }
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    soon("the head", sender.send_request(request)).await.unwrap()
}

/// A POST with these headers.
pub async fn post(
    server: &TestServer,
    way: Way,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Answer {
    let mut request = request(server, way, Method::POST, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.into()).unwrap();
    let (status, headers, text) = match way {
        Way::H1 | Way::H2 => {
            let (head, body) = over_tcp(server, way, request).await.into_parts();
            (head.status, head.headers, soon("the body", body.collect()).await.unwrap().to_bytes().to_vec())
        }
        Way::H3 => {
            let connection = server.connect().await;
            let mut response = soon("the head", connection.send(request)).await.unwrap();
            let mut text = Vec::new();
            while let Some(more) = soon("the body", response.body.next()).await.unwrap() {
                text.extend_from_slice(&more);
            }
            (response.status, response.headers, text)
        }
    };
    Answer { status: status.as_u16(), headers, body: serde_json::from_slice(&text).unwrap_or_default() }
}

/// Waits until no command runs.
pub async fn none_runs(commands: &Commands) {
    soon("the commands end", commands.ended()).await;
    assert_eq!(commands.running(), 0);
}
