//! The whole server over QUIC: handshakes, requests, sessions and chunks, of which only the server's work is counted.
//!
//! Server and clients share a thread, a runtime whose time is set forward whenever nothing is left to do, and two
//! [sockets in memory](wire). What clients do is [not counted](uncounted), nor what stands for the system.
//! What remains is the server, from received packets to sent ones: QUIC, TLS, HTTP/3, the app, the feed, and tokio.

mod clients;
mod wire;

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use h3cast::{
    App, Identity, Server,
    feed::{self, Feed, Lag, Publisher},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::sleep,
};
use tracing::subscriber::NoSubscriber;

pub(crate) use self::clients::By;
use self::clients::{Asked, Client};
use crate::{
    chunks::{LINE, ROOMY},
    measured,
};

/// How many connect, and view.
pub(crate) const VIEWERS: usize = 20;
/// How many chunks are counted, after some that are not.
const CHUNKS: usize = 100;
pub(crate) const DELIVERED: usize = VIEWERS * CHUNKS;
const FIRST_CHUNKS: usize = 20;
/// Until everything has been acknowledged that was sent, and the path is known.
const SETTLED: Duration = Duration::from_secs(1);

/// Whether what runs now is counted.
static COUNTING: AtomicBool = AtomicBool::new(false);

/// Counts the work of the server that goes on meanwhile.
fn counted<T>(work: impl FnOnce() -> T) -> T {
    COUNTING.store(true, Ordering::Relaxed);
    let done = measured(work);
    COUNTING.store(false, Ordering::Relaxed);
    done
}

/// Leaves out what a client does, or the system, while the server is counted.
fn uncounted<T>(work: impl FnOnce() -> T) -> T {
    if !COUNTING.swap(false, Ordering::Relaxed) {
        return work();
    }
    let done = crate::left_out(work);
    COUNTING.store(true, Ordering::Relaxed);
    done
}

/// A server, and clients that are connected to it.
struct Stage {
    runtime: Runtime,
    endpoint: h3cast::quic::engine::Endpoint,
    server: std::net::SocketAddr,
    publisher: Publisher,
    clients: Vec<Arc<Client>>,
    asked: Vec<Asked>,
}

impl Stage {
    fn new() -> Self {
        // Otherwise each span asks whether the crate `log` has a logger, which it does not in the program.
        tracing::subscriber::set_global_default(NoSubscriber::default()).expect("the only one");
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        let identity = Identity::self_signed(&std::env::temp_dir().join("h3cast-quic"), &[], Default::default());
        let identity = identity.expect("a certificate");
        let certificate = identity.current();
        let [server_socket, clients_socket] = wire::pair();
        let server_address = server_socket.address();
        let (feed, publisher) = Feed::live(feed::DEFAULT, ROOMY, Lag::Skip);
        let endpoint = runtime.block_on(async {
            let builder = Server::builder(identity.clone())
                .listen("127.0.0.1:0".parse().expect("an address"))
                .udp_only()
                .wrap_udp(move |_| server_socket.clone())
                .seed([8; 32]);
            let server = App::new([feed], identity).install(builder).build().await.expect("a server");
            tokio::spawn(server.serve());
            clients::endpoint(clients_socket, certificate.der())
        });
        Self { runtime, endpoint, server: server_address, publisher, clients: Vec::new(), asked: Vec::new() }
    }

    /// Handshakes, and what opens HTTP/3.
    fn connect(&mut self) {
        let connecting = (0..VIEWERS).map(|_| {
            let (endpoint, server) = (self.endpoint.clone(), self.server);
            apart(async move { Arc::new(Client::connect(endpoint, server).await) })
        });
        self.clients = self.runtime.block_on(settled(connecting));
    }

    fn ask(&mut self, by: By) {
        let asking = self.clients.iter().map(|client| {
            let client = client.clone();
            apart(async move { client.ask(by).await })
        });
        self.asked = self.runtime.block_on(settled(asking));
    }

    fn publish(&self, chunks: usize, pause: Duration) {
        self.runtime.block_on(async {
            for _ in 0..chunks {
                self.publisher.publish(Bytes::from_static(LINE)).await.expect("it has not ended");
                sleep(pause).await;
            }
        });
    }

    /// Sees that every viewer has got so many chunks, and ends at once: what was allocated for viewers is there still.
    fn end(self, chunks: usize) -> ! {
        for client in &self.clients {
            assert!(client.received() >= chunks * LINE.len(), "{} bytes", client.received());
        }
        process::exit(0)
    }
}

/// Runs a client's work in a task of its own.
fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> oneshot::Receiver<T> {
    let (tx, rx) = oneshot::channel();
    clients::spawn(async move {
        let _ = tx.send(work.await);
    });
    rx
}

/// What all of them give, some time later.
async fn settled<T>(all: impl Iterator<Item = oneshot::Receiver<T>>) -> Vec<T> {
    let all = join_all(all).await.into_iter().map(|done| done.expect("no client panics")).collect();
    sleep(SETTLED).await;
    all
}

/// Clients connect.
pub(crate) fn handshakes() {
    let mut stage = Stage::new();
    counted(|| stage.connect());
    stage.end(0);
}

/// Connected clients ask for the feed.
pub(crate) fn requests(by: By) {
    let mut stage = Stage::new();
    stage.connect();
    counted(|| stage.ask(by));
    stage.end(0);
}

/// Viewers get one chunk after another.
pub(crate) fn chunks(by: By, pause: Duration) {
    let mut stage = Stage::new();
    stage.connect();
    stage.ask(by);
    stage.publish(FIRST_CHUNKS, pause);
    counted(|| stage.publish(CHUNKS, pause));
    stage.end(FIRST_CHUNKS + CHUNKS);
}

/// All of it, for what viewers leave allocated.
pub(crate) fn viewers(by: By) {
    let mut stage = Stage::new();
    counted(|| {
        stage.connect();
        stage.ask(by);
        stage.publish(FIRST_CHUNKS, Duration::from_millis(10));
    });
    stage.end(FIRST_CHUNKS);
}
