//! `h3cast publish` through losses, and the request bodies under it.
#![cfg(all(feature = "cli", unix))]

mod common;
#[path = "publish_cli/limit.rs"]
mod limit;
#[path = "common/program.rs"]
mod program;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use common::TestServer;
use futures_util::{StreamExt, stream};
use h3cast::{
    App,
    client::{ClientError, Publication, PublishError, PublishEvent, Trust},
    feed::{Event, Feed, Lag, Start},
    source::chunker::Chunking,
};
use http::{Method, StatusCode, header};
use limit::gave_up;
use program::{Program, Serving, output, soon, text};
use tokio::{io::AsyncWriteExt, sync::Notify};

fn request(server: &TestServer, path: &str) -> http::Request<()> {
    http::Request::builder().method(Method::POST).uri(server.uri(path)).body(()).unwrap()
}

/// Pieces come back while the body is still written; what is not finished does not look whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_written_while_its_response_is_read() {
    let torn = Arc::new(Notify::new());
    let told = torn.clone();
    let echo = post(async move |request: Request| {
        let body = request.into_body().into_data_stream().inspect(move |piece| {
            if piece.is_err() {
                told.notify_one();
            }
        });
        Body::from_stream(body)
    });
    let server = TestServer::start(|builder, _| builder.http_service(Router::new().route("/echo", echo))).await;
    let connection = server.connect().await;
    let (mut body, response) = connection.send_request(request(&server, "/echo")).await.unwrap();
    let mut response = soon("the head", response).await.unwrap();
    for piece in ["one", "two"] {
        body.send(piece.into()).await.unwrap();
        assert_eq!(soon("the echo", response.body.next()).await.unwrap().unwrap(), piece);
    }
    body.finish().await.unwrap();
    assert_eq!(soon("the end", response.body.next()).await.unwrap(), None);

    let (mut body, response) = connection.send_request(request(&server, "/echo")).await.unwrap();
    let mut response = soon("the head", response).await.unwrap();
    body.send("half".into()).await.unwrap();
    assert_eq!(soon("the echo", response.body.next()).await.unwrap().unwrap(), "half");
    drop(body);
    soon("the server learns that it is cut", torn.notified()).await;
    assert!(soon("the response breaks off", response.body.next()).await.is_err());
}

/// A server that answers before the body's end, and one that reads nothing for a while.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_and_backpressure() {
    let go = Arc::new(Notify::new());
    let reads = go.clone();
    let router = Router::new()
        .route(
            "/never",
            post(async |request: Request| {
                std::future::pending::<()>().await;
                drop(request);
            }),
        )
        .route("/refuse", post(async || (StatusCode::PAYLOAD_TOO_LARGE, "too much")))
        .route(
            "/count",
            post(async move |request: Request| {
                reads.notified().await;
                let mut pieces = request.into_body().into_data_stream();
                let mut bytes = 0;
                while let Some(piece) = pieces.next().await {
                    bytes += piece.unwrap().len();
                }
                bytes.to_string()
            }),
        );
    let server = TestServer::start(|builder, _| builder.http_service(router)).await;
    let connection = server.connect().await;
    let piece = Bytes::from(vec![b'x'; 64 << 10]);
    let (mut body, response) = connection.send_request(request(&server, "/refuse")).await.unwrap();
    let stopped = async {
        loop {
            if let Err(error) = body.send(piece.clone()).await {
                return error;
            }
        }
    };
    let stopped = soon("the writer learns of it", stopped).await;
    assert!(matches!(stopped, ClientError::Stopped(0x100)), "{stopped}");
    let mut response = soon("the answer", response).await.unwrap();
    assert_eq!(response.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(soon("its text", response.body.next()).await.unwrap().unwrap(), "too much");
    // Given up halfway, a piece makes the body useless, and says so.
    let (mut body, _response) = connection.send_request(request(&server, "/never")).await.unwrap();
    let mut sent = 0;
    while let Ok(taken) = tokio::time::timeout(Duration::from_millis(200), body.send(piece.clone())).await {
        taken.unwrap();
        sent += 1;
        assert!(sent < 100, "nothing holds the writer back");
    }
    assert!(matches!(body.send(piece.clone()).await, Err(ClientError::Protocol(_))));

    let (mut body, response) = connection.send_request(request(&server, "/count")).await.unwrap();
    {
        let mut write = pin!(async {
            for _ in 0..100 {
                body.send(piece.clone()).await.unwrap();
            }
        });
        let early = tokio::time::timeout(Duration::from_millis(200), &mut write).await;
        assert!(early.is_err(), "nothing holds the writer back");
        go.notify_one();
        soon("the body is taken", write).await;
    }
    body.finish().await.unwrap();
    let mut response = soon("the answer", response).await.unwrap();
    assert_eq!(soon("the count", response.body.next()).await.unwrap().unwrap(), (100 * piece.len()).to_string());
}

/// What a feed has, from its start, until it has that many bytes.
async fn published(feed: &Feed, bytes: usize) -> Vec<String> {
    let mut viewer = feed.view(Start::Start, None);
    let (mut chunks, mut len) = (Vec::new(), 0);
    while len < bytes {
        match soon("a chunk", viewer.next()).await {
            Some(Event::Chunk(chunk)) => {
                len += chunk.bytes.len();
                chunks.push(text(&chunk.bytes));
            }
            event => panic!("{event:?}"),
        }
    }
    chunks
}

async fn writable(token: Option<&str>, limit: Option<u64>) -> (TestServer, Feed) {
    let feed = Feed::writable("default", 64 << 20, Lag::Skip);
    let app_feed = feed.clone();
    let server = TestServer::start(|builder, identity| {
        App::new([app_feed], identity).publish_token(token).publish_limit(limit).install(builder)
    })
    .await;
    (server, feed)
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_arrive_while_they_are_typed() {
    let (server, feed) = writable(None, None).await;
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/stream", server.base));
    let cert = cert.to_str().unwrap();
    let mut publish = Program::start(dir.path(), &["publish", "--cacert", cert, "--json", "-v", &url]);
    let mut stdin = publish.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\nhal").await.unwrap();
    assert_eq!(published(&feed, 8).await, ["one\n", "two\n"]);
    stdin.write_all(b"f\nend").await.unwrap();
    assert_eq!(published(&feed, 13).await, ["one\n", "two\n", "half\n"]);
    drop(stdin);
    let (out, told, code) = publish.end().await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(published(&feed, 16).await.last().unwrap(), "end");
    let answer: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&answer["chunks"], &answer["bytes"]), (&4.into(), &16.into()), "{answer}");
    assert!(told.contains("published 16 bytes as 4 chunks of `default`"), "{told}");
    // Nothing to publish is no failure.
    let got = output(dir.path(), &["publish", "--cacert", cert, "--json", &url]).await;
    let answer: serde_json::Value = serde_json::from_slice(&got.stdout).unwrap();
    let epoch = feed.status().epoch.unwrap().to_string();
    let nothing = serde_json::json!({
        "feed": "default", "epoch": epoch, "first": null, "last": null, "chunks": 0, "bytes": 0,
    });
    assert_eq!(answer, nothing);
    assert_eq!((text(&got.stderr).as_str(), got.status.code()), ("", Some(0)));
    // Ctrl-C ends the request as it should end.
    let mut publish = Program::start(dir.path(), &["publish", "--cacert", cert, &url]);
    let mut stdin = publish.stdin.take().unwrap();
    stdin.write_all(b"more\nhalf").await.unwrap();
    assert_eq!(published(&feed, 21).await.last().unwrap(), "more\n");
    publish.signal("INT");
    let (_, told, code) = publish.end().await;
    assert_eq!(code, Some(130), "{told}");
    assert!(told.contains("(9 bytes confirmed)"), "{told}");
    assert_eq!(published(&feed, 25).await.last().unwrap(), "half");
    drop(stdin);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_and_wrong_usage() {
    let (server, feed) = writable(Some("secret"), None).await;
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/stream", server.base));
    let cert = cert.to_str().unwrap();
    for transport in [&[][..], &["--webtransport"]] {
        for (token, code, said) in [(None, 1, "401"), (Some("wrong"), 1, "401"), (Some("secret"), 0, "")] {
            let mut command = program::command(dir.path(), &[&["publish", "--cacert", cert, &url], transport].concat());
            if let Some(token) = token {
                command.env("H3CAST_PUBLISH_TOKEN", token);
            }
            let got = soon("the program ends", command.output()).await.unwrap();
            let told = text(&got.stderr);
            assert_eq!(got.status.code(), Some(code), "{transport:?} {token:?} {told}");
            assert!(told.contains(said), "{told}");
            let how_much = told.contains("(0 bytes confirmed)");
            assert_eq!(how_much, code == 1, "{told}");
        }
    }
    assert_eq!(feed.status().chunks, 0);
    let nothing = format!("{url}/nothing");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--cacert", cert, "--token", "secret", &nothing], 1, "there is no feed"),
        (&["--cert-hash", &"0".repeat(64), &url], 1, "not trusted"),
        (&["--token", "", &url], 2, "visible ASCII"),
        (&["--chunk", "words"], 2, "words"),
        (&["--webtransport", "--chunk", "lines"], 2, "--chunk bytes"),
        (&["http://localhost"], 2, "write the https URL that the server printed"),
    ];
    for (args, code, said) in cases {
        let got = output(dir.path(), &[&["publish"], *args].concat()).await;
        assert!(text(&got.stderr).contains(said), "{args:?} {}", text(&got.stderr));
        assert_eq!(got.status.code(), Some(*code), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_session() {
    let (server, feed) = writable(Some("secret"), None).await;
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/stream", server.base));
    let args = ["publish", "--webtransport", "--token", "secret", "--cacert", cert.to_str().unwrap(), "--json", &url];
    let mut publish = Program::start(dir.path(), &args);
    let mut stdin = publish.stdin.take().unwrap();
    stdin.write_all(b"one").await.unwrap();
    assert_eq!(published(&feed, 3).await, ["one"]);
    stdin.write_all(b"two").await.unwrap();
    assert_eq!(published(&feed, 6).await, ["one", "two"]);
    drop(stdin);
    let (out, told, code) = publish.end().await;
    let answer: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&answer["chunks"], &answer["bytes"], code), (&2.into(), &6.into(), Some(0)), "{told}");
}

/// More than is held at once, to a server that takes less than that in one request.
#[tokio::test(flavor = "multi_thread")]
async fn much_in_many_requests() {
    for limit in [None, Some(1 << 20)] {
        let (server, feed) = writable(None, limit).await;
        let trust = Trust::Files(vec![server.certificate()]);
        let line = "x".repeat(999) + "\n";
        let lines = stream::iter((0..10_000).map(|_| Ok(line.clone().into())));
        let mut publication = Publication::new(server.uri("/stream"), trust).chunking(Chunking::Lines);
        let acknowledged = AtomicUsize::new(0);
        let run = publication.run(lines, |event| {
            if let PublishEvent::Acknowledged(_) = event {
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        });
        let done = soon("it is published", run).await.unwrap();
        assert_eq!(done.bytes, 10_000_000, "{limit:?}");
        assert!(acknowledged.into_inner() >= 3);
        let chunks = published(&feed, 10_000_000).await;
        assert!(chunks.concat() == line.repeat(10_000), "{limit:?}");
        // Requests end where lines do.
        assert_eq!((done.chunks, feed.status().chunks), (10_000, 10_000), "{limit:?}");
    }
}

/// A server that loses every other request behind its middle, before it says what it has.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_lost_and_nothing_doubled_when_requests_are_cut() {
    let feed = Feed::writable("default", 64 << 20, Lag::Skip);
    let app = Arc::new(std::sync::OnceLock::<Router>::new());
    let cuts = Arc::new(AtomicUsize::new(0));
    let (inner, counted, of_app) = (app.clone(), cuts.clone(), feed.clone());
    // In front of the app, so that what it answers is lost, or what it is sent.
    let proxy = async move |request: Request| -> Response {
        let inner = inner.get().unwrap().clone();
        let offset = request.headers().get("upload-offset").cloned();
        if offset.is_none() {
            return tower::ServiceExt::oneshot(inner, request).await.into_response();
        }
        let number = counted.fetch_add(1, Ordering::SeqCst);
        if number >= 6 {
            return tower::ServiceExt::oneshot(inner, request).await.into_response();
        }
        let (head, body) = request.into_parts();
        let left = 6_000 * (number + 1);
        let body = body.into_data_stream().scan(left, move |left, piece| {
            let piece: Result<Bytes, _> = piece;
            let taken = *left > 0;
            *left = left.saturating_sub(piece.as_ref().map_or(0, Bytes::len));
            std::future::ready(taken.then_some(piece))
        });
        // An odd one breaks off, an even one looks whole to the app.
        let end = stream::once(async { Err(axum::Error::new(std::io::Error::other("cut"))) });
        let body = match number % 2 {
            0 => Body::from_stream(body),
            _ => Body::from_stream(body.chain(end)),
        };
        let _ = tower::ServiceExt::oneshot(inner, Request::from_parts(head, body)).await;
        let lost = stream::once(async { Err::<Bytes, _>(std::io::Error::other("lost")) });
        Body::from_stream(lost).into_response()
    };
    let server = TestServer::start(|builder, identity| {
        let _ = app.set(Arc::new(App::new([of_app], identity)).router());
        builder.http_service(Router::new().fallback(proxy))
    })
    .await;
    let trust = Trust::Files(vec![server.certificate()]);
    let lines: Vec<String> = (0..20_000).map(|number| format!("line {number}\n")).collect();
    let pieces: Vec<Bytes> = lines.concat().into_bytes().chunks(7_001).map(Bytes::copy_from_slice).collect();
    let mut publication = Publication::new(server.uri("/stream"), trust).chunking(Chunking::Lines);
    let mut losses = 0;
    let run = publication.run(stream::iter(pieces).map(Ok), |event| {
        losses += usize::from(matches!(event, PublishEvent::Lost { .. }));
        assert!(!matches!(event, PublishEvent::Restarted { .. }));
    });
    let done = soon("it is published", run).await.unwrap();
    assert_eq!(done.bytes as usize, lines.concat().len());
    assert_eq!(losses, 6);
    assert_eq!(published(&feed, lines.concat().len()).await.concat(), lines.concat());
}

/// The server is killed in the middle, and another one takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = Serving::start(dir.path(), 0, &["log=publish"]).await;
    let (port, url) = (first.port, first.url("/stream/log"));
    let mut publish = Program::start(dir.path(), &["publish", "-v", "--json", &url]);
    let mut stdin = publish.stdin.take().unwrap();
    let mut before = Program::start(dir.path(), &["get", &format!("{url}?from=start&limit=2")]);
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    assert_eq!((before.line().await, before.line().await), ("one\n".into(), "two\n".into()));
    // What the first server has said to have is not sent to the second one.
    publish.told("8 bytes confirmed").await;
    first.program.kill().await;
    stdin.write_all(b"three\n").await.unwrap();
    let second = Serving::start(dir.path(), port, &["log=publish"]).await;
    publish.told("the feed was restarted: what follows byte 8 goes").await;
    let mut after = Program::start(dir.path(), &["get", &format!("{url}?from=start&limit=2")]);
    stdin.write_all(b"four\n").await.unwrap();
    assert_eq!((after.line().await, after.line().await), ("three\n".into(), "four\n".into()));
    drop(stdin);
    let (out, told, code) = publish.end().await;
    assert_eq!(code, Some(0), "{told}");
    let answer: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&answer["bytes"], &answer["chunks"]), (&19.into(), &2.into()));
    drop(second);
    // Nobody is there for too long.
    let mut publish = Program::start(dir.path(), &["publish", "--retry-for", "10ms", &url]);
    drop(publish.stdin.take());
    let (_, told, code) = publish.end().await;
    assert!(gave_up(&told).1.starts_with("no answer from"), "{told}");
    assert_eq!(code, Some(1));
}

/// A feed that a client creates gives way while it is empty. To its publisher, the one that it then writes to is the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_gives_way_before_its_first_byte_was_not_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path(), 0, &["chat.*=publish", "--max-feeds=1"]).await;
    let mut publish = Program::start(dir.path(), &["publish", "-v", "--json", &serving.url("/stream/chat.one")]);
    // Its feed is there by now, which the answer has named.
    publish.told("connected; the server has 0 bytes").await;
    let mut other = Program::start(dir.path(), &["publish", &serving.url("/stream/chat.other")]);
    other.stdin.take().unwrap().write_all(b"other\n").await.unwrap();
    let (_, told, code) = other.end().await;
    assert_eq!(code, Some(0), "{told}");
    publish.stdin.take().unwrap().write_all(b"one\n").await.unwrap();
    let (out, told, code) = publish.end().await;
    assert_eq!(code, Some(0), "{told}");
    assert!(!told.contains("restarted"), "{told}");
    let answer: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&answer["bytes"], &answer["chunks"]), (&4.into(), &1.into()));
}

/// A server that makes no sense is not asked again.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_make_no_sense() {
    let router = Router::new()
        .route("/text", post(async || "ok"))
        .route("/much", post(async || r#"{"feed":"x","first":null,"last":null,"chunks":0,"bytes":100}"#))
        .route("/none", post(async || r#"{"feed":"x","first":null,"last":null,"chunks":0,"bytes":0}"#))
        .route("/moved", get(async || "").fallback(async || [(header::LOCATION, "/")]));
    let server = TestServer::start(|builder, _| builder.http_service(router)).await;
    let trust = Trust::Files(vec![server.certificate()]);
    for (path, said) in [("/text", "invalid answer"), ("/much", "100 bytes of 0"), ("/none", "none were published")] {
        let mut publication = Publication::new(server.uri(path), trust.clone());
        let run = publication.run(stream::iter([Ok("x".into())]), |event| {
            assert!(matches!(event, PublishEvent::Opened { .. }), "{event:?}");
        });
        let error = soon("it fails", run).await.unwrap_err();
        assert!(matches!(error, PublishError::Answer(_)), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    let mut publication = Publication::new(server.uri("/none"), trust);
    let broken = stream::iter([Err(std::io::Error::other("the tape is torn"))]);
    let error = soon("it fails", publication.run(broken, |_| {})).await.unwrap_err();
    assert!(error.to_string().contains("the tape is torn"), "{error}");
}
