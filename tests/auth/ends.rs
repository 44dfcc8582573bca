//! When the right to a stream ends, the stream ends: with a code by which its client renews the right and resumes.

use std::time::Duration;

use bytes::Bytes;
use h3cast::{
    App,
    client::Connection,
    feed::{Feed, Lag},
    webtransport::Closed,
};
use h3cast_proto::feed::session_code;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;

use crate::{
    clients::{Way, begin},
    common::{
        TestServer,
        raw::{Raw, connect, endpoint, status},
        soon,
    },
    revocable::Revocable,
};

struct Setting {
    server: TestServer,
    decider: Revocable,
    feed: Feed,
    file: tempfile::NamedTempFile,
}

/// A server of a feed with a chunk, and of a large file.
async fn setting() -> Setting {
    let (decider, feed) = (Revocable::default(), Feed::writable("log", 1 << 20, Lag::Skip));
    feed.publisher().unwrap().publish("chunk".into()).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![b'x'; 32 << 20]).unwrap();
    let empty = || futures_util::stream::empty::<Result<Bytes, h3cast::feed::FeedError>>();
    let of_file = Feed::replayable("file", move |_| empty()).of_file(file.path().to_owned());
    let (ours, live) = (decider.clone(), feed.clone());
    let make = |builder, identity| App::new([live, of_file], identity).authorize(ours).install(builder);
    Setting { server: TestServer::start(make).await, decider, feed, file }
}

/// All of a response's body once it has begun, and whether it broke off.
async fn rest(connection: &Connection, server: &TestServer, path: &str, then: impl FnOnce()) -> (Vec<u8>, bool) {
    let mut response = soon("a response", connection.get(&server.uri(path))).await.unwrap();
    assert_eq!(response.status, StatusCode::OK);
    let (mut body, mut then) = (Vec::new(), Some(then));
    loop {
        match soon("a piece", response.body.next()).await {
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            Ok(None) => return (body, false),
            Err(_) => return (body, true),
        }
        if body.windows(5).any(|part| part == b"chunk" || part == b"xxxxx")
            && let Some(then) = then.take()
        {
            then();
        }
    }
}

#[tokio::test]
async fn a_response_ends_with_the_word_for_it() {
    let Setting { server, decider, feed, file } = setting().await;
    let connection = server.connect().await;
    for (format, end, breaks) in
        [("frames", &b"\x07\x00"[..], false), ("sse", b"event: expired\ndata: {}\n\n", false), ("raw", b"chunk", true)]
    {
        let path = format!("/stream/log?from=start&format={format}");
        let (body, broke) = rest(&connection, &server, &path, || decider.revoke()).await;
        assert!(body.ends_with(end) && broke == breaks, "{format}: {:?}", String::from_utf8_lossy(&body));
        assert_eq!(feed.status().viewers, 0, "{format}");
    }
    // A file is cut off, and never looks whole.
    let (body, broke) = rest(&connection, &server, "/stream/file", || decider.revoke()).await;
    assert!(broke && body.len() < 32 << 20, "{}", body.len());
    drop(file);
}

#[tokio::test]
async fn a_response_over_tcp_ends_so_too() {
    let Setting { server, decider, .. } = setting().await;
    for way in [Way::Plain, Way::Http1, Way::Http2] {
        for (format, end) in [("sse", "event: expired\ndata: {}\n\n"), ("raw", "")] {
            let path = format!("/stream/log?from=start&format={format}");
            let none = HeaderMap::new();
            let (head, mut body) = soon("a response", begin(&server, way, Method::GET, &path, &none, "")).await;
            assert_eq!(head.status, StatusCode::OK, "{way:?} {format}");
            let mut read = Vec::new();
            let broke = loop {
                match soon("a piece", body.frame()).await {
                    Some(Ok(frame)) => read.extend_from_slice(&frame.into_data().unwrap()),
                    Some(Err(_)) => break true,
                    None => break false,
                }
                if read.windows(5).any(|part| part == b"chunk") {
                    decider.revoke();
                }
            };
            let read = String::from_utf8(read).unwrap();
            assert!(read.contains("chunk") && read.ends_with(end), "{way:?} {format}: {read}");
            assert_eq!(broke, format == "raw", "{way:?} {format}");
        }
    }
}

#[tokio::test]
async fn a_session_closes_with_a_code() {
    let Setting { server, decider, .. } = setting().await;
    let connection = server.connect().await;
    for (query, end) in [
        ("from=start&format=frames", Some(&b"\x07\x00"[..])),
        ("from=start&format=sse", Some(b"event: expired\ndata: {}\n\n")),
        ("from=start&format=raw", None),
        ("from=start&limit=1&format=frames", Some(b"\x02\x01\x00")),
        ("limit=0", Some(b"")),
        ("from=start&delivery=datagrams", Some(b"{\"expired\":{}}\n")),
    ] {
        let uri = server.uri(&format!("/stream/log?{query}"));
        let session = soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
        let mut stream = soon("a stream", session.accept_uni()).await.unwrap();
        let first = match query {
            "limit=0" => Bytes::new(),
            _ if query.contains("datagrams") => soon("a datagram", session.recv_datagram()).await.unwrap(),
            _ => soon("the beginning", stream.read_bytes(1 << 16)).await.unwrap().unwrap(),
        };
        decider.revoke();
        let mut read = first.to_vec();
        let broke = loop {
            match soon("a piece", stream.read_bytes(1 << 16)).await {
                Ok(Some(bytes)) => read.extend_from_slice(&bytes),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        match end {
            Some(end) => assert!(read.ends_with(end) && !broke, "{query}: {:?}", String::from_utf8_lossy(&read)),
            None => assert!(broke, "{query}"),
        }
        match soon("the end of the session", session.closed()).await {
            Closed::Clean { code, reason, .. } => {
                assert_eq!(code, session_code::EXPIRED, "{query}");
                assert!(reason.contains("revoked"), "{query}: {reason}");
            }
            other => panic!("{query}: {other:?}"),
        }
    }
}

/// It asked for a feed and allows no stream to bring it on: nothing of the server waits for it.
#[tokio::test]
async fn a_session_without_a_stream_is_ended() {
    let Setting { server, decider, .. } = setting().await;
    // Those of HTTP/3 itself, and no more.
    let few = endpoint(&server.certificate(), |transport| {
        transport.max_concurrent_uni_streams(3_u8.into()).keep_alive_interval(Some(Duration::from_secs(1)));
    });
    let client = Raw::open(few, server.port()).await;
    let _control = client.settings().await;
    for (path, revoked, reason) in [
        ("/stream/file", true, "the token has been revoked"),
        ("/stream/log", true, "the token has been revoked"),
        ("/stream/file", false, "the client allowed no stream"),
    ] {
        let (_send, mut recv) = client.bi(&connect(path)).await;
        assert_eq!(status(&mut recv).await, 200);
        if revoked {
            decider.revoke();
        }
        let capsule = soon("the end of the session", recv.read_to_end(1 << 16)).await.unwrap();
        assert!(String::from_utf8_lossy(&capsule).contains(reason), "{path}: {capsule:?}");
    }
}

#[tokio::test]
async fn a_publication_ends_with_what_was_published() {
    let Setting { server, decider, feed, .. } = setting().await;
    let connection = server.connect().await;
    let request = Request::post(server.uri("/stream/log")).body(()).unwrap();
    let (mut body, response) = soon("a request", connection.send_request(request)).await.unwrap();
    soon("a write", body.send("seven b".into())).await.unwrap();
    crate::common::raw::until("it is published", || feed.status().chunks == 2).await;
    decider.revoke();
    let mut response = soon("an answer", response).await.unwrap();
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
    let detail = response.problem().await.unwrap();
    assert!(detail.contains("has been revoked: 7 bytes were published"), "{detail}");

    // One in a session: its answer comes, and then the session ends.
    let uri = server.uri("/stream/log?limit=0");
    let session = soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    let (mut send, mut recv) = soon("a stream", session.open_bi()).await.unwrap();
    soon("a write", send.write_bytes("six by".into())).await.unwrap();
    crate::common::raw::until("it is published", || feed.status().chunks == 3).await;
    decider.revoke();
    let answer = async {
        let mut answer = Vec::new();
        while let Ok(Some(bytes)) = recv.read_bytes(1 << 16).await {
            answer.extend_from_slice(&bytes);
        }
        String::from_utf8(answer).unwrap()
    };
    let _ = soon("its answer, or the end", answer).await;
    assert!(matches!(soon("the end", session.closed()).await, Closed::Clean { code: session_code::EXPIRED, .. }));
    assert_eq!(feed.status().bytes, 5 + 7 + 6);
}
