//! The chat example as a client meets it. `cargo test` builds it; `cargo test --test chat` alone
//! needs `cargo build --examples` first.
#![cfg(feature = "cli")]

mod common;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use common::soon;
use h3cast::{
    client::{ClientError, Connection, Trust},
    webtransport::{RecvStream, SendStream, Session},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

struct Chat {
    child: Child,
    certs: tempfile::TempDir,
    base: String,
    http: String,
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Chat {
    fn start() -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_h3cast")).with_file_name("examples").join("chat");
        assert!(program.is_file(), "{} is not built: cargo build --examples", program.display());
        let certs = tempfile::tempdir().unwrap();
        let mut child = Command::new(program)
            .args(["--listen", "localhost:0", "--http", "localhost:0", "--certs"])
            .arg(certs.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let base = lines.next().unwrap().unwrap().strip_prefix("ready ").unwrap().trim_end_matches('/').to_owned();
        let plain = lines.next().unwrap().unwrap();
        let http = plain.trim_end_matches("/chat.html").rsplit('/').next().unwrap().to_owned();
        Self { child, certs, base, http }
    }

    async fn connect(&self) -> Connection {
        let trust = Trust::Files(vec![self.certs.path().join("cert.pem")]);
        soon("a connection", Connection::open(&self.base.parse().unwrap(), &trust)).await.unwrap()
    }

    /// Asks for a session.
    async fn ask(&self, query: &str, origin: Option<&str>) -> Result<Session, ClientError> {
        let headers = origin.map(|origin| (header::ORIGIN, HeaderValue::from_str(origin).unwrap()));
        let uri = format!("{}/chat{query}", self.base).parse().unwrap();
        let conn = self.connect().await;
        soon("an answer", conn.webtransport(&uri, HeaderMap::from_iter(headers), &[])).await
    }

    async fn join(&self, name: &str) -> Member {
        let uri = format!("{}/chat?name={name}", self.base).parse().unwrap();
        let conn = self.connect().await;
        let session = soon("a session", conn.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
        let (mut send, recv) = session.open_bi().await.unwrap();
        send.write_bytes(Bytes::from_static(b"\n")).await.unwrap();
        Member { conn, session, send, recv, buf: Vec::new() }
    }

    /// Posts over plain HTTP/1.1 and gives the status.
    fn post(&self, query: &str, headers: &str, body: &[u8]) -> u16 {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
        let (host, len) = (&self.http, body.len());
        let head = format!(
            "POST /chat{query} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len}\r\nconnection: close\r\n{headers}\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        std::str::from_utf8(&status[9..]).unwrap().parse().unwrap()
    }
}

struct Member {
    #[expect(dead_code, reason = "its drop ends the session")]
    conn: Connection,
    session: Session,
    send: SendStream,
    recv: RecvStream,
    buf: Vec<u8>,
}

impl Member {
    async fn say(&mut self, text: &str) {
        soon("room to write", self.send.write_bytes(format!("{text}\n").into())).await.unwrap();
    }

    /// The next line, with its time taken out.
    async fn line(&mut self) -> Value {
        let end = loop {
            if let Some(end) = self.buf.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            let bytes = soon("a line", self.recv.read_bytes(usize::MAX)).await.unwrap().expect("the chat has ended");
            self.buf.extend_from_slice(&bytes);
        };
        let line: Vec<_> = self.buf.drain(..=end).collect();
        let mut line: Value = serde_json::from_slice(&line).unwrap();
        let at = line.as_object_mut().unwrap().remove("at").unwrap();
        assert!(at.as_u64().unwrap() > 1_600_000_000_000, "{at} are not the milliseconds since 1970");
        line
    }
}

#[tokio::test]
async fn messages_go_both_ways_and_who_comes_and_goes_is_told() {
    let chat = Chat::start();
    let mut ann = chat.join("Ann").await;
    assert_eq!(ann.line().await, json!({ "joined": "Ann" }));
    // To ask whether there is a chat is not to join it.
    let conn = chat.connect().await;
    let head = http::Request::head(format!("{}/chat", chat.base)).body(()).unwrap();
    assert_eq!(soon("an answer", conn.request(head)).await.unwrap().status, StatusCode::OK);
    let mut ben = chat.join("Ben%20B").await;
    assert_eq!(ben.line().await, json!({ "joined": "Ben B" }));
    assert_eq!(ann.line().await, json!({ "joined": "Ben B" }));
    ann.say("<b>🌊</b> \"\\").await;
    ben.say("two\n\nthree").await;
    let mut by_get =
        soon("a response", conn.get(&format!("{}/chat?name=Get", chat.base).parse().unwrap())).await.unwrap();
    assert_eq!(by_get.headers[header::CONTENT_TYPE], "application/x-ndjson");
    assert_eq!(by_get.headers[header::CACHE_CONTROL], "no-store");
    assert!(soon("a line", by_get.body.next()).await.unwrap().is_some());
    drop(by_get);
    let mut heard = HashMap::new();
    for member in [&mut ann, &mut ben] {
        for _ in 0..5 {
            *heard.entry(member.line().await.to_string()).or_insert(0) += 1;
        }
    }
    let all = [
        json!({ "from": "Ann", "text": "<b>🌊</b> \"\\" }),
        json!({ "from": "Ben B", "text": "two" }),
        json!({ "from": "Ben B", "text": "three" }),
        json!({ "joined": "Get" }),
        json!({ "left": "Get" }),
    ];
    assert_eq!(heard, all.iter().map(|line| (line.to_string(), 2)).collect());
    // The end of the stream is a goodbye, and the end of the session.
    ben.send.finish().unwrap();
    soon("the session ends", ben.session.closed()).await;
    assert_eq!(ann.line().await, json!({ "left": "Ben B" }));
}

#[tokio::test]
async fn a_reader_that_lags_learns_how_many_lines_it_missed() {
    const ALL: u64 = 600;
    let chat = Chat::start();
    let mut slow = chat.join("Slow").await;
    assert_eq!(slow.line().await, json!({ "joined": "Slow" }));
    let mut talker = chat.join("Talker").await;
    assert_eq!(talker.line().await, json!({ "joined": "Talker" }));
    // Each of these takes 24 KB as JSON: much more in all than windows and the queue hold.
    let padding = "\u{1}".repeat(4000);
    for number in 0..ALL {
        talker.say(&format!("{number}{padding}")).await;
        // Who reads gets every one.
        assert_eq!(talker.line().await["text"], format!("{number}{padding}"));
    }
    assert_eq!(slow.line().await, json!({ "joined": "Talker" }));
    let (mut next, mut missed) = (0, 0);
    while next < ALL {
        let line = slow.line().await;
        if let Some(lines) = line["missed"].as_u64() {
            missed += lines;
            next += lines;
        } else {
            assert_eq!(line["text"], format!("{next}{padding}"), "in order, and every gap is told");
            next += 1;
        }
    }
    assert!(missed > 0);
    // What comes after the gap comes whole, and it can still speak.
    slow.say("awake").await;
    assert_eq!(slow.line().await, json!({ "from": "Slow", "text": "awake" }));
}

#[tokio::test]
async fn a_message_that_cannot_be_taken_stops_its_stream_with_a_code() {
    let chat = Chat::start();
    let mut ann = chat.join("Ann").await;
    assert_eq!(ann.line().await, json!({ "joined": "Ann" }));
    for (bytes, code) in [("x".repeat(4097).into_bytes(), 1), (b"\xff\n".to_vec(), 2)] {
        let mut member = chat.join("Wrong").await;
        assert_eq!(member.line().await, json!({ "joined": "Wrong" }));
        member.send.write_bytes(bytes.into()).await.unwrap();
        assert_eq!(soon("the stop", member.send.stopped()).await, Ok(Some(code)));
        assert_eq!(ann.line().await, json!({ "joined": "Wrong" }));
        assert_eq!(ann.line().await, json!({ "left": "Wrong" }));
    }
    // The longest, and one that the end of its stream ends.
    let mut member = chat.join("Right").await;
    member.send.write_bytes(format!("{}\nlast", "x".repeat(4096)).into()).await.unwrap();
    member.send.finish().unwrap();
    assert_eq!(ann.line().await, json!({ "joined": "Right" }));
    assert_eq!(ann.line().await["text"], "x".repeat(4096));
    assert_eq!(ann.line().await, json!({ "from": "Right", "text": "last" }));
    assert_eq!(ann.line().await, json!({ "left": "Right" }));
}

#[tokio::test]
async fn who_may_not_join_or_speak_is_refused() {
    let chat = Chat::start();
    let long = "x".repeat(65);
    let status = async |query: &str, origin| match chat.ask(query, origin).await {
        Ok(_) => 200,
        Err(ClientError::Refused { status, .. }) => status.as_u16(),
        Err(other) => panic!("{query}: {other}"),
    };
    assert_eq!(status("?name=Ann", Some("https://evil.example")).await, 403);
    assert_eq!(status("?name=Ann", Some("null")).await, 403);
    assert_eq!(status("?name=Ann", Some("http://localhost:8080")).await, 200);
    assert_eq!(status("?name=Ann", None).await, 200);
    for query in ["", "?", "?name=", "?name=+%20", "?name=%00", &format!("?name={long}")] {
        assert_eq!(status(query, None).await, 400, "{query}");
        assert_eq!(chat.post(query, "", b"x"), 400, "{query}");
    }
    assert_eq!(chat.post("?name=Ann", "", "🌊".repeat(1024).as_bytes()), 204);
    assert_eq!(chat.post("?name=Ann", "", b""), 204);
    assert_eq!(chat.post("?name=Ann", "", &[b'x'; 4097]), 413);
    assert_eq!(chat.post("?name=Ann", "", b"\xff"), 400);
    assert_eq!(chat.post("?name=Ann", "origin: https://evil.example\r\n", b"x"), 403);
    assert_eq!(chat.post("?name=Ann", &format!("origin: http://{}\r\n", chat.http), b"x"), 204);
    // Of all these, two were messages.
    let mut ann = chat.join("Reader").await;
    assert_eq!(ann.line().await, json!({ "from": "Ann", "text": "🌊".repeat(1024) }));
    assert_eq!(ann.line().await, json!({ "from": "Ann", "text": "x" }));
    assert_eq!(ann.line().await, json!({ "joined": "Reader" }));
}
