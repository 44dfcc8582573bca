//! h3cast's client against a server that is not h3cast's: h3-quinn and h3-webtransport as their
//! documentation shows them.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use h3cast::{
    client::{ClientError, Connection, Trust},
    format::frames::{Frame, FrameDecoder},
    identity::Fingerprint,
};
use http::{HeaderMap, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DEADLINE: Duration = Duration::from_secs(20);
/// What every viewer gets.
const TEXT: &str = "data chunk #0\ndata chunk #1\ndata chunk #2\n";

async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, event).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// The program, until dropped.
struct Plain {
    process: Child,
    url: String,
    hash: Fingerprint,
}

impl Plain {
    /// Three chunks, one every millisecond.
    fn start() -> Self {
        let program = env!("CARGO_BIN_EXE_plain");
        let mut process = Command::new(program).args(["0", "3", "1"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let lines: Vec<String> = lines.take(5).collect();
        let url = lines[0].strip_prefix("ready ").unwrap().to_owned();
        let hash = Fingerprint::from_hex(lines[1].split_whitespace().nth(2).unwrap()).unwrap();
        Self { process, url, hash }
    }

    fn uri(&self, path: &str) -> Uri {
        format!("{}{path}", self.url).parse().unwrap()
    }

    async fn connect(&self) -> Connection {
        let trust = Trust::Hashes(vec![self.hash]);
        soon("a connection", Connection::open(&self.uri(""), &trust)).await.unwrap()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A response's status, media type and body.
async fn get(connection: &Connection, uri: &Uri) -> (u16, String, Vec<u8>) {
    let mut response = soon("the head", connection.get(uri)).await.unwrap();
    let mut body = Vec::new();
    while let Some(bytes) = soon("the body", response.body.next()).await.unwrap() {
        body.extend_from_slice(&bytes);
    }
    (response.status.as_u16(), response.headers["content-type"].to_str().unwrap().into(), body)
}

#[tokio::test]
async fn requests_one_after_another_on_a_connection() {
    let plain = Plain::start();
    let connection = plain.connect().await;
    for _ in 0..3 {
        let (status, media_type, body) = get(&connection, &plain.uri("stream")).await;
        assert_eq!((status, &*media_type, &*body), (200, "text/plain; charset=utf-8", TEXT.as_bytes()));
    }
    let (status, media_type, body) = get(&connection, &plain.uri("")).await;
    assert_eq!((status, &*media_type), (200, "text/html; charset=utf-8"));
    assert!(body.starts_with(b"<!doctype html>"));
    assert_eq!(get(&connection, &plain.uri("nothing/here")).await.0, 404);
}

#[tokio::test]
async fn frames_for_the_start_page() {
    let plain = Plain::start();
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let (_, _, body) = get(&plain.connect().await, &plain.uri("stream?format=frames&from=now")).await;
        let mut decoder = FrameDecoder::new(1 << 20);
        decoder.push(&body);
        let mut text = Vec::new();
        let mut last = None;
        while let Some(frame) = decoder.pop().unwrap() {
            match &frame {
                Frame::Begin { epoch, .. } => epochs.push(*epoch),
                Frame::Chunk { bytes, .. } => text.extend_from_slice(bytes),
                _ => {}
            }
            last = Some(frame);
        }
        assert_eq!(text, TEXT.as_bytes());
        assert!(matches!(last, Some(Frame::End(_))), "{last:?}");
    }
    assert_ne!(epochs[0], epochs[1], "each viewer has a run of its own");
}

#[tokio::test]
async fn a_session() {
    let plain = Plain::start();
    let connection = plain.connect().await;
    let uri = plain.uri("stream");
    let session = soon("the session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    // h3 0.0.8 names a session's streams wrongly unless the session is a connection's first request.
    assert_eq!(session.id(), 0);
    let mut uni = soon("the pushed stream", session.accept_uni()).await.unwrap();
    let mut text = String::new();
    soon("the push", uni.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, TEXT);
    let (mut send, mut recv) = soon("a stream", session.open_bi()).await.unwrap();
    send.write_all(b"echoed").await.unwrap();
    send.finish().unwrap();
    let mut text = String::new();
    soon("the echo", recv.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "echoed");
}

#[tokio::test]
async fn another_certificate() {
    let plain = Plain::start();
    let trust = Trust::Hashes(vec![Fingerprint::of(b"another")]);
    let refused = soon("the refusal", Connection::open(&plain.uri(""), &trust)).await.unwrap_err();
    assert!(matches!(refused, ClientError::Untrusted { .. }), "{refused}");
}

#[test]
fn a_word_instead_of_a_number() {
    let refused = Command::new(env!("CARGO_BIN_EXE_plain")).arg("localhost:4433").output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("localhost:4433 is not a number. Usage: plain [PORT"), "{error}");
}
