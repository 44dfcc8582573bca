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
