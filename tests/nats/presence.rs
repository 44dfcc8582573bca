//! How many view and write a feed over all edges.

use std::time::Duration;

use async_nats::jetstream;
use h3cast::client::{Viewer, viewer::Event};
use http::Request;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{cluster::Cluster, common::soon, edge::Edge, serving::Serving};

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
    let edge = Edge::of(serving);
    let mut viewer = Viewer::new(&edge.uri("/stream/chat"), edge.trust.clone()).unwrap();
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
