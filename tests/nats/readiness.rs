//! What an edge says of its feeds when some of them cannot be served.

use async_nats::jetstream;
use tokio::time::{Duration, sleep};

use crate::{cluster::Cluster, common::soon, serving::Serving, within};

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
