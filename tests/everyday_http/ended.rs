//! A client like `EventSource` reconnects when a response ends, with the id of the last event, until it
//! is answered with 204 (HTML §9.2.3).

use std::{path::Path, time::Duration};

use h3cast::{
    App,
    client::{Connection, Trust},
    feed::{End, Feed, FeedError, Lag},
    source::demo,
};
use http::{HeaderMap, Method, StatusCode};

use crate::{
    clients::{ALL, Answer, At, Over, ask},
    common::{TestServer, soon},
    program::Serving,
};

/// Connects as often as an `EventSource` would, up to a bound; what each response was.
async fn event_source(at: &At<'_>, over: Over, path: &str) -> Vec<Answer> {
    let (mut id, mut answers) = (None::<String>, Vec::new());
    for _ in 0..6 {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(id.as_deref().map(|id| ("last-event-id", id)));
        let answer = ask(at, over, Method::GET, path, &headers).await;
        let ids = answer.text();
        id = ids.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().map(String::from).or(id);
        let settled = answer.status != StatusCode::OK;
        answers.push(answer);
        if settled {
            break;
        }
    }
    answers
}

/// The whole feed once, its end once, and then nothing more is asked for.
async fn settles(at: &At<'_>, over: Over, path: &str, chunks: usize, end: &str) {
    let answers = event_source(at, over, path).await;
    let all: String = answers.iter().map(Answer::text).collect();
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses, [200, 204], "{over:?} {path}: {all}");
    assert_eq!(all.matches("event: end\n").count(), 1, "{over:?} {path}: {all}");
    assert_eq!(all.matches("data: data chunk #").count(), chunks, "{over:?} {path}: {all}");
    assert!(all.contains(end), "{all}");
    assert_eq!(answers[1].headers["cache-control"], "no-store");
    assert_eq!(answers[1].headers.get("content-type"), None);
}

const CLEAN: &str = "\nevent: end\ndata: {}\n\n";

async fn live() -> (TestServer, String) {
    let mut feeds = vec![demo::feed("default", 3, Duration::ZERO), demo::feed("none", 10, Duration::ZERO)];
    for (name, chunks, end) in [
        ("clean", 3, End::Clean),
        ("empty", 0, End::Clean),
        ("failed", 3, End::Failed(FeedError("it broke".into()))),
        ("empty-failed", 0, End::Failed(FeedError("it broke".into()))),
    ] {
        let (feed, publisher) = Feed::live(name, 1 << 20, Lag::Skip);
        for number in 0..chunks {
            publisher.publish(format!("data chunk #{number}\n").into()).await.unwrap();
        }
        publisher.end(end);
        feeds.push(feed);
    }
    let epoch = feeds[2].status().epoch.unwrap().to_string();
    (TestServer::start(|builder, identity| App::new(feeds, identity).install(builder)).await, epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_source_settles() {
    let (server, _) = live().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    for over in ALL {
        settles(&at, over, "/stream", 3, CLEAN).await;
        settles(&at, over, "/stream/clean?from=start", 3, CLEAN).await;
        // At its end from the beginning.
        settles(&at, over, "/stream/clean", 0, CLEAN).await;
        settles(&at, over, "/stream/empty", 0, CLEAN).await;
        settles(&at, over, "/stream/empty?from=start", 0, CLEAN).await;
        settles(&at, over, "/stream/failed?from=start", 3, "\nevent: end\ndata: {\"error\":\"it broke\"}\n").await;
        settles(&at, over, "/stream/empty-failed", 0, "\nevent: end\ndata: {\"error\":\"it broke\"}\n").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_source_of_commands_and_files_settles() {
    let dir = tempfile::tempdir().unwrap();
    let text = "data chunk #0\ndata chunk #1\n";
    std::fs::write(dir.path().join("text"), text).unwrap();
    let file = format!("file=file:{}", dir.path().join("text").display());
    // Each run leaves a mark.
    let run = "run=exec:echo run >>runs; echo 'data chunk #0'";
    let failing = "failing=exec:echo run >>failed; echo 'data chunk #0'; exit 3";
    let serving = Serving::start(dir.path(), 0, &[&file, run, failing, "--per-viewer"]).await;
    let certificate = dir.path().join("certs/cert.pem");
    let at = At {
        port: serving.port,
        http_port: 0,
        certificate: &certificate,
        authority: format!("localhost:{}", serving.port),
    };
    settles(&at, Over::Http2, "/stream/file", 2, CLEAN).await;
    settles(&at, Over::Http3, "/stream/run", 1, CLEAN).await;
    settles(&at, Over::Http1, "/stream/failing", 1, "\"error\":\"").await;
    // A view that ends before its feed cannot be resumed either.
    settles(&at, Over::Http2, "/stream/run?limit=1", 1, CLEAN).await;
    let runs = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap().lines().count();
    assert_eq!((runs("runs"), runs("failed")), (2, 1));
}

/// A part of a feed that can be resumed is not its end: the next part follows.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_feed_follow_each_other() {
    let (server, _) = live().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    for (path, statuses) in [
        ("/stream?limit=2", &[200, 200, 204][..]),
        ("/stream/clean?from=start&limit=2", &[200, 200, 204]),
        // The limit is reached before the end is seen.
        ("/stream/clean?from=start&limit=3", &[200, 200, 204]),
    ] {
        let answers = event_source(&at, Over::Http2, path).await;
        let all: String = answers.iter().map(Answer::text).collect();
        assert_eq!(answers.iter().map(|answer| answer.status.as_u16()).collect::<Vec<_>>(), statuses, "{path}: {all}");
        for number in 0..3 {
            assert_eq!(all.matches(&format!("data: data chunk #{number}\n")).count(), 1, "{path}: {all}");
        }
    }
}

/// Only who has had the end is told that there is no more.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_had_the_end_gets_it() {
    let (server, epoch) = live().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    let get = async |path: &str, id: &str| ask(&at, Over::Http2, Method::GET, path, &[("last-event-id", id)]).await;
    let end = |answer: &Answer| answer.text().ends_with(&format!("id: {epoch}-2-end{CLEAN}"));
    for (id, chunks) in [(format!("{epoch}-2"), 0), (format!("{epoch}-1"), 1), (format!("{epoch}-1-end"), 1)] {
        let answer = get("/stream/clean", &id).await;
        assert!(answer.status == StatusCode::OK && end(&answer), "{id}: {}", answer.text());
        assert_eq!(answer.text().matches("data: data chunk").count(), chunks, "{id}");
    }
    // Of another run: it has been started again since.
    for id in ["1-2-end", "1-end"] {
        let answer = get("/stream/clean", id).await;
        let text = answer.text();
        assert!(text.contains("event: gap\n") && text.contains("\"restarted\":true") && end(&answer), "{text}");
        assert_eq!(text.matches("data: data chunk").count(), 3, "{text}");
    }
    for id in ["-end", "x-end", "1--end", "1-2-END", "1-2-end-end", "1-2-3-end"] {
        let answer = get("/stream/clean", id).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{id}");
        assert!(answer.problem().contains("EPOCH-SEQ"), "{}", answer.problem());
    }
    assert_eq!(get("/stream/clean", &format!("{epoch}-2-end")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(get("/stream/clean", &format!("{epoch}-end")).await.status, StatusCode::NO_CONTENT);
    // In the query as well, and for a HEAD.
    let path = format!("/stream/clean?lastEventId={epoch}-2-end");
    assert_eq!(ask(&at, Over::Http3, Method::GET, &path, &[]).await.status, StatusCode::NO_CONTENT);
    let path = format!("/stream/clean?format=sse&from={epoch}-2-end");
    assert_eq!(ask(&at, Over::Http3, Method::HEAD, &path, &[]).await.status, StatusCode::NO_CONTENT);
}

/// A feed that is still open is waited for, whatever a client believes.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_feed_continues() {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let epoch = feed.status().epoch.unwrap();
    publisher.publish("one\n".into()).await.unwrap();
    let server = TestServer::feed(feed).await;
    let connection = server.connect().await;
    for id in [format!("{epoch}-0-end"), format!("{epoch}-end")] {
        let mut response = connection.get(&server.uri(&format!("/stream?lastEventId={id}&limit=1"))).await.unwrap();
        assert_eq!(response.status, StatusCode::OK);
        publisher.publish("next\n".into()).await.unwrap();
        let mut text = String::new();
        while let Some(piece) = soon("more", response.body.next()).await.unwrap() {
            text += std::str::from_utf8(&piece).unwrap();
        }
        assert!(text.contains("data: next\n") && !text.contains("data: one"), "{text}");
    }
}

/// Other formats have no use for 204: nothing follows, and the end is told as ever.
#[tokio::test(flavor = "multi_thread")]
async fn other_formats_take_the_place_too() {
    let (server, epoch) = live().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    for place in [format!("{epoch}-2-end"), format!("{epoch}-end")] {
        for over in ALL {
            let raw = ask(&at, over, Method::GET, &format!("/stream/clean?format=raw&from={place}"), &[]).await;
            assert_eq!((raw.status, raw.body.len()), (StatusCode::OK, 0), "{over:?} {place}");
            let frames = ask(&at, over, Method::GET, &format!("/stream/clean?format=frames&from={place}"), &[]).await;
            // begin, and a clean end.
            assert_eq!((frames.body[0], &frames.body[frames.body.len() - 3..]), (3, &[2, 1, 0][..]), "{frames:?}");
        }
    }
    let raw = ask(&at, Over::Http2, Method::GET, "/stream/clean?format=raw&from=1-2-end", &[]).await;
    assert_eq!(raw.status, StatusCode::GONE);
    let connection = server.connect().await;
    let uri = server.uri(&format!("/stream/clean?format=sse&from={epoch}-2-end"));
    let session = soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    let mut stream = soon("the stream", session.accept_uni()).await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = soon("more", stream.read_bytes(usize::MAX)).await.unwrap() {
        text.extend_from_slice(&piece);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with(&format!("id: {epoch}-2-end{CLEAN}")), "{text}");
}

/// What the server says when it stops is not an end: `EventSource` is to come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path(), 0, &["exec:echo one; sleep 100"]).await;
    let connection = connect(&serving, dir.path()).await;
    let uri = serving.url("/stream?format=sse&from=start").parse().unwrap();
    let mut response = soon("the head", connection.get(&uri)).await.unwrap();
    let mut text = String::new();
    while !text.contains("data: one\n\n") {
        text += std::str::from_utf8(&soon("a chunk", response.body.next()).await.unwrap().unwrap()).unwrap();
    }
    serving.program.signal("TERM");
    while let Some(piece) = soon("the end", response.body.next()).await.unwrap() {
        text += std::str::from_utf8(&piece).unwrap();
    }
    assert!(!text.contains("event: end"), "{text}");
}

async fn connect(serving: &Serving, dir: &Path) -> Connection {
    let trust = Trust::Files(vec![dir.join("certs/cert.pem")]);
    soon("a connection", Connection::open(&serving.url("/").parse().unwrap(), &trust)).await.unwrap()
}
