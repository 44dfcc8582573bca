//! The query: what is known is checked, what is not is ignored.

use std::time::Duration;

use h3cast::{
    App,
    client::ClientError,
    feed::{Feed, Lag},
    source::demo,
};
use http::{HeaderMap, Method, StatusCode};

use crate::{
    clients::{ALL, At, ask},
    common::{TestServer, soon},
};

async fn server() -> TestServer {
    let feeds = [demo::feed("default", 3, Duration::ZERO), Feed::writable("log", 1 << 20, Lag::Skip)];
    TestServer::start(|builder, identity| App::new(feeds, identity).install(builder)).await
}

/// Links grow parameters of trackers, and clients add some against caches.
#[tokio::test]
async fn unknown_parameters_are_ignored() {
    let server = server().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    let queries = ["_=1764134000", "t=1&t=2", "utm_source=x&limit=1", "cb", "&&", "%ff=%ff", "From=x", "=", "a[]=1"];
    for over in ALL {
        for query in queries {
            let got = ask(&at, over, Method::GET, &format!("/stream?{query}"), &[]).await;
            assert_eq!(got.status, StatusCode::OK, "{over:?} {query}: {}", got.text());
            assert_eq!(got.text().lines().count(), if query.contains("limit") { 1 } else { 3 });
            let published = ask(&at, over, Method::POST, &format!("/stream/log?{query}"), &[]).await;
            assert_eq!(published.status, StatusCode::OK, "{over:?} {query}: {}", published.text());
        }
    }
    let connection = server.connect().await;
    for query in queries {
        let uri = server.uri(&format!("/stream?{query}"));
        soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    }
}

#[tokio::test]
async fn a_known_parameter_that_cannot_be_read_is_refused_with_what_is_allowed() {
    let server = server().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    let connection = server.connect().await;
    for (query, said) in [
        ("limit=x", "a number of chunks"),
        ("limit=-1", "a number of chunks"),
        ("limit=%2B1", "a number of chunks"),
        ("limit=", "a number of chunks"),
        ("limit=1&limit=2", "several times"),
        ("rate=fast", "1 to 1000 chunks a second"),
        ("size=70000", "64 to 65536 bytes"),
        ("burst=0", "1 to 1000 chunks at once"),
        ("count=-1", "0 to 1000000 chunks"),
        ("size=65536&rate=200", "10,000,000 bytes a second"),
        ("format=xml", "raw, sse or frames"),
        ("format=SSE", "raw, sse or frames"),
        ("delivery=post", "stream or datagrams"),
        ("chunk=words", "lines or bytes"),
        ("from=yesterday", "EPOCH-SEQ"),
        ("from=start&from=now", "several times"),
        ("lastEventId=x", "EPOCH-SEQ"),
        ("_=1&limit=x", "a number of chunks"),
    ] {
        for over in ALL {
            let got = ask(&at, over, Method::GET, &format!("/stream?{query}"), &[]).await;
            assert_eq!(got.status, StatusCode::BAD_REQUEST, "{over:?} {query}");
            assert!(got.problem().contains(said), "{query}: {}", got.problem());
        }
        let uri = server.uri(&format!("/stream?{query}"));
        let session = connection.webtransport(&uri, HeaderMap::new(), &[]);
        let Err(ClientError::Refused { status, .. }) = soon("the answer", session).await else { panic!("{query}") };
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
    }
    let got = ask(&at, ALL[0], Method::POST, "/stream/log?chunk=words", &[]).await;
    assert!(got.status == StatusCode::BAD_REQUEST && got.problem().contains("lines or bytes"), "{got:?}");
    // A secret is not repeated, whatever it is joined with.
    let secret = "a-token-of-some-length";
    for query in ["limit=0;token=", "limit=", "format=raw;token=", "from=start%26token=", "from=", "limit=1%20"] {
        let got = ask(&at, ALL[0], Method::GET, &format!("/stream?{query}{secret}"), &[]).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(!got.text().contains(secret) && !got.text().contains("of-some"), "{query}: {}", got.text());
    }
    let got = ask(&at, ALL[0], Method::GET, "/stream?limit=ten", &[]).await;
    assert!(got.problem().contains("`limit=ten`"), "{}", got.problem());
    let got = ask(&at, ALL[0], Method::GET, "/stream?token=secret&token=secret", &[]).await;
    assert!(got.status == StatusCode::BAD_REQUEST && !got.text().contains("secret"), "{got:?}");
}

/// As polyfills of `EventSource` that cannot set headers ask.
#[tokio::test]
async fn the_last_event_id_may_be_in_the_query() {
    let server = server().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    let second = |text: String| text.contains("id: 0-1\ndata: data chunk #1\n") && !text.contains("#0");
    for over in ALL {
        for query in ["lastEventId=0-0", "lastEventId=0-0&_=1", "lastEventID=0-0&from=start"] {
            let got = ask(&at, over, Method::GET, &format!("/stream?{query}"), &[]).await;
            assert!(second(got.text()), "{query}: {}", got.text());
        }
        // The header is newer than the URL that it comes with.
        let got = ask(&at, over, Method::GET, "/stream?lastEventId=0-1&from=start", &[("last-event-id", "0-0")]).await;
        assert!(second(got.text()), "{}", got.text());
        // None has been seen yet.
        let got = ask(&at, over, Method::GET, "/stream?lastEventId=", &[]).await;
        assert!(got.text().contains("id: 0-0\n"), "{}", got.text());
        // The format that is asked for counts, and the place does not change by it.
        let got = ask(&at, over, Method::GET, "/stream?lastEventId=0-1&format=raw", &[]).await;
        assert_eq!(got.text(), "data chunk #2\n");
    }
}

/// Each viewer has the demo feed as it sets it, over every transport.
#[tokio::test]
async fn the_demo_feed_comes_as_it_is_asked_for() {
    let server = server().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    let connection = server.connect().await;
    let query = "rate=1000&size=100&burst=5&count=12";
    let assert_lines = |text: &str, first: usize| {
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 12 - first);
        for (number, line) in (first..).zip(lines) {
            assert!(line.starts_with(&format!("data chunk #{number} at ")) && line.len() == 99, "{line}");
        }
    };
    for over in ALL {
        let got = ask(&at, over, Method::GET, &format!("/stream?{query}"), &[]).await;
        assert_eq!(got.status, StatusCode::OK, "{over:?}: {}", got.text());
        assert_lines(&got.text(), 0);
        // The epoch of chunks of 100 bytes is 0x64.
        let got = ask(&at, over, Method::GET, &format!("/stream?{query}&from=64-7"), &[]).await;
        assert_lines(&got.text(), 8);
        let got = ask(&at, over, Method::GET, &format!("/stream?{query}&from=0-7"), &[]).await;
        assert_eq!(got.status, StatusCode::GONE, "{over:?}: {}", got.text());
        let got = ask(&at, over, Method::GET, &format!("/stream?{query}&format=sse&from=64-11-end"), &[]).await;
        assert_eq!(got.status, StatusCode::NO_CONTENT, "{over:?}");
        // Other feeds ignore them.
        let got = ask(&at, over, Method::GET, "/stream/log?rate=x&limit=0", &[]).await;
        assert_eq!(got.status, StatusCode::OK, "{over:?}");
    }
    let uri = server.uri(&format!("/stream?{query}"));
    let session = soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    let mut stream = soon("the stream", session.accept_uni()).await.unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = soon("the chunks", stream.read_bytes(usize::MAX)).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    assert_lines(std::str::from_utf8(&text).unwrap(), 0);

    let uri = server.uri(&format!("/stream?{query}&delivery=datagrams"));
    let session = soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    let mut text = Vec::new();
    for _ in 0..12 {
        text.extend_from_slice(&soon("a datagram", session.recv_datagram()).await.unwrap());
    }
    assert_lines(std::str::from_utf8(&text).unwrap(), 0);

    // Such views count as those of the feed itself.
    let feeds = ask(&at, ALL[0], Method::GET, "/feeds", &[]).await;
    let feeds: serde_json::Value = serde_json::from_str(&feeds.text()).unwrap();
    let default = feeds["feeds"].as_array().unwrap().iter().find(|feed| feed["name"] == "default").unwrap();
    assert!(default["chunks"].as_u64().unwrap() >= 24, "{default}");
}
