//! Errors that come before their request has been read: whatever a client does then, it gets all of them.

use std::sync::{Mutex, mpsc};

use axum::{extract::Request, routing::post};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{io::DuplexStream, task::block_in_place, time::timeout};

use super::*;

// Types and flags of frames (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A client of HTTP/2 with one request, frame by frame.
struct Client(DuplexStream);

#[derive(Debug)]
struct Got {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

impl Client {
    /// Begins a request whose body has `length` bytes, and sends those that are there.
    async fn post(path: &str, length: usize, body: &[u8], router: Router) -> Self {
        let mut client = Self(serving(router, CancellationToken::new()));
        client.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        client.send(SETTINGS, 0, 0, b"").await;
        // POST and http from the static table, and fields as they are (RFC 7541 §6).
        let mut fields = vec![0x83, 0x86];
        for (name, value) in [(":authority", "localhost"), (":path", path), ("content-length", &length.to_string())] {
            fields.push(0);
            for text in [name, value] {
                fields.push(text.len() as u8);
                fields.extend_from_slice(text.as_bytes());
            }
        }
        client.send(HEADERS, END_HEADERS, 1, &fields).await;
        if !body.is_empty() {
            client.send(DATA, if body.len() == length { END_STREAM } else { 0 }, 1, body).await;
        }
        client
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [0, length[0], length[1], kind, flags, 0, 0, 0, stream];
        self.0.write_all(&[&head[..], payload].concat()).await.unwrap();
    }

    /// Ends the request where it is, as curl does when it sees an error.
    async fn break_off(&mut self) {
        self.send(DATA, END_STREAM, 1, b"").await;
    }

    /// The next frame of the response.
    async fn next(&mut self) -> Got {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            self.0.read_exact(&mut payload).await.unwrap();
            if head[8] == 1 && [DATA, HEADERS, RST_STREAM].contains(&head[3]) {
                return Got { kind: head[3], flags: head[4], payload };
            }
        }
    }

    /// The body of the response, whose head has arrived, or what came of it and the code of its reset.
    async fn body(&mut self) -> Result<Vec<u8>, (Vec<u8>, u8)> {
        let mut body = Vec::new();
        loop {
            match self.next().await {
                Got { kind: DATA, flags, payload } => {
                    body.extend(payload);
                    if flags & END_STREAM != 0 {
                        return Ok(body);
                    }
                }
                Got { kind: RST_STREAM, payload, .. } => return Err((body, payload[3])),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// How a response's body comes.
fn pieces(how: &str) -> BoxStream<'static, Result<&'static str, std::convert::Infallible>> {
    match how {
        "at once" => stream::iter(["at ", "once"]).map(Ok).boxed(),
        // h2 has sent the head meanwhile.
        "later" => stream::iter(["l", "a", "ter"])
            .then(|piece| async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok(piece)
            })
            .boxed(),
        how => panic!("{how}"),
    }
}

/// Answers without the request's body, or with its first piece.
fn refusing() -> Router {
    let refuse = |reads: bool, how: &'static str| {
        post(move |request: Request| async move {
            if reads {
                request.into_body().frame().await.unwrap().unwrap();
            }
            (StatusCode::CONFLICT, Body::from_stream(pieces(how)))
        })
    };
    let whole = post(async || (StatusCode::CONFLICT, "whole"));
    let endless = || stream::iter([Ok::<_, std::convert::Infallible>("begins")]).chain(stream::pending());
    Router::new()
        .route("/whole", whole)
        .route("/at-once", refuse(false, "at once"))
        .route("/later", refuse(false, "later"))
        .route("/read/at-once", refuse(true, "at once"))
        .route("/read/later", refuse(true, "later"))
        .route("/no-error", post(move || async move { Body::from_stream(endless()) }))
        .route("/endless", post(move || async move { (StatusCode::CONFLICT, Body::from_stream(endless())) }))
}

const CASES: [(&str, &str); 5] = [
    ("/whole", "whole"),
    ("/at-once", "at once"),
    ("/later", "later"),
    ("/read/at-once", "at once"),
    ("/read/later", "later"),
];

#[tokio::test]
async fn a_client_that_breaks_off_at_the_head_gets_the_body() {
    for (path, expected) in CASES {
        for length in [2, 1 << 30] {
            let mut client = Client::post(path, length, b"x", refusing()).await;
            assert_eq!(client.next().await.kind, HEADERS);
            client.break_off().await;
            let body = client.body().await;
            assert_eq!(body.as_deref(), Ok(expected.as_bytes()), "{path}, of {length}");
        }
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_after_the_body_is_done() {
    for (path, expected) in CASES {
        let mut client = Client::post(path, 2, b"x", refusing()).await;
        assert_eq!(client.next().await.kind, HEADERS);
        assert_eq!(client.body().await.as_deref(), Ok(expected.as_bytes()), "{path}");
        client.break_off().await;
    }
}

#[tokio::test]
async fn a_client_that_sends_everything_gets_no_reset() {
    for (path, expected) in CASES {
        let mut client = Client::post(path, 2, b"xy", refusing()).await;
        assert_eq!(client.next().await.kind, HEADERS);
        assert_eq!(client.body().await.as_deref(), Ok(expected.as_bytes()), "{path}");
        // And one that sends the rest in its own time.
        let mut client = Client::post(path, 2, b"x", refusing()).await;
        assert_eq!(client.next().await.kind, HEADERS);
        client.send(DATA, END_STREAM, 1, b"y").await;
        assert_eq!(client.body().await.as_deref(), Ok(expected.as_bytes()), "{path}");
        client.send(PING, 0, 0, &[0; 8]).await;
        drop(client.0.shutdown().await);
        let mut rest = Vec::new();
        client.0.read_to_end(&mut rest).await.unwrap();
        let reset = [0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1];
        assert!(!rest.windows(9).any(|head| head == reset), "{path}: {rest:?}");
    }
}

/// A client that sends no more than half of its request gets NO_ERROR after the response (RFC 9113 §8.1).
#[tokio::test(start_paused = true)]
async fn a_client_that_waits_is_told_to_stop() {
    for (path, _) in CASES {
        let mut client = Client::post(path, 2, b"x", refusing()).await;
        assert_eq!(client.next().await.kind, HEADERS);
        client.body().await.unwrap();
        let Got { kind: RST_STREAM, payload, .. } = client.next().await else { panic!("{path}") };
        assert_eq!(payload, [0; 4], "{path}");
    }
}

/// What is no error begins at once, and an error that does not end after a while.
#[tokio::test(start_paused = true)]
async fn a_response_is_not_held_for_long() {
    for (path, longest) in [("/no-error", 0), ("/whole", 0), ("/later", 50), ("/endless", 600)] {
        let begun = tokio::time::Instant::now();
        let mut client = Client::post(path, 2, b"x", refusing()).await;
        assert_eq!(client.next().await.kind, HEADERS);
        assert!(begun.elapsed() <= Duration::from_millis(longest), "{path}: {:?}", begun.elapsed());
    }
}

/// A body that is made while its head could leave.
struct Slow(Mutex<mpsc::Receiver<()>>, Option<Bytes>);

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // Other workers take over what this one has to do: the task of the connection.
        let _ = block_in_place(|| self.0.lock().unwrap().recv_timeout(Duration::from_secs(30)));
        std::task::Poll::Ready(self.1.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.1.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.1.as_ref().map_or(0, |data| data.len() as u64))
    }
}

/// As when the system takes the processor from the worker that answers, between the head and the body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_does_not_leave_before_a_body_that_is_there() {
    let (made, waits) = mpsc::channel();
    let body = Arc::new(Mutex::new(Some(Body::new(Slow(Mutex::new(waits), Some("made".into()))))));
    let router = Router::new()
        // No error: that would be made before its head.
        .route("/", post(move || async move { body.lock().unwrap().take().unwrap() }));
    let mut client = Client::post("/", 2, b"x", router).await;
    let broken_off = match timeout(Duration::from_millis(200), client.next()).await {
        // The head alone. What the client makes of it is there before the body.
        Ok(head) => {
            assert_eq!(head.kind, HEADERS);
            client.break_off().await;
            let body = timeout(Duration::from_secs(1), client.body()).await;
            made.send(()).unwrap();
            panic!("the head came alone, and then {body:?}");
        }
        Err(_) => made.send(()),
    };
    broken_off.unwrap();
    assert_eq!(client.next().await.kind, HEADERS);
    client.break_off().await;
    assert_eq!(client.body().await.as_deref(), Ok(&b"made"[..]));
}
