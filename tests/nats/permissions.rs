//! docs/nats/nats.conf: what edges may do there is enough for all that they do, and streams are safe from them.

use async_nats::jetstream::{self, stream::Config};
use h3cast::client::{Viewer, viewer::Event};
use http::Request;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    cluster::{Cluster, Way},
    common::soon,
    edge::{Edge, chunk_texts, publish, read},
    past::{CHUNKS, logs, until},
    presence::{shows, text, view},
    serving::Serving,
    told::refused,
};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/nats/nats.conf");

/// The file with passwords in it, which would be from the environment.
pub(crate) fn config(dir: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(CONFIG).unwrap();
    let text = ["EDGE", "READER", "ADMIN", "SYSTEM"]
        .iter()
        .fold(text, |text, user| text.replace(&format!("${user}_PASSWORD"), &user.to_lowercase()));
    let path = dir.join("nats.conf");
    std::fs::write(&path, text).unwrap();
    vec!["-c".into(), path.display().to_string()]
}

/// A client of the test's that may do everything.
pub(crate) async fn admin(cluster: &Cluster) -> jetstream::Context {
    let address = format!("nats://127.0.0.1:{}", cluster.nodes[0].port);
    soon("a connection", async {
        loop {
            let options = async_nats::ConnectOptions::new().user_and_password("admin".into(), "admin".into());
            if let Ok(client) = options.connect(address.as_str()).await {
                return jetstream::new(client);
            }
            // Nobody tells when it listens.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
}

/// A client of one of the users, and what the server denies it.
async fn client(address: &str, user: &str) -> (async_nats::Client, mpsc::UnboundedReceiver<String>) {
    let (denied_tx, denied) = mpsc::unbounded_channel();
    let options = async_nats::ConnectOptions::new()
        .user_and_password(user.into(), user.into())
        .custom_inbox_prefix(format!("_INBOX_{user}"))
        .event_callback(move |event| {
            if let async_nats::Event::ServerError(error) = event {
                let _ = denied_tx.send(error.to_string());
            }
            std::future::ready(())
        });
    (options.connect(format!("nats://{address}")).await.unwrap(), denied)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn the_documented_ones_are_enough_for_all_that_edges_do() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start_with(1, &config(dir.path()));
    let address = cluster.addresses();
    let context = admin(&cluster).await;
    let others = Config { name: "OTHERS".into(), subjects: vec!["others.>".into()], ..Config::default() };
    context.create_stream(others).await.unwrap();
    for text in ["one", "two"] {
        context.publish("others.web", text.into()).await.unwrap().await.unwrap();
    }

    // Feeds that are written, each of its own and of a pattern, with so short a history that the past is read.
    let engine = format!("--engine=nats://edge:edge@{address}");
    let told = refused(dir.path(), &["chat=publish", &engine, "--ensure-stream"]).await;
    assert!(told.contains("the NATS user may not subscribe to `_INBOX.>`: give the prefix"), "{told}");
    let args =
        ["chat=publish", "room.*=publish", &engine, "--nats-inbox=_INBOX_edge", "--ensure-stream", "--history=16K"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    let line = "a line of some length, so that the history does not hold them all\n".repeat(16);
    let mut connection = None;
    for key in 0..40 {
        publish(std::slice::from_ref(&edge), &mut 0, &mut connection, &format!("key{key}"), &line).await;
    }
    // Once more, by an edge that does not know the key: its lengths are looked up.
    let other = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    publish(&[Edge::of(&other)], &mut 0, &mut None, "key7", &line).await;
    assert_eq!(chunk_texts(&read(&edge, "/stream/chat?from=start", 640).await).len(), 640);
    let connection = serving.connect().await;
    let request = Request::post(serving.uri("/stream/room.one")).body(()).unwrap();
    let (mut body, answer) = connection.send_request(request).await.unwrap();
    body.send("hello".into()).await.unwrap();
    body.finish().await.unwrap();
    assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    assert_eq!(chunk_texts(&read(&edge, "/stream/room.one?from=start", 1).await), ["hello"]);

    // Who views them, at both edges.
    let _viewer = view(&serving).await;
    shows(&other, json!([1, 0, 1, 0])).await;

    // Feeds that others write.
    let at = format!("nats://reader:reader@{address}");
    let inbox = "inbox=_INBOX_reader";
    let feeds = [
        format!("web={at}/others.web?{inbox}"),
        format!("all={at}/others.*?{inbox}"),
        format!("live={at}/live.now?live&{inbox}"),
    ];
    let reading = tokio::task::block_in_place(|| Serving::start(|_| feeds.to_vec()));
    let edge = Edge::of(&reading);
    assert_eq!(chunk_texts(&read(&edge, "/stream/web?from=start", 2).await), ["one", "two"]);
    assert_eq!(chunk_texts(&read(&edge, "/stream/all.web?from=start", 2).await), ["one", "two"]);
    soon("it hears of other edges", async {
        while !text(&reading, "/feeds").await.contains("\"viewers_everywhere\":0") {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    for serving in [&serving, &other, &reading] {
        let log = std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
        assert!(!log.contains("permission denied"), "{log}");
    }

    // None of them hears the answers to another.
    for (user, other) in [("edge", "reader"), ("reader", "edge")] {
        let (client, mut denied) = client(&address, user).await;
        let _heard = client.subscribe(format!("_INBOX_{other}.>")).await.unwrap();
        let denied = soon("it is denied", denied.recv()).await.unwrap();
        assert!(denied.contains("Permissions Violation for Subscription"), "{denied}");
        let _own = client.subscribe(format!("_INBOX_{user}.>")).await.unwrap();
    }

    // And nothing that only an administrator may do.
    let mut requests = jetstream::new(client(&address, "edge").await.0);
    requests.set_timeout(std::time::Duration::from_secs(1));
    assert!(requests.delete_stream("h3cast_chat").await.is_err());
    assert!(requests.get_stream_no_info("h3cast_chat").await.unwrap().purge().await.is_err());
    assert!(context.get_stream("h3cast_chat").await.unwrap().cached_info().state.messages > 0);
}

/// Waits until the server has connected to NATS again so often.
async fn returned(serving: &Serving, times: usize) {
    soon("it is connected again", async {
        let log = serving.dir().join("stderr");
        while std::fs::read_to_string(&log).unwrap().matches("connected to NATS again").count() < times {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A client that pulls asks for the state of its consumer when its connection is there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn the_documented_ones_are_enough_after_a_connection_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start_with(1, &config(dir.path()));
    let context = admin(&cluster).await;
    logs(&context, &["logs.a"]).await;
    let mut way = Way::to(cluster.nodes[0].port).await;
    let feed = format!("logs=nats://reader:reader@127.0.0.1:{}/logs.a?inbox=_INBOX_reader", way.port);
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![feed]));
    let edge = Edge::of(&serving);
    let mut viewer = Viewer::new(&edge.uri("/stream/logs?from=start"), edge.trust.clone()).unwrap();
    let (mut next, mut losses) = (0, 0);
    while next < CHUNKS + 2 {
        match soon("an event", viewer.next()).await.unwrap().unwrap() {
            Event::Chunk { bytes, .. } => {
                let number: usize = std::str::from_utf8(&bytes).unwrap().parse().unwrap();
                assert_eq!(number, next);
                next += 1;
            }
            Event::Gap(gap) => panic!("{gap:?} at {next}"),
            _ => {}
        }
        if next == [CHUNKS / 20, CHUNKS / 2, usize::MAX][losses] {
            // Both are in the middle of something: the viewer reads the past, and the ring gets what is new.
            until(&context, "the consumers of the ring and of the viewer", 2).await;
            if losses == 0 {
                cluster.nodes[0].kill();
                cluster.nodes[0].start();
            } else {
                way.cut().await;
                way.mend().await;
            }
            losses += 1;
            returned(&serving, losses).await;
            let context = admin(&cluster).await;
            soon("the stream is there", async {
                while context.get_stream("LOGS").await.is_err() {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            })
            .await;
            let line = format!("{:01000}", CHUNKS - 1 + losses);
            context.publish("logs.a", line.into()).await.unwrap().await.unwrap();
        }
    }
    assert_eq!(losses, 2);
    let log = std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    assert!(!log.contains("permission denied"), "{log}");
}
