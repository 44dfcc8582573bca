//! Interim responses: 100 when a body is read, and those that a handler sends.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version},
    routing::{get, post},
};
use bytes::Buf;
use h3cast_transport::{Interim, InterimError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::Notify,
};

use crate::{
    cases::case,
    peers::{self, Axum, H3, Ours, in_time},
};

type Stream = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

async fn expecting(connection: &mut H3, path: &str) -> Stream {
    let request = Request::post(connection.uri(path)).header("expect", "100-continue");
    in_time("a stream", connection.requests.send_request(request.body(()).unwrap())).await.unwrap()
}

async fn head(stream: &mut Stream) -> Response<()> {
    in_time("a head", stream.recv_response()).await.unwrap()
}

async fn text(stream: &mut Stream) -> String {
    let mut text = Vec::new();
    while let Some(mut data) = in_time("the body", stream.recv_data()).await.unwrap() {
        text.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_body_is_asked_for_when_it_is_first_read() {
    let router = Router::new()
        .route("/read", post(async |text: String| text))
        .route("/unread", post(async || StatusCode::FORBIDDEN));
    let (axum, ours) = (Axum::start(router.clone()).await, Ours::start(router).await);
    for address in [axum.address, ours.http] {
        over_http1(address).await;
    }
    let mut connection = ours.h3().await;
    let mut stream = expecting(&mut connection, "/read").await;
    assert_eq!(head(&mut stream).await.status(), 100);
    in_time("sent", stream.send_data("the body".into())).await.unwrap();
    in_time("ended", stream.finish()).await.unwrap();
    assert_eq!(head(&mut stream).await.status(), 200);
    assert_eq!(text(&mut stream).await, "the body");
    // One that nobody reads is not asked for.
    let mut stream = expecting(&mut connection, "/unread").await;
    assert_eq!(head(&mut stream).await.status(), 403);
}

/// hyper does it there.
async fn over_http1(address: SocketAddr) {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    for (path, status) in [("/read", "100"), ("/unread", "403")] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n");
        stream.get_mut().write_all(head.as_bytes()).await.unwrap();
        let first = line(&mut stream).await;
        assert_eq!(first.split(' ').nth(1), Some(status), "{first}");
        if status == "100" {
            stream.get_mut().write_all(b"x").await.unwrap();
            while line(&mut stream).await != "x" {}
        }
    }
}

/// A line; the last of a body may lack its end.
async fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line != b"x" {
        line.push(in_time("more of a line", stream.read_u8()).await.unwrap());
    }
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

fn hints() -> HeaderMap {
    [("link", "</style.css>; rel=preload"), ("connection", "x-mine"), ("x-mine", "1"), ("content-length", "5")]
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect()
}

#[tokio::test]
async fn a_handler_sends_early_hints_at_once() {
    let seen = Arc::new(Notify::new());
    let known = seen.clone();
    let page = async move |interim: Interim| {
        interim.send(StatusCode::PROCESSING, HeaderMap::new()).unwrap();
        interim.send(StatusCode::EARLY_HINTS, hints()).unwrap();
        known.notified().await;
        // One that leaves together with the final response.
        interim.send(StatusCode::EARLY_HINTS, hints()).unwrap();
        "the page"
    };
    let ours = Ours::start(Router::new().route("/", get(page))).await;
    let mut connection = ours.h3().await;
    let request = Request::get(connection.uri("/")).body(()).unwrap();
    let mut stream = in_time("a stream", connection.requests.send_request(request)).await.unwrap();
    in_time("ended", stream.finish()).await.unwrap();
    assert_eq!(head(&mut stream).await.status(), 102);
    for last in [false, true] {
        let early = head(&mut stream).await;
        assert_eq!(early.status(), 103);
        assert_eq!(early.headers().len(), 1, "{early:?}");
        assert_eq!(early.headers()["link"], "</style.css>; rel=preload");
        if !last {
            seen.notify_one();
        }
    }
    let last = head(&mut stream).await;
    assert_eq!((last.status(), last.headers()["content-length"].as_bytes()), (StatusCode::OK, &b"8"[..]));
    assert_eq!(text(&mut stream).await, "the page");
}

#[tokio::test]
async fn what_cannot_be_sent_says_why() {
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    let page = async move |interim: Interim| {
        for status in [StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS, StatusCode::OK] {
            assert_eq!(interim.send(status, HeaderMap::new()), Err(InterimError::Status(status)));
        }
        let early = || interim.send(StatusCode::EARLY_HINTS, HeaderMap::new());
        let sent: Vec<_> = (0..17).map(|_| early()).collect();
        *keep.lock().unwrap() = Some(interim.clone());
        format!("{:?} {}", sent[0], sent[16].unwrap_err())
    };
    let ours = Ours::start(Router::new().route("/", get(page))).await;
    let text = case("text", "GET", "/");
    for (version, sent) in [(peers::Version::H1, Version::HTTP_11), (peers::Version::H2, Version::HTTP_2)] {
        let answer = String::from_utf8(ours.ask(version, &text).await.body).unwrap();
        assert!(answer.starts_with(&format!("Err(Version({sent:?}))")), "{answer}");
        assert!(answer.ends_with("interim responses are sent over HTTP/3 only"), "{answer}");
    }
    let mut connection = ours.h3().await;
    let request = Request::get(connection.uri("/")).body(()).unwrap();
    let mut stream = in_time("a stream", connection.requests.send_request(request)).await.unwrap();
    in_time("ended", stream.finish()).await.unwrap();
    for _ in 0..16 {
        assert_eq!(head(&mut stream).await.status(), 103);
    }
    assert_eq!(head(&mut stream).await.status(), 200);
    assert_eq!(self::text(&mut stream).await, "Ok(()) 16 interim responses are waiting to be sent");
    let late = kept.lock().unwrap().take().unwrap();
    assert_eq!(late.send(StatusCode::EARLY_HINTS, HeaderMap::new()), Err(InterimError::Answered));
}
