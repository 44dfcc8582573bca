//! Backup, restore and changes of a stream, as docs/operations.md describes them. What the `nats` program asks the
//! server for is asked for here, by the same requests.

use std::time::Duration;

use async_nats::jetstream::{self, stream::Config};
use bytes::Bytes;
use futures_util::StreamExt;
use h3cast::client::{Viewer, viewer::Event};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, kept},
    common::soon,
    edge::{Edge, chunk_texts, publish, read},
    serving::Serving,
};

/// What `nats stream backup` stores: the stream's settings and state, and its content.
struct Backup {
    about: Value,
    content: Vec<Bytes>,
}

async fn ask(context: &jetstream::Context, subject: String, body: &Value) -> Value {
    let answer = soon("an answer", context.client().request(subject, body.to_string().into())).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer.get("error"), None, "{answer}");
    answer
}

async fn backup(context: &jetstream::Context, stream: &str) -> Backup {
    let client = context.client();
    let inbox = client.new_inbox();
    let mut messages = client.subscribe(inbox.clone()).await.unwrap();
    let body = json!({ "deliver_subject": inbox, "no_consumers": true, "chunk_size": 65536 });
    let about = ask(context, format!("$JS.API.STREAM.SNAPSHOT.{stream}"), &body).await;
    let mut content = Vec::new();
    loop {
        let message = soon("a piece", messages.next()).await.unwrap();
        if let Some(reply) = message.reply {
            client.publish(reply, Bytes::new()).await.unwrap();
        }
        if message.payload.is_empty() {
            return Backup { about, content };
        }
        content.push(message.payload);
    }
}

async fn restore(context: &jetstream::Context, stream: &str, backup: &Backup) {
    let body = json!({ "config": backup.about["config"], "state": backup.about["state"] });
    let answer = ask(context, format!("$JS.API.STREAM.RESTORE.{stream}"), &body).await;
    let to = answer["deliver_subject"].as_str().unwrap().to_owned();
    for piece in backup.content.iter().cloned().chain([Bytes::new()]) {
        let answer = soon("it is taken", context.client().request(to.clone(), piece)).await.unwrap();
        assert!(!String::from_utf8_lossy(&answer.payload).contains("\"error\""), "{answer:?}");
    }
}

fn serve(cluster: &Cluster) -> Serving {
    let engine = format!("--engine=nats://{}", cluster.addresses());
    tokio::task::block_in_place(|| Serving::start(|_| vec!["chat=publish", &engine, "--ensure-stream"]))
}

async fn publish_some(edge: &Edge, from: usize, to: usize) -> Vec<String> {
    let mut connection = None;
    let lines: Vec<_> = (from..to).map(|number| format!("line {number}\n")).collect();
    for line in &lines {
        publish(std::slice::from_ref(edge), &mut 0, &mut connection, &format!("key {}", line.trim()), line).await;
    }
    lines
}

/// Restored into another cluster, a feed has the same chunks with the same numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_backup_is_restored_elsewhere() {
    let (cluster, other) = (Cluster::start(1), Cluster::start(1));
    let (context, other_context) = (cluster.jetstream().await, other.jetstream().await);
    let serving = serve(&cluster);
    let lines = publish_some(&Edge::of(&serving), 0, 30).await;
    let stored = backup(&context, "h3cast_chat").await;
    restore(&other_context, "h3cast_chat", &stored).await;
    assert_eq!(kept(&other_context, "h3cast_chat").await, kept(&context, "h3cast_chat").await);
    let elsewhere = serve(&other);
    let edge = Edge::of(&elsewhere);
    assert_eq!(chunk_texts(&read(&edge, "/stream/chat?from=start", 30).await), lines);
    // By its time of creation 2.15 gives it a new epoch, with the numbers of the old one.
    let is_kept = created(&context).await == created(&other_context).await;
    let version = context.client().server_info().version;
    assert_eq!(is_kept, !version.starts_with("2.15."), "{version}");
    publish_some(&edge, 30, 31).await;
    assert_eq!(chunk_texts(&read(&edge, "/stream/chat?from=start", 31).await).len(), 31);
}

async fn created(context: &jetstream::Context) -> i128 {
    context.get_stream("h3cast_chat").await.unwrap().cached_info().created.unix_timestamp_nanos()
}

/// A copy of a server's folder, taken while it is down, is the same stream: cursors stay valid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_copied_folder_is_the_same_stream() {
    let mut cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let lines = publish_some(&Edge::of(&serve(&cluster)), 0, 10).await;
    let (before, all) = (created(&context).await, kept(&context, "h3cast_chat").await);
    cluster.nodes[0].kill();
    let copy = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(cluster.folder(0)).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    let other = Cluster::start_with(1, &["-sd".into(), copy.path().join("n0").display().to_string()]);
    let context = other.jetstream().await;
    assert_eq!((created(&context).await, kept(&context, "h3cast_chat").await), (before, all));
    let edge = serve(&other);
    let second = format!("/stream/chat?from={}-0", h3cast::chunk::Epoch((before / 1_000_000) as u64));
    assert_eq!(chunk_texts(&read(&Edge::of(&edge), &second, 9).await), lines[1..]);
}

/// What can be changed of a stream under running edges: its limits, and what it is copied to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_stream_is_changed_under_its_viewers() {
    let cluster = Cluster::start_whole().await;
    let context = cluster.jetstream().await;
    let serving = serve(&cluster);
    let edge = Edge::of(&serving);
    publish_some(&edge, 0, 10).await;
    let mut viewer = Viewer::new(&edge.uri("/stream/chat?from=start"), edge.trust.clone()).unwrap();
    let mut seen = Vec::new();
    let mut until = async |seen: &mut Vec<String>, count: usize| {
        while seen.len() < count {
            match soon("an event", viewer.next()).await.unwrap() {
                Some(Event::Chunk { bytes, .. }) => seen.push(String::from_utf8(bytes.to_vec()).unwrap()),
                Some(Event::Gap(gap)) => panic!("{gap:?}"),
                Some(_) => {}
                None => panic!("it ended"),
            }
        }
    };
    until(&mut seen, 10).await;
    let config = context.get_stream("h3cast_chat").await.unwrap().cached_info().config.clone();
    let changed = Config { num_replicas: 3, max_age: Duration::from_secs(3600), max_bytes: 64 << 20, ..config };
    soon("all servers know of each other", async {
        while let Err(error) = context.update_stream(changed.clone()).await {
            assert!(error.to_string().contains("no suitable peers"), "{error}");
            // Nobody tells when they do.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    publish_some(&edge, 10, 20).await;
    until(&mut seen, 20).await;
    let all: Vec<_> = (0..20).map(|number| format!("line {number}\n")).collect();
    assert_eq!(seen, all);
    let info = context.get_stream("h3cast_chat").await.unwrap().cached_info().clone();
    assert_eq!((info.config.num_replicas, info.state.messages), (3, 20));
}
