//! A server of commands that take input, and views of them over HTTP/1.1 and HTTP/3.

#![allow(unreachable_pub, reason = "a module of a test")]

use axum::body::Body;
use bytes::Bytes;
use h3cast::{
    App, client,
    client::Connection,
    source::{Options, Source, command::Commands},
};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
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
    H3,
}

pub const WAYS: [Way; 2] = [Way::H1, Way::H3];

/// The body of a view.
enum Out {
    H1(hyper::body::Incoming),
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
        let mut request = match way {
            Way::H1 => Request::get(path).header("host", format!("localhost:{}", server.http_port())),
            Way::H3 => Request::get(server.uri(path)),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if way == Way::H1 {
            let response = h1(server, request.body(Body::empty()).unwrap()).await;
            let (head, body) = response.into_parts();
            return (head.status, head.headers, Out::H1(body));
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
            Out::H1(body) => soon("more", body.frame()).await.map(|frame| frame.unwrap().into_data().unwrap()),
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

async fn h1(server: &TestServer, request: Request<Body>) -> hyper::Response<hyper::body::Incoming> {
    let stream = soon("a connection", TcpStream::connect(("127.0.0.1", server.http_port()))).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
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
    let mut request = match way {
        Way::H1 => Request::post(path).header("host", format!("localhost:{}", server.http_port())),
        Way::H3 => Request::post(server.uri(path)),
    };
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.into()).unwrap();
    let (status, headers, text) = match way {
        Way::H1 => {
            let (head, body) = h1(server, request).await.into_parts();
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
    soon("the commands end", async {
        while commands.running() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}
