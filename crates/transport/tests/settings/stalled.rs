//! Clients that take nothing of what there is for them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, extract::State, routing::get};
use bytes::Bytes;
use futures_util::StreamExt;
use h3cast_transport::{Limits, admission::Refusal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
};

use crate::{
    h2::{DATA, H2, HEADERS, RST_STREAM, WINDOW_UPDATE, frame, get as fields, narrow},
    kit::{Serving, soon},
};

const TIMEOUT: Duration = Duration::from_millis(300);

/// What the handlers tell, and are told.
#[derive(Clone)]
struct Seen {
    /// A body was dropped, or a write has failed.
    gone: mpsc::UnboundedSender<&'static str>,
    more: Arc<Notify>,
}

/// Tells when it is dropped.
struct Gone(Seen, &'static str);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.gone.send(self.1);
    }
}

/// A body without an end: pieces of that size, with pauses between them.
fn endless(seen: Seen, name: &'static str, size: usize, pause: Duration) -> Body {
    let (gone, piece) = (Gone(seen, name), Bytes::from(vec![b'x'; size]));
    Body::from_stream(futures_util::stream::unfold(gone, move |gone| {
        let piece = piece.clone();
        async move {
            tokio::time::sleep(pause).await;
            Some((Ok::<_, std::io::Error>(piece), gone))
        }
    }))
}

async fn serving(timeout: Duration) -> (Serving, mpsc::UnboundedReceiver<&'static str>, Arc<Notify>) {
    let (gone, told) = mpsc::unbounded_channel();
    let more = Arc::new(Notify::new());
    let fast = async |State(seen): State<Seen>| endless(seen, "fast", 64 << 10, Duration::ZERO);
    // Never so much that a write waits.
    let slow = async |State(seen): State<Seen>| endless(seen, "slow", 64, Duration::from_millis(10));
    let waits = async |State(seen): State<Seen>| {
        let more = seen.more.clone();
        let gone = Gone(seen, "waits");
        let last = async move {
            more.notified().await;
            drop(gone);
            Ok::<_, std::io::Error>("last")
        };
        Body::from_stream(futures_util::stream::iter([Ok("first, ")]).chain(futures_util::stream::once(last)))
    };
    let upgrade = async |State(seen): State<Seen>, request: axum::extract::Request| {
        tokio::spawn(async move {
            let mut stream = hyper_util::rt::TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            while stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
            let _ = seen.gone.send("upgraded");
        });
        http::Response::builder().status(101).header("upgrade", "x").body(Body::empty()).unwrap()
    };
    let router = Router::new()
        .route("/", get(async || "hello"))
        .route("/fast", get(fast))
        .route("/slow", get(slow))
        .route("/waits", get(waits))
        .route("/upgrade", get(upgrade))
        .with_state(Seen { gone, more: more.clone() });
    let limits = Limits::default().send_timeout(timeout);
    (Serving::start(|builder| builder.limits(limits).http_service(router)).await, told, more)
}

async fn ask(serving: &Serving, path: &str, fields: &str) -> TcpStream {
    let mut stream = narrow(serving.plain()).await;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n").as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn over_http1_a_response_that_is_not_taken_is_cut() {
    let (serving, mut told, _) = serving(TIMEOUT).await;
    for path in ["/fast", "/slow"] {
        let mut stream = ask(&serving, path, "").await;
        let begun = Instant::now();
        assert_eq!(soon("a cut", told.recv()).await, Some(&path[1..]));
        assert!(begun.elapsed() >= TIMEOUT, "{:?}", begun.elapsed());
        // What had come can be read; it has no end.
        let mut rest = Vec::new();
        let _ = soon("the end of the connection", stream.read_to_end(&mut rest)).await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "it looks whole: {path}");
    }
    let _upgraded = ask(&serving, "/upgrade", "connection: upgrade\r\nupgrade: x\r\n").await;
    assert_eq!(soon("a cut", told.recv()).await, Some("upgraded"));
    assert_eq!(serving.refused(Refusal::SendTimeout), 3);
}

#[tokio::test]
async fn over_http1_a_client_that_takes_some_is_not_cut() {
    let timeout = Duration::from_secs(1);
    let (serving, mut told, more) = serving(timeout).await;
    let mut waits = ask(&serving, "/waits", "connection: close\r\n").await;
    let mut fast = ask(&serving, "/fast", "").await;
    let begun = Instant::now();
    while begun.elapsed() < 5 * timeout / 2 {
        tokio::time::sleep(timeout / 20).await;
        fast.read_exact(&mut [0; 8 << 10]).await.unwrap();
    }
    assert!(told.try_recv().is_err());
    // A client that has everything waits for as long as it likes.
    more.notify_one();
    let mut rest = String::new();
    soon("the rest", waits.read_to_string(&mut rest)).await.unwrap();
    assert!(rest.contains("first, ") && rest.contains("last") && rest.ends_with("0\r\n\r\n"), "{rest}");
}

#[tokio::test]
async fn over_http2_a_stream_without_credit_is_cut_alone() {
    let (serving, mut told, more) = serving(TIMEOUT).await;
    let mut h2 = H2::open(serving.plain()).await;
    h2.write(&frame(WINDOW_UPDATE, 0, 0, &[0, 0x10, 0, 0])).await.unwrap();
    h2.write(&frame(HEADERS, 5, 1, &fields("/fast"))).await.unwrap();
    h2.write(&frame(HEADERS, 5, 3, &fields("/waits"))).await.unwrap();
    let reset = h2.until(RST_STREAM).await.expect("a reset");
    assert_eq!((reset.stream, &reset.payload[..]), (1, &[0, 0, 0, 8][..]));
    assert_eq!(soon("a cut", told.recv()).await, Some("fast"));
    assert_eq!(serving.refused(Refusal::SendTimeout), 1);
    // The other one has everything, and still waits.
    more.notify_one();
    let last = h2.until(DATA).await.expect("the other response");
    assert_eq!((last.stream, &last.payload[..]), (3, &b"last"[..]));
    h2.write(&frame(HEADERS, 5, 5, &fields("/"))).await.unwrap();
    assert_eq!(h2.until(HEADERS).await.expect("an answer").stream, 5);
}

#[tokio::test]
async fn over_http2_a_connection_that_reads_nothing_is_cut() {
    let (serving, mut told, _) = serving(TIMEOUT).await;
    let mut h2 = H2::on(narrow(serving.plain()).await).await;
    h2.write(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0])).await.unwrap();
    h2.write(&frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await.unwrap();
    h2.write(&frame(HEADERS, 5, 1, &fields("/fast"))).await.unwrap();
    assert_eq!(soon("a cut", told.recv()).await, Some("fast"));
    while h2.next().await.is_some() {}
    // Once: its stream is not another cut.
    assert_eq!(serving.refused(Refusal::SendTimeout), 1);
}

#[tokio::test]
async fn with_a_timeout_of_zero_nothing_is_cut() {
    let (serving, mut told, _) = serving(Duration::ZERO).await;
    let mut stream = ask(&serving, "/fast", "").await;
    tokio::time::sleep(4 * TIMEOUT).await;
    assert!(told.try_recv().is_err());
    stream.read_exact(&mut vec![0; 1 << 20]).await.unwrap();
}
