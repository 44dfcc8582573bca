//! What is said, and counted, of what NATS refuses while a server runs.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use http::Request;

use crate::{
    cluster::{Cluster, Node},
    common::soon,
    program,
    serving::Serving,
    within,
};

/// The status and the words of an answer to a publication.
pub(crate) async fn published(serving: &Serving, feed: &str) -> (u16, String) {
    published_text(serving, feed, "text").await
}

async fn published_text(serving: &Serving, feed: &str, text: &str) -> (u16, String) {
    let connection = serving.connect().await;
    let request = Request::post(serving.uri(&format!("/stream/{feed}"))).body(()).unwrap();
    let (mut body, answer) = connection.send_request(request).await.unwrap();
    body.send(text.to_owned().into()).await.unwrap();
    body.finish().await.unwrap();
    let mut answer = soon("an answer", answer).await.unwrap();
    let mut words = Vec::new();
    while let Some(bytes) = soon("its words", answer.body.next()).await.unwrap() {
        words.extend_from_slice(&bytes);
    }
    (answer.status.as_u16(), String::from_utf8(words).unwrap())
}

/// The value of a line of /metrics.
pub(crate) async fn metric(serving: &Serving, line: &str) -> f64 {
    let connection = serving.connect().await;
    let mut answer = soon("/metrics", connection.get(&serving.uri("/metrics"))).await.unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = soon("the metrics", answer.body.next()).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    let text = String::from_utf8(text).unwrap();
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("there is no {line}: {text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn what_is_refused_names_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nats.conf");
    let config = r#"
        accounts: { APP: { jetstream: enabled, users: [
            { user: app, password: x, permissions: { publish: { deny: "h3cast.secret" } } }, { user: all, password: x }
        ] }, SYS: {} }
        system_account: SYS
        no_auth_user: all
    "#;
    std::fs::write(&path, config).unwrap();
    let mut cluster = Cluster::start_with(1, &["-c".into(), path.display().to_string()]);
    let context = cluster.jetstream().await;
    let full = Config {
        name: "FULL".into(),
        subjects: vec!["h3cast.full".into()],
        max_messages: 1,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    context.create_stream(full).await.unwrap();
    for (feed, max_bytes, max_message_size) in [("bytes", 3, -1), ("large", -1, 3)] {
        let (name, subjects) = (feed.to_owned(), vec![format!("h3cast.{feed}")]);
        let discard = DiscardPolicy::New;
        let config = Config { name, subjects, discard, max_bytes, max_message_size, ..Config::default() };
        context.create_stream(config).await.unwrap();
    }
    context.publish("h3cast.full", "first".into()).await.unwrap().await.unwrap();
    let engine = format!("--engine=nats://app:x@{}", cluster.addresses());
    let feeds = ["secret", "full", "bytes", "large", "gone", "chat"].map(|feed| format!("{feed}=publish"));
    let args: Vec<_> = feeds.iter().map(String::as_str).chain([engine.as_str(), "--ensure-stream"]).collect();
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    assert_eq!(published(&serving, "chat").await.0, 200);
    context.delete_stream("h3cast_gone").await.unwrap();
    let (secret, full, bytes, large, gone) = tokio::join!(
        published(&serving, "secret"),
        published(&serving, "full"),
        published(&serving, "bytes"),
        published(&serving, "large"),
        published(&serving, "gone")
    );
    // NATS says of all of them for certain that they are not stored.
    for (due, refused) in [(503, &secret), (507, &full), (507, &bytes), (413, &large), (503, &gone)] {
        assert!(refused.0 == due && !refused.1.contains("in_doubt"), "{refused:?}");
    }
    assert!(secret.1.contains("the NATS user may not publish to `h3cast.secret`"), "{secret:?}");
    assert!(full.1.contains("JetStream has no room for it: the stream has reached its limit"), "{full:?}");
    assert!(gone.1.contains("the stream `h3cast_gone` no longer exists"), "{gone:?}");
    assert_eq!(metric(&serving, r#"h3cast_nats_refused_total{cause="denied"}"#).await, 1.0);
    assert_eq!(metric(&serving, r#"h3cast_nats_refused_total{cause="full"}"#).await, 2.0);
    assert_eq!(metric(&serving, "h3cast_nats_publish_seconds_count").await, 1.0);
    assert_eq!(metric(&serving, "h3cast_nats_consumers").await, 5.0);
    // All is read that the leaders have.
    assert_eq!(metric(&serving, "h3cast_nats_lag").await, 0.0);
    let log = std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    assert_eq!(log.matches("permission denied").count(), 1, "{log}");

    // What has reached NATS, and is not answered, may be stored.
    cluster.nodes.iter().for_each(Node::pause);
    let silent = published(&serving, "chat").await;
    assert!(silent.0 == 503 && silent.1.contains("\"in_doubt\":true"), "{silent:?}");

    // A connection that is made again is counted.
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::start);
    soon("it is connected again", async {
        while metric(&serving, "h3cast_nats_reconnects_total").await < 1.0 {
            // Nobody tells when.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// A stream that is full is an answer, which is given at once, and told once until there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_full_stream_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nats.conf");
    std::fs::write(&path, "jetstream: { max_file_store: 65536 }\n").unwrap();
    let cluster = Cluster::start(1);
    let small = Cluster::start_with(1, &["-c".into(), path.display().to_string()]);
    let context = cluster.jetstream().await;
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let args = ["full=publish", "chat=publish", &engine, "--ensure-stream=max-messages=2,discard=new"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let log = || std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    let (refused, stored) = ("publications are refused: JetStream has no room", "publications are stored again");
    for _ in 0..2 {
        assert_eq!(published(&serving, "full").await.0, 200);
    }
    for _ in 0..3 {
        let began = Instant::now();
        let (status, words) = published(&serving, "full").await;
        // For what may be an election it is tried for 15 s.
        assert!(status == 507 && began.elapsed() < Duration::from_secs(12), "{:?}: {words}", began.elapsed());
        assert!(words.contains("discard=new") && words.contains("(NATS: maximum messages exceeded)"), "{words}");
    }
    assert_eq!(published(&serving, "chat").await.0, 200);
    assert_eq!((log().matches(refused).count(), log().matches(stored).count()), (1, 0), "{}", log());
    context.get_stream("h3cast_full").await.unwrap().purge().await.unwrap();
    for _ in 0..2 {
        assert_eq!(published(&serving, "full").await.0, 200);
    }
    assert_eq!((log().matches(refused).count(), log().matches(stored).count()), (1, 1), "{}", log());

    // The server itself has none, whatever the stream is like.
    let engine = format!("--engine=nats://{}", small.addresses());
    let args = ["chat=publish", &engine, "--ensure-stream"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let (began, words) = within("it is full", async {
        loop {
            let began = Instant::now();
            let (status, words) = published_text(&serving, "chat", &"text".repeat(4096)).await;
            match status {
                200 => {}
                503 => break (began, words),
                _ => panic!("{status}: {words}"),
            }
        }
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(14), "{:?}: {words}", began.elapsed());
    assert!(words.contains("JetStream has no room for it") && words.contains("max_file_store"), "{words}");
    let log = std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    assert_eq!(log.matches(refused).count(), 1, "{log}");
}

/// A server whose password was changed: the cause is told once, however often it is tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn why_it_does_not_connect_again_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nats.conf");
    let password = |password: &str| {
        std::fs::write(&path, format!("authorization: {{ user: app, password: {password} }}\n")).unwrap();
    };
    password("first");
    let mut cluster = Cluster::start_with(1, &["-c".into(), path.display().to_string()]);
    let engine = format!("--engine=nats://app:first@{}", cluster.addresses());
    let args = ["serve", "--listen", "localhost:0", "--http", "off", "chat=publish", &engine, "--ensure-stream"];
    let program = program::Program::start(dir.path(), &args);
    let mut serving = program::Serving::of(program).await;
    cluster.nodes[0].kill();
    password("second");
    cluster.nodes[0].start();
    serving.program.told("the connection to NATS is lost").await;
    serving.program.told("authorization violation: the user, password, token or credentials").await;
    cluster.nodes[0].kill();
    password("first");
    cluster.nodes[0].start();
    let before = serving.program.told_after("NATS", |line| line.contains("connected to NATS again")).await;
    assert!(!before.iter().any(|line| line.contains("authorization violation")), "told twice: {before:?}");
    serving.program.told("a feed has resumed").await;
}
