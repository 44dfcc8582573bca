//! `h3cast get`: every chunk of a feed, and why it broke off.

use std::path::Path;

use axum::{Router, routing::get};
use h3cast::{
    App,
    chunk::Cursor,
    feed::{End, Feed, FeedError, Lag},
    webtransport::SessionRequest,
};
use http::header;

use crate::{
    common::TestServer,
    liar::Liar,
    program::{Program, Serving, output, text},
};

/// A way to read the same feed.
const WAYS: [&[&str]; 4] = [&[], &["--webtransport"], &["--resume"], &["--resume", "--webtransport"]];

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| format!("line {number}\n")).collect()
}

/// What `get` wrote, reported, and ended with.
async fn run(server: &TestServer, dir: &Path, path: &str, more: &[&str]) -> (String, String, Option<i32>) {
    let (cert, url) = (server.certificate(), format!("{}{path}", server.base));
    let got = output(dir, &[&["get", "--cacert", cert.to_str().unwrap(), &url], more].concat()).await;
    (text(&got.stdout), text(&got.stderr), got.status.code())
}

/// A live feed of these lines, with its server.
async fn server_of(numbers: std::ops::Range<usize>, end: End) -> (TestServer, Vec<Cursor>) {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let server = TestServer::feed(feed).await;
    let mut cursors = Vec::new();
    for number in numbers {
        cursors.push(publisher.publish(format!("line {number}\n").into()).await.unwrap());
    }
    publisher.end(end);
    (server, cursors)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_failed_command_and_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path(), 0, &["exec:seq 200; echo 'error: the last line'; exit 7"]).await;
    let expected = (1..=200).map(|number| format!("{number}\n")).collect::<String>() + "error: the last line\n";
    let url = serving.url("/stream?from=start");
    for way in WAYS {
        let got = output(dir.path(), &[&["get", &url], way].concat()).await;
        assert_eq!(text(&got.stdout), expected, "{way:?}");
        assert_eq!(got.status.code(), Some(1), "{way:?}");
        let told = text(&got.stderr);
        assert!(told.starts_with(&format!("h3cast: the feed failed after {} bytes: ", expected.len())), "{told}");
        assert!(told.contains("the command") && told.contains('7') && told.lines().count() == 1, "{told}");
    }
    // To a file: what has come is kept, and is not taken for the whole.
    let got = output(dir.path(), &["get", &url, "-o", "out"]).await;
    assert_eq!(got.status.code(), Some(1));
    assert!(!dir.path().join("out").exists());
    assert_eq!(std::fs::read_to_string(dir.path().join("out.part")).unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_fails_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for way in WAYS {
        let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
        let server = TestServer::feed(feed).await;
        publisher.publish("line 0\n".into()).await.unwrap();
        let (cert, url) = (server.certificate(), format!("{}/stream?from=start", server.base));
        let mut get = Program::start(dir.path(), &[&["get", "--cacert", cert.to_str().unwrap(), &url], way].concat());
        assert_eq!(get.line().await, "line 0\n");
        for number in 1..500 {
            publisher.publish(format!("line {number}\n").into()).await.unwrap();
        }
        publisher.end(End::Failed(FeedError("the disk burns".into())));
        let (rest, told, code) = get.end().await;
        assert_eq!(text(&rest), lines(1..500), "{way:?}");
        let bytes = lines(0..500).len();
        assert_eq!(told, format!("h3cast: the feed failed after {bytes} bytes: the disk burns\n"), "{way:?}");
        assert_eq!(code, Some(1), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_has_failed_or_ended_already() {
    let dir = tempfile::tempdir().unwrap();
    let (failed, _) = server_of(0..3, End::Failed(FeedError("the disk burns".into()))).await;
    let (ended, cursors) = server_of(0..3, End::Clean).await;
    let (empty, _) = server_of(0..0, End::Clean).await;
    for way in WAYS {
        // The live edge is the default: there is nothing there but the reason, and how to read the rest.
        for (path, more) in [("/stream", "?from=start"), ("/stream?x=1", "&from=start")] {
            let got = run(&failed, dir.path(), path, way).await;
            let told = format!("h3cast: the feed has failed; add {more} to read what it still holds\n");
            let told = told + "h3cast: the feed failed: the disk burns\n";
            assert_eq!(got, (String::new(), told, Some(1)), "{way:?}");
            let got = run(&ended, dir.path(), path, way).await;
            let told = format!("h3cast: the feed has ended; add {more} to read what it still holds\n");
            assert_eq!(got, (String::new(), told, Some(0)), "{way:?}");
        }
        // Nothing was there, or nothing was wanted.
        let got = run(&empty, dir.path(), "/stream", way).await;
        assert_eq!(got, (String::new(), String::new(), Some(0)), "{way:?}");
        let last = format!("/stream?from={}", cursors[2]);
        let got = run(&ended, dir.path(), &last, way).await;
        assert_eq!(got, (String::new(), String::new(), Some(0)), "{way:?}");
        let got = run(&ended, dir.path(), "/stream?from=start", way).await;
        assert_eq!(got, (lines(0..3), String::new(), Some(0)), "{way:?}");
        let got = run(&failed, dir.path(), "/stream?from=start&limit=2", way).await;
        assert_eq!(got, (lines(0..2), String::new(), Some(0)), "{way:?}");
    }
}

/// With `raw` the stream would break off at the gap.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_reported_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (feed, publisher) = Feed::live("default", 400, Lag::Skip);
    let server = TestServer::feed(feed).await;
    let first = publisher.publish("line 0\n".into()).await.unwrap();
    for number in 1..20 {
        publisher.publish(format!("line {number}\n").into()).await.unwrap();
    }
    publisher.end(End::Clean);
    for way in WAYS {
        let (out, told, code) = run(&server, dir.path(), &format!("/stream?from={first}"), way).await;
        assert!(out.ends_with("line 19\n"), "{way:?}: {out}");
        let missing = 19 - out.lines().count();
        assert!(missing > 0, "{way:?}: {out}");
        let expected = format!(
            "h3cast: {missing} chunks missing, starting at number 1\n\
             h3cast: {missing} chunks missing: the output is incomplete\n"
        );
        assert_eq!((told, code), (expected, Some(1)), "{way:?}");
        // A cursor of another run of the feed.
        let (out, told, code) = run(&server, dir.path(), "/stream?from=1-7", way).await;
        assert!(out.ends_with("line 19\n"), "{way:?}: {out}");
        assert!(told.contains("the feed was restarted") && told.contains("the output is incomplete"), "{told}");
        assert_eq!(code, Some(1), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_in_the_url_is_printed_as_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (server, cursors) = server_of(0..2, End::Clean).await;
    for way in &WAYS[..2] {
        let (out, told, code) = run(&server, dir.path(), "/stream?from=start&format=raw", way).await;
        assert_eq!((out, told.as_str(), code), (lines(0..2), "", Some(0)), "{way:?}");
        let (out, told, code) = run(&server, dir.path(), "/stream?format=sse&from=start", way).await;
        assert_eq!((told.as_str(), code), ("", Some(0)), "{way:?}");
        assert!(out.starts_with(&format!("retry: 1000\nid: {}\ndata: line 0\n\n", cursors[0])), "{out}");
        let (cert, url) = (server.certificate(), format!("{}/stream?from=start&format=frames", server.base));
        let got = output(dir.path(), &[&["get", "--cacert", cert.to_str().unwrap(), &url], *way].concat()).await;
        assert_eq!((got.stdout[0], got.status.code()), (3, Some(0)), "`begin` is the first frame");
        assert!(got.stdout.windows(6).any(|window| window == b"line 0") && got.stdout.ends_with(&[2, 1, 0]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_feed_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path(), 0, &["demo", "--count", "1"]).await;
    let feed = serving.url("/stream");
    for (path, what) in [
        ("/", "web page (text/html)"),
        ("", "web page (text/html)"),
        ("/?format=raw", "web page (text/html)"),
        ("/js/client/frames.mjs", "web page (text/javascript)"),
        ("/info", "status (application/json)"),
        ("/feeds", "status (application/json)"),
        ("/metrics", "status (text/plain)"),
        ("/healthz", "status (text/plain)"),
    ] {
        let url = serving.url(path);
        for more in [&[][..], &["-o", "out"], &["--resume"], &["--resume", "-o", "out"]] {
            let got = output(dir.path(), &[&["get", &url], more].concat()).await;
            let told = text(&got.stderr);
            assert_eq!((text(&got.stdout).as_str(), got.status.code()), ("", Some(1)), "{path} {more:?}: {told}");
            assert!(told.contains(&format!("is the server's {what}, not a feed: read {feed}\n")), "{path}: {told}");
            assert_eq!(told.lines().count(), 1, "{told}");
            assert!(!dir.path().join("out").exists() && !dir.path().join("out.part").exists(), "{path} {more:?}");
        }
    }
    // A problem, as before.
    for way in WAYS {
        let got = output(dir.path(), &[&["get", &serving.url("/stream/nothing")], way].concat()).await;
        let told = text(&got.stderr);
        assert_eq!((text(&got.stdout).as_str(), got.status.code()), ("", Some(1)), "{way:?}: {told}");
        assert!(told.contains("404 Not Found: there is no feed `nothing`"), "{way:?}: {told}");
    }
    // A session at the page's URL.
    for way in [&["--webtransport"][..], &["--webtransport", "--resume"]] {
        let got = output(dir.path(), &[&["get", &serving.url("/")], way].concat()).await;
        let told = text(&got.stderr);
        assert!(told.contains(&format!("not a feed: read {feed}\n")), "{told}");
        assert_eq!(got.status.code(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_servers_and_own_routes_are_printed() {
    const PAGE: &str = "<!doctype html>\n";
    let dir = tempfile::tempdir().unwrap();
    let own = || {
        Router::new()
            .route("/page", get(async || ([(header::CONTENT_TYPE, "text/html")], PAGE)))
            .route("/json", get(async || axum::Json(serde_json::json!({ "a": 1 }))))
    };
    let session = async |request: SessionRequest| {
        let session = request.accept().await.unwrap();
        let mut stream = session.open_uni().await.unwrap();
        stream.write_bytes(PAGE.into()).await.unwrap();
        stream.finish().unwrap();
        session.closed().await;
    };
    let other = TestServer::start(|builder, _| builder.http_service(own()).webtransport("/session", session)).await;
    let (feed, _publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let ours = TestServer::start(|builder, identity| App::new([feed], identity).routes(own()).install(builder)).await;
    for server in [&other, &ours] {
        for (path, expected) in [("/page", PAGE), ("/json?format=x&y", "{\"a\":1}")] {
            let got = run(server, dir.path(), path, &[]).await;
            assert_eq!(got, (expected.into(), String::new(), Some(0)), "{path}");
            let got = run(server, dir.path(), path, &["-o", "out"]).await;
            assert_eq!(got, (String::new(), String::new(), Some(0)), "{path}");
            assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), expected);
        }
    }
    let got = run(&other, dir.path(), "/session", &["--webtransport"]).await;
    assert_eq!(got, (PAGE.into(), String::new(), Some(0)));
}

/// A `file:` feed keeps its length and ranges, and so its bar and its resumption.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_stays_a_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("big"), lines(0..1000)).unwrap();
    let serving = Serving::start(dir.path(), 0, &["file:big"]).await;
    for query in ["", "?from=start"] {
        let got = output(dir.path(), &["get", "-v", &serving.url(&format!("/stream{query}"))]).await;
        let told = text(&got.stderr);
        assert_eq!((text(&got.stdout), got.status.code()), (lines(0..1000), Some(0)), "{told}");
        assert!(told.contains("< accept-ranges: bytes") && told.contains("< content-length: 8890"), "{told}");
    }
    for (query, way) in [("?limit=3", &[][..]), ("?limit=3", &["--webtransport"])] {
        let got = output(dir.path(), &[&["get", &serving.url(&format!("/stream{query}"))], way].concat()).await;
        assert_eq!((text(&got.stdout), got.status.code()), (lines(0..3), Some(0)), "{}", text(&got.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_is_no_end_of_the_feed() {
    let dir = tempfile::tempdir().unwrap();
    for way in &WAYS[..2] {
        let args = ["exec:echo one; exec sleep 1000", "--grace", "0s"];
        let serving = Serving::start(dir.path(), 0, &args).await;
        let url = serving.url("/stream?from=start");
        let mut get = Program::start(dir.path(), &[&["get", &url], *way].concat());
        assert_eq!(get.line().await, "one\n");
        serving.program.signal("TERM");
        let (rest, told, code) = get.end().await;
        assert_eq!((text(&rest).as_str(), code), ("", Some(1)), "{way:?}: {told}");
        assert!(told.contains("cut short after 4 bytes: "), "{way:?}: {told}");
        serving.program.end().await;
    }
}

/// Before anything is requested: no server listens there.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_user_are_left_alone() {
    const MINE: &str = "mine\n";
    const URL: &str = "https://localhost:9/stream";
    const MARK: &str = "{\"created_by\":\"h3cast get\",\"url\":\"x\"}";
    type Arrange = fn(&Path) -> std::io::Result<()>;
    let cases: [(&str, Arrange); 9] = [
        ("o.part was not created", |dir| std::fs::write(dir.join("o.part"), MINE)),
        ("o.part was not created", |dir| std::os::unix::fs::symlink("mine", dir.join("o.part"))),
        ("o.part.json was not created", |dir| std::fs::write(dir.join("o.part.json"), MINE)),
        ("o.part was not created", |dir| {
            std::fs::write(dir.join("o.part.json"), MARK)?;
            std::os::unix::fs::symlink("mine", dir.join("o.part"))
        }),
        // What looks like a mark.
        ("o.part.json was not created", |dir| std::fs::write(dir.join("o.part.json"), "{\"url\":\"https://mine/\"}")),
        ("o.part.json was not created", |dir| {
            std::fs::write(dir.join("o.part.json"), "{\"url\":\"https://mine/\"}")?;
            std::fs::write(dir.join("o.part"), "")
        }),
        // A mark that was left behind, of no part or of one that is gone.
        ("o.part was not created", |dir| {
            std::fs::write(dir.join("o.part.json"), MARK)?;
            std::fs::write(dir.join("o.part"), MINE)
        }),
        ("o.part was not created", |dir| {
            std::fs::write(dir.join("o.part"), "of an earlier run")?;
            let there = std::fs::metadata(dir.join("o.part"))?;
            let created = there.created()?.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
            let id = serde_json::json!({ "inode": std::os::unix::fs::MetadataExt::ino(&there), "created": created });
            let mark = serde_json::json!({ "created_by": "h3cast get", "url": URL, "file": id });
            std::fs::write(dir.join("o.part.json"), mark.to_string())?;
            std::fs::remove_file(dir.join("o.part"))?;
            std::fs::write(dir.join("o.part"), MINE)
        }),
        ("a symbolic link to a file that does not exist", |dir| std::os::unix::fs::symlink("no", dir.join("o"))),
    ];
    for (expected, arrange) in cases {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine"), MINE).unwrap();
        arrange(dir.path()).unwrap();
        let all = || {
            let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
            let mut all: Vec<_> = names.map(|path| (std::fs::read(&path).ok(), path.is_symlink(), path)).collect();
            all.sort();
            all
        };
        let before = all();
        for more in [&["--no-progress"][..], &["--resume", "--retry-for", "0s"]] {
            let got = output(dir.path(), &[&["get", "-o", "o", URL], more].concat()).await;
            let told = text(&got.stderr);
            assert!(told.contains(expected) && told.lines().count() == 1, "{more:?}: {told}");
            assert_eq!(got.status.code(), Some(2), "{told}");
            assert_eq!(all(), before, "{more:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minus_is_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = server_of(0..2, End::Clean).await;
    let got = run(&server, dir.path(), "/stream?from=start", &["-o", "-"]).await;
    assert_eq!(got, (lines(0..2), String::new(), Some(0)));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// RFC 9114 §4.1.2.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_answers_are_not_taken_for_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let server = Liar::start(&[
        ("/206", 206, &[]),
        ("/abc", 200, &["abc"]),
        ("/plus", 200, &["+5"]),
        ("/two", 200, &["5", "6"]),
        ("/twice", 200, &["5", "5"]),
    ]);
    let run = async |path: &str, more: &[&str]| {
        let (cert, url) = (server.certificate(), server.uri(path).to_string());
        let got = output(dir.path(), &[&["get", "--cacert", cert.to_str().unwrap(), &url], more].concat()).await;
        (text(&got.stdout), text(&got.stderr), got.status.code())
    };
    for (path, expected) in [
        ("/206", "206 Partial Content"),
        ("/abc", "content-length: abc"),
        ("/plus", "content-length: +5"),
        ("/two", "content-length: 5, 6"),
    ] {
        for more in [&["-o", "out"][..], &["--resume", "-o", "out"]] {
            let (_, told, code) = run(path, more).await;
            assert!(told.contains(expected) && code == Some(1), "{path} {more:?}: {told}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{path} {more:?}");
        }
    }
    let got = run("/twice", &[]).await;
    assert_eq!(got, ("part\n".into(), String::new(), Some(0)));
}
