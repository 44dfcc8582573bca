//! What publishers may rely on: what is acknowledged is kept, once, whatever it is called and whoever leads.

use std::{path::Path, process::Stdio, time::Duration};

use async_nats::{HeaderMap, jetstream};
use h3cast::client::{Viewer, viewer::Event};
use http::Request;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::sleep,
};

use crate::{
    cluster::{self, Cluster, healthy},
    common::soon,
    edge::{Edge, chunk_texts, read},
    serving::Serving,
    within,
};

fn start(cluster: &Cluster, prefix: &str) -> Serving {
    let engine = format!("--engine=nats://{}{prefix}", cluster.addresses());
    tokio::task::block_in_place(|| Serving::start(|_| vec!["log=publish", &engine, "--ensure-stream=replicas=1"]))
}

/// Publishes under a key, and gives the answer.
async fn publish(serving: &Serving, key: &str, body: &'static str) -> serde_json::Value {
    let connection = serving.connect().await;
    let request = Request::post(serving.uri("/stream/log")).header("idempotency-key", key).body(()).unwrap();
    let (mut sending, answer) = connection.send_request(request).await.unwrap();
    sending.send(body.into()).await.unwrap();
    sending.finish().await.unwrap();
    let mut answer = within("an answer", answer).await.unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = soon("its body", answer.body.next()).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&text));
    serde_json::from_slice(&text).unwrap()
}

async fn texts(context: &jetstream::Context, stream: &str) -> Vec<String> {
    let kept = cluster::kept(context, stream).await;
    kept.into_iter().map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect()
}

/// Two feeds of one name, whose subjects one stream keeps, and a key that is used for both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn one_key_is_anothers_under_another_prefix() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let config = jetstream::stream::Config {
        name: "ALL".into(),
        subjects: ["h3cast.>", "one.>", "two.>"].map(String::from).into(),
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    // As a program of before that has not answered: its successor finds it by its id.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "log/key/0");
    context.publish_with_headers("h3cast.log", headers, "of before".into()).await.unwrap().await.unwrap();
    for prefix in ["/one", "/two", ""] {
        let serving = start(&cluster, prefix);
        let body = if prefix.is_empty() { "of before" } else { "of after" };
        for _ in 0..2 {
            assert_eq!(publish(&serving, "key", body).await["bytes"], body.len());
        }
    }
    assert_eq!(texts(&context, "ALL").await, ["of before", "of after", "of after"]);
}

fn curl(serving: &Serving, dir: &Path) -> Child {
    Command::new("curl")
        .args(["--silent", "--show-error", "--fail-with-body", "--insecure", "--no-buffer", "-T", "-"])
        .arg(format!("https://localhost:{}/stream/log?chunk=lines", serving.port))
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("curl is installed")
}

/// Without a key there is no second try by the client: the edge waits for as long as an election takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_publication_without_a_key_survives_the_death_of_a_leader() {
    let mut cluster = Cluster::start_whole().await;
    let context = cluster.jetstream().await;
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let args = ["log=publish", &engine, "--ensure-stream=replicas=3"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let leader = healthy(&context, "h3cast_log").await;
    let dir = tempfile::tempdir().unwrap();
    let mut curl = curl(&serving, dir.path());
    let mut stdin = curl.stdin.take().unwrap();
    let line = |number: usize| format!("line {number}\n");
    for number in 0..50 {
        stdin.write_all(line(number).as_bytes()).await.unwrap();
    }
    within("some are kept", async {
        while context.get_stream("h3cast_log").await.unwrap().cached_info().state.messages < 20 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    cluster.nodes.iter_mut().find(|node| node.name == leader).unwrap().kill();
    for number in 50..100 {
        stdin.write_all(line(number).as_bytes()).await.unwrap();
    }
    drop(stdin);
    let ended = within("curl ends", curl.wait_with_output()).await.unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{told} {}", String::from_utf8_lossy(&ended.stderr));
    let context = cluster.jetstream().await;
    let all: Vec<_> = (0..100).map(line).collect();
    assert_eq!(texts(&context, "h3cast_log").await, all, "{told}");
}

/// A stream that is made anew has nothing of what was published before under any key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_key_is_forgotten_with_its_stream() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let serving = start(&cluster, "");
    let before = publish(&serving, "key", "text").await;
    assert_eq!(publish(&serving, "key", "text").await, before);
    let config = context.get_stream("h3cast_log").await.unwrap().cached_info().config.clone();
    context.delete_stream("h3cast_log").await.unwrap();
    context.create_stream(config).await.unwrap();
    let connection = serving.connect().await;
    within("it is noticed", async {
        loop {
            let mut answer = soon("/feeds", connection.get(&serving.uri("/feeds"))).await.unwrap();
            let text = soon("the feeds", answer.body.next()).await.unwrap().unwrap();
            let feeds: serde_json::Value = serde_json::from_slice(&text).unwrap();
            if feeds["feeds"][0]["epoch"] != before["epoch"] {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let after = publish(&serving, "key", "text").await;
    assert_ne!(after["first"], before["first"]);
    assert_eq!(after["epoch"].as_str().unwrap(), after["first"].as_str().unwrap().split_once('-').unwrap().0);
    assert_eq!(texts(&context, "h3cast_log").await, ["text"]);
}

/// A chunk that is sent again after it was deleted is confirmed as it was, and not stored again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_key_is_known_after_its_chunk_was_deleted() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let (serving, again) = (start(&cluster, ""), start(&cluster, ""));
    let before = publish(&serving, "key", "text").await;
    context.get_stream("h3cast_log").await.unwrap().delete_message(1).await.unwrap();
    // At an edge that does not remember it.
    let after = publish(&again, "key", "text").await;
    assert_eq!((&after["first"], &after["bytes"]), (&before["first"], &before["bytes"]));
    assert!(texts(&context, "h3cast_log").await.is_empty());
}

/// The number of the oldest chunk that an edge has in memory of its only feed, if it has one.
async fn oldest(serving: &Serving) -> Option<u64> {
    let connection = serving.connect().await;
    let mut answer = soon("/feeds", connection.get(&serving.uri("/feeds"))).await.unwrap();
    let text = soon("the feeds", answer.body.next()).await.unwrap().unwrap();
    let feeds: serde_json::Value = serde_json::from_slice(&text).unwrap();
    Some(feeds["feeds"][0]["oldest"].as_str()?.split_once('-').unwrap().1.parse().unwrap())
}

async fn becomes(serving: &Serving, due: Option<u64>) {
    within("what was purged is gone", async {
        while oldest(serving).await != due {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// What is purged is gone from the memory of edges too, and viewers who are behind are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn what_is_purged_is_gone() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let config = |name: &str| jetstream::stream::Config {
        name: name.to_uppercase(),
        subjects: vec![format!("{name}.*")],
        allow_direct: true,
        ..Default::default()
    };
    for name in ["one", "many"] {
        let subjects = if name == "one" { vec!["one.x".to_owned()] } else { config(name).subjects };
        context.create_stream(jetstream::stream::Config { subjects, ..config(name) }).await.unwrap();
        for number in 0..20 {
            context.publish(format!("{name}.x"), format!("{number}").into()).await.unwrap().await.unwrap();
        }
    }
    for (name, subject) in [("one", "one.x"), ("many", "many.*")] {
        let source = format!("f=nats://{}/{subject}", cluster.addresses());
        let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![source]));
        let edge = Edge::of(&serving);
        let path = if name == "one" { "/stream/f" } else { "/stream/f.x" };
        let mut live = Viewer::new(&edge.uri(path), edge.trust.clone()).unwrap();
        assert!(matches!(soon("it opens", live.next()).await.unwrap(), Some(Event::Opened { .. })));
        for number in 20..25 {
            context.publish(format!("{name}.x"), format!("{number}").into()).await.unwrap().await.unwrap();
        }
        let mut cursor = None;
        for number in 20..25 {
            let Some(Event::Chunk { bytes, cursor: at, .. }) = soon("a chunk", live.next()).await.unwrap() else {
                panic!("no chunk")
            };
            assert_eq!(bytes, number.to_string());
            cursor = cursor.or(Some(at));
        }
        assert!(oldest(&serving).await.unwrap() <= 20);
        let mut stream = context.get_stream(name.to_uppercase()).await.unwrap();
        stream.purge().sequence(24).await.unwrap();
        becomes(&serving, Some(23)).await;
        let events = read(&edge, &format!("{path}?from=start"), 2).await;
        assert_eq!(chunk_texts(&events), ["23", "24"]);
        let events = read(&edge, &format!("{path}?from={}", cursor.unwrap()), 2).await;
        let missing = events.iter().find_map(|event| match event {
            Event::Gap(gap) => Some((gap.from, gap.missing)),
            _ => None,
        });
        assert_eq!((missing, chunk_texts(&events)), (Some((21, 2)), vec!["23".into(), "24".into()]));
        stream.purge().await.unwrap();
        becomes(&serving, None).await;
        // It goes on, for those who have seen all of it too.
        context.publish(format!("{name}.x"), "after".into()).await.unwrap().await.unwrap();
        let event = soon("a chunk", live.next()).await.unwrap().unwrap();
        let Event::Chunk { bytes, cursor, .. } = event else { panic!("{event:?}") };
        assert_eq!(bytes, "after");
        assert_eq!(stream.info().await.unwrap().state.messages, 1);
        if name == "many" {
            // Who has seen that, and resumes after it and messages of another feed were purged, misses nothing.
            for subject in ["many.y", "many.y", "many.x"] {
                context.publish(subject, "last".into()).await.unwrap().await.unwrap();
            }
            stream.purge().sequence(29).await.unwrap();
            becomes(&serving, Some(28)).await;
            let events = read(&edge, &format!("{path}?from={cursor}"), 1).await;
            assert_eq!(chunk_texts(&events), ["last"]);
            assert!(!events.iter().any(|event| matches!(event, Event::Gap(_))), "{events:?}");
        }
    }
}
