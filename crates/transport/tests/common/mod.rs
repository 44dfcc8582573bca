//! What several tests need, here and in the root package: a server on free ports that stops when dropped, clients
//! that write HTTP/3 by hand, a network that loses packets, and both ends of sessions.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod process;
pub mod raw;
pub mod relay;
pub mod sessions;

use std::{path::PathBuf, sync::Arc, time::Duration};

use h3cast_transport::{
    Identity, Listen, PlainHttp, Server,
    client::{Connection, Trust},
    server::ServerBuilder,
};
use http::Uri;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a test waits for an event before it calls it missing.
pub const DEADLINE: Duration = Duration::from_secs(60);

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
