//! Three nodes, three edges, and two streams: one that keeps everything, and one that drops its oldest.

use std::{path::Path, sync::Arc};

use async_nats::jetstream::{self, stream::Config};
use futures_util::future::join_all;

use crate::{
    edges::{Address, EDGES, Edge},
    ledger::Truth,
    nodes::{self, NODES, Nodes},
    viewers::Watch,
    within,
};

/// The feed of everything, and its stream.
pub(crate) const CHAT: &str = "chat";
/// The feed whose oldest is dropped, and its stream.
pub(crate) const SHORT: &str = "short";

/// The history of an edge for a feed: some hundred chunks.
const HISTORY: &str = "--history=64K";

pub(crate) struct Scene {
    pub(crate) nodes: Nodes,
    pub(crate) edges: Vec<Edge>,
    /// Of the edges.
    pub(crate) addresses: Arc<Vec<Address>>,
    pub(crate) chat: Arc<Truth>,
    pub(crate) short: Arc<Truth>,
    pub(crate) watch: Arc<Watch>,
}

impl Scene {
    /// All of it, once it works. `max_messages` is what the one stream keeps.
    pub(crate) async fn start(dir: &Path, disk: &str, max_messages: u64) -> Self {
        let mut nodes = Nodes::new(dir, disk);
        nodes.start();
        let context = nodes::jetstream().await;
        for (feed, max) in [(CHAT, -1), (SHORT, max_messages as i64)] {
            let config = Config {
                name: feed.into(),
                subjects: vec![format!("h3cast.{feed}")],
                num_replicas: NODES,
                max_messages: max,
                allow_direct: true,
                ..Default::default()
            };
            within("a stream is made", create(&context, config)).await;
            nodes::healthy(feed).await;
        }
        let args = ["chat=publish", "short=publish", HISTORY];
        let mut edges: Vec<_> = (0..EDGES).map(|number| Edge::new(number, dir, &args)).collect();
        for edge in &mut edges {
            edge.start().await;
        }
        let addresses = Arc::new(edges.iter().map(|edge| edge.address.clone()).collect());
        let (chat, short) = (Truth::of(CHAT, None), Truth::of(SHORT, Some(max_messages)));
        Self { nodes, edges, addresses, chat, short, watch: Arc::default() }
    }

    /// Waits until both streams have a leader and all their copies.
    pub(crate) async fn healthy(&self) {
        nodes::healthy(CHAT).await;
        nodes::healthy(SHORT).await;
    }
}

/// The nodes may have elected nobody yet who places a stream of three copies.
async fn create(context: &jetstream::Context, config: Config) {
    while context.create_stream(config.clone()).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Fills a stream as NATS clients do, with some hundred messages on their way.
pub(crate) async fn fill(context: &jetstream::Context, truth: &Truth, count: u64, length: usize) {
    let mut sent = Vec::new();
    for number in 0..count {
        truth.begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let line = format!("filled {number} {}\n", "x".repeat(length));
        sent.push(context.publish(format!("h3cast.{}", truth.feed), line.into()).await.unwrap());
        if sent.len() == 256 || number + 1 == count {
            // Under faults some are not acknowledged: what is there in the end counts.
            join_all(sent.drain(..).map(IntoFuture::into_future)).await;
        }
    }
}
