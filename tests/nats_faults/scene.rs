//! Three nodes, three edges, and three streams: one that keeps everything, one that drops its oldest, and one that
//! several feeds share.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use async_nats::jetstream::{self, stream::Config};
use futures_util::future::join_all;

use crate::{
    cluster,
    edges::{Address, EDGES, Edge},
    ledger::Truth,
    nodes::{self, NODES, Nodes},
    publishers,
    reading::Client,
    viewers::{LAST, Watch},
    within,
};

/// The feed of everything, and its stream.
pub(crate) const CHAT: &str = "chat";
/// The feed whose oldest is dropped, and its stream.
pub(crate) const SHORT: &str = "short";

/// The stream that feeds share: one with a name of its own, and those of a pattern.
const MIX: &str = "mix";
const SOLO: &str = "solo";
const ROOM: &str = "room.a";

/// The history of an edge for a feed: some dozens of chunks, so that much is read from JetStream.
const HISTORY: &str = "--history=16K";

pub(crate) struct Scene {
    pub(crate) nodes: Nodes,
    pub(crate) edges: Vec<Edge>,
    /// Of the edges.
    pub(crate) addresses: Arc<Vec<Address>>,
    pub(crate) chat: Arc<Truth>,
    pub(crate) short: Arc<Truth>,
    pub(crate) solo: Arc<Truth>,
    pub(crate) room: Arc<Truth>,
    pub(crate) watch: Arc<Watch>,
}

impl Scene {
    /// All of it, once it works. `max_messages` is what the one stream keeps.
    pub(crate) async fn start(dir: &Path, disk: &str, max_messages: u64) -> Self {
        let mut nodes = Nodes::new(dir, disk);
        nodes.start().await;
        let context = nodes::jetstream().await;
        for (stream, subjects, max) in
            [(CHAT, vec![CHAT], -1), (SHORT, vec![SHORT], max_messages as i64), (MIX, vec![SOLO, "room.*"], -1)]
        {
            let config = Config {
                name: stream.into(),
                subjects: subjects.iter().map(|feed| format!("h3cast.{feed}")).collect(),
                num_replicas: NODES,
                max_messages: max,
                allow_direct: true,
                ..Default::default()
            };
            within("a stream is made", create(&context, config)).await;
            nodes::healthy(stream).await;
        }
        let args = ["chat=publish", "short=publish", "solo=publish", "room.*=publish", HISTORY];
        let mut edges: Vec<_> = (0..EDGES).map(|number| Edge::new(number, dir, &args)).collect();
        for edge in &mut edges {
            edge.start().await;
        }
        let addresses = Arc::new(edges.iter().map(|edge| edge.address.clone()).collect());
        let (chat, short) = (Truth::of(CHAT, None), Truth::of(SHORT, Some(max_messages)));
        let (solo, room) = (Truth::within(MIX, SOLO, None), Truth::within(MIX, ROOM, None));
        Self { nodes, edges, addresses, chat, short, solo, room, watch: Arc::default() }
    }

    /// What is known of all feeds.
    pub(crate) fn truths(&self) -> [&Arc<Truth>; 4] {
        [&self.chat, &self.short, &self.solo, &self.room]
    }

    /// Waits until all streams have a leader and all their copies.
    pub(crate) async fn healthy(&self) {
        for stream in [CHAT, SHORT, MIX] {
            nodes::healthy(stream).await;
        }
    }

    /// The last line of each feed, so that its viewers end.
    pub(crate) async fn end(&self) {
        for truth in self.truths() {
            truth.begun.fetch_add(1, Ordering::Relaxed);
            let (mut client, mut at, last) = (Client::default(), 0, std::str::from_utf8(LAST).unwrap());
            let publishing = publishers::publish(&mut client, &self.addresses, &mut at, truth.feed, "last", last);
            within("the last line", publishing).await;
        }
    }
}

/// All that the stream has of a feed.
pub(crate) async fn kept(context: &jetstream::Context, truth: &Truth) -> Vec<(u64, Vec<u8>)> {
    let (kept, subject) = (cluster::kept_with_subjects(context, truth.stream).await, truth.subject());
    kept.into_iter().filter(|(_, of, _)| *of == subject).map(|(seq, _, bytes)| (seq, bytes)).collect()
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
        truth.begun.fetch_add(1, Ordering::Relaxed);
        let line = format!("filled {number} {}\n", "x".repeat(length));
        sent.push(context.publish(truth.subject(), line.into()).await.unwrap());
        if sent.len() == 256 || number + 1 == count {
            // Under faults some are not acknowledged: what is there in the end counts.
            join_all(sent.drain(..).map(IntoFuture::into_future)).await;
        }
    }
}
