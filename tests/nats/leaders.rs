//! A node that is cut off from its peers, and the edge that is connected to it.

use std::time::Duration;

use async_nats::jetstream;
use h3cast::client::{Connection, Viewer, viewer::Event};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Way, healthy},
    common::soon,
    edge::{Edge, publish},
    serving::Serving,
    within,
};

/// Has the stream led by the first node, or by another.
async fn led_by_first(context: &jetstream::Context, first: bool) {
    let step_down = async || {
        let _: Result<serde_json::Value, _> = context.request("STREAM.LEADER.STEPDOWN.h3cast_chat", &()).await;
    };
    within("the right leader", async {
        while (healthy(context, "h3cast_chat").await == "n0") != first {
            step_down().await;
            sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}

/// The edge is connected to a node that is cut off from its peers, and cannot leave it for a while.
async fn cut_off(is_leader: bool) {
    let (cluster, mut routes) = Cluster::start_cuttable().await;
    let mut ways = Vec::new();
    for node in &cluster.nodes {
        ways.push(Way::to(node.port).await);
    }
    for way in &mut ways[1..] {
        way.cut().await;
    }
    cluster.jetstream().await;
    // What happens is looked at where it is known.
    let servers: Vec<_> =
        cluster.nodes[1..].iter().map(|node| format!("nats://127.0.0.1:{}", node.port).parse().unwrap()).collect();
    let context = jetstream::new(async_nats::connect(servers.as_slice() as &[async_nats::ServerAddr]).await.unwrap());
    let all: Vec<_> = ways.iter().map(|way| format!("127.0.0.1:{}", way.port)).collect();
    let engine = format!("--engine=nats://{}", all.join(","));
    let args = ["chat=publish", &engine, "--ensure-stream=replicas=3"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    led_by_first(&context, is_leader).await;
    let mut viewer = Viewer::new(&edge.uri("/stream/chat"), edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
    let one = std::slice::from_ref(&edge);
    publish(one, &mut 0, &mut None, "before", "before\n").await;
    let mut next = async |what: &str| within(what, viewer.next()).await.unwrap().unwrap();
    loop {
        match next("a chunk").await {
            Event::Chunk { bytes, .. } => break assert_eq!(bytes, "before\n"),
            event => assert!(matches!(event, Event::Stalled(_)), "{event:?}"),
        }
    }

    for way in &mut routes {
        way.cut().await;
    }
    let cut = Instant::now();
    let publishing = tokio::spawn({
        let edge = edge.clone();
        async move { publish(&[edge], &mut 0, &mut None, "during", "during\n").await }
    });
    let event = next("its viewers are told").await;
    assert!(matches!(event, Event::Stalled(true)), "{event:?}");
    assert!(cut.elapsed() < Duration::from_secs(8), "{:?}", cut.elapsed());
    let connection = soon("a connection", Connection::open(&edge.uri("/"), &edge.trust)).await.unwrap();
    assert_eq!(soon("it is not ready", connection.get(&edge.uri("/readyz"))).await.unwrap().status, 503);
    for way in &mut ways[1..] {
        way.mend().await;
    }
    let mut chunks = Vec::new();
    let mut stalled = true;
    while chunks.is_empty() || stalled {
        match next("it goes on").await {
            Event::Chunk { bytes, .. } => chunks.push(bytes),
            Event::Stalled(now) => stalled = now,
            event => panic!("{event:?}"),
        }
    }
    within("it is published", publishing).await.unwrap();
    assert_eq!(chunks, ["during\n"]);
    assert_eq!(soon("it is ready", connection.get(&edge.uri("/readyz"))).await.unwrap().status, 200);
    // It was not that the node had found its peers again.
    let log = std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    assert!(log.contains("trying another server"), "{log}");
    let stream = context.get_stream("h3cast_chat").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn an_edge_leaves_a_node_that_is_cut_off() {
    cut_off(false).await;
}

/// The node itself believes for a while that it leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn an_edge_leaves_a_leader_that_is_cut_off() {
    cut_off(true).await;
}
