//! What a request calls the server, and what a HEAD says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use h3cast::{
    client::{Connection, Trust},
    feed::Feed,
    source::demo,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};

use crate::{
    clients::{ALL, At, Over, ask, raw, raw_tls},
    common::{TestServer, soon},
};

async fn server() -> TestServer {
    TestServer::feed(demo::feed("default", 1, Duration::ZERO)).await
}

/// RFC 9112 §3.2.
#[tokio::test]
async fn http1_needs_one_good_host() {
    let server = server().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    for (version, hosts, expected) in [
        ("1.1", "", 400),
        ("1.1", "host: localhost\r\nhost: localhost\r\n", 400),
        ("1.1", "host: localhost\r\nhost: evil.example\r\n", 400),
        ("1.1", "host:\r\n", 400),
        ("1.1", "host: a b\r\n", 400),
        ("1.1", "host: local/host\r\n", 400),
        ("1.1", "host: user@localhost\r\n", 400),
        ("1.1", "host: localhost:port\r\n", 400),
        ("1.1", "host: localhost:99999\r\n", 400),
        ("1.1", "host: [::1\r\n", 400),
        ("1.1", "host: localhost\u{e4}\r\n", 400),
        ("1.0", "host: localhost\r\nhost: localhost\r\n", 400),
        ("1.0", "host: a b\r\n", 400),
        ("1.0", "", 200),
        ("1.0", "host: localhost\r\n", 200),
        ("1.1", "Host: LocalHost\r\n", 200),
        ("1.1", "host: localhost:\r\n", 200),
        ("1.1", "host: localhost.\r\n", 200),
        ("1.1", "host: localhost.:4433\r\n", 200),
        ("1.1", "host: a.localhost.\r\n", 200),
        ("1.1", "host: 127.0.0.1:1\r\n", 200),
        ("1.1", "host: [::1]\r\n", 200),
        ("1.1", "host: [::ffff:127.0.0.1]:80\r\n", 200),
    ] {
        let request = format!("GET /stream HTTP/{version}\r\n{hosts}connection: close\r\n\r\n");
        for (over, answer) in
            [("plain", raw(server.http_port(), request.as_bytes()).await), ("TLS", raw_tls(&at, &request).await)]
        {
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert_eq!(status, expected.to_string(), "{over}: {request}{answer}");
            if expected == 400 {
                assert!(answer.contains("application/problem+json") && answer.contains("ost"), "{answer}");
            }
        }
    }
    // The target names the host as well, and counts (§3.2.2); the header must be there all the same.
    for (request, status) in [
        ("GET http://localhost/stream HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n", "200"),
        ("GET http://evil.example/stream HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "421"),
        ("GET http://localhost/stream HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
    ] {
        let answer = raw(server.http_port(), request.as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request}{answer}");
    }
}

/// RFC 9113 §8.3.1. Over HTTP/3 such a request is malformed already (`crates/transport/tests/hostile/h3spec.rs`).
#[tokio::test]
async fn a_host_that_differs_from_the_authority_is_refused() {
    let server = server().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    let mut asked = Vec::new();
    for host in ["elsewhere", "localhost", "localhost:99999"] {
        asked.push(ask(&at, Over::Http2, Method::GET, "/stream", &[("host", host)]).await.status);
    }
    assert_eq!(asked, [StatusCode::BAD_REQUEST; 3]);
    let same = ask(&at, Over::Http2, Method::GET, "/stream", &[("host", &at.authority)]).await;
    assert_eq!((same.status, same.text().as_str()), (StatusCode::OK, "data chunk #0\n"));
}

#[tokio::test]
async fn pages_of_this_machine_by_any_of_its_names_may_open_a_session() {
    let server = server().await;
    let connection = server.connect().await;
    for origin in ["https://localhost.:1", "http://[::ffff:127.0.0.1]:8080"] {
        let mut headers = HeaderMap::new();
        headers.insert("origin", HeaderValue::from_static(origin));
        soon("a session", connection.webtransport(&server.uri("/stream"), headers, &[])).await.unwrap();
    }
}

/// RFC 9110 §8.6: a feed's length is not known, and certainly not 0.
#[tokio::test]
async fn a_head_of_a_feed_has_no_length() {
    let server = server().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    for over in ALL {
        for format in ["raw", "sse", "frames"] {
            let head = ask(&at, over, Method::HEAD, &format!("/stream?format={format}"), &[]).await;
            assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0), "{over:?}");
            assert_eq!(head.headers.get("content-length"), None, "{over:?}");
            let got = ask(&at, over, Method::GET, &format!("/stream?format={format}"), &[]).await;
            assert_eq!(head.headers["content-type"], got.headers["content-type"]);
        }
    }
    // Where hyper's client might hide it.
    let answer =
        raw(server.http_port(), b"HEAD /stream HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.to_lowercase().contains("content-length"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_head_of_a_file_has_its_length() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text"), "12345\n").unwrap();
    let file = format!("file:{}", dir.path().join("text").display());
    let serving = crate::program::Serving::start(dir.path(), 0, &[&file]).await;
    let uri = serving.url("/stream").parse().unwrap();
    let trust = Trust::Files(vec![dir.path().join("certs/cert.pem")]);
    let connection = soon("a connection", Connection::open(&uri, &trust)).await.unwrap();
    let request = Request::head(&uri).body(()).unwrap();
    let head = soon("the head", connection.request(request)).await.unwrap();
    assert_eq!(head.headers["content-length"], "6");
}

/// It would start a command for each, and the demo.
#[tokio::test]
async fn a_head_of_an_on_demand_feed_does_not_run_its_source() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let server = TestServer::feed(Feed::on_demand("default", move || {
        counted.fetch_add(1, Ordering::Relaxed);
        futures_util::stream::empty()
    }))
    .await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    for over in ALL {
        let head = ask(&at, over, Method::HEAD, "/stream", &[]).await;
        assert_eq!((head.status, runs.load(Ordering::Relaxed)), (StatusCode::OK, 0), "{over:?}");
    }
    ask(&at, ALL[0], Method::GET, "/stream", &[]).await;
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

/// RFC 9110 §4.1 sets no limit, and a stranger chooses the name.
#[tokio::test]
async fn a_long_host_harms_nobody() {
    let server = server().await;
    for host in ["a".repeat(300_000), "%61".repeat(100_000)] {
        let request = format!("GET /stream HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = raw(server.http_port(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{}", answer.lines().next().unwrap_or_default());
    }
}
