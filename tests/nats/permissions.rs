//! docs/nats/nats.conf: what edges may do there is enough for all that they do, and streams are safe from them.

use async_nats::jetstream::{self, stream::Config};
use http::Request;
use serde_json::json;

use crate::{
    cluster::Cluster,
    common::soon,
    edge::{Edge, chunk_texts, publish, read},
    presence::{shows, text, view},
    serving::Serving,
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
    let args = ["chat=publish", "room.*=publish", &engine, "--ensure-stream", "--history=16K"];
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
    let feeds = [format!("web={at}/others.web"), format!("all={at}/others.*"), format!("live={at}/live.now?live")];
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

    // And nothing that only an administrator may do.
    let options = async_nats::ConnectOptions::new().user_and_password("edge".into(), "edge".into());
    let mut requests = jetstream::new(options.connect(format!("nats://{address}")).await.unwrap());
    requests.set_timeout(std::time::Duration::from_secs(1));
    assert!(requests.delete_stream("h3cast_chat").await.is_err());
    assert!(requests.get_stream_no_info("h3cast_chat").await.unwrap().purge().await.is_err());
    assert!(context.get_stream("h3cast_chat").await.unwrap().cached_info().state.messages > 0);
}
