//! A server of feeds, the program, and a feed that the test drives by hand.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its own part")]

// The server and its peers, as in the tests of the transport.
#[path = "../../crates/transport/tests/common/mod.rs"]
mod transport;

use bytes::Bytes;
use futures_util::stream;
use h3cast::{
    App,
    feed::{Feed, FeedError},
};
use tokio::sync::mpsc;

pub use transport::*;

impl TestServer {
    /// A server of one feed, as the program serves it.
    pub async fn feed(feed: Feed) -> Self {
        Self::start(|builder, identity| App::new([feed], identity).install(builder)).await
    }
}

#[cfg(feature = "cli")]
impl process::Program {
    /// The program, serving the demo feed without end.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more arguments.
    pub fn start_with(more: &[&str]) -> Self {
        Self::start_every("20ms", more)
    }

    /// The same with a chunk every so often.
    pub fn start_every(interval: &str, more: &[&str]) -> Self {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_h3cast"));
        command.args(["--listen", "localhost:0", "--http", "off", "--count", "0", "--interval", interval]).args(more);
        Self::run(command)
    }
}

/// The test's side of a feed: one [`Hand`] for each viewer that comes.
pub struct Hands(mpsc::UnboundedReceiver<Hand>);

/// Makes chunks for one viewer.
pub struct Hand {
    chunks: mpsc::Sender<Result<Bytes, FeedError>>,
}

/// A feed whose chunks the test makes, and the hands that make them.
pub fn by_hand() -> (Feed, Hands) {
    let (hands_tx, hands) = mpsc::unbounded_channel();
    let feed = Feed::on_demand("default", move || {
        // No room for more than one: the source learns at once how far its viewer is.
        let (chunks, rx) = mpsc::channel(1);
        let _ = hands_tx.send(Hand { chunks });
        stream::unfold(rx, |mut rx| async move { Some((rx.recv().await?, rx)) })
    });
    (feed, Hands(hands))
}

impl Hands {
    /// Waits for the next viewer.
    pub async fn next(&mut self) -> Hand {
        soon("a viewer joins", self.0.recv()).await.unwrap()
    }
}

impl Hand {
    pub async fn make(&self, bytes: impl Into<Bytes>) {
        soon("the chunk is taken", self.chunks.send(Ok(bytes.into()))).await.unwrap();
    }

    pub async fn fail(&self, reason: &str) {
        soon("the failure is taken", self.chunks.send(Err(FeedError(reason.into())))).await.unwrap();
    }

    /// Waits until the viewer's feed has been dropped.
    pub async fn abandoned(&self) {
        soon("the producer is dropped", self.chunks.closed()).await;
    }
}
