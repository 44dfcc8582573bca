//! The feed over every protocol: the same bytes, each chunk before the next is made.

mod common;

use common::{TestServer, by_hand, soon};
use h3cast::{
    client::ClientError,
    source::demo,
    webtransport::{Closed, StreamError},
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use std::{collections::BTreeSet, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

const CHUNKS: [&str; 4] = ["one\n", "two\n", "", "three and something longer\n"];

#[tokio::test]
async fn a_response_brings_each_chunk_before_the_next_is_made() {
    let (feed, mut hands) = by_hand();
    let server = TestServer::feed(feed).await;
    let connection = server.connect().await;
    // The head leaves before the first chunk.
    let mut response = soon("the head", connection.get(&server.uri("/stream"))).await.unwrap();
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(response.headers["cache-control"], "no-store");
    assert_eq!(response.headers["x-content-type-options"], "nosniff");
    let hand = hands.next().await;
    for chunk in CHUNKS {
        hand.make(chunk).await;
        if !chunk.is_empty() {
            let read = soon("the chunk", response.body.next()).await.unwrap().unwrap();
            assert_eq!(read, chunk.as_bytes());
        }
    }
    drop(hand);
    assert_eq!(soon("the end", response.body.next()).await.unwrap(), None);
}

#[tokio::test]
async fn a_session_brings_each_chunk_before_the_next_is_made() {
    let (feed, mut hands) = by_hand();
    let server = TestServer::feed(feed).await;
    let connection = server.connect().await;
    let session =
        soon("the session", connection.webtransport(&server.uri("/stream"), HeaderMap::new(), &[])).await.unwrap();
    let hand = hands.next().await;
    let mut stream = soon("the stream", session.accept_uni()).await.unwrap();
    for chunk in CHUNKS {
        hand.make(chunk).await;
        if !chunk.is_empty() {
            let read = soon("the chunk", stream.read_bytes(usize::MAX)).await.unwrap().unwrap();
            assert_eq!(read, chunk.as_bytes());
        }
        // Requests go on beside a session.
        let info = soon("a request", connection.get(&server.uri("/healthz"))).await.unwrap();
        assert_eq!(info.status, StatusCode::OK);
    }
    drop(hand);
    assert_eq!(soon("the end", stream.read_bytes(usize::MAX)).await.unwrap(), None);
    session.close(0, "");
    assert!(matches!(soon("the close", session.closed()).await, Closed::Clean { code: 0, .. }));
}

#[tokio::test]
async fn plain_http_brings_each_chunk_before_the_next_is_made() {
    let (feed, mut hands) = by_hand();
    let server = TestServer::feed(feed).await;
    let mut stream = TcpStream::connect(("127.0.0.1", server.http_port())).await.unwrap();
    stream.write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    let mut until = async |text: &str| {
        soon(text, async {
            while !String::from_utf8_lossy(&read).contains(text) {
                assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
            }
        })
        .await;
    };
    let hand = hands.next().await;
    until("\r\n\r\n").await;
    for chunk in ["one\n", "two\n", "three\n"] {
        hand.make(chunk).await;
        until(chunk).await;
    }
    drop(hand);
    until("0\r\n\r\n").await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_producer() {
    let (feed, mut hands) = by_hand();
    let server = TestServer::feed(feed.clone()).await;

    let connection = server.connect().await;
    let response = soon("the head", connection.get(&server.uri("/stream"))).await.unwrap();
    let hand = hands.next().await;
    drop(response);
    hand.abandoned().await;

    let session =
        soon("the session", connection.webtransport(&server.uri("/stream"), HeaderMap::new(), &[])).await.unwrap();
    let hand = hands.next().await;
    session.close(7, "enough");
    hand.abandoned().await;

    let session =
        soon("the session", connection.webtransport(&server.uri("/stream"), HeaderMap::new(), &[])).await.unwrap();
    let hand = hands.next().await;
    let mut stream = soon("the stream", session.accept_uni()).await.unwrap();
    stream.stop(3);
    hand.abandoned().await;

    let session =
        soon("the session", connection.webtransport(&server.uri("/stream"), HeaderMap::new(), &[])).await.unwrap();
    let hand = hands.next().await;
    drop(connection);
    assert!(matches!(soon("the end", session.closed()).await, Closed::ConnectionLost(_)));
    hand.abandoned().await;

    let mut stream = TcpStream::connect(("127.0.0.1", server.http_port())).await.unwrap();
    stream.write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let hand = hands.next().await;
    drop(stream);
    hand.abandoned().await;
    soon("all are gone", async {
        while feed.status().viewers > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_feed_that_breaks_off_never_looks_whole() {
    let (feed, mut hands) = by_hand();
    let server = TestServer::feed(feed).await;
    let connection = server.connect().await;

    let mut response = soon("the head", connection.get(&server.uri("/stream"))).await.unwrap();
    let hand = hands.next().await;
    hand.make("one").await;
    assert_eq!(soon("the chunk", response.body.next()).await.unwrap().unwrap(), "one");
    hand.fail("the source failed").await;
    let cut = soon("the cut", response.body.next()).await.unwrap_err();
    assert!(matches!(cut, ClientError::Reset(0x102)), "{cut}");

    let session =
        soon("the session", connection.webtransport(&server.uri("/stream"), HeaderMap::new(), &[])).await.unwrap();
    let hand = hands.next().await;
    let mut stream = soon("the stream", session.accept_uni()).await.unwrap();
    hand.fail("the source failed").await;
    let cut = soon("the cut", stream.read_bytes(usize::MAX)).await.unwrap_err();
    assert!(matches!(cut, StreamError::Reset(1) | StreamError::SessionGone), "{cut}");
    let closed = soon("the close", session.closed()).await;
    assert_eq!(closed, Closed::Clean { code: 1, reason: "the source failed".into(), by_peer: true });
}

#[tokio::test]
async fn the_demo_is_ten_chunks() {
    let server = TestServer::feed(demo::feed("default", 10, Duration::from_millis(1))).await;
    let connection = server.connect().await;
    let expected: String = (0..10).map(|number| format!("data chunk #{number}\n")).collect();

    let mut response = connection.get(&server.uri("/stream")).await.unwrap();
    let mut body = Vec::new();
    while let Some(bytes) = soon("more", response.body.next()).await.unwrap() {
        body.extend_from_slice(&bytes);
    }
    assert_eq!(String::from_utf8(body).unwrap(), expected);

    let session = connection.webtransport(&server.uri("/stream/default?limit=3"), HeaderMap::new(), &[]).await.unwrap();
    let mut stream = soon("the stream", session.accept_uni()).await.unwrap();
    let mut body = String::new();
    soon("the end", stream.read_to_string(&mut body)).await.unwrap();
    assert_eq!(body, expected[..3 * 14]);
}

#[tokio::test]
async fn what_http_says_of_other_requests() {
    let server = TestServer::feed(demo::feed("default", 2, Duration::ZERO)).await;
    let connection = server.connect().await;
    let ask = async |method: Method, path: &str, header: Option<(&'static str, &str)>| {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = server.uri(path);
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        let mut response = soon("the head", connection.request(request)).await.unwrap();
        let mut body = Vec::new();
        while let Some(bytes) = soon("more", response.body.next()).await.unwrap() {
            body.extend_from_slice(&bytes);
        }
        (response.status, response.headers, String::from_utf8(body).unwrap())
    };
    let (status, headers, body) = ask(Method::HEAD, "/stream", None).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");

    for path in ["/nothing", "/stream/nothing", "/stream/", "/js/../../Cargo.toml"] {
        let (status, headers, body) = ask(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(headers["content-type"], "application/problem+json");
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], 404);
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
    let set = |headers: &HeaderMap| -> BTreeSet<String> {
        // OPTIONS is for every path, and need not be said.
        let said = headers["allow"].to_str().unwrap().split(',').map(|method| method.trim().to_owned());
        said.chain(["OPTIONS".to_owned()]).collect()
    };
    let reading = BTreeSet::from(["GET", "HEAD", "OPTIONS"].map(String::from));
    let publishing = BTreeSet::from(["GET", "HEAD", "OPTIONS", "POST", "PUT"].map(String::from));
    for (method, path, allowed) in [
        (Method::DELETE, "/stream", &publishing),
        (Method::DELETE, "/info", &reading),
        (Method::PUT, "/index.html", &reading),
    ] {
        let (status, headers, _) = ask(method, path, None).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(set(&headers), *allowed, "{path}");
    }
    let (status, _, body) = ask(Method::POST, "/stream", None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("default=publish"), "{body}");
    for query in ["limit=x", "limit=-1", "format=xml", "from=x"] {
        let (status, _, body) = ask(Method::GET, &format!("/stream?{query}"), None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {body}");
    }
    let (status, _, body) = ask(Method::GET, "/stream", Some(("range", "bytes=0-3"))).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 28));

    let (status, headers, _) = ask(Method::OPTIONS, "/stream", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(set(&headers), publishing);
    let (_, headers, _) = ask(Method::GET, "/stream", Some(("origin", "http://localhost:3000"))).await;
    assert_eq!(headers["access-control-allow-origin"], "http://localhost:3000");
    let (_, headers, _) = ask(Method::GET, "/stream", Some(("origin", "https://evil.example"))).await;
    assert!(!headers.contains_key("access-control-allow-origin"));

    let (status, headers, body) = ask(Method::GET, "/", None).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("<html"));
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains(&server.base), "{policy}");
    let etag = headers["etag"].to_str().unwrap().to_owned();
    let (status, _, body) = ask(Method::GET, "/", Some(("if-none-match", &etag))).await;
    assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""));
}

#[tokio::test]
async fn who_may_open_a_session() {
    let server = TestServer::feed(demo::feed("default", 1, Duration::ZERO)).await;
    let connection = server.connect().await;
    let ask = async |path: &str, origin: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert("origin", HeaderValue::from_static(origin));
        }
        match soon("the answer", connection.webtransport(&server.uri(path), headers, &[])).await {
            Ok(_) => StatusCode::OK,
            Err(ClientError::Refused { status, .. }) => status,
            Err(error) => panic!("{error}"),
        }
    };
    for origin in [None, Some("http://localhost:8080"), Some("https://127.0.0.1:1"), Some("https://localhost:4433")] {
        assert_eq!(ask("/stream", origin).await, StatusCode::OK, "{origin:?}");
    }
    for origin in ["https://evil.example", "null", "nonsense", "https://localhost.evil.example"] {
        assert_eq!(ask("/stream", Some(origin)).await, StatusCode::FORBIDDEN, "{origin}");
    }
    assert_eq!(ask("/stream/nothing", None).await, StatusCode::NOT_FOUND);
    assert_eq!(ask("/elsewhere", None).await, StatusCode::NOT_FOUND);
    assert_eq!(ask("/stream?limit=x", None).await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn another_name_for_this_machine_is_refused_on_plain_http() {
    let server = TestServer::feed(demo::feed("default", 1, Duration::ZERO)).await;
    for (host, status) in [
        ("localhost", 200),
        ("[::1]:8080", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("x~y.evil.example", 421),
        ("a;b.evil.example", 421),
        ("evil.example:99999", 400),
        ("evil.example:", 421),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", server.http_port())).await.unwrap();
        let request = format!("GET /info HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
}

#[tokio::test]
async fn datagrams_bring_what_fits_and_tell_of_the_rest() {
    let (feed, mut hands) = by_hand();
    let server = TestServer::feed(feed).await;
    let connection = server.connect().await;
    let uri = server.uri("/stream?delivery=datagrams");
    let session = soon("the session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    let hand = hands.next().await;
    let mut told = BufReader::new(soon("the stream", session.accept_uni()).await.unwrap()).lines();
    for text in ["one", "two"] {
        hand.make(text).await;
        assert_eq!(soon("the datagram", session.recv_datagram()).await.unwrap(), text);
    }
    hand.make(vec![0; 5000]).await;
    let mut line = async || -> serde_json::Value {
        serde_json::from_str(&soon("a line", told.next_line()).await.unwrap().unwrap()).unwrap()
    };
    let skipped = line().await;
    assert_eq!((&skipped["skipped"]["seq"], &skipped["skipped"]["bytes"]), (&2.into(), &5000.into()));
    hand.make("three").await;
    assert_eq!(soon("the datagram", session.recv_datagram()).await.unwrap(), "three");
    drop(hand);
    assert_eq!(line().await, serde_json::json!({ "end": { "chunks": 4, "sent": 3, "skipped": 1 } }));

    let refused = soon("the answer", connection.get(&uri)).await.unwrap();
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_feed_that_breaks_off_never_looks_whole_over_tcp_either() {
    let (feed, mut hands) = by_hand();
    let server = TestServer::feed(feed).await;
    let mut stream = TcpStream::connect(("127.0.0.1", server.http_port())).await.unwrap();
    stream.write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let hand = hands.next().await;
    hand.make("one").await;
    hand.fail("the source failed").await;
    let mut answer = Vec::new();
    // The end of the connection, in order or not.
    let _ = soon("the end", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && !answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_silent_connection_is_not_kept() {
    let server = TestServer::feed(demo::feed("default", 1, Duration::ZERO)).await;
    let mut stream = TcpStream::connect(("127.0.0.1", server.http_port())).await.unwrap();
    let mut nothing = Vec::new();
    soon("the server hangs up", stream.read_to_end(&mut nothing)).await.unwrap();
    assert!(nothing.is_empty());
}
