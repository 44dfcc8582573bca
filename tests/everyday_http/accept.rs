//! `Accept` (RFC 9110 §12.5.1).

use std::time::Duration;

use h3cast::source::demo;
use http::{Method, StatusCode};

use crate::{
    clients::{ALL, At, ask},
    common::TestServer,
};

#[tokio::test]
async fn events_are_for_those_who_want_them() {
    let server = TestServer::feed(demo::feed("default", 1, Duration::ZERO)).await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    for over in ALL {
        for (accept, sse) in [
            (&["text/event-stream"][..], true),
            (&["Text/Event-Stream"], true),
            (&["text/event-stream; charset=UTF-8"], true),
            (&["application/json", "text/event-stream"], true),
            (&["application/json, text/event-stream"], true),
            (&["text/event-stream, */*;q=0.1"], true),
            (&["text/event-stream;q=0"], false),
            (&["text/event-stream;q=0, */*"], false),
            (&["text/event-streamx"], false),
            (&["x-text/event-stream"], false),
            (&["text/plain, text/event-stream;q=0.5"], false),
            (&["text/plain;x=\", text/event-stream\""], false),
            (&["text/*"], false),
            (&["*/*"], false),
            (&["text/html"], false),
            (&[], false),
        ] {
            let headers: Vec<_> = accept.iter().map(|value| ("accept", *value)).collect();
            let got = ask(&at, over, Method::GET, "/stream", &headers).await;
            assert_eq!(got.status, StatusCode::OK);
            let kind = if sse { "text/event-stream" } else { "text/plain" };
            let content_type = got.headers["content-type"].to_str().unwrap();
            assert!(content_type.starts_with(kind), "{over:?} {accept:?}: {content_type}");
            assert_eq!(got.text().contains("data: data chunk #0"), sse);
        }
        // What is asked for in the URL counts.
        let got = ask(&at, over, Method::GET, "/stream?format=raw", &[("accept", "text/event-stream")]).await;
        assert_eq!(got.text(), "data chunk #0\n");
    }
}
