//! A real server on free ports that stops when dropped, and a feed that the test drives by hand.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use h3cast::{
    App, Identity, Listen, PlainHttp, Server,
    client::{Connection, Trust},
    feed::{Feed, FeedError},
    server::ServerBuilder,
};
use http::Uri;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a test waits for an event before it calls it missing.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for an event, or fails the test.
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen within {DEADLINE:?}: {what}"),
    }
}

/// A running server.
pub struct TestServer {
    pub base: String,
    pub http: String,
    pub identity: Identity,
    pub stop: CancellationToken,
    pub running: JoinHandle<()>,
    // Before the folder, which a server that runs would make good again.
    _stop_on_drop: DropGuard,
    certs: Arc<tempfile::TempDir>,
}

impl TestServer {
    /// A server that answers as `make` describes it.
    pub async fn start(make: impl FnOnce(ServerBuilder, Identity) -> ServerBuilder) -> Self {
        let certs = tempfile::tempdir().unwrap();
        let identity = Identity::self_signed(certs.path(), &[], Default::default()).unwrap();
        let builder = Server::builder(identity.clone())
            .listen(Listen::localhost(0))
            .plain_http(PlainHttp::At(Listen::localhost(0)))
            .grace(Duration::from_secs(3));
        let server = make(builder, identity.clone()).build().await.unwrap();
        let (base, http) = (&server.addresses().tls[0], server.addresses().http.as_ref().unwrap());
        let (base, http) = (format!("https://{base}"), format!("http://{http}"));
        let stop = CancellationToken::new();
        let run = server.run(stop.clone());
        let running = tokio::spawn(async { run.await.unwrap() });
        let guard = stop.clone().drop_guard();
        Self { base, http, identity, stop, running, certs: Arc::new(certs), _stop_on_drop: guard }
    }

    /// A server of one feed, as the program serves it.
    pub async fn feed(feed: Feed) -> Self {
        Self::start(|builder, identity| App::new([feed], identity).install(builder)).await
    }

    pub fn uri(&self, path: &str) -> Uri {
        format!("{}{path}", self.base).parse().unwrap()
    }

    pub fn certificate(&self) -> PathBuf {
        self.certs.path().join("cert.pem")
    }

    pub fn port(&self) -> u16 {
        self.base.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub fn http_port(&self) -> u16 {
        self.http.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub async fn connect(&self) -> Connection {
        let trust = Trust::Files(vec![self.certificate()]);
        soon("a connection", Connection::open(&self.uri("/"), &trust)).await.unwrap()
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
