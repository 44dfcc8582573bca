//! Clients that take nothing of what there is for them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Extension, Router, body::Body, extract::State, routing::get};
use bytes::Bytes;
use futures_util::StreamExt;
use h3cast_transport::{
    ConnectionHandle, Limits, admission::Refusal, connection::Cut, http3::Takeover, webtransport::StreamError,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
};

use crate::{
    h2::{DATA, H2, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get as fields, narrow},
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
    // Closed by its handler when that is told to.
    let closed = async |State(seen): State<Seen>, Extension(connection): Extension<ConnectionHandle>| {
        let more = seen.more.clone();
        tokio::spawn(async move {
            more.notified().await;
            connection.close(0x107, "enough");
        });
        endless(seen, "closed", 64 << 10, Duration::ZERO)
    };
    // Cut by its handler when that is told to.
    let cut = async |State(seen): State<Seen>| {
        let (more, cut) = (seen.more.clone(), Cut::default());
        let cuts = cut.clone();
        tokio::spawn(async move {
            more.notified().await;
            cuts.cut();
        });
        (Extension(cut), endless(seen, "cut", 64 << 10, Duration::ZERO))
    };
    let upgrade = async |State(seen): State<Seen>, request: axum::extract::Request| {
        tokio::spawn(async move {
            let mut stream = hyper_util::rt::TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            while stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
            let _ = seen.gone.send("upgraded");
        });
        http::Response::builder().status(101).header("upgrade", "x").body(Body::empty()).unwrap()
    };
    let taken = async |State(seen): State<Seen>, takeover: Takeover| {
        takeover.respond(http::Response::new(()), async move |mut stream| {
            let error = loop {
                if let Err(error) = stream.write_bytes(Bytes::from(vec![b'x'; 64 << 10])).await {
                    break error;
                }
            };
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
            let _ = seen.gone.send("taken over");
        })
    };
    let router = Router::new()
        .route("/taken", get(taken))
        .route("/", get(async || "hello"))
        .route("/fast", get(fast))
        .route("/slow", get(slow))
        .route("/waits", get(waits))
        .route("/closed", get(closed))
        .route("/cut", get(cut))
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

/// Waits until no connection counts any more.
async fn gone(serving: &Serving) {
    while serving.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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

/// What an application closes because its client takes nothing leaves nothing in the system: after a FIN the client
/// would be offered the rest for minutes.
#[tokio::test]
async fn a_connection_that_is_closed_while_its_client_takes_nothing_is_reset() {
    let (serving, mut told, more) = serving(Duration::ZERO).await;
    let mut stream = ask(&serving, "/closed", "").await;
    // Also of its first piece, which is more than the client's system takes.
    soon("a response", stream.read_exact(&mut [0; 1 << 10])).await.unwrap();
    more.notify_one();
    assert_eq!(soon("the body is dropped", told.recv()).await, Some("closed"));
    // What is read before that would make room for more, to the end perhaps.
    soon("its place is free", gone(&serving)).await;
    let error = soon("the end of the connection", stream.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Its client says that it sends nothing more, and its response ends; what the system has left of that still counts.
#[tokio::test]
async fn a_connection_that_its_client_half_closed_keeps_its_place_until_that_has_everything() {
    let half_closed = async |serving: &Serving, told: &mut mpsc::UnboundedReceiver<_>| {
        let mut stream = ask(serving, "/fast", "").await;
        // Also of its first piece, which is more than the client's system takes.
        soon("a response", stream.read_exact(&mut [0; 1 << 10])).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(soon("the body is dropped", told.recv()).await, Some("fast"));
        stream
    };
    let (serving, mut told, _) = serving(Duration::from_secs(60)).await;
    let mut stream = half_closed(&serving, &mut told).await;
    tokio::time::sleep(TIMEOUT).await;
    assert_eq!(serving.connections(), 1, "it counts");
    soon("what was sent", stream.read_to_end(&mut Vec::new())).await.unwrap();
    soon("its place is free", gone(&serving)).await;
    let (serving, mut told, _) = self::serving(TIMEOUT).await;
    let mut stream = half_closed(&serving, &mut told).await;
    soon("its place is free", gone(&serving)).await;
    let error = soon("the end of the connection", stream.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(serving.refused(Refusal::SendTimeout), 1);
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

/// Without any send timeout: the application does that.
#[tokio::test]
async fn a_response_that_the_application_cuts_ends_alone() {
    let (serving, mut told, more) = serving(Duration::ZERO).await;
    let mut h2 = H2::open(serving.plain()).await;
    h2.write(&frame(HEADERS, 5, 1, &fields("/cut"))).await.unwrap();
    h2.until(DATA).await.expect("its beginning");
    more.notify_one();
    assert_eq!(soon("a cut", told.recv()).await, Some("cut"));
    let reset = h2.until(RST_STREAM).await.expect("a reset");
    assert_eq!((reset.stream, &reset.payload[..]), (1, &[0, 0, 0, 8][..]));
    h2.write(&frame(WINDOW_UPDATE, 0, 0, &[0, 0x10, 0, 0])).await.unwrap();
    h2.write(&frame(HEADERS, 5, 3, &fields("/"))).await.unwrap();
    assert_eq!(h2.until(HEADERS).await.expect("an answer").stream, 3);
    let quic = serving.quic().await.unwrap();
    let (_send, mut recv) = ask_quic(&quic, "/cut").await;
    recv.read_exact(&mut [0; 100]).await.unwrap();
    more.notify_one();
    assert_eq!(soon("a cut", told.recv()).await, Some("cut"));
    assert_eq!(rest(&mut recv).await.1, Some(h3cast_transport::http3::code::H3_EXCESSIVE_LOAD));
    let (_send, mut recv) = ask_quic(&quic, "/").await;
    assert!(matches!(rest(&mut recv).await, (size, None) if size > 5));
}

/// Its reset cannot leave, and would free nothing.
#[tokio::test]
async fn a_connection_of_http2_that_takes_nothing_ends_after_a_response_was_cut() {
    let (serving, mut told, more) = serving(Duration::ZERO).await;
    let mut h2 = H2::on(narrow(serving.plain()).await).await;
    h2.write(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0])).await.unwrap();
    h2.write(&frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await.unwrap();
    h2.write(&frame(HEADERS, 5, 1, &fields("/cut"))).await.unwrap();
    // The buffers fill.
    tokio::time::sleep(TIMEOUT).await;
    more.notify_one();
    assert_eq!(soon("a cut", told.recv()).await, Some("cut"));
    soon("the end of the connection", gone(&serving)).await;
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
async fn over_http2_a_complete_response_without_credit_does_not_keep_its_connection() {
    let limits = Limits::default().send_timeout(TIMEOUT).keep_alive(TIMEOUT);
    let serving = Serving::start(|builder| builder.limits(limits)).await;
    let mut h2 = H2::open(serving.plain()).await;
    // SETTINGS_INITIAL_WINDOW_SIZE: of "hello" the client takes the first byte.
    h2.write(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1])).await.unwrap();
    h2.write(&frame(HEADERS, 5, 1, &fields("/"))).await.unwrap();
    let mut taken = Vec::new();
    while let Some(frame) = h2.next().await {
        if frame.ty == DATA {
            taken.extend(frame.payload);
        }
    }
    assert_eq!(taken, b"h");
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

/// Asks over HTTP/3 by hand, and reads nothing.
pub(crate) async fn ask_quic(quic: &quinn::Connection, path: &str) -> (quinn::SendStream, quinn::RecvStream) {
    let (mut send, recv) = quic.open_bi().await.unwrap();
    // GET, https, the path and the authority, from QPACK's static table.
    let path = [&[0x51, path.len() as u8], path.as_bytes()].concat();
    let fields = [&[0, 0, 0xd1, 0xd7][..], &path, &[0x50, 9], b"localhost"].concat();
    send.write_all(&[&[1, fields.len() as u8], &fields[..]].concat()).await.unwrap();
    send.finish().unwrap();
    (send, recv)
}

/// The rest of a stream: how much there was, and the code that it was reset with.
async fn rest(recv: &mut quinn::RecvStream) -> (usize, Option<u64>) {
    let mut size = 0;
    loop {
        match soon("the rest of a stream", recv.read_chunk(usize::MAX, true)).await {
            Ok(Some(chunk)) => size += chunk.bytes.len(),
            Ok(None) => return (size, None),
            Err(quinn::ReadError::Reset(code)) => return (size, Some(code.into_inner())),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn over_http3_a_stream_that_is_not_read_is_cut_alone() {
    let (serving, mut told, more) = serving(TIMEOUT).await;
    let quic = serving.quic().await.unwrap();
    let (_send, mut waits) = ask_quic(&quic, "/waits").await;
    for (path, name) in [("/fast", "fast"), ("/taken", "taken over")] {
        let (_send, mut recv) = ask_quic(&quic, path).await;
        assert_eq!(soon("a cut", told.recv()).await, Some(name));
        let (_, code) = rest(&mut recv).await;
        assert_eq!(code, Some(h3cast_transport::http3::code::H3_REQUEST_CANCELLED), "{path}");
    }
    assert_eq!(serving.refused(Refusal::SendTimeout), 2);
    // One that has everything waits on.
    more.notify_one();
    assert!(matches!(rest(&mut waits).await, (size, None) if size > 10));
}

#[tokio::test]
async fn over_http3_a_client_that_takes_some_is_not_cut() {
    let timeout = Duration::from_secs(1);
    let (serving, mut told, _) = serving(timeout).await;
    let quic = serving.quic().await.unwrap();
    let (_send, mut recv) = ask_quic(&quic, "/fast").await;
    let begun = Instant::now();
    while begun.elapsed() < 5 * timeout / 2 {
        tokio::time::sleep(timeout / 10).await;
        // quinn gives credit for an eighth of its window at once.
        recv.read_exact(&mut vec![0; 256 << 10]).await.unwrap();
    }
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn a_stream_of_a_session_that_is_not_read_is_cut_alone() {
    tokio::join!(cut_alone(None), cut_alone(Some(9)));
}

/// The stream is reset with `code`, if the application has set one.
async fn cut_alone(code: Option<u32>) {
    let (tx, mut told) = mpsc::unbounded_channel();
    let handler = move |request: h3cast_transport::webtransport::SessionRequest| {
        let tx = tx.clone();
        async move {
            let session = request.accept().await.unwrap();
            let mut stream = session.open_uni().await.unwrap();
            if let Some(code) = code {
                stream.set_stalled_code(code);
            }
            let error = loop {
                if let Err(error) = stream.write_bytes(Bytes::from(vec![b'x'; 64 << 10])).await {
                    break error;
                }
            };
            tx.send(error).unwrap();
            // The session is as it was.
            let mut second = session.open_uni().await.unwrap();
            second.write_bytes("second".into()).await.unwrap();
            second.finish().unwrap();
            session.closed().await;
        }
    };
    let limits = Limits::default().send_timeout(TIMEOUT);
    let serving = Serving::start(|builder| builder.limits(limits).webtransport("/wt", handler)).await;
    let uri = format!("https://{}/wt", serving.addresses.tls[0]).parse().unwrap();
    let trust = h3cast_transport::client::Trust::Files(vec![serving.certificate()]);
    let connection = soon("a connection", h3cast_transport::client::Connection::open(&uri, &trust)).await.unwrap();
    let session = soon("a session", connection.webtransport(&uri, http::HeaderMap::new(), &[])).await.unwrap();
    let mut stream = soon("a stream", session.accept_uni()).await.unwrap();
    assert_eq!(soon("a cut", told.recv()).await, Some(StreamError::Stalled));
    let error = soon("the reset", async {
        loop {
            match stream.read_bytes(1 << 20).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it looks whole"),
                Err(error) => return error,
            }
        }
    });
    assert_eq!(error.await, StreamError::Reset(code.unwrap_or(0)));
    let mut second = soon("another stream", session.accept_uni()).await.unwrap();
    assert_eq!(soon("it", second.read_bytes(10)).await.unwrap().unwrap(), "second");
}
