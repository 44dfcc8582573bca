//! Plain HTTP that is sent to the port of TLS.

use std::time::Duration;

use h3cast::{App, source::demo};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    clients::raw,
    common::{TestServer, soon},
};

async fn server() -> TestServer {
    TestServer::feed(demo::feed("default", 1, Duration::ZERO)).await
}

/// 400, with the URL that was meant.
fn assert_names(answer: &str, url: &str) {
    assert!(answer.starts_with("HTTP/1.") && answer.split(' ').nth(1) == Some("400"), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
    assert_eq!(problem["detail"], format!("this port speaks HTTPS: use {url}"));
    assert!(answer.to_lowercase().contains("content-type: application/problem+json"), "{answer}");
    // HTTP/1.0 closes without a word.
    assert!(answer.starts_with("HTTP/1.0") || answer.to_lowercase().contains("connection: close"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_names_the_https_url() {
    let server = server().await;
    let port = server.port();
    for (request, url) in [
        (format!("GET / HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n"), format!("https://localhost:{port}/")),
        (
            format!("GET /stream?from=start HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n"),
            format!("https://127.0.0.1:{port}/stream?from=start"),
        ),
        // Through a mapping, and without a port, which then is none of TLS.
        ("GET /a HTTP/1.1\r\nhost: cast.example:8443\r\n\r\n".into(), "https://cast.example:8443/a".into()),
        ("GET /a HTTP/1.1\r\nhost: cast.example\r\n\r\n".into(), format!("https://cast.example:{port}/a")),
        ("GET /a HTTP/1.0\r\n\r\n".into(), format!("https://localhost:{port}/a")),
        ("\r\nGET /a HTTP/1.0\r\n\r\n".into(), format!("https://localhost:{port}/a")),
        (
            format!("POST /stream HTTP/1.1\r\nhost: localhost:{port}\r\ncontent-length: 5\r\n\r\nhello"),
            format!("https://localhost:{port}/stream"),
        ),
        (
            format!("GET http://localhost:{port}/b HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n"),
            format!("https://localhost:{port}/b"),
        ),
    ] {
        assert_names(&raw(port, request.as_bytes()).await, &url);
    }
}

/// A large body, as a publisher sends it: its client still sees the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_does_not_hide_the_answer() {
    let server = server().await;
    let port = server.port();
    let head = format!("POST /stream HTTP/1.1\r\nhost: localhost:{port}\r\ncontent-length: 40000\r\n\r\n");
    let answer = raw(port, &[head.as_bytes(), &[b'x'; 40_000]].concat()).await;
    assert_names(&answer, &format!("https://localhost:{port}/stream"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_is_answered() {
    let server = server().await;
    let port = server.port();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in format!("GET / HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n").bytes() {
        stream.write_all(&[byte]).await.unwrap();
        // In a packet of its own.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert_names(&answer, &format!("https://localhost:{port}/"));
}

/// With prior knowledge (RFC 9113 §3.3).
#[tokio::test(flavor = "multi_thread")]
async fn http2_is_answered_too() {
    let server = server().await;
    let port = server.port();
    let stream = TokioIo::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    let (mut send, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<bytes::Bytes>>(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("http://localhost:{port}/stream")).body(Empty::new()).unwrap();
    let response = soon("the answer", send.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let body = soon("the body", response.into_body().collect()).await.unwrap().to_bytes();
    let said = String::from_utf8(body.to_vec()).unwrap();
    assert!(said.contains(&format!("use https://localhost:{port}/stream")), "{said}");
    drop(send);
    let _ = soon("the end of the connection", connection).await.unwrap();
}

/// What begins and does not continue, or is neither HTTP nor TLS, is not kept.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_for_long() {
    let server = server().await;
    let port = server.port();
    let (silent, begun, headless, garbage) = tokio::join!(
        raw(port, b""),
        raw(port, b"G"),
        raw(port, b"GET / HTTP/1.1\r\nhost: localhost\r\n"),
        raw(port, b"\x00\x01\x02\x03\x04\x05\x06\x07"),
    );
    assert_eq!((silent.as_str(), begun.as_str()), ("", ""));
    // hyper may say that it took too long.
    assert!(headless.is_empty() || headless.starts_with("HTTP/1.1 4"), "{headless}");
    assert!(!garbage.contains("HTTP/"), "{garbage}");
    // And TLS is as before.
    assert_eq!(soon("a request", server.connect().await.get(&server.uri("/"))).await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_advertised_is_named() {
    let server = TestServer::start(|builder, identity| {
        let advertised = "cast.example:443".parse().unwrap();
        App::new([demo::feed("default", 1, Duration::ZERO)], identity).install(builder.advertise(Some(advertised)))
    })
    .await;
    let answer = raw(server.port(), b"GET /a HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_names(&answer, "https://cast.example/a");
}
