//! Feeds of subjects and patterns, and what is said when NATS is not there or not as it should be.

use std::time::Duration;

use async_nats::jetstream;
use h3cast::client::{Viewer, viewer::Event};
use http::Request;
use tokio::time::sleep;

use crate::{
    cluster::{Cluster, Node, Way},
    common::soon,
    edge::{Edge, chunk_texts, publish, read},
    serving::Serving,
    within,
};

/// Feeds that clients create at one edge are there at the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn feeds_that_clients_create_are_shared() {
    let cluster = Cluster::start(1);
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let args = ["chat.*=publish", &engine, "--ensure-stream", "--feeds-per-client=3"];
    let start = || tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let (one, other) = (start(), start());
    let write = async |serving: &Serving, name: &str, text: &'static str| {
        let connection = serving.connect().await;
        let request = Request::post(serving.uri(&format!("/stream/{name}"))).body(()).unwrap();
        let (mut body, response) = connection.send_request(request).await.unwrap();
        body.send(text.into()).await.unwrap();
        let _ = body.finish().await;
        soon("the answer", response).await.unwrap().status.as_u16()
    };
    let edge = Edge::of(&other);
    let (late, early) = (edge.uri("/stream/chat.rust?from=start"), edge.uri("/stream/chat.rust"));
    let mut waiting = Viewer::new(&early, edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", waiting.next()).await.unwrap(), Some(Event::Opened { .. })));
    assert_eq!(write(&one, "chat.rust", "hello").await, 200);
    assert_eq!(write(&one, "chat.other", "not here").await, 200);
    let heard = async {
        loop {
            if let Some(Event::Chunk { bytes, .. }) = waiting.next().await.unwrap() {
                return bytes;
            }
        }
    };
    assert_eq!(soon("the chunk", heard).await, "hello");
    assert_eq!(chunk_texts(&read(&edge, late.path_and_query().unwrap().as_str(), 1).await), ["hello"]);
    assert_eq!(write(&other, "chat.rust", "again").await, 200);
    assert_eq!(write(&one, "chat.a.b", "no").await, 404);
    assert_eq!(write(&one, "chat.third", "x").await, 200);
    assert_eq!(write(&one, "chat.fourth", "x").await, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn patterns_make_feeds_and_plain_subjects_are_live() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let config =
        jetstream::stream::Config { name: "LOGS".into(), subjects: vec!["logs.>".into()], ..Default::default() };
    context.create_stream(config).await.unwrap();
    for (subject, text) in [("logs.web", "a"), ("logs.db", "b"), ("logs.web", "c"), ("logs.web", "d")] {
        context.publish(subject, text.into()).await.unwrap().await.unwrap();
    }
    let address = cluster.addresses();
    let (logs, live) = (format!("logs=nats://{address}/logs.*"), format!("live=nats://{address}/plain?live"));
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![logs, live]));
    let edge = Edge::of(&serving);
    let events = read(&edge, "/stream/logs.web?from=start", 3).await;
    assert_eq!(chunk_texts(&events), ["a", "c", "d"]);
    // The numbers of others are left out, and that is no loss.
    assert!(!events.iter().any(|event| matches!(event, Event::Gap(_))), "{events:?}");
    assert_eq!(chunk_texts(&read(&edge, "/stream/logs.db?from=start", 1).await), ["b"]);
    let connection = serving.connect().await;
    let not_found = async |path: &str| {
        let mut missing = connection.get(&edge.uri(path)).await.unwrap();
        assert_eq!(missing.status, 404);
        missing.problem().await.unwrap()
    };
    let told = not_found("/stream/logs.a.b").await;
    assert_eq!(told, "there is no feed `logs.a.b`: there are live, and names like logs.*");
    let told = not_found("/stream/logs.none").await;
    assert!(told.contains("no feed `logs.none` yet: the name matches logs.*, but no message is stored"), "{told}");
    assert!(told.ends_with("; there are logs.db, logs.web"), "{told}");

    let mut viewer = Viewer::new(&edge.uri("/stream/live"), edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
    let client = context.client();
    let heard = async {
        loop {
            if let Some(Event::Chunk { bytes, .. }) = viewer.next().await.unwrap() {
                return bytes;
            }
        }
    };
    let told = async {
        loop {
            client.publish("plain", "now".into()).await.unwrap();
            client.flush().await.unwrap();
            // The server's subscription may come later than it says that it is ready.
            sleep(Duration::from_millis(50)).await;
        }
    };
    let heard = soon("a live message", async {
        tokio::select! { bytes = heard => bytes, () = told => unreachable!() }
    });
    assert_eq!(heard.await.as_ref(), b"now");
}

/// Each viewer that asks first creates the feed, and all but one of those are dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn viewers_who_ask_at_once_for_a_new_feed_are_no_failure() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let config =
        jetstream::stream::Config { name: "LOGS".into(), subjects: vec!["logs.>".into()], ..Default::default() };
    context.create_stream(config).await.unwrap();
    for feed in 0..5 {
        context.publish(format!("logs.n{feed}"), "text".into()).await.unwrap().await.unwrap();
    }
    let logs = format!("logs=nats://{}/logs.*", cluster.addresses());
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![logs]));
    let edge = Edge::of(&serving);
    let connection = serving.connect().await;
    for feed in 0..5 {
        let uri = edge.uri(&format!("/stream/logs.n{feed}?from=start&limit=1"));
        let answers = futures_util::future::join_all((0..8).map(|_| connection.get(&uri))).await;
        for answer in answers {
            assert_eq!(soon("the chunk", answer.unwrap().body.next()).await.unwrap().unwrap(), "text");
        }
    }
    let log = serving.dir().join("stderr");
    tokio::task::block_in_place(|| serving.terminate());
    let log = soon("it says that it stops", async {
        loop {
            let log = std::fs::read_to_string(&log).unwrap();
            if log.contains("shutting down") {
                return log;
            }
            // Nobody tells when it is written.
            sleep(Duration::from_millis(20)).await;
        }
    });
    let log = log.await;
    assert!(!log.contains("the feed failed"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_server_without_nats_says_so() {
    let mut cluster = Cluster::start(1);
    cluster.jetstream().await;
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let serving =
        tokio::task::block_in_place(|| Serving::start(|_| vec!["chat=publish", engine.as_str(), "--ensure-stream"]));
    let edge = Edge::of(&serving);
    let connection = serving.connect().await;
    let ready = async |status: u16| {
        soon("readiness", async {
            while connection.get(&edge.uri("/readyz")).await.unwrap().status != status {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    };
    ready(200).await;
    let mut viewer = Viewer::new(&edge.uri("/stream/chat"), edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
    cluster.nodes[0].kill();
    assert!(matches!(soon("it is told", viewer.next()).await.unwrap(), Some(Event::Stalled(true))));
    ready(503).await;
    let request = Request::post(edge.uri("/stream/chat")).body(()).unwrap();
    let (mut body, answer) = connection.send_request(request).await.unwrap();
    body.send("lost".into()).await.unwrap();
    body.finish().await.unwrap();
    let answer = within("an answer", answer).await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key("retry-after"));
    cluster.nodes[0].start();
    assert!(matches!(within("it goes on", viewer.next()).await.unwrap(), Some(Event::Stalled(false))));
    ready(200).await;
    let mut at = 0;
    publish(std::slice::from_ref(&edge), &mut at, &mut None, "key", "back\n").await;
    assert!(matches!(soon("a chunk", viewer.next()).await.unwrap(), Some(Event::Chunk { .. })));
}

/// What a stream drops while an edge does not reach it is missed by that edge's viewers: they are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn what_is_dropped_meanwhile_is_told() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let mut way = Way::to(cluster.nodes[0].port).await;
    let engine = format!("--engine=nats://127.0.0.1:{}", way.port);
    let args = ["chat=publish", &engine, "--ensure-stream=max-messages=5"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    let publish = async |number: u64| {
        context.publish("h3cast.chat", number.to_string().into()).await.unwrap().await.unwrap();
    };
    let mut viewer = Viewer::new(&edge.uri("/stream/chat?from=start"), edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
    for number in 0..3 {
        publish(number).await;
        let Some(Event::Chunk { cursor, .. }) = soon("a chunk", viewer.next()).await.unwrap() else { panic!("none") };
        assert_eq!(cursor.seq, number);
    }
    way.cut().await;
    assert!(matches!(within("it is told", viewer.next()).await.unwrap(), Some(Event::Stalled(true))));
    for number in 3..20 {
        publish(number).await;
    }
    way.mend().await;
    let (mut missing, mut seqs, mut stalled) = (None, Vec::new(), true);
    while seqs.last() != Some(&19) || stalled {
        match within("it goes on", viewer.next()).await.unwrap().unwrap() {
            Event::Chunk { cursor, .. } => seqs.push(cursor.seq),
            Event::Gap(gap) => missing = Some((gap.from, gap.missing)),
            Event::Stalled(now) => stalled = now,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((missing, seqs), (Some((3, 12)), (15..20).collect()));
}

/// A cluster that forgets what it kept, but not that it kept it: the same numbers would be given twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_stream_that_forgets_is_not_gone_on_with() {
    let mut cluster = Cluster::start_whole().await;
    let context = cluster.jetstream().await;
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let args = ["chat=publish", &engine, "--ensure-stream=storage=memory,replicas=3"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    for number in 0..5 {
        context.publish("h3cast.chat", number.to_string().into()).await.unwrap().await.unwrap();
    }
    assert_eq!(chunk_texts(&read(&edge, "/stream/chat?from=start", 5).await), ["0", "1", "2", "3", "4"]);
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::start);
    let context = cluster.jetstream().await;
    // It says so, and takes nothing, until somebody makes it anew.
    let connection = serving.connect().await;
    let ready = async |status: u16| {
        within("readiness", async {
            while connection.get(&edge.uri("/readyz")).await.unwrap().status != status {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    };
    ready(503).await;
    let stream = within("the stream is there", async {
        loop {
            match context.get_stream("h3cast_chat").await {
                Ok(stream) if stream.cached_info().state.last_sequence == 0 => break stream,
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
    })
    .await;
    let (mut body, answer) =
        connection.send_request(Request::post(edge.uri("/stream/chat")).body(()).unwrap()).await.unwrap();
    body.send("doubtful".into()).await.unwrap();
    body.finish().await.unwrap();
    assert_eq!(within("an answer", answer).await.unwrap().status, 503);
    assert_eq!(stream.get_info().await.unwrap().state.last_sequence, 0);
    context.delete_stream("h3cast_chat").await.unwrap();
    context.create_stream(stream.cached_info().config.clone()).await.unwrap();
    ready(200).await;
    publish(std::slice::from_ref(&edge), &mut 0, &mut None, "key", "anew\n").await;
    assert_eq!(chunk_texts(&read(&edge, "/stream/chat?from=start", 1).await), ["anew\n"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn what_is_wrong_is_said() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let config = jetstream::stream::Config { name: "S".into(), subjects: vec!["there".into()], ..Default::default() };
    context.create_stream(config).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let address = cluster.addresses();
    let refused = async |args: &[&str], words: &str| {
        let told = crate::told::refused(dir.path(), args).await;
        assert!(told.contains(words), "{told}");
    };
    refused(&[&format!("nats://{address}/gone")], "no JetStream stream stores the subject `gone`").await;
    refused(&[&format!("nats://{address}/there"), "--ensure-stream=max-age=1h"], "max-age is unlimited, not 1h").await;
    refused(&["nats://127.0.0.1:1/x", "--nats-wait=1s"], "cannot connect to NATS at 127.0.0.1:1").await;
    refused(&["nats://127.0.0.1:1"], "has no subject").await;
    let live = format!("nats://{address}/there?live");
    refused(&[&live, "--lag", "block"], "the live subject `there` cannot wait for slow viewers").await;
    refused(&[&format!("nats://{address}/there"), "--nats-creds", "none"], "cannot read the credentials").await;
    // The file is not needed with a password, and is missing all the same.
    for flag in ["--nats-creds", "--nats-token-file"] {
        refused(&[&format!("nats://app:x@{address}/there"), flag, "none"], "for NATS in none: No such file").await;
    }
    let config = jetstream::stream::Config {
        name: "QUEUE".into(),
        subjects: vec!["queue".into()],
        retention: jetstream::stream::RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    refused(&[&format!("nats://{address}/queue")], "its retention must be `limits`").await;
    refused(&[&format!("nats://{address}/queue?stream=S")], "does not store the subject `queue`, but there").await;
    for (name, subject) in [("ONE", "parts.a"), ("TWO", "parts.b")] {
        let subjects = vec![subject.into()];
        let config = jetstream::stream::Config { name: name.into(), subjects, ..Default::default() };
        context.create_stream(config).await.unwrap();
    }
    refused(&[&format!("nats://{address}/parts.*")], "`parts.*`: ONE, TWO. Name one of them").await;
    // The bucket in which edges tell of themselves is no choice.
    let config = jetstream::stream::Config {
        name: "KV_h3cast_presence".into(),
        subjects: vec!["$KV.h3cast_presence.>".into()],
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    refused(
        &[&format!("all=nats://{address}/>")],
        "store subjects like `>`: ONE, QUEUE, S, TWO. Name one of them: nats://…/>?stream=ONE",
    )
    .await;
    // It was not changed.
    assert_eq!(context.get_stream("S").await.unwrap().cached_info().config.max_age, Duration::ZERO);
}
