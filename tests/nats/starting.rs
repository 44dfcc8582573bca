//! A server that starts before NATS is ready, and what it says of what will not become ready.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

use crate::{
    cluster::{Cluster, Node, is_version},
    edge::{Edge, chunk_texts, publish, read},
    presence::text,
    program,
    serving::Serving,
    told::refused,
    within,
};

/// An edge that is started before its cluster waits for it, and says so once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn an_edge_waits_for_a_fresh_cluster() {
    // At times 2.10 leaves out a server that is started long after another, until it has known it once.
    let mut cluster = if is_version("2.10.") { Cluster::start_whole().await } else { Cluster::start(3) };
    cluster.nodes.iter_mut().for_each(Node::kill);
    let dir = tempfile::tempdir().unwrap();
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let args =
        ["serve", "--listen", "localhost:0", "--http", "off", "chat=publish", &engine, "--ensure-stream=replicas=3"];
    let mut starting = program::Program::start(dir.path(), &args);
    starting.told("waiting up to 60 s for NATS: cannot connect to NATS").await;
    // One of three is no majority: there is no leader.
    cluster.nodes[0].start();
    let line = starting.told("for NATS: JetStream does not answer").await;
    assert!(line.ends_with("JetStream does not answer (is it enabled, as with nats-server -js?)"), "{line}");
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

/// One that greets as such a server does, and a real one if the tests are run with it, as tests/soak does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_server_that_is_too_old_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let greeting = r#"INFO {"server_id":"x","version":"2.9.25","host":"127.0.0.1","port":1,"max_payload":1048576}"#;
    let answering = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            client.write_all(format!("{greeting}\r\n").as_bytes()).await.unwrap();
            let mut lines = BufReader::new(client).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line == "PING" {
                    lines.get_mut().write_all(b"PONG\r\n").await.unwrap();
                }
            }
        }
    });
    let real = is_version("2.9.").then(|| Cluster::start(1));
    let ports = [port].into_iter().chain(real.iter().map(|cluster| cluster.nodes[0].port));
    let dir = tempfile::tempdir().unwrap();
    for port in ports {
        for args in [
            &["chat=publish", &format!("--engine=nats://127.0.0.1:{port}"), "--ensure-stream"][..],
            &[&format!("x=nats://127.0.0.1:{port}/x.*")],
        ] {
            let told = refused(dir.path(), args).await;
            assert!(told.contains("a feed on JetStream needs nats-server 2.10 or newer; this is 2.9."), "{told}");
        }
    }
    answering.abort();
}

/// A cluster of three has no five servers for a stream, whose number is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn how_many_servers_are_needed_is_told() {
    let cluster = Cluster::start_whole().await;
    let dir = tempfile::tempdir().unwrap();
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let told = refused(dir.path(), &["chat=publish", &engine, "--ensure-stream=replicas=5", "--nats-wait=3s"]).await;
    let due = "cannot create the stream `h3cast_chat` for the subject `h3cast.chat`: it needs 5 servers of the cluster \
               with JetStream and enough room: no suitable peers for placement";
    assert_eq!(told.matches(due).count(), 2, "{told}");
    assert!(!told.contains("10005"), "{told}");
}

/// What a server cannot do is told with what helps, and in its own words too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn what_a_server_refuses_is_told_with_what_helps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nats.conf");
    let config = r#"
        accounts: { FEW: { jetstream: { max_streams: 1 }, users: [{ user: few, password: x }] }, SYS: {}
            SMALL: { jetstream: { max_file: 1M }, users: [{ user: small, password: x }] } }
        system_account: SYS
    "#;
    std::fs::write(&path, config).unwrap();
    let (cluster, limited) = (Cluster::start(1), Cluster::start_with(1, &["-c".into(), path.display().to_string()]));
    let (all, limited) = (cluster.addresses(), limited.addresses());
    let (few, small) = (format!("few:x@{limited}"), format!("small:x@{limited}"));
    for (at, settings, words, said) in [
        (&all, "replicas=3", "keeps one replica of a stream", "replicas > 1 not supported in non-clustered mode"),
        (&all, "max-bytes=900000G", "too little JetStream storage left", "insufficient storage resources available"),
        (
            &small,
            "max-bytes=2M",
            "or the user's account, has too little JetStream",
            "insufficient storage resources available",
        ),
        (&few, "max-messages=9", "has as many streams as it may", "maximum number of streams reached"),
    ] {
        let (engine, ensure) = (format!("--engine=nats://{at}"), format!("--ensure-stream={settings}"));
        let told = refused(dir.path(), &["one=publish", "two=publish", &engine, &ensure, "--nats-wait=5s"]).await;
        let line = told.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{settings}: {told}"));
        assert!(line.contains(&format!("(NATS: {said}")) && !line.contains("error code"), "{told}");
    }
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
    assert!(told.contains("duplicate-window is 90s, not 2m; max-consumers is 7, not 9"), "{told}");
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
    // A stream with others of its subjects is in the way, and will stay so.
    let began = std::time::Instant::now();
    let narrow = format!("nats://{address}/narrow.b");
    let told = refused(dir.path(), &[&narrow, "--ensure-stream=subject=narrow.>"]).await;
    assert!(told.contains("cannot create the stream `narrow__` for the subject `narrow.>`"), "{told}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// An edge whose stream is missing when it starts serves its other feeds, and that one once its stream is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn feeds_are_served_once_their_stream_is_there() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let stream = async |name: &str, subject: &str| {
        let config = Config { name: name.into(), subjects: vec![subject.into()], ..Config::default() };
        context.create_stream(config).await.unwrap();
    };
    let address = cluster.addresses();
    let feeds = [format!("one=nats://{address}/late.one"), format!("many=nats://{address}/many.*")];
    let engine = format!("--engine=nats://{address}");
    let dir = tempfile::tempdir().unwrap();
    // Alone, each is an error.
    let told = refused(dir.path(), &[&feeds[0], &feeds[1], "chat=publish", &engine]).await;
    assert!(told.contains("cannot start the feed `one`: no JetStream stream stores the subject `late.one`"), "{told}");
    stream("CHAT", "h3cast.chat").await;
    let args = [&feeds[0], &feeds[1], "chat=publish", "room=publish", &engine];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let connection = serving.connect().await;
    let ready = async |name: &str| {
        let uri = serving.uri(&format!("/readyz{name}"));
        crate::common::soon("readiness", connection.get(&uri)).await.unwrap().status.as_u16()
    };
    for (name, due) in [("", 200), ("?strict", 503), ("/chat", 200), ("/one", 503), ("/many.x", 503), ("/room", 503)] {
        assert_eq!(ready(name).await, due, "{name}");
    }
    let post = async |name: &str| {
        let request = http::Request::post(serving.uri(&format!("/stream/{name}"))).body(()).unwrap();
        let (mut body, answer) = connection.send_request(request).await.unwrap();
        let _ = body.send("text".into()).await;
        let _ = body.finish().await;
        crate::common::soon("an answer", answer).await.unwrap().status.as_u16()
    };
    assert_eq!((post("chat").await, post("room").await, post("one").await), (200, 503, 503));
    for (name, due) in [("one", 503), ("many.x", 503), ("many", 404), ("room", 503)] {
        let answer = connection.get(&serving.uri(&format!("/stream/{name}"))).await.unwrap();
        assert_eq!(answer.status, due, "{name}");
    }
    let log = || std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    assert_eq!(log().matches("no JetStream stream stores the subject `late.one`").count(), 1, "{}", log());
    // They are listed with the reason, as others that cannot be served are.
    let listed = async || {
        let feeds: serde_json::Value = serde_json::from_str(&text(&serving, "/feeds").await).unwrap();
        let feed = |feed: &serde_json::Value| {
            json!([feed["name"], feed["writable"], feed["stalled"], feed["trouble"], feed["epoch"].is_string()])
        };
        feeds["feeds"].as_array().unwrap().iter().map(feed).collect::<Vec<_>>()
    };
    let missing = |subject: &str| format!("no JetStream stream stores the subject `{subject}`");
    let (one, room) = (missing("late.one"), missing("h3cast.room"));
    // Of a stream that is not there, the epoch is not known.
    let due = [
        json!(["chat", true, false, null, true]),
        json!(["one", false, true, one, false]),
        json!(["room", true, true, room, false]),
    ];
    assert_eq!(listed().await, due);
    let metrics = text(&serving, "/metrics").await;
    for (name, is_stalled) in [("chat", 0), ("one", 1), ("room", 1)] {
        assert!(metrics.contains(&format!("\nh3cast_feed_stalled{{feed=\"{name}\"}} {is_stalled}\n")), "{metrics}");
    }

    stream("LATE", "late.>").await;
    stream("MANY", "many.>").await;
    stream("ROOM", "h3cast.room").await;
    for subject in ["late.one", "many.x"] {
        context.publish(subject, subject.into()).await.unwrap().await.unwrap();
    }
    within("all are ready", async {
        while ready("?strict").await != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let edge = Edge::of(&serving);
    assert_eq!(chunk_texts(&read(&edge, "/stream/one?from=start", 1).await), ["late.one"]);
    assert_eq!(chunk_texts(&read(&edge, "/stream/many.x?from=start", 1).await), ["many.x"]);
    assert_eq!((post("room").await, post("one").await), (200, 403));
    assert_eq!(chunk_texts(&read(&edge, "/stream/room?from=start", 1).await), ["text"]);
    assert_eq!(log().matches("is served now").count(), 3, "{}", log());
    let fine = [("chat", true), ("many.x", false), ("one", false), ("room", true)];
    assert_eq!(listed().await, fine.map(|(name, is_writable)| json!([name, is_writable, false, null, true])));
    tokio::task::block_in_place(|| serving.terminate());
    let log = within("it stops", async {
        while !log().contains("shutting down") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        log()
    });
    assert!(!log.await.contains("the feed failed"));
}

/// Another stream that stores subjects of a pattern is noticed when it is created later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn another_stream_of_a_pattern_is_noticed() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let stream = async |name: &str| {
        let config = Config { name: name.into(), subjects: vec![format!("parts.{name}")], ..Config::default() };
        context.create_stream(config).await.unwrap();
    };
    stream("one").await;
    let parts = format!("parts=nats://{}/parts.*", cluster.addresses());
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![parts]));
    let told = async |due: &str| {
        within(due, async {
            let connection = serving.connect().await;
            loop {
                let mut answer = connection.get(&serving.uri("/metrics")).await.unwrap();
                let mut metrics = Vec::new();
                while let Some(bytes) = answer.body.next().await.unwrap() {
                    metrics.extend_from_slice(&bytes);
                }
                let metrics = String::from_utf8(metrics).unwrap();
                if metrics.contains(&format!("\nh3cast_nats_ambiguous_patterns {due}\n")) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    };
    told("0").await;
    stream("two").await;
    told("1").await;
    let log = std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    assert!(log.contains("of this pattern, only the stream `one` is read"), "{log}");
}
