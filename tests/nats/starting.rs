//! A server that starts before NATS is ready, and what it says of what will not become ready.

use std::time::Duration;

use async_nats::jetstream::stream::Config;

use crate::{
    cluster::{Cluster, Node},
    edge::{Edge, chunk_texts, publish, read},
    program,
    serving::Serving,
    told::refused,
    within,
};

/// An edge that is started before its cluster waits for it, and says so once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn an_edge_waits_for_a_fresh_cluster() {
    let mut cluster = Cluster::start(3);
    cluster.nodes.iter_mut().for_each(Node::kill);
    let dir = tempfile::tempdir().unwrap();
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let args =
        ["serve", "--listen", "localhost:0", "--http", "off", "chat=publish", &engine, "--ensure-stream=replicas=3"];
    let mut starting = program::Program::start(dir.path(), &args);
    starting.told("waiting up to 60 s for NATS: cannot connect to NATS").await;
    // One of three is no majority: there is no leader.
    cluster.nodes[0].start();
    starting.told("for NATS: JetStream does not answer").await;
    cluster.nodes[1..].iter_mut().for_each(Node::start);
    let serving = within("it starts", program::Serving::of(starting)).await;
    assert!(serving.port > 0);
    serving.program.signal("TERM");
    let (_, told, _) = serving.program.end().await;
    assert!(!told.contains("cannot connect"), "it was told already: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn what_waiting_does_not_help_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let began = std::time::Instant::now();
    let config = r#"
        accounts: { APP: { jetstream: enabled, users: [
            { user: none, password: x, permissions: { publish: { allow: ["h3cast.>"] }, subscribe: "_INBOX.>" } },
            { user: deaf, password: x, permissions: { publish: ">", subscribe: { deny: ">" } } }
        ] }, BARE: { users: [{ user: bare, password: x }] }, SYS: {} }
        system_account: SYS
    "#;
    let path = dir.path().join("nats.conf");
    std::fs::write(&path, config).unwrap();
    let cluster = Cluster::start_with(1, &["-c".into(), path.display().to_string()]);
    let address = cluster.addresses();
    for (user, words) in [
        ("none:wrong", "authorization violation: the user, password"),
        ("none:x", "permission denied: the NATS user may not publish to `$JS.API."),
        ("deaf:x", "permission denied: the NATS user may not subscribe to `_INBOX."),
        ("bare:x", "JetStream not enabled for account"),
    ] {
        let told = refused(dir.path(), &["chat=publish", &format!("--engine=nats://{user}@{address}")]).await;
        assert!(told.contains(words), "{user}: {told}");
        // What the client library says of it would be a second line.
        assert!(!told.contains("async_nats"), "{told}");
        assert!(told.to_lowercase().matches("authorization violation").count() <= 1, "{told}");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

/// Streams as they are asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn streams_are_made_as_asked_for() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let address = cluster.addresses();
    let engine = format!("--engine=nats://{address}");
    // Both names are h3cast_a_b when they are folded.
    let args =
        ["chat=publish", "a.b=publish", "a_b=publish", &engine, "--ensure-stream=duplicate-window=90s,max-consumers=7"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    publish(std::slice::from_ref(&edge), &mut 0, &mut None, "key", "mine\n").await;
    let connection = serving.connect().await;
    for name in ["a.b", "a_b"] {
        let request = http::Request::post(serving.uri(&format!("/stream/{name}"))).body(()).unwrap();
        let (mut body, answer) = connection.send_request(request).await.unwrap();
        body.send(name.into()).await.unwrap();
        body.finish().await.unwrap();
        assert_eq!(answer.await.unwrap().status, 200);
        assert_eq!(chunk_texts(&read(&edge, &format!("/stream/{name}?from=start"), 1).await), [name]);
    }
    let stream = context.get_stream("h3cast_chat").await.unwrap();
    let config = &stream.cached_info().config;
    assert_eq!((config.duplicate_window, config.max_consumers), (Duration::from_secs(90), 7));
    assert!(config.allow_direct);
    let version = context.client().server_info().version;
    let is_new = !["2.9.", "2.10.", "2.11."].iter().any(|old| version.starts_with(old));
    assert_eq!(config.allow_atomic_publish, is_new, "{version}");
    let dir = tempfile::tempdir().unwrap();
    let told =
        refused(dir.path(), &["chat=publish", &engine, "--ensure-stream=duplicate-window=2m,max-consumers=9"]).await;
    assert!(told.contains("duplicate-window is 90 s, not 120 s; max-consumers is 7, not 9"), "{told}");
    if !is_new {
        let told = refused(dir.path(), &["x=publish", &engine, "--ensure-stream=allow-atomic=on"]).await;
        assert!(told.contains("allow-atomic=on needs nats-server 2.12 or newer; this is"), "{told}");
    }

    // A stream of more subjects than that of the feed it was made for.
    let logs = [format!("web=nats://{address}/logs.web"), format!("all=nats://{address}/logs.*")];
    let args = [logs[0].as_str(), &logs[1], "--ensure-stream=subject=logs.>"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    for subject in ["logs.web", "logs.db", "logs.web"] {
        context.publish(subject, subject.into()).await.unwrap().await.unwrap();
    }
    let edge = Edge::of(&serving);
    assert_eq!(chunk_texts(&read(&edge, "/stream/web?from=start", 2).await), ["logs.web", "logs.web"]);
    assert_eq!(chunk_texts(&read(&edge, "/stream/all.db?from=start", 1).await), ["logs.db"]);
    let made = context.get_stream("logs__").await.unwrap();
    assert_eq!(made.cached_info().config.subjects, ["logs.>"]);
    let narrow = Config { name: "NARROW".into(), subjects: vec!["narrow.a".into()], ..Config::default() };
    context.create_stream(narrow).await.unwrap();
    let narrow = format!("nats://{address}/narrow.a");
    let told = refused(dir.path(), &[&narrow, "--ensure-stream=subject=narrow.>"]).await;
    assert!(told.contains("its subjects are narrow.a, not narrow.>"), "{told}");
}
