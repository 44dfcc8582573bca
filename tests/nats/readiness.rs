//! What an edge says of its feeds when some of them cannot be served.

use async_nats::jetstream;
use h3cast::client::{Connection, Viewer, viewer::Event};
use tokio::time::{Duration, sleep};

use crate::{
    causes::published,
    cluster::{Cluster, Way, healthy},
    common::soon,
    edge::Edge,
    permissions::admin,
    presence::text,
    serving::Serving,
    within,
};

/// Waits until that is answered with that status.
pub(crate) async fn becomes(serving: &Serving, connection: &Connection, path: &str, due: u16) {
    within(path, async {
        while connection.get(&serving.uri(path)).await.unwrap().status != due {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// The stream of one feed is deleted: the others are served on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn one_feed_without_its_stream_is_alone_with_that() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let config =
        jetstream::stream::Config { name: "LOGS".into(), subjects: vec!["logs.>".into()], ..Default::default() };
    context.create_stream(config).await.unwrap();
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let logs = format!("logs=nats://{}/logs.*", cluster.addresses());
    let args = ["one=publish", "two=publish", &logs, &engine, "--ensure-stream"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let connection = serving.connect().await;
    let status =
        async |path: &str| soon("an answer", connection.get(&serving.uri(path))).await.unwrap().status.as_u16();
    for path in ["/readyz", "/readyz?strict", "/readyz/one", "/readyz/two", "/readyz/logs.any"] {
        assert_eq!(status(path).await, 200, "{path}");
    }
    assert_eq!(status("/readyz/three").await, 404);
    context.delete_stream("h3cast_one").await.unwrap();
    within("it is noticed", async {
        while status("/readyz/one").await != 503 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let due = [
        ("/readyz", 200),
        ("/readyz?strict", 503),
        ("/readyz/one", 503),
        ("/readyz/two", 200),
        ("/readyz/logs.any", 200),
    ];
    for (path, due) in due {
        assert_eq!(status(path).await, due, "{path}");
    }
    context.delete_stream("h3cast_two").await.unwrap();
    context.delete_stream("LOGS").await.unwrap();
    within("nothing works", async {
        while status("/readyz").await != 503 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// That a stream is gone is told for as long as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_deleted_stream_stays_missing() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let args = ["chat=publish", "room.*=publish", "other=publish", &engine, "--ensure-stream"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let connection = serving.connect().await;
    let mut configs = Vec::new();
    for name in ["h3cast_chat", "h3cast_room__"] {
        let stream = context.get_stream(name).await.unwrap();
        configs.push(stream.cached_info().config.clone());
        context.delete_stream(name).await.unwrap();
    }
    let gone =
        |stream: &str| format!("the stream `{stream}` no longer exists: create it again, and its feeds start over");
    let due = [
        ("/readyz/chat", format!("feed chat: {}\n", gone("h3cast_chat"))),
        ("/readyz/room.*", format!("feed room.*: {}\n", gone("h3cast_room__"))),
        ("/readyz/room.%2A", format!("feed room.*: {}\n", gone("h3cast_room__"))),
        ("/readyz/room.one", format!("feed room.one: {}\n", gone("h3cast_room__"))),
    ];
    for (path, due) in &due {
        within(path, async { while text(&serving, path).await != *due {} }).await;
        becomes(&serving, &connection, path, 503).await;
    }
    // Until what is tried for as long as an election may take is given up.
    let answer = published(&serving, "chat");
    tokio::pin!(answer);
    let (status, words) = loop {
        for (path, due) in &due {
            assert_eq!(text(&serving, path).await, *due, "{path}");
        }
        tokio::select! { answer = &mut answer => break answer, () = sleep(Duration::from_millis(200)) => {} }
    };
    assert!(status == 503 && words.contains(&gone("h3cast_chat")), "{status}: {words}");
    let log = std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    assert_eq!(log.matches(&gone("h3cast_chat")).count(), 1, "{log}");
    for config in configs {
        context.create_stream(config).await.unwrap();
    }
    for (path, _) in &due {
        becomes(&serving, &connection, path, 200).await;
    }
}

/// The feeds of a pattern whose consumer cannot be created get nothing, though the leader of their stream answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_pattern_that_is_not_filled_is_not_ready() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let subjects = vec!["logs.>".into()];
    let config = jetstream::stream::Config {
        name: "LOGS".into(),
        subjects,
        allow_direct: true,
        max_consumers: 1,
        ..Default::default()
    };
    let stream = context.create_stream(config).await.unwrap();
    context.publish("logs.a", "text".into()).await.unwrap().await.unwrap();
    let pull = jetstream::consumer::pull::Config { durable_name: Some("another".into()), ..Default::default() };
    stream.create_consumer(pull).await.unwrap();
    let logs = format!("logs=nats://{}/logs.*", cluster.addresses());
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec!["chat=publish".into(), logs]));
    let connection = serving.connect().await;
    let becomes = async |path: &str, due: u16| becomes(&serving, &connection, path, due).await;
    becomes("/readyz/logs.any", 200).await;
    let viewer = soon("a viewer", connection.get(&serving.uri("/stream/logs.a"))).await.unwrap();
    assert_eq!(viewer.status, 200);
    for path in ["/readyz/logs.a", "/readyz/logs.any", "/readyz?strict"] {
        becomes(path, 503).await;
    }
    becomes("/readyz", 200).await;
    stream.delete_consumer("another").await.unwrap();
    for path in ["/readyz/logs.a", "/readyz/logs.any", "/readyz?strict"] {
        becomes(path, 200).await;
    }
    drop(viewer);
}

/// Nothing else is wrong with what is stored, and a feed of any kind says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_system_that_is_down_is_named() {
    let mut cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let (name, subjects) = ("LOGS".to_owned(), vec!["logs.>".into()]);
    context.create_stream(jetstream::stream::Config { name, subjects, ..Default::default() }).await.unwrap();
    let at = cluster.addresses();
    let (logs, live) = (format!("logs=nats://{at}/logs.*"), format!("now=nats://{at}/now?live"));
    let engine = format!("--engine=nats://{at}");
    let args = ["chat=publish", "room.*=publish", &logs, &live, &engine, "--ensure-stream"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let connection = serving.connect().await;
    for is_down in [true, false] {
        match is_down {
            true => cluster.nodes[0].kill(),
            false => cluster.nodes[0].start(),
        }
        for name in ["chat", "room.one", "logs.any", "now"] {
            let path = format!("/readyz/{name}");
            becomes(&serving, &connection, &path, if is_down { 503 } else { 200 }).await;
            if is_down {
                let due = format!("feed {name}: NATS at {at} cannot be reached\n");
                within(&path, async { while text(&serving, &path).await != due {} }).await;
            }
        }
        let listed: serde_json::Value = serde_json::from_str(&text(&serving, "/feeds").await).unwrap();
        for feed in listed["feeds"].as_array().unwrap() {
            let trouble = is_down.then(|| format!("NATS at {at} cannot be reached"));
            assert_eq!(feed["trouble"].as_str(), trouble.as_deref(), "{feed}");
        }
    }
}

/// What is in the way changes while a feed is stalled, and what is said of it with that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn what_is_in_the_way_is_said_as_it_changes() {
    let mut cluster = Cluster::start_whole().await;
    let context = cluster.jetstream().await;
    let at = cluster.addresses();
    let engine = format!("--engine=nats://{at}");
    let args = ["chat=publish", &engine, "--ensure-stream=replicas=3"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    healthy(&context, "h3cast_chat").await;
    let says = async |due: String| {
        let due = format!("feed chat: {due}\n");
        within(&due, async { while text(&serving, "/readyz/chat").await != due {} }).await;
    };
    let (leaderless, unreachable) =
        ("the leader of the stream does not answer", format!("NATS at {} cannot be reached", at.replace(",", ", ")));
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    says(leaderless.into()).await;
    cluster.nodes[2].kill();
    says(unreachable).await;
    cluster.nodes[2].start();
    says(leaderless.into()).await;
    cluster.nodes[0].start();
    cluster.nodes[1].start();
    becomes(&serving, &serving.connect().await, "/readyz/chat", 200).await;
}

/// The connection is there again, to a server without its peers: nothing is known of the streams yet, those of patterns
/// without feeds included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_server_without_quorum_that_is_reached_again_is_not_ready() {
    let mut cluster = Cluster::start_whole().await;
    let context = cluster.jetstream().await;
    let mut way = Way::to(cluster.nodes[2].port).await;
    let engine = format!("--engine=nats://127.0.0.1:{}", way.port);
    let args = ["chat=publish", "room.*=publish", &engine, "--ensure-stream=replicas=3"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    for stream in ["h3cast_chat", "h3cast_room__"] {
        healthy(&context, stream).await;
    }
    let connection = serving.connect().await;
    becomes(&serving, &connection, "/readyz", 200).await;
    way.cut().await;
    becomes(&serving, &connection, "/readyz", 503).await;
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    cluster.nodes[2].is_leaderless().await;
    way.mend().await;
    let log = serving.dir().join("stderr");
    let (mut seen, leaderless) = (Vec::new(), "the leader of the stream does not answer");
    let due = format!("feed chat: {leaderless}\nfeed room.*: {leaderless}\n");
    within("it says what is missing", async {
        loop {
            let is_back = std::fs::read_to_string(&log).unwrap().contains("connected to NATS again");
            let mut answer = connection.get(&serving.uri("/readyz")).await.unwrap();
            assert_eq!(answer.status, 503, "after {seen:#?}");
            let mut told = Vec::new();
            while let Some(bytes) = answer.body.next().await.unwrap() {
                told.extend_from_slice(&bytes);
            }
            let told = String::from_utf8(told).unwrap();
            if is_back && seen.last() != Some(&told) {
                seen.push(told);
            }
            if seen.last() == Some(&due) {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Until the leader has had its time to answer.
    let checked = "its stream is being checked";
    assert!(seen.contains(&format!("feed chat: {checked}\nfeed room.*: {checked}\n")), "{seen:#?}");
    cluster.nodes[0].start();
    cluster.nodes[1].start();
    becomes(&serving, &connection, "/readyz?strict", 200).await;
}

/// What the program says of a feed that the server's user may not publish to.
async fn denial_is_told(serving: &Serving) {
    let h3cast = |args: &[&str], url: &str| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_h3cast"));
        command.args(args).arg(serving.uri(url).to_string()).arg("--cacert").arg(serving.certificate());
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        command
    };
    let denied = "permission denied: the NATS user may not publish to `h3cast.chat`";
    let listed = soon("a list", h3cast(&["feeds"], "/").output()).await.unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    let state = listed.lines().find(|line| line.starts_with("chat ")).unwrap();
    assert!(state.contains("not ready") && listed.contains(&format!("chat: {denied}")), "{listed}");

    let mut publish = h3cast(&["publish", "--retry-for=4s"], "/stream/chat");
    let mut publishing =
        publish.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // It is not read to its end: that waits, too.
    let mut input = publishing.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, b"text\n").await.unwrap();
    let done = soon("it gives up", publishing.wait_with_output()).await.unwrap();
    let told = String::from_utf8(done.stderr).unwrap();
    let lines: Vec<_> = told.lines().collect();
    let [first, last] = lines[..] else { panic!("{told}") };
    assert!(first.contains(denied) && first.ends_with("(input waits; Ctrl-C or --retry-for ends that)"), "{told}");
    assert!(last.contains("gave up") && last.contains(denied), "{told}");
    drop(input);
}

/// A server asks nobody whether its user may subscribe or publish: NATS denies that later, and says so apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn what_the_user_may_not_do_is_not_ready_until_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nats.conf");
    let configure = |denied: &str| {
        let config = format!(
            "server_name: n0
            accounts: {{ APP: {{ jetstream: enabled, users: [
                {{ user: admin, password: admin }}
                {{ user: app, password: x, permissions: {{
                    publish: {{ deny: \"h3cast.{denied}\" }},
                    subscribe: {{ deny: \"now.{denied}\" }} }} }}
            ] }}, SYS: {{}} }}
            system_account: SYS"
        );
        std::fs::write(&path, config).unwrap();
    };
    configure(">");
    let cluster = Cluster::start_with(1, &["-c".into(), path.display().to_string()]);
    let context = admin(&cluster).await;
    let mut heard = context.client().subscribe("h3cast.>").await.unwrap();
    let at = format!("nats://app:x@{}", cluster.addresses());
    let (live, engine) = (format!("now=nats://app:x@{}/now.a?live", cluster.addresses()), format!("--engine={at}"));
    let args = ["chat=publish", "room.*=publish", &live, &engine, "--ensure-stream"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let connection = serving.connect().await;
    let becomes = async |path: &str, due: u16| {
        becomes(&serving, &connection, path, due).await;
        text(&serving, path).await
    };
    let causes = [
        ("/readyz/now", "feed now: permission denied: the NATS user may not subscribe to `now.a`\n"),
        ("/readyz/chat", "feed chat: permission denied: the NATS user may not publish to `h3cast.chat`\n"),
        ("/readyz/room.one", "feed room.one: permission denied: the NATS user may not publish to `h3cast.room.*`\n"),
    ];
    for (path, cause) in causes {
        assert_eq!(becomes(path, 503).await, cause);
    }
    denial_is_told(&serving).await;
    let all = becomes("/readyz", 503).await;
    for (path, cause) in causes {
        let cause = cause.replace("room.one", "room.*");
        assert!(all.contains(&cause), "{path}: {all}");
    }

    configure("another");
    cluster.nodes[0].reload();
    for path in ["/readyz/now", "/readyz/chat", "/readyz/room.one", "/readyz?strict"] {
        becomes(path, 200).await;
    }
    let edge = Edge::of(&serving);
    let mut viewer = Viewer::new(&edge.uri("/stream/now"), edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
    context.client().publish("now.a", "text".into()).await.unwrap();
    let chunk = soon("a chunk", viewer.next()).await.unwrap();
    assert!(matches!(&chunk, Some(Event::Chunk { bytes, .. }) if bytes == "text"), "{chunk:?}");

    // While it runs, it is denied again: the server ends the subscription, and refuses the next publication.
    configure(">");
    cluster.nodes[0].reload();
    assert_eq!(becomes("/readyz/now", 503).await, causes[0].1);
    let publish = http::Request::post(serving.uri("/stream/chat")).body(()).unwrap();
    let (mut body, answer) = connection.send_request(publish).await.unwrap();
    body.send("text".into()).await.unwrap();
    body.finish().await.unwrap();
    assert_eq!(becomes("/readyz/chat", 503).await, causes[1].1);
    assert_eq!(soon("an answer", answer).await.unwrap().status, 503);
    // Whoever hears those subjects has heard nothing of all this.
    let nothing = futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(&mut heard));
    assert!(nothing.is_none(), "{nothing:?}");
    let log = std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    assert_eq!(log.matches("may not publish to `h3cast.chat`").count(), 1, "{log}");
}
