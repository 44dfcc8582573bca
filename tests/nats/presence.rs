//! How many view and write a feed over all edges.

use std::time::Duration;

use async_nats::jetstream;
use h3cast::client::{Viewer, viewer::Event};
use http::Request;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{cluster::Cluster, common::soon, edge::Edge, permissions::admin, serving::Serving, within};

pub(crate) async fn text(serving: &Serving, path: &str) -> String {
    let connection = serving.connect().await;
    let mut answer = soon(path, connection.get(&serving.uri(path))).await.unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = soon("its body", answer.body.next()).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).unwrap()
}

/// Viewers and publishers everywhere, servers, and viewers here.
async fn seen(serving: &Serving) -> Value {
    let feeds: Value = serde_json::from_str(&text(serving, "/feeds").await).unwrap();
    let feed = &feeds["feeds"][0];
    json!([feed["viewers_everywhere"], feed["publishers_everywhere"], feed["servers"], feed["viewers"]])
}

pub(crate) async fn shows(serving: &Serving, due: Value) {
    let mut now = Value::Null;
    let seen = tokio::time::timeout(Duration::from_secs(40), async {
        while now != due {
            sleep(Duration::from_millis(100)).await;
            now = seen(serving).await;
        }
    });
    assert!(seen.await.is_ok(), "{now}, not {due}");
}

pub(crate) async fn view(serving: &Serving) -> Viewer {
    view_of(serving, "chat").await
}

pub(crate) async fn view_of(serving: &Serving, feed: &str) -> Viewer {
    let edge = Edge::of(serving);
    let mut viewer = Viewer::new(&edge.uri(&format!("/stream/{feed}")), edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
    viewer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn viewers_are_counted_over_all_edges() {
    let cluster = Cluster::start(1);
    cluster.jetstream().await;
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let start =
        || tokio::task::block_in_place(|| Serving::start(|_| vec!["chat=publish", engine.as_str(), "--ensure-stream"]));
    let (one, other) = (start(), start());
    let _viewers = [view(&one).await, view(&one).await, view(&other).await];
    let connection = one.connect().await;
    let request = Request::post(one.uri("/stream/chat")).body(()).unwrap();
    let (mut publishing, _answer) = connection.send_request(request).await.unwrap();
    publishing.send("text".into()).await.unwrap();
    shows(&one, json!([3, 1, 2, 2])).await;
    shows(&other, json!([3, 1, 2, 1])).await;
    let metrics = text(&other, "/metrics").await;
    assert!(metrics.contains("h3cast_feed_viewers_everywhere{feed=\"chat\"} 3"), "{metrics}");
    one.kill();
    let killed = Instant::now();
    shows(&other, json!([1, 0, 1, 1])).await;
    assert!(killed.elapsed() < Duration::from_secs(25), "{:?}", killed.elapsed());
    // What the bucket still has of it is not counted by an edge that starts now.
    let third = start();
    let (mut now, mut until) = (Value::Null, Vec::new());
    let seen = tokio::time::timeout(Duration::from_secs(20), async {
        while now != json!([1, 0, 1, 0]) {
            sleep(Duration::from_millis(20)).await;
            now = seen(&third).await;
            if until.last() != Some(&now) {
                until.push(now.clone());
            }
        }
    });
    assert!(seen.await.is_ok() && until.iter().all(|seen| seen[0].as_u64() <= Some(1)), "{until:?}");
}

/// An edge that may not make the bucket, where there is none, says nothing about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn without_a_bucket_only_those_here_are_known() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let config =
        jetstream::stream::Config { name: "CHAT".into(), subjects: vec!["h3cast.chat".into()], ..Default::default() };
    context.create_stream(config).await.unwrap();
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let args = ["chat=publish", engine.as_str()];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let _viewer = view(&serving).await;
    // It has looked for the bucket by then, and its stream is asked for every second.
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(seen(&serving).await, json!([null, null, null, 1]));
    assert!(context.get_stream("KV_h3cast_presence").await.is_err());
    let log = std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    assert!(!log.contains("WARN"), "{log}");
}

/// As `nats kv add` makes it, for edges that make none. One that may not write it knows nothing, and warns of nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_bucket_made_by_hand_is_used_by_those_who_may() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"
        accounts: { APP: { jetstream: enabled, users: [
            { user: admin, password: admin }
            { user: quiet, password: x, permissions: { publish: { deny: ["$KV.>"] } } }
        ] }, SYS: {} }
        system_account: SYS
    "#;
    let path = dir.path().join("nats.conf");
    std::fs::write(&path, config).unwrap();
    let cluster = Cluster::start_with(1, &["-c".into(), path.display().to_string()]);
    let context = admin(&cluster).await;
    let chat =
        jetstream::stream::Config { name: "CHAT".into(), subjects: vec!["h3cast.chat".into()], ..Default::default() };
    let bucket = jetstream::stream::Config {
        name: "KV_h3cast_presence".into(),
        subjects: vec!["$KV.h3cast_presence.>".into()],
        max_messages_per_subject: 1,
        max_age: Duration::from_secs(120),
        duplicate_window: Duration::from_secs(120),
        storage: jetstream::stream::StorageType::Memory,
        discard: jetstream::stream::DiscardPolicy::New,
        deny_delete: true,
        allow_rollup: true,
        allow_direct: true,
        ..Default::default()
    };
    for config in [chat, bucket] {
        context.create_stream(config).await.unwrap();
    }
    let start = |user: &str| {
        let engine = format!("--engine=nats://{user}@{}", cluster.addresses());
        tokio::task::block_in_place(|| Serving::start(|_| vec!["chat=publish", engine.as_str(), "--log=debug"]))
    };
    let (one, quiet) = (start("admin:admin"), start("quiet:x"));
    let _viewers = [view(&one).await, view(&quiet).await];
    shows(&one, json!([1, 0, 1, 1])).await;
    let log = || std::fs::read_to_string(quiet.dir().join("stderr")).unwrap();
    within("it is denied", async {
        while !log().contains("Permissions Violation for Publish to \"$KV.h3cast_presence") {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(seen(&quiet).await, json!([null, null, null, 1]));
    assert!(!log().contains("WARN"), "{}", log());
}

/// One that reaches a system by two addresses, and has viewers of a subject by both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn an_edge_with_two_addresses_is_one() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let config = jetstream::stream::Config { name: "CHAT".into(), subjects: vec!["chat".into()], ..Default::default() };
    context.create_stream(config).await.unwrap();
    let port = cluster.nodes[0].port;
    let [chat, second] = [("chat", "127.0.0.1"), ("second", "localhost")]
        .map(|(name, host)| format!("{name}=nats://{host}:{port}/chat"));
    let start = |feeds: &[&str]| {
        let args = [feeds, &["--ensure-stream"]].concat();
        tokio::task::block_in_place(|| Serving::start(|_| args))
    };
    let (both, other) = (start(&[&chat, &second]), start(&[&chat]));
    let _viewers = [view(&other).await, view(&both).await, view_of(&both, "second").await];
    shows(&other, json!([3, 0, 2, 1])).await;
    shows(&both, json!([3, 0, 2, 1])).await;
}

/// It is in memory: it is gone when all servers have restarted, or when somebody deletes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_bucket_that_is_gone_is_made_again() {
    let mut cluster = Cluster::start(1);
    cluster.jetstream().await;
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let start = |more: &[&str]| {
        let args = [&["chat=publish", engine.as_str()], more].concat();
        tokio::task::block_in_place(|| Serving::start(|_| args))
    };
    // The other one may not make it.
    let (one, other) = (start(&["--ensure-stream"]), start(&[]));
    let _viewers = [view(&one).await, view(&other).await];
    shows(&one, json!([2, 0, 2, 1])).await;
    shows(&other, json!([2, 0, 2, 1])).await;

    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    let context = cluster.jetstream().await;
    let begun = Instant::now();
    shows(&one, json!([2, 0, 2, 1])).await;
    shows(&other, json!([2, 0, 2, 1])).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    // The connection stays.
    context.delete_stream("KV_h3cast_presence").await.unwrap();
    within("it is there again", async {
        while context.get_stream("KV_h3cast_presence").await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    shows(&one, json!([2, 0, 2, 1])).await;
    shows(&other, json!([2, 0, 2, 1])).await;
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    for edge in [&one, &other] {
        let log = std::fs::read_to_string(edge.dir().join("stderr")).unwrap();
        assert!(log.matches("don't hear of each other").count() <= 1, "{log}");
    }
}
