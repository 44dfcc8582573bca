use std::time::Duration;

use axum::routing::get;
use h3cast_transport::{
    Limits,
    counts::{Answer, Protocol},
    exchange::RequestId,
};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::kit::{Serving, ask, ask_h3, head_h3, router, soon, status};

/// The status for a head with a field of so many bytes, over HTTP/1.1, 2 and 3; 0 for none.
pub(crate) async fn statuses(serving: &Serving, size: usize) -> [u16; 3] {
    let field = "x".repeat(size);
    let headers = HeaderMap::from_iter([("x-large".parse().unwrap(), HeaderValue::try_from(&field).unwrap())]);
    let mut h1 = TcpStream::connect(serving.plain()).await.unwrap();
    let h1 = status(&soon("HTTP/1.1", ask(&mut h1, &format!("x-large: {field}\r\n"))).await.unwrap());

    let stream = TokioIo::new(TcpStream::connect(serving.plain()).await.unwrap());
    let (mut requests, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::get("http://localhost/").body(Empty::<bytes::Bytes>::new()).unwrap();
    request.headers_mut().extend(headers.clone());
    let h2 = soon("HTTP/2", requests.send_request(request)).await.map_or(0, |answer| answer.status().as_u16());

    let quic = serving.quic().await.unwrap();
    let h3 = soon("HTTP/3", ask_h3(&quic, headers)).await.unwrap().as_u16();
    [h1, h2, h3]
}

#[tokio::test]
async fn heads_have_one_limit_over_every_version() {
    let mut counts = None;
    let serving = Serving::start(|builder| {
        counts = Some(builder.counts().clone());
        builder
    });
    let serving = serving.await;
    assert_eq!(statuses(&serving, 15 * 1024).await, [200; 3]);
    assert_eq!(statuses(&serving, 17 * 1024).await, [431; 3]);
    let counts = counts.unwrap().snapshot();
    let refused =
        [Protocol::Http1, Protocol::Http2, Protocol::Http3].map(|of| counts.requests(of, Answer::ClientError));
    // h2 answers by itself.
    assert_eq!(refused, [1, 0, 1]);
    // h2 ends the connection of one that goes on after the limit.
    assert_eq!(statuses(&serving, 300 * 1024).await, [431, 0, 431]);

    let serving = Serving::start(|builder| builder.limits(Limits::default().head_size(100 * 1024))).await;
    assert_eq!(statuses(&serving, 99 * 1024).await, [200; 3]);
    assert_eq!(statuses(&serving, 101 * 1024).await, [431; 3]);

    let serving = Serving::start(|builder| builder.limits(Limits::default().head_size(1024))).await;
    assert_eq!(statuses(&serving, 500).await, [200; 3]);
    assert_eq!(statuses(&serving, 1100).await, [431; 3]);
}

/// However much of it there is, no more is read than a little over the limit.
#[tokio::test]
async fn a_head_without_an_end_is_refused_early() {
    let serving = Serving::start(|builder| builder).await;
    let mut h1 = TcpStream::connect(serving.plain()).await.unwrap();
    h1.set_nodelay(true).unwrap();
    h1.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx-large: ").await.unwrap();
    let mut answer = [0; 12];
    let mut written = 0;
    // In small pieces, each read by itself.
    while tokio::time::timeout(Duration::from_millis(10), h1.read_exact(&mut answer)).await.is_err() {
        h1.write_all(&[b'x'; 1024]).await.unwrap();
        written += 1024;
        assert!(written < 64 * 1024, "{written} bytes of a head are read");
    }
    assert_eq!(&answer, b"HTTP/1.1 431");
}

/// hyper refuses what is larger than its buffer before there is a request, as when a head comes in several packets.
#[tokio::test]
async fn a_head_that_is_refused_before_it_is_complete_is_counted() {
    let serving = Serving::start(|builder| builder).await;
    let counts = serving.handle().counts().clone();
    let mut h1 = TcpStream::connect(serving.plain()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx-large: {}", "x".repeat(16 * 1024 + 256));
    h1.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon("the end", h1.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(status(&String::from_utf8_lossy(&answer)), 431);
    soon("the count", async {
        while counts.snapshot().requests(Protocol::Http1, Answer::ClientError) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(counts.snapshot().requests(Protocol::Http1, Answer::ClientError), 1);
}

/// The connection is good for the next request.
#[tokio::test]
async fn a_head_that_is_a_little_too_large_harms_itself_only() {
    let serving = Serving::start(|builder| builder).await;
    let mut h1 = TcpStream::connect(serving.plain()).await.unwrap();
    let large = format!("x-large: {}\r\n", "x".repeat(20_000));
    let refused = soon("an answer", ask(&mut h1, &large)).await.unwrap();
    assert_eq!(status(&refused), 431);
    assert!(refused.contains("at most 16384 are accepted"), "{refused}");
    assert_eq!(status(&soon("an answer", ask(&mut h1, "")).await.unwrap()), 200);
}

/// By it a user can name the line of an access log.
#[tokio::test]
async fn a_refusal_has_the_id_of_its_request() {
    let (ids_tx, mut ids) = tokio::sync::mpsc::unbounded_channel();
    let serving = Serving::start(move |builder| {
        let builder = builder.http_service(router().route("/wait", get(std::future::pending::<()>)));
        let builder =
            builder.limits(Limits::default().requests_per_address(1)).trust_proxy("127.0.0.1".parse().unwrap());
        builder.on_request(move |head, _| {
            let id = head.extensions.get::<RequestId>().map(ToString::to_string);
            ids_tx.send(id.unwrap_or_default()).unwrap();
            Some(Box::new(|_| {}))
        })
    });
    let serving = serving.await;
    let mut waiting = TcpStream::connect(serving.plain()).await.unwrap();
    waiting.write_all(b"GET /wait HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    ids.recv().await.unwrap();
    let large = format!("x-large: {}", "x".repeat(17_000));
    for (field, expected) in [("x-a: b", 429), ("forwarded: for=;;;", 400), (&large, 431)] {
        let mut h1 = TcpStream::connect(serving.plain()).await.unwrap();
        let refused = soon("an answer", ask(&mut h1, &format!("{field}\r\n"))).await.unwrap();
        assert_eq!(status(&refused), expected, "{refused}");
        let id = ids.recv().await.unwrap();
        assert!(id.len() == 32 && refused.contains(&format!("x-request-id: {id}\r\n")), "{id}: {refused}");
    }
    for (name, value, expected) in [("x-a", "b", 429), ("forwarded", "for=;;;", 400)] {
        let headers = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]);
        let quic = serving.quic().await.unwrap();
        let refused = soon("HTTP/3", head_h3(&quic, headers)).await.unwrap();
        assert_eq!(refused.status(), expected);
        let id = ids.recv().await.unwrap();
        assert_eq!(refused.headers()["x-request-id"], id);
    }
}
