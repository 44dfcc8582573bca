//! `h3cast get` through losses, and to files; and the viewer under it.
#![cfg(all(feature = "cli", unix))]

mod common;
#[path = "common/program.rs"]
mod program;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{RawQuery, Request},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use common::TestServer;
use futures_util::{StreamExt, stream};
use h3cast::{
    chunk::Chunk,
    client::{
        Trust, Viewer,
        viewer::{Event, Transport, ViewError},
    },
    feed::{End, Feed, FeedError, Gap, Lag},
    format::frames,
    webtransport::SessionRequest,
};
use http::{StatusCode, header};
use program::{Program, Serving, output, soon, text};
use tokio::{
    net::UdpSocket,
    sync::{Notify, watch},
    task::JoinSet,
};

fn demo(count: usize) -> String {
    (0..count).map(|number| format!("data chunk #{number}\n")).collect()
}

/// What nobody says and only time tells, each with 30 s and more of waiting: all at once.
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
    let demo_args = ["demo", "--count", "200", "--interval", "5ms"];
    let first = Serving::start(dir.path(), 0, &demo_args).await;
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
    let second = Serving::start(dir.path(), port, &demo_args).await;
    for ((get, seen), (before, after)) in
        gets.into_iter().zip(seen).zip([("GET", "WebTransport"), ("WebTransport", "GET")])
    {
        let (rest, told, code) = get.end().await;
        assert_eq!(seen + &text(&rest), demo(190), "{before}");
        assert!(told.contains(&format!("trying again over {after}")), "{told}");
        assert!(told.contains(&format!("reconnected over {after}: continuing after 0-")), "{told}");
        assert_eq!(code, Some(0), "{told}");
    }
    drop(second);
}

/// A server that stops in an orderly way, and one that starts later than its viewer.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    let demo_args = ["demo", "--count", "100", "--interval", "10ms", "--grace", "0s"];
    let first = Serving::start(dir.path(), 0, &demo_args).await;
    let (port, url) = (first.port, first.url("/stream"));
    first.program.kill().await;
    let mut get = Program::start(dir.path(), &["get", "--resume", &url]);
    get.told("no answer from").await;
    let second = Serving::start(dir.path(), port, &demo_args).await;
    let seen = get.line().await;
    second.program.signal("TERM");
    get.told("trying again over WebTransport").await;
    assert_eq!(second.program.end().await.2, Some(0));
    let third = Serving::start(dir.path(), port, &demo_args).await;
    let (rest, told, code) = get.end().await;
    assert_eq!((seen + &text(&rest), code), (demo(100), Some(0)), "{told}");
    drop(third);
    // Nobody is waited for for ever.
    let (rest, told, code) = Program::start(dir.path(), &["get", "--resume", "--retry-for", "10ms", &url]).end().await;
    assert_eq!((rest.len(), code), (0, Some(1)));
    assert!(told.contains("gave up after 0.01 s: no answer from"), "{told}");
}

/// A server that gives no answer, and no error either, is not waited for longer than was asked.
#[tokio::test(flavor = "multi_thread")]
async fn no_attempt_lasts_beyond_the_time_to_try() {
    let dir = tempfile::tempdir().unwrap();
    for output in [&[][..], &["--webtransport"], &["-o", "out"]] {
        let serving = Serving::start(dir.path(), 0, &["demo", "--count", "0", "--grace", "0s"]).await;
        let (port, url) = (serving.port, serving.url("/stream"));
        serving.program.signal("TERM");
        assert_eq!(serving.program.end().await.2, Some(0));
        let args = [&["get", "--resume", "--retry-for", "4s", &url][..], output].concat();
        let mut get = Program::start(dir.path(), &args);
        get.told("no answer from").await;
        let began = std::time::Instant::now();
        let silent = [
            tokio::net::UdpSocket::bind(("127.0.0.1", port)).await.unwrap(),
            tokio::net::UdpSocket::bind(("::1", port)).await.unwrap(),
        ];
        // The attempt has begun.
        let (mut one, mut other) = ([0; 1500], [0; 1500]);
        common::soon("an attempt", async {
            tokio::select! { got = silent[0].recv(&mut one) => got, got = silent[1].recv(&mut other) => got }
        })
        .await
        .unwrap();
        let (_, told, code) = get.end().await;
        assert_eq!(code, Some(1), "{output:?}: {told}");
        assert!(told.contains("gave up after 4 s: no answer from"), "{output:?}: {told}");
        // An attempt takes 10 s.
        assert!(began.elapsed() < Duration::from_secs(8), "{output:?}: {:?}", began.elapsed());
    }
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
    let (feed, publisher) = Feed::live("default", 400, Lag::Skip);
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

    let (feed, publisher) = Feed::live("default", 400, Lag::Skip);
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

/// UDP between a client and a server, which can be cut.
struct Relay {
    port: u16,
    forward: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    async fn start(server: SocketAddr) -> Self {
        let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let port = outside.local_addr().unwrap().port();
        let (forward, open) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Each client has a socket of its own towards the server.
            let mut clients: Vec<(SocketAddr, Arc<UdpSocket>)> = Vec::new();
            let mut backs = JoinSet::new();
            let mut buffer = vec![0; 65536];
            loop {
                let Ok((len, client)) = outside.recv_from(&mut buffer).await else { continue };
                if !clients.iter().any(|(known, _)| *known == client) {
                    let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                    inside.connect(server).await.unwrap();
                    clients.push((client, inside.clone()));
                    let (outside, open) = (outside.clone(), open.clone());
                    backs.spawn(async move {
                        let mut buffer = vec![0; 65536];
                        while let Ok(len) = inside.recv(&mut buffer).await {
                            if *open.borrow() {
                                let _ = outside.send_to(&buffer[..len], client).await;
                            }
                        }
                    });
                }
                let inside = clients.iter().find(|(known, _)| *known == client).unwrap().1.clone();
                if *open.borrow() {
                    let _ = inside.send(&buffer[..len]).await;
                }
            }
        });
        Self { port, forward, _tasks: tasks }
    }
}

/// A network that is away for longer than QUIC waits. The feed goes on in the meantime.
async fn a_network_that_is_away_for_a_while() {
    let (feed, publisher) = Feed::live("default", 8 << 20, Lag::Skip);
    let server = TestServer::feed(feed).await;
    let relay = Relay::start((std::net::Ipv4Addr::LOCALHOST, server.port()).into()).await;
    let dir = tempfile::tempdir().unwrap();
    let url = format!("https://127.0.0.1:{}/stream?from=start", relay.port);
    let cert = server.certificate();
    let mut get = Program::start(dir.path(), &["get", "--cacert", cert.to_str().unwrap(), "--resume", &url]);
    publisher.publish("0\n".into()).await.unwrap();
    let mut seen = get.line().await;
    relay.forward.send_replace(false);
    for number in 1..50 {
        publisher.publish(format!("{number}\n").into()).await.unwrap();
    }
    get.told("trying again over WebTransport").await;
    relay.forward.send_replace(true);
    get.told("reconnected over").await;
    seen += &get.line().await;
    publisher.publish("50\n".into()).await.unwrap();
    publisher.end(End::Clean);
    let (rest, told, code) = get.end().await;
    let expected: String = (0..=50).map(|number| format!("{number}\n")).collect();
    assert_eq!((seen + &text(&rest), code), (expected, Some(0)), "{told}");
}

/// As the first servers wrote it, without what comes next: each case begins where it wants.
fn begin() -> Bytes {
    Bytes::from_static(&[3, 1, 7])
}

fn chunk(seq: u64) -> Bytes {
    frames::chunk(&Chunk::new(seq, format!("{seq}\n").into()))
}

/// A response of these frames, which breaks off when the test says so: a reset overtakes what was
/// sent before it.
fn broken(frames: Vec<Bytes>, cut: Arc<Notify>) -> Body {
    let broken = stream::once(async move {
        cut.notified().await;
        Err(std::io::ErrorKind::Other.into())
    });
    Body::from_stream(stream::iter(frames).map(Ok::<_, std::io::Error>).chain(broken))
}

/// The next event in short. It is asked for again and again, so that nothing may be lost with what
/// is given up.
async fn next(viewer: &mut Viewer) -> String {
    let event = async {
        loop {
            if let Ok(event) = tokio::time::timeout(Duration::from_millis(1), viewer.next()).await {
                return event;
            }
        }
    };
    match soon("an event", event).await {
        Ok(Some(Event::Opened { transport, behind })) => {
            format!("{transport} behind {}", behind.map_or("-".into(), |cursor| cursor.to_string()))
        }
        Ok(Some(Event::Chunk { cursor, bytes, .. })) => format!("{cursor} {}", text(&bytes).trim()),
        Ok(Some(Event::Gap(Gap { from, missing, .. }))) => format!("gap {from}+{missing}"),
        Ok(Some(Event::Lost { transport, .. })) => format!("lost, then {transport}"),
        Ok(Some(Event::End(end))) => format!("{end:?}"),
        Ok(event) => format!("{event:?}"),
        Err(error) => format!("error: {error}"),
    }
}

/// The transports take turns, each goes on where the other one stopped, and the last chunk is the
/// last one even if the word of it is lost.
#[tokio::test(flavor = "multi_thread")]
async fn transports_take_turns() {
    let cut = Arc::new(Notify::new());
    let breaks = cut.clone();
    let server = TestServer::start(|builder, _| {
        let get = get(async move |RawQuery(query): RawQuery| match query.unwrap().as_str() {
            "format=frames&limit=6" => broken(vec![begin(), chunk(0), chunk(1)], breaks),
            // Chunk 3 was seen, 4 never comes, 5 does.
            "format=frames&from=7-3&limit=2" => broken(vec![begin(), chunk(3), chunk(5), chunk(6)], breaks),
            query => panic!("{query}"),
        });
        let session = async |request: SessionRequest| {
            assert_eq!(request.uri().query(), Some("format=frames&from=7-1&limit=4"));
            let session = request.accept().await.unwrap();
            let mut stream = session.open_uni().await.unwrap();
            stream.write_bytes([begin(), chunk(2), chunk(3)].concat().into()).await.unwrap();
            // Without a word of the end.
            stream.finish().unwrap();
            session.closed().await;
        };
        builder.http_service(Router::new().route("/stream", get)).webtransport("/stream", session)
    })
    .await;
    let trust = Trust::Files(vec![server.certificate()]);
    let mut viewer = Viewer::new(&server.uri("/stream?limit=6"), trust).unwrap();
    for expected in [
        "GET behind -",
        "7-0 0",
        "7-1 1",
        "lost, then WebTransport",
        "WebTransport behind 7-1",
        "7-2 2",
        "7-3 3",
        "lost, then GET",
        "GET behind 7-3",
        "gap 4+1",
        "7-5 5",
        "7-6 6",
        "Clean",
        "None",
        "None",
    ] {
        assert_eq!(next(&mut viewer).await, expected);
        if ["7-1 1", "7-6 6"].contains(&expected) {
            cut.notify_one();
        }
    }
    assert_eq!((viewer.missing(), viewer.restarts(), viewer.cursor().unwrap().seq), (1, 0, 6));
    viewer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tried_again_and_what_is_not() {
    let asked = Arc::new(AtomicUsize::new(0));
    let cut = Arc::new(Notify::new());
    let breaks = cut.clone();
    let server = TestServer::start(|builder, _| {
        let busy = {
            let asked = asked.clone();
            get(move || {
                let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
                async move {
                    match first {
                        true => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response(),
                        false => [begin(), chunk(0), frames::end(&End::Clean)].concat().into_response(),
                    }
                }
            })
        };
        let once = get(async move |RawQuery(query): RawQuery| match query.unwrap().contains("from=") {
            false => broken(vec![begin(), chunk(0)], breaks).into_response(),
            true => StatusCode::GONE.into_response(),
        });
        let router = Router::new()
            .route("/busy", busy)
            .route("/once", once)
            .route("/plain", get(async || "data chunk #0\n"))
            .route("/garbage", get(async || [&begin()[..], b"\x01\x00"].concat()));
        builder.http_service(router)
    })
    .await;
    let trust = Trust::Files(vec![server.certificate()]);
    let open = |path: &str| Viewer::new(&server.uri(path), trust.clone()).unwrap();
    // There are no sessions here, so that GET is asked again after the other transport was tried.
    let mut busy = open("/busy");
    let Ok(Some(Event::Lost { error: ViewError::Answered { status, .. }, pause, .. })) = busy.next().await else {
        panic!()
    };
    assert_eq!((status, pause), (StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(1)));
    for expected in ["lost, then GET", "GET behind -", "7-0 0", "Clean"] {
        assert_eq!(next(&mut busy).await, expected);
    }
    // Unless it is the one that was asked for.
    let mut session = open("/busy").transport(Transport::WebTransport);
    assert_eq!(next(&mut session).await, "error: the server answered 404 Not Found");
    // A transport that the server refuses is left, when the other one has brought something.
    let mut once = open("/once");
    for expected in ["GET behind -", "7-0 0", "lost, then WebTransport", "lost, then GET"] {
        assert_eq!(next(&mut once).await, expected);
        if expected == "7-0 0" {
            cut.notify_one();
        }
    }
    assert_eq!(next(&mut once).await, "error: the server answered 410 Gone");
    assert_eq!(next(&mut once).await, "None");
    let mut plain = open("/plain");
    assert_eq!(next(&mut plain).await, "GET behind -");
    assert_eq!(next(&mut plain).await, "error: there is no feed at this URL");
    let mut garbage = open("/garbage");
    assert_eq!(next(&mut garbage).await, "GET behind -");
    assert!(next(&mut garbage).await.starts_with("error: what the server sends is no feed"));
    let mut untrusted = Viewer::new(&server.uri("/busy"), Trust::Hashes(vec![])).unwrap();
    assert!(next(&mut untrusted).await.contains("not trusted"));
    let mut limited = open("/once").transport(Transport::Get).retry_for(Some(Duration::ZERO));
    for expected in ["GET behind -", "7-0 0"] {
        assert_eq!(next(&mut limited).await, expected);
    }
    cut.notify_one();
    assert!(next(&mut limited).await.starts_with("error: gave up after 0 s: the server broke the stream off"));
}

/// Heartbeats are missed, though QUIC itself is alive.
async fn a_server_that_says_nothing_any_more() {
    let stalled = async || broken(vec![begin(), chunk(0)], Arc::default());
    let router = Router::new().route("/stream", get(stalled));
    let server = TestServer::start(|builder, _| builder.http_service(router)).await;
    let trust = Trust::Files(vec![server.certificate()]);
    let mut viewer = Viewer::new(&server.uri("/stream"), trust).unwrap().retry_for(Some(Duration::ZERO));
    for expected in ["GET behind -", "7-0 0", "error: gave up after 0 s: nothing came for 40 s", "None"] {
        assert_eq!(next(&mut viewer).await, expected);
    }
}

/// A server of one resource that tells of what it was asked, and breaks off where it is told to.
async fn resource(content: Arc<Vec<u8>>, cuts: Vec<usize>) -> (TestServer, Arc<std::sync::Mutex<Vec<String>>>) {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = asked.clone();
    let cuts = Arc::new(std::sync::Mutex::new(cuts));
    let server = TestServer::start(|builder, _| {
        let answer = move |request: Request| {
            let (content, cuts, log) = (content.clone(), cuts.clone(), log.clone());
            async move {
                let of = |name| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
                let (range, if_range) = (of(header::RANGE), of(header::IF_RANGE));
                log.lock().unwrap().push(format!("{range} {if_range}"));
                let start = range.strip_prefix("bytes=").filter(|_| if_range == "\"v1\"");
                let start: usize = start.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
                let head = Response::builder().header(header::ACCEPT_RANGES, "bytes").header(header::ETAG, "\"v1\"");
                if start >= content.len() {
                    let range = format!("bytes */{}", content.len());
                    let head = head.status(StatusCode::RANGE_NOT_SATISFIABLE).header(header::CONTENT_RANGE, range);
                    return head.body(Body::empty()).unwrap();
                }
                let rest = content.len() - start;
                let head = head.header(header::CONTENT_LENGTH, rest).status(if start > 0 { 206 } else { 200 });
                let head = match start {
                    0 => head,
                    _ => {
                        let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
                        head.header(header::CONTENT_RANGE, range)
                    }
                };
                let cut = cuts.lock().unwrap().pop();
                let until = cut.unwrap_or(content.len());
                let body = Bytes::copy_from_slice(&content[start..until]);
                match cut {
                    // It does not go on, and does not end either: the reader has all that was sent.
                    Some(_) => head
                        .body(Body::from_stream(
                            stream::once(async { Ok::<_, std::io::Error>(body) }).chain(stream::pending()),
                        ))
                        .unwrap(),
                    None => head.body(body.into()).unwrap(),
                }
            }
        };
        builder.http_service(Router::new().route("/file", get(answer)))
    })
    .await;
    (server, asked)
}

async fn until_len(path: &Path, len: usize) {
    soon("the part grows", async {
        while std::fs::metadata(path).map_or(0, |there| there.len()) < len as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn noise(len: usize) -> Arc<Vec<u8>> {
    Arc::new((0..len as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect())
}

/// Leaves a part and its mark, as an earlier run would.
fn leave(part: &Path, content: Option<&[u8]>, mut mark: serde_json::Value) {
    if let Some(content) = content {
        std::fs::write(part, content).unwrap();
    }
    let there = std::fs::metadata(part).unwrap();
    let created = there.created().ok().map(|at| at.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64);
    mark["created_by"] = "h3cast get".into();
    mark["file"] = serde_json::json!({ "inode": std::os::unix::fs::MetadataExt::ino(&there), "created": created });
    std::fs::write(part.with_extension("part.json"), mark.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_goes_on_where_it_was() {
    let content = noise(300_000);
    // From the end: the second run is cut at 200,000.
    let (server, asked) = resource(content.clone(), vec![200_000, 100_000]).await;
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/file", server.base));
    let args = ["get", "--cacert", cert.to_str().unwrap(), "--resume", "-o", "out", &url];
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("out"), "as it was").unwrap();
    for len in [100_000, 200_000] {
        let get = Program::start(dir.path(), &args);
        until_len(&path("out.part"), len).await;
        get.kill().await;
        assert_eq!(std::fs::read(path("out")).unwrap(), b"as it was");
        let mut sidecar: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path("out.part.json")).unwrap()).unwrap();
        assert!(sidecar.as_object_mut().unwrap().remove("file").is_some());
        let expected =
            serde_json::json!({ "created_by": "h3cast get", "url": url, "etag": "\"v1\"", "length": 300_000 });
        assert_eq!(sidecar, expected);
    }
    let got = output(dir.path(), &args).await;
    assert_eq!((text(&got.stderr).as_str(), got.status.code()), ("", Some(0)));
    assert_eq!(std::fs::read(path("out")).unwrap(), *content);
    assert!(!path("out.part").exists() && !path("out.part.json").exists());
    let seen = std::mem::take(&mut *asked.lock().unwrap());
    assert_eq!(seen, ["- -", "bytes=100000- \"v1\"", "bytes=200000- \"v1\""]);
    // All of it is there, and only the name is missing.
    std::fs::rename(path("out"), path("out.part")).unwrap();
    let sidecar = serde_json::json!({ "url": url, "etag": "\"v1\"", "length": 300_000 });
    leave(&path("out.part"), None, sidecar.clone());
    assert_eq!(output(dir.path(), &args).await.status.code(), Some(0));
    assert_eq!(std::fs::read(path("out")).unwrap(), *content);
    // Of another version, and of nobody knows what.
    let other = serde_json::json!({ "url": url, "etag": "\"v0\"", "length": 300_000 });
    for (sidecar, told) in [
        (other, "it has changed"),
        (serde_json::json!({ "url": "x", "etag": "\"v1\"", "length": 9 }), "does not belong to"),
    ] {
        leave(&path("out.part"), Some(b"other"), sidecar);
        let got = output(dir.path(), &args).await;
        assert!(text(&got.stderr).contains(told), "{}", text(&got.stderr));
        assert_eq!(got.status.code(), Some(0));
        assert_eq!(std::fs::read(path("out")).unwrap(), *content);
    }
}

/// Of the same length and time too, as `rsync -t` and package managers leave it.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_never_continued_in_another_version() {
    let dir = tempfile::tempdir().unwrap();
    let write = |content: &[u8]| {
        let path = dir.path().join("big");
        std::fs::write(&path, content).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    let old = noise(300_000);
    let new: Vec<u8> = old.iter().map(|byte| byte ^ 0xff).collect();
    write(&old);
    let server = Serving::start(dir.path(), 0, &["big=file:big"]).await;
    let url = server.url("/stream/big");
    let got = output(dir.path(), &["get", "-v", "--resume", "-o", "out", &url]).await;
    let told = text(&got.stderr);
    let of = |name: &str| {
        told.lines().find_map(|line| line.split_once(&format!("< {name}: "))).map(|(_, value)| value.to_owned())
    };
    let sidecar = serde_json::json!({
        "url": url, "etag": of("etag"), "last_modified": of("last-modified"), "length": old.len()
    });
    write(&new);
    leave(&dir.path().join("new.part"), Some(&old[..100_000]), sidecar);
    let got = output(dir.path(), &["get", "--resume", "-o", "new", &url]).await;
    assert_eq!(got.status.code(), Some(0), "{}", text(&got.stderr));
    assert!(std::fs::read(dir.path().join("new")).unwrap() == new, "{}", text(&got.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_off_goes_on_in_the_same_run() {
    let dir = tempfile::tempdir().unwrap();
    let content = noise(3_000_000);
    std::fs::write(dir.path().join("big"), &*content).unwrap();
    let first = Serving::start(dir.path(), 0, &["big=file:big", "--grace", "0s"]).await;
    // A sidecar as an earlier run has left it.
    let (port, url) = (first.port, first.url("/stream/big"));
    let got = output(dir.path(), &["get", "-v", "--resume", "-o", "out", &url]).await;
    assert_eq!(got.status.code(), Some(0), "{}", text(&got.stderr));
    assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), *content);
    first.program.kill().await;
    // The server comes later, and is the same for the client.
    let told = text(&got.stderr);
    let of = |name: &str| {
        told.lines().find_map(|line| line.split_once(&format!("< {name}: "))).map(|(_, value)| value.to_owned())
    };
    let sidecar = serde_json::json!({
        "url": url, "etag": of("etag"), "last_modified": of("last-modified"), "length": content.len()
    });
    leave(&dir.path().join("new.part"), Some(&content[..1_000_000]), sidecar.clone());
    let mut get = Program::start(dir.path(), &["get", "-v", "--resume", "-o", "new", &url]);
    get.told("no answer from").await;
    let second = Serving::start(dir.path(), port, &["big=file:big"]).await;
    get.told("HTTP/3 206").await;
    get.told("resuming after 1000000 bytes").await;
    assert_eq!(get.end().await.2, Some(0));
    assert_eq!(std::fs::read(dir.path().join("new")).unwrap(), *content);
    // A file that was written anew in between comes from its beginning.
    std::fs::rename(dir.path().join("new"), dir.path().join("new.part")).unwrap();
    let changed = serde_json::from_str(&sidecar.to_string().replace("GMT", "GMT+1")).unwrap();
    leave(&dir.path().join("new.part"), None, changed);
    let got = output(dir.path(), &["get", "--resume", "-o", "new", &url]).await;
    assert!(text(&got.stderr).contains("it has changed: starting again"), "{}", text(&got.stderr));
    assert_eq!(std::fs::read(dir.path().join("new")).unwrap(), *content);
    drop(second);
}

/// Whether `--resume` was given in the first run does not matter to the second one.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_run_without_resume_is_resumed() {
    let content = noise(300_000);
    let (server, asked) = resource(content.clone(), vec![100_000]).await;
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/file", server.base));
    let args = ["get", "--cacert", cert.to_str().unwrap(), "-o", "out", &url];
    let get = Program::start(dir.path(), &args);
    until_len(&dir.path().join("out.part"), 100_000).await;
    get.signal("INT");
    let (_, told, code) = get.end().await;
    assert_eq!((told.as_str(), code), ("h3cast: what has come is in out.part\nh3cast: interrupted\n", Some(130)));
    let got = output(dir.path(), &[&args[..], &["--resume"]].concat()).await;
    assert_eq!((text(&got.stderr).as_str(), got.status.code()), ("", Some(0)));
    assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), *content);
    assert_eq!(std::mem::take(&mut *asked.lock().unwrap()), ["- -", "bytes=100000- \"v1\""]);
    // Replaced by another run, the part of which can be resumed as well.
    let (server, _) = resource(content.clone(), vec![200_000, 100_000]).await;
    let (cert, url) = (server.certificate(), format!("{}/file", server.base));
    let args = ["get", "--cacert", cert.to_str().unwrap(), "-o", "out", &url];
    for (len, expected) in
        [(100_000, ""), (200_000, "out.part of an earlier run is replaced; --resume would continue it")]
    {
        let mut get = Program::start(dir.path(), &args);
        if !expected.is_empty() {
            get.told(expected).await;
        }
        until_len(&dir.path().join("out.part"), len).await;
        get.signal("INT");
        assert_eq!(get.end().await.2, Some(130));
    }
    let got = output(dir.path(), &[&args[..], &["--resume"]].concat()).await;
    assert_eq!((text(&got.stderr).as_str(), got.status.code()), ("", Some(0)));
    assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), *content);
}

/// It may be all that there is of a live feed.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_cannot_be_resumed_is_left_alone() {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let server = TestServer::feed(feed).await;
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/stream?from=start", server.base));
    let args = ["get", "--cacert", cert.to_str().unwrap(), "-o", "out", &url];
    publisher.publish("one\n".into()).await.unwrap();
    let get = Program::start(dir.path(), &args);
    until_len(&dir.path().join("out.part"), 4).await;
    get.signal("INT");
    assert_eq!(get.end().await.2, Some(130));
    for more in [&[][..], &["--resume"], &["--webtransport"]] {
        let got = output(dir.path(), &[&args[..], more].concat()).await;
        let told = text(&got.stderr);
        assert_eq!(got.status.code(), Some(2), "{more:?}: {told}");
        assert!(
            told.contains("out.part holds 4 bytes of an earlier run") && told.contains("move or delete it"),
            "{told}"
        );
        assert_eq!(std::fs::read(dir.path().join("out.part")).unwrap(), b"one\n");
    }
}

/// What an earlier run has left is not given up for a server that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_stays_until_something_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let first = Serving::start(dir.path(), 0, &["demo", "--count", "2"]).await;
    let url = first.url("/stream");
    first.program.kill().await;
    let port = first.port;
    for flags in [&["-o", "out"][..], &["--resume", "--webtransport", "--retry-for", "0s", "-o", "out"]] {
        let of = serde_json::json!({ "url": "x", "etag": "\"v1\"", "length": 99 });
        leave(&dir.path().join("out.part"), Some(b"of an earlier run"), of);
        assert_eq!(output(dir.path(), &[&["get", &url], flags].concat()).await.status.code(), Some(1));
        assert_eq!(std::fs::read(dir.path().join("out.part")).unwrap(), b"of an earlier run");
        assert!(dir.path().join("out.part.json").exists());
    }
    let second = Serving::start(dir.path(), port, &["demo", "--count", "2"]).await;
    assert_eq!(output(dir.path(), &["get", &url, "-o", "out"]).await.status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), demo(2));
    assert!(!dir.path().join("out.part").exists() && !dir.path().join("out.part.json").exists());
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_feed_to_a_file() {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let server = TestServer::feed(feed).await;
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/stream?from=start", server.base));
    let part = dir.path().join("out.part");
    let of = serde_json::json!({ "url": "x", "etag": "\"v1\"", "length": 99 });
    leave(&part, Some(b"of an earlier run"), of);
    let args = ["get", "--cacert", cert.to_str().unwrap(), "-o", "out", &url];
    publisher.publish("one\n".into()).await.unwrap();
    let starts = |part: PathBuf| async move {
        soon("the first chunk", async {
            while std::fs::read(&part).unwrap_or_default() != b"one\n" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    // Ctrl-C leaves what has come, with and without --resume.
    for resume in [&[][..], &["--resume"]] {
        let get = Program::start(dir.path(), &[&args[..], resume].concat());
        starts(part.clone()).await;
        // Nobody else writes there meanwhile.
        let got = output(dir.path(), &args).await;
        assert_eq!(got.status.code(), Some(2));
        assert!(text(&got.stderr).contains("another program is writing"), "{}", text(&got.stderr));
        get.signal("INT");
        let (_, told, code) = get.end().await;
        assert_eq!(code, Some(130));
        assert!(told.contains("what has come is in out.part"), "{told}");
        assert_eq!(std::fs::read(&part).unwrap(), b"one\n");
        assert!(!dir.path().join("out").exists());
        std::fs::remove_file(&part).unwrap();
    }
    publisher.end(End::Clean);
    for resume in [&[][..], &["--resume"], &["--webtransport", "--resume"]] {
        let got = output(dir.path(), &[&args[..], resume].concat()).await;
        assert_eq!(got.status.code(), Some(0), "{}", text(&got.stderr));
        assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), b"one\n");
        assert!(!part.exists());
        std::fs::remove_file(dir.path().join("out")).unwrap();
    }
    let got = output(dir.path(), &["get", "--cacert", cert.to_str().unwrap(), "-o", "/dev/null", &url]).await;
    assert_eq!(got.status.code(), Some(0), "{}", text(&got.stderr));
    assert!(!Path::new("/dev/null.part").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_told_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["--resume", "https://localhost/stream?format=sse"], "`format=sse` cannot be in the URL"),
        (&["--resume", "https://localhost/stream?format=frames"], "`format=frames` cannot be in the URL"),
        (&["--resume", "https://localhost/stream?delivery=datagrams"], "`delivery=datagrams` cannot be in the URL"),
        (&["--resume", "https://localhost/stream?from=x"], "`from=x` cannot be in the URL"),
        (&["--retry-for", "1s"], "--resume"),
        (&["--resume", "--retry-for", "soon"], "--retry-for"),
        (&["-o", "folder"], "cannot write folder"),
        (&["-o", "nowhere/file"], "cannot write nowhere/file: No such file or directory (os error 2)\n"),
        (&["--certs", "nowhere"], "--certs: nowhere is not a folder"),
        (&["--resume", "http://localhost/"], "write the https URL that the server printed"),
    ];
    for (args, expected) in cases {
        let got = output(dir.path(), &[&["get"], *args].concat()).await;
        assert_eq!(got.status.code(), Some(2), "{args:?}: {}", text(&got.stderr));
        assert!(text(&got.stderr).contains(expected), "{args:?}: {}", text(&got.stderr));
    }
    // What is permanent ends at once, and leaves nothing behind.
    let server = Serving::start(dir.path(), 0, &[]).await;
    let missing = server.url("/stream/nothing");
    for more in [&[][..], &["--webtransport"], &["-o", "out"]] {
        let got = output(dir.path(), &[&["get", "--resume", &missing], more].concat()).await;
        assert_eq!(got.status.code(), Some(1), "{more:?}");
        assert!(text(&got.stderr).contains("404"), "{more:?}: {}", text(&got.stderr));
    }
    assert!(!dir.path().join("out.part").exists());
    let got = output(dir.path(), &["get", "--resume", "--cert-hash", &"0".repeat(64), &missing]).await;
    assert_eq!(got.status.code(), Some(1));
    assert!(text(&got.stderr).contains("not trusted"), "{}", text(&got.stderr));
}

/// A terminal, made by script(1).
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_progress_bar_on_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("big"), &*noise(3 << 20)).unwrap();
    let server = Serving::start(dir.path(), 0, &["demo", "big=file:big"]).await;
    let program = env!("CARGO_BIN_EXE_h3cast");
    let on_terminal = async |args: &str| {
        let command = format!("{program} get {args}");
        let got = tokio::process::Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .current_dir(dir.path())
            .env("HOME", dir.path())
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(std::process::Stdio::null())
            .output();
        let got = soon("the program ends", got).await.unwrap();
        assert!(got.status.success(), "{}", text(&got.stdout));
        text(&got.stdout)
    };
    let (big, demo_url) = (server.url("/stream/big"), server.url("/stream"));
    for more in ["", "--resume"] {
        let shown = on_terminal(&format!("-o out {more} {big}")).await;
        assert!(shown.contains("of 3.00 MiB ["), "{shown}");
        // It is taken away at the end.
        assert!(shown.trim_end_matches(['\r', '\n']).ends_with("\x1b[2K"), "{shown:?}");
    }
    let shown = on_terminal(&format!("{demo_url} > out")).await;
    assert!(shown.contains("/s"), "{shown:?}");
    for args in [format!("--no-progress -o out {big}"), format!("-o out {big} 2>errors")] {
        assert_eq!(on_terminal(&args).await, "", "{args}");
    }
    assert_eq!(on_terminal(&demo_url).await.replace('\r', ""), demo(10));
}
