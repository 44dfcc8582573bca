//! Who may send input: the viewer that the command runs for, with the right to publish, and no page of others.

use http::HeaderMap;

use crate::{
    common::soon,
    kit::{SESSION, View, WAYS, Way, post, server},
    talk::{Talk, answer},
};

const TOKEN: &str = "a token of 16 bytes at least";

#[tokio::test]
async fn only_the_viewer_that_has_the_session() {
    let (server, _) = server(&["exec:cat", "other=exec:cat"], |app| app).await;
    for way in WAYS {
        let (mut one, mut two) = (View::open(&server, way, "/stream").await, View::open(&server, way, "/stream").await);
        assert_ne!(one.id, two.id);
        for id in [&one.id[1..], &one.id.to_uppercase(), &"0".repeat(32), ""] {
            post(&server, way, "/stream", &[(SESSION, id)], "x\n").await.is(404, "no such session");
        }
        post(&server, way, "/stream", &[], "x\n").await.is(400, SESSION);
        // A session is one of its feed.
        one.say(&server, way, "/stream/other", "x\n").await.is(404, "no such session");
        post(&server, way, "/stream", &[(SESSION, &one.id), ("idempotency-key", "a")], "x").await.is(400, "once");
        post(&server, way, "/stream", &[(SESSION, &one.id), ("content-encoding", "gzip")], "x").await.is(415, "");
        one.say(&server, way, "/stream", "one\n").await.is(200, "4");
        two.say(&server, way, "/stream", "two\n").await.is(200, "4");
        assert_eq!((one.line().await, two.line().await), ("one\n".into(), "two\n".into()));
    }
}

/// Stricter than for what is read: a page of this machine may be of a server that somebody else develops.
#[tokio::test]
async fn only_pages_of_this_server_and_those_it_was_told_to_allow() {
    let origins = || ["https://allowed.example".parse().unwrap()].into_iter().collect();
    let (server, commands) = server(&["exec:cat"], |app| app.allow_origins(origins())).await;
    let own = format!("http://localhost:{}", server.http_port());
    let secure = format!("https://localhost:{}", server.port());
    let requests: &[(bool, &[(&str, &str)])] = &[
        (true, &[("origin", &own)]),
        (true, &[("origin", &own), ("sec-fetch-site", "same-origin")]),
        (true, &[("origin", "https://allowed.example"), ("sec-fetch-site", "cross-site")]),
        (true, &[("sec-fetch-site", "none")]),
        (false, &[("origin", "https://evil.example")]),
        (false, &[("origin", "null")]),
        (false, &[("origin", "http://localhost:3000")]),
        (false, &[("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")]),
        (false, &[("origin", "http://127.0.0.1:3000")]),
        (false, &[("sec-fetch-site", "cross-site")]),
        (false, &[("sec-fetch-site", "same-site")]),
    ];
    let view = View::open(&server, Way::H3, "/stream").await;
    for (allowed, headers) in requests.iter().chain(&[(true, &[("origin", &*secure)][..])]) {
        for way in WAYS {
            // Over TLS, its own plain page is of this server.
            let status = if *allowed { 200 } else { 403 };
            if *headers == [("origin", secure.as_str())] && way != Way::H3 {
                continue;
            }
            let (viewed, session) = View::status(&server, way, headers).await;
            assert_eq!((viewed, session.is_some()), (status, *allowed), "{way:?} {headers:?}");
            let headers = [headers, &[(SESSION, view.id.as_str())][..]].concat();
            let answer = post(&server, way, "/stream", &headers, "hello\n").await;
            answer.is(status, "");
            let origin = headers.iter().find(|(name, _)| *name == "origin").map(|(_, origin)| *origin);
            let shown = answer.headers.get("access-control-allow-origin").map(|shown| shown.to_str().unwrap());
            assert!(shown.is_none() || shown == origin, "{answer:?}");
        }
        if let [("origin", origin), ..] = headers {
            let connection = server.connect().await;
            let asked = HeaderMap::from_iter([(http::header::ORIGIN, origin.parse().unwrap())]);
            let uri = server.uri("/stream");
            let opened = soon("an answer", connection.webtransport(&uri, asked, &[])).await;
            assert_eq!(opened.is_ok(), *allowed, "{origin}");
        }
    }
    // A page elsewhere that makes its own name point here (DNS rebinding).
    let rebound = [("host", "evil.example"), ("origin", "http://evil.example"), (SESSION, &view.id)];
    let raw = raw_h1(server.http_port(), &rebound).await;
    assert!(raw.starts_with("HTTP/1.1 421 "), "{raw}");
    drop(view);
    crate::kit::none_runs(&commands).await;
}

/// A POST with no other headers than these.
async fn raw_h1(port: u16, headers: &[(&str, &str)]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("POST /stream HTTP/1.1\r\n{fields}content-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn only_who_may_publish() {
    let (server, _) = server(&["exec:cat"], |app| app.publish_token(TOKEN)).await;
    let bearer = format!("Bearer {TOKEN}");
    for way in WAYS {
        let mut view = View::open(&server, way, "/stream").await;
        view.say(&server, way, "/stream", "x\n").await.is(401, "a token is needed");
        let wrong = [(SESSION, view.id.as_str()), ("authorization", "Bearer no")];
        post(&server, way, "/stream", &wrong, "x\n").await.is(401, "");
        let right = [(SESSION, view.id.as_str()), ("authorization", &bearer)];
        post(&server, way, "/stream", &right, "hello\n").await.is(200, "6");
        assert_eq!(view.line().await, "hello\n");
    }
    let talk = Talk::open(&server, "/stream").await;
    let (_send, refused) = talk.stream("x\n").await;
    assert_eq!(answer(refused).await["status"], 401);
    let mut talk = Talk::open(&server, &format!("/stream?token={}", TOKEN.replace(' ', "%20"))).await;
    let _stream = talk.stream("hello\n").await;
    talk.until("hello\n").await;
}

/// What a named owner has opened is not for another one, who may publish as well.
#[tokio::test]
async fn only_the_owner_of_the_session() {
    let bearer = |name: &str| format!("Bearer token-of-{name}-{name}");
    let token = |name: &str| format!("read=* publish=* name={name} token-of-{name}-{name}\n");
    let tokens = h3cast::auth::Tokens::new().lines(&(token("alice") + &token("bob"))).unwrap();
    let (server, _) = server(&["exec:cat"], |app| app.authorize(tokens)).await;
    let (alice, bob) = (bearer("alice"), bearer("bob"));
    let connection = server.connect().await;
    let asked = http::Request::get(server.uri("/stream")).header("authorization", &alice).body(()).unwrap();
    let mut view = soon("the head", connection.request(asked)).await.unwrap();
    let id = view.headers[SESSION].to_str().unwrap().to_owned();
    for way in WAYS {
        let of = |owner| [(SESSION, id.as_str()), ("authorization", owner)];
        post(&server, way, "/stream", &of(&bob), "bob\n").await.is(404, "no such session");
        post(&server, way, "/stream", &of(&alice), "alice\n").await.is(200, "6");
        assert_eq!(soon("the echo", view.body.next()).await.unwrap().unwrap(), "alice\n");
    }
}

/// Input that is being sent takes a place of those of publications.
#[tokio::test]
async fn as_many_at_once_as_publications() {
    for (all, each, status, words) in [(9, 1, 429, "already has 1 publications"), (1, 9, 503, "1 publications are")] {
        let quotas = h3cast::app::Quotas::default().publications(all, each);
        let (server, _) = server(&["exec:cat"], |app| app.quotas(quotas)).await;
        let mut first = Talk::open(&server, "/stream").await;
        let (mut send, recv) = first.stream("hello\n").await;
        first.until("hello\n").await;
        for way in WAYS {
            if each == 1 && way != Way::H3 {
                // It comes from another address.
                continue;
            }
            let view = View::open(&server, way, "/stream").await;
            view.say(&server, way, "/stream", "x\n").await.is(status, words);
        }
        let second = Talk::open(&server, "/stream").await;
        let (_send, refused) = second.stream("x\n").await;
        assert_eq!(answer(refused).await["status"], status);
        // The place is free again.
        send.finish().unwrap();
        assert_eq!(answer(recv).await["bytes"], 6);
        let view = View::open(&server, Way::H3, "/stream").await;
        view.say(&server, Way::H3, "/stream", "x\n").await.is(200, "2");
    }
}

/// Limits of publications are those of input.
#[tokio::test]
async fn limits() {
    let quotas = h3cast::app::Quotas::default().publish_wait(std::time::Duration::from_millis(100));
    let (server, _) = server(&["exec:cat"], |app| app.publish_limit(8).quotas(quotas)).await;
    for way in WAYS {
        let mut view = View::open(&server, way, "/stream").await;
        view.say(&server, way, "/stream", "far too long").await.is(413, "");
        let silent =
            axum::body::Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        view.say(&server, way, "/stream", silent).await.is(408, "0 bytes were sent");
        view.say(&server, way, "/stream", "short\n").await.is(200, "6");
        assert_eq!(view.line().await, "short\n");
    }
}
