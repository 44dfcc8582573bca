//! A stream takes only so many consumers: those of a server go with what reads them.

use std::{collections::HashSet, time::Duration};

use async_nats::{Subscriber, jetstream};
use futures_util::{StreamExt, stream};
use h3cast::client::{Viewer, viewer::Event};
use tokio::time::sleep;

use crate::{cluster::Cluster, common::soon, edge::Edge, serving::Serving, within};

/// A stream without Direct Get, with so many messages.
async fn stream_of(context: &jetstream::Context, messages: usize) {
    let subjects = vec!["logs.a".to_owned()];
    let config = jetstream::stream::Config { name: "LOGS".into(), subjects, ..Default::default() };
    context.create_stream(config).await.unwrap();
    let publish = async |_| context.publish("logs.a", "a line\n".into()).await.unwrap().await.unwrap();
    stream::iter(0..messages).map(publish).buffered(100).collect::<Vec<_>>().await;
}

/// What clients ask to be done with consumers of the stream, as it is asked.
struct Asked {
    created: Subscriber,
    deleted: Subscriber,
    /// Those that are to be there.
    left: HashSet<String>,
    /// Those that were deleted, or will have been.
    gone: HashSet<String>,
}

impl Asked {
    async fn of(context: &jetstream::Context) -> Self {
        let client = context.client();
        let created = client.subscribe("$JS.API.CONSUMER.CREATE.LOGS.>").await.unwrap();
        let deleted = client.subscribe("$JS.API.CONSUMER.DELETE.LOGS.*").await.unwrap();
        client.flush().await.unwrap();
        Self { created, deleted, left: HashSet::new(), gone: HashSet::new() }
    }

    /// Waits until something is asked.
    async fn next(&mut self) {
        let name = |subject: &str| subject.split('.').nth(5).unwrap().to_owned();
        tokio::select! {
            message = self.created.next() => self.left.insert(name(&message.unwrap().subject)),
            message = self.deleted.next() => self.gone.insert(name(&message.unwrap().subject)),
        };
        self.left.retain(|name| !self.gone.contains(name));
    }

    /// Waits until only the one that fills the edge's ring is left, and is none of those before. However long that takes:
    /// the stream's server removes those that nobody asks, but that is not to be left to it.
    async fn one_is_left(&mut self, context: &jetstream::Context, before: &HashSet<String>) {
        within("only the edge's own is left", async {
            while self.left.len() != 1 || !self.left.is_disjoint(before) || consumers(context).await != self.left {
                tokio::select! {
                    () = self.next() => {}
                    () = sleep(Duration::from_millis(50)) => {}
                }
            }
        })
        .await;
    }
}

async fn consumers(context: &jetstream::Context) -> HashSet<String> {
    let stream = context.get_stream("LOGS").await.unwrap();
    stream.consumer_names().map(Result::unwrap).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn who_hangs_up_leaves_no_consumer() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    stream_of(&context, 4000).await;
    let mut asked = Asked::of(&context).await;
    let logs = format!("logs=nats://{}/logs.a", cluster.addresses());
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![logs]));
    let edge = Edge::of(&serving);
    for _ in 0..10 {
        let connection = serving.connect().await;
        let uri = edge.uri("/stream/logs?from=start");
        let answers = stream::iter(0..20).map(async |_| soon("an answer", connection.get(&uri)).await.unwrap());
        drop(answers.buffered(20).collect::<Vec<_>>().await);
    }
    within("all have left", async {
        while edge.viewers().await > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    asked.one_is_left(&context, &HashSet::new()).await;
    assert!(asked.gone.len() > 1, "some viewers had one: {:?}", asked.gone);
}

/// A feed that is filled again after its server was silent has another consumer, and so do viewers who asked for one
/// meanwhile: it is created once the server continues, and nobody waits for the answer any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_server_that_was_silent_is_left_no_consumer() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    stream_of(&context, 10).await;
    let mut asked = Asked::of(&context).await;
    let logs = format!("logs=nats://{}/logs.a", cluster.addresses());
    let args = [logs.as_str(), "--history=1B"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    let mut viewer = Viewer::new(&edge.uri("/stream/logs"), edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
    within("its ring is filled", asked.next()).await;
    let before = asked.left.clone();
    within("it is there", async {
        while consumers(&context).await != before {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    cluster.nodes[0].pause();
    let mut late = Viewer::new(&edge.uri("/stream/logs?from=start"), edge.trust.clone()).unwrap();
    for viewer in [&mut late, &mut viewer] {
        let stalls = async { while !matches!(viewer.next().await.unwrap(), Some(Event::Stalled(true))) {} };
        soon("the feed stalls", stalls).await;
    }
    cluster.nodes[0].resume();
    within("the late one reads what is old", async {
        while !matches!(late.next().await.unwrap(), Some(Event::Chunk { .. })) {}
    })
    .await;
    asked.one_is_left(&context, &before).await;
}
