//! Servers and networks that go away, and come back.

use std::time::Duration;

use h3cast::feed::{End, Feed, FeedError, Lag};
use tokio::io::AsyncWriteExt;

use crate::{
    common::{TestServer, relay::Relay},
    demo,
    program::{Program, Serving, output, text},
    viewer::a_server_that_says_nothing_any_more,
};

/// What only time shows, each after 30 s and more: all at once.
#[tokio::test(flavor = "multi_thread")]
async fn losses_that_are_found_out() {
    tokio::join!(
        a_server_that_is_killed_and_started_again(),
        a_network_that_is_away_for_a_while(),
        a_server_that_says_nothing_any_more(),
    );
}

/// The middle of a run: the server is killed, and another one takes its place.
async fn a_server_that_is_killed_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    // The first one cannot come to its end before it is killed.
    let [slow, fast] = ["500ms", "5ms"].map(|interval| ["demo", "--count", "200", "--interval", interval]);
    let first = Serving::start(dir.path(), 0, &slow).await;
    let (port, url) = (first.port, first.url("/stream?limit=190"));
    let mut gets: Vec<_> = [&["get", "--resume", &url][..], &["get", "--resume", &url, "--webtransport"]]
        .into_iter()
        .map(|args| Program::start(dir.path(), args))
        .collect();
    let mut seen = Vec::new();
    for get in &mut gets {
        seen.push(get.line().await + &get.line().await);
    }
    first.program.kill().await;
    let second = Serving::start(dir.path(), port, &fast).await;
    let began = std::time::Instant::now();
    for (get, transport) in gets.iter_mut().zip(["WebTransport", "GET"]) {
        let told = get.told("trying again over").await;
        assert!(told.contains(&format!("trying again over {transport} ")), "{told}");
        let told = get.told("reconnected over").await;
        assert!(told.contains(&format!("reconnected over {transport}: continuing after 0-")), "{told}");
        // As soon as the new server answers, and not when the old connection would be kept alive, every 12 s: nothing
        // but the time tells them apart.
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    }
    for (get, seen) in gets.into_iter().zip(seen) {
        let (rest, told, code) = get.end().await;
        assert_eq!((seen + &text(&rest), code), (demo(190), Some(0)), "{told}");
    }
    drop(second);
}

/// A reader that pauses for longer than the server waits: it is cut, and continues with the next byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_is_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let paused = async |transport: &[&str], cut: &str| {
        let serve = ["exec:seq 1 1000000", "--chunk", "bytes", "--history", "32M", "--send-timeout", "500ms"];
        let mut serving = Serving::start(dir.path(), 0, &serve).await;
        let url = serving.url("/stream?from=start");
        let mut get = Program::start(dir.path(), &[&["get", "--resume", &url], transport].concat());
        let first = get.line().await;
        serving.program.told("limit=\"send_timeout\"").await;
        let (rest, told, code) = get.end().await;
        let all: String = (1..=1_000_000).map(|number| format!("{number}\n")).collect();
        // Not `assert_eq`, which would show both.
        assert!(first + &text(&rest) == all, "{} bytes of {}: {told}", rest.len(), all.len());
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains(cut), "{told}");
    };
    tokio::join!(paused(&[], "trying again"), paused(&["--webtransport"], "trying again"));
}

/// A server that stops in an orderly way, and one that starts later than its viewer.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    // Those before the last one cannot come to their ends before they are stopped.
    let [slow, fast] =
        ["500ms", "5ms"].map(|interval| ["demo", "--count", "100", "--interval", interval, "--grace", "0s"]);
    let first = Serving::start(dir.path(), 0, &slow).await;
    let (port, url) = (first.port, first.url("/stream"));
    first.program.kill().await;
    let mut get = Program::start(dir.path(), &["get", "--resume", &url]);
    get.told("no answer from").await;
    let second = Serving::start(dir.path(), port, &slow).await;
    let seen = get.line().await;
    second.program.signal("TERM");
    get.told("trying again over WebTransport").await;
    assert_eq!(second.program.end().await.2, Some(0));
    let third = Serving::start(dir.path(), port, &fast).await;
    let (rest, told, code) = get.end().await;
    assert_eq!((seen + &text(&rest), code), (demo(100), Some(0)), "{told}");
    drop(third);
    // Nobody is waited for for ever.
    let (rest, told, code) = Program::start(dir.path(), &["get", "--resume", "--retry-for", "10ms", &url]).end().await;
    assert_eq!((rest.len(), code), (0, Some(1)));
    assert!(told.contains("gave up after 0.01 s: no answer from"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_feed_that_is_started_again_is_not_whole() {
    let server = |feed: Feed| TestServer::feed(feed);
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let server = server(feed).await;
    for _ in 0..3 {
        publisher.publish("x\n".into()).await.unwrap();
    }
    publisher.end(End::Clean);
    let dir = tempfile::tempdir().unwrap();
    let run = async |query: &str| {
        let url = format!("{}/stream?{query}", server.base);
        let got =
            output(dir.path(), &["get", "--cacert", server.certificate().to_str().unwrap(), "--resume", &url]).await;
        (text(&got.stdout), text(&got.stderr), got.status.code())
    };
    let (out, told, code) = run("from=start").await;
    assert_eq!((out.as_str(), told.as_str(), code), ("x\nx\nx\n", "", Some(0)));
    let (out, told, code) = run("from=1-7").await;
    assert_eq!((out.as_str(), code), ("x\nx\nx\n", Some(1)));
    assert!(told.contains("the feed was restarted: the output is incomplete"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_failed_and_one_with_a_gap() {
    let (feed, publisher) = Feed::live("default", 2000, Lag::Skip);
    let server = TestServer::feed(feed).await;
    for number in 0..20 {
        publisher.publish(format!("{number}\n").into()).await.unwrap();
    }
    publisher.end(End::Failed(FeedError("the disk burns".into())));
    let dir = tempfile::tempdir().unwrap();
    let cert = server.certificate();
    let url = format!("{}/stream?from=start", server.base);
    let got = output(dir.path(), &["get", "--cacert", cert.to_str().unwrap(), "--resume", &url]).await;
    assert!(text(&got.stdout).ends_with("18\n19\n"));
    assert_eq!(got.status.code(), Some(1));
    assert!(text(&got.stderr).contains("bytes: the disk burns"), "{}", text(&got.stderr));

    let (feed, publisher) = Feed::live("default", 2000, Lag::Skip);
    let server = TestServer::feed(feed).await;
    let first = publisher.publish("0\n".into()).await.unwrap();
    for number in 1..20 {
        publisher.publish(format!("{number}\n").into()).await.unwrap();
    }
    publisher.end(End::Clean);
    let (cert, url) = (server.certificate(), format!("{}/stream?from={first}", server.base));
    let got = output(dir.path(), &["get", "--cacert", cert.to_str().unwrap(), "--resume", &url]).await;
    let (out, told) = (text(&got.stdout), text(&got.stderr));
    let missing = 19 - out.lines().count();
    assert!(told.contains(&format!("{missing} chunks missing, starting at number 1")), "{told}");
    assert!(told.contains(&format!("{missing} chunks missing: the output is incomplete")), "{told}");
    assert_eq!(got.status.code(), Some(1));
}

/// A network that is down for longer than QUIC waits. The feed continues in the meantime.
async fn a_network_that_is_away_for_a_while() {
    let (feed, publisher) = Feed::live("default", 8 << 20, Lag::Skip);
    let server = TestServer::feed(feed).await;
    let relay = Relay::start(server.port()).await;
    let dir = tempfile::tempdir().unwrap();
    let url = format!("https://127.0.0.1:{}/stream?from=start", relay.port);
    let cert = server.certificate();
    let mut get = Program::start(dir.path(), &["get", "--cacert", cert.to_str().unwrap(), "--resume", &url]);
    publisher.publish("0\n".into()).await.unwrap();
    let mut seen = get.line().await;
    relay.lose(true);
    for number in 1..50 {
        publisher.publish(format!("{number}\n").into()).await.unwrap();
    }
    get.told("trying again over WebTransport").await;
    relay.lose(false);
    get.told("reconnected over").await;
    seen += &get.line().await;
    publisher.publish("50\n".into()).await.unwrap();
    publisher.end(End::Clean);
    let (rest, told, code) = get.end().await;
    let expected: String = (0..=50).map(|number| format!("{number}\n")).collect();
    assert_eq!((seen + &text(&rest), code), (expected, Some(0)), "{told}");
}

/// However often a server that is away is tried, the outage is a line or two; with `-v` each attempt has one.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_not_reported_at_every_attempt() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "all of it\n").unwrap();
    let sources = ["chat=publish", "file=file:file"];
    let first = Serving::start(dir.path(), 0, &sources).await;
    let (port, chat, file) = (first.port, first.url("/stream/chat"), first.url("/stream/file"));
    let mut clients = Vec::new();
    let mut viewer = Program::start(dir.path(), &["get", "--last", "1", &chat]);
    for more in [&[][..], &["--webtransport"]] {
        let mut publish = Program::start(dir.path(), &[&["publish", "-v", &chat], more].concat());
        // Over WebTransport, nothing is confirmed before a stream ends.
        publish.stdin.as_mut().unwrap().write_all(b"one\n").await.unwrap();
        assert_eq!(viewer.line().await, "one\n");
        clients.push((publish, "publish"));
    }
    first.program.signal("TERM");
    assert_eq!(first.program.end().await.2, Some(0));
    for (publish, _) in &mut clients {
        publish.stdin.as_mut().unwrap().write_all(b"two\n").await.unwrap();
    }
    clients.push((Program::start(dir.path(), &["get", "-v", "--resume", "-o", "copy", &file]), "get"));
    let mut printed = Vec::new();
    for (client, name) in &mut clients {
        // The first attempt that only `-v` shows.
        let seen = client.told_after("trying again", |line| !line.starts_with("h3cast: ")).await;
        printed.push((*name, seen.len() - 1));
    }
    let second = Serving::start(dir.path(), port, &sources).await;
    for (client, name) in clients {
        let (_, told, code) = client.end().await;
        assert_eq!(code, Some(0), "{name}: {told}");
        assert_eq!(told.matches("reconnected").count(), 1, "{name}: {told}");
    }
    assert!(printed.iter().all(|(_, lines)| (1..=3).contains(lines)), "{printed:?}");
    assert_eq!(std::fs::read(dir.path().join("copy")).unwrap(), b"all of it\n");
    drop(second);
}
