//! The two servers that the client is tested against: ours, and one on the plain h3 crate.

use std::{future::Future, sync::Arc, time::Duration};

use axum::Router;
use bytes::Bytes;
use h3::server::RequestStream;
use h3cast_transport::{
    Identity, Listen, Server,
    client::{Connection, Trust},
};
use http::{Request, Uri};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::{
    ConfigBuilder, ServerConfig, WantsVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Waits for an event that the test cannot continue without.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), event).await {
        Ok(value) => value,
        Err(_) => panic!("{what} takes too long"),
    }
}

pub(crate) fn identity(dir: &tempfile::TempDir) -> Identity {
    Identity::self_signed(dir.path(), &[], Default::default()).unwrap()
}

/// Our server, until it is dropped.
pub(crate) struct Ours {
    pub(crate) port: u16,
    dir: tempfile::TempDir,
    _stop: DropGuard,
}

impl Ours {
    pub(crate) async fn start(router: Router) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server =
            Server::builder(identity(&dir)).listen("127.0.0.1:0".parse::<Listen>().unwrap()).http_service(router);
        let server = server.build().await.unwrap();
        let port = server.addresses().udp[0].port();
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone()));
        Self { port, dir, _stop: stop.drop_guard() }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::Files(vec![self.dir.path().join("cert.pem")])
    }

    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("https://127.0.0.1:{}{path}", self.port).parse().unwrap()
    }

    pub(crate) async fn connect(&self) -> Connection {
        soon("a connection", Connection::open(&self.uri("/"), &self.trust())).await.unwrap()
    }
}

pub(crate) type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// A server on the plain h3 crate, until it is dropped.
pub(crate) struct Plain {
    dir: tempfile::TempDir,
    endpoint: quinn::Endpoint,
    connections: watch::Receiver<Vec<quinn::Connection>>,
    ends: watch::Receiver<Vec<String>>,
    goaway: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

impl Plain {
    pub(crate) fn start<F>(answer: impl Fn(Request<()>, Stream) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::with(|tls| tls.with_no_client_auth(), answer)
    }

    /// One that decides who may connect.
    pub(crate) fn with<F>(
        auth: impl FnOnce(
            ConfigBuilder<ServerConfig, WantsVerifier>,
        ) -> ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
        answer: impl Fn(Request<()>, Stream) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let dir = tempfile::tempdir().unwrap();
        let identity = identity(&dir);
        let chain = CertificateDer::pem_file_iter(identity.certificate_path()).unwrap();
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(identity.key_path()).unwrap();
        let tls = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let mut tls = auth(tls).with_single_cert(chain, key).unwrap();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let accepting = endpoint.clone();
        let ((accepted, connections), goaway) = (watch::channel(Vec::new()), watch::Sender::new(false));
        let stop = goaway.subscribe();
        let (ended, ends) = watch::channel(Vec::new());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut tasks = JoinSet::new();
            while let Some(incoming) = accepting.accept().await {
                // The client may have given up.
                let Ok(conn) = incoming.await else { continue };
                accepted.send_modify(|all| all.push(conn.clone()));
                tasks.spawn(serve(conn, stop.clone(), ended.clone(), answer.clone()));
            }
        });
        Self { dir, endpoint, connections, ends, goaway, _serving: serving }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::Files(vec![self.dir.path().join("cert.pem")])
    }

    /// Its certificate, in PEM form.
    pub(crate) fn pem(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("cert.pem")).unwrap()
    }

    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("https://127.0.0.1:{}{path}", self.endpoint.local_addr().unwrap().port()).parse().unwrap()
    }

    pub(crate) async fn connect(&self) -> Connection {
        soon("a connection", Connection::open(&self.uri("/"), &self.trust())).await.unwrap()
    }

    /// Waits for its first connections, this many.
    pub(crate) async fn accepted(&self, count: usize) -> Vec<quinn::Connection> {
        let mut connections = self.connections.clone();
        let all = soon("the connection", connections.wait_for(|all| all.len() >= count)).await.unwrap();
        all.clone()
    }

    /// The connections so far.
    pub(crate) fn connections(&self) -> Vec<quinn::Connection> {
        self.connections.borrow().clone()
    }

    /// Waits for the end of that many connections, and gives what each ended with.
    pub(crate) async fn ended(&self, count: usize) -> Vec<String> {
        let mut ends = self.ends.clone();
        let all = soon("the end of the connection", ends.wait_for(|all| all.len() >= count)).await.unwrap();
        all.clone()
    }

    /// Announces on all connections that it takes no more requests (GOAWAY).
    pub(crate) fn go_away(&self) {
        self.goaway.send_replace(true);
    }
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

async fn serve<F>(
    conn: quinn::Connection,
    mut stop: watch::Receiver<bool>,
    ends: watch::Sender<Vec<String>>,
    answer: impl Fn(Request<()>, Stream) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    // Of connections that are there when it is announced.
    stop.mark_unchanged();
    let mut h3 = h3::server::builder().build::<_, Bytes>(h3_quinn::Connection::new(conn)).await.unwrap();
    let mut answers = JoinSet::new();
    let mut going = false;
    loop {
        let accepted = tokio::select! {
            accepted = h3.accept() => accepted,
            Ok(()) = stop.changed(), if !going => {
                going = true;
                h3.shutdown(0).await.unwrap();
                continue;
            }
        };
        match accepted {
            Ok(Some(resolver)) => {
                if let Ok((request, stream)) = resolver.resolve_request().await {
                    answers.spawn(answer(request, stream));
                }
            }
            // After GOAWAY the connection is still there for what was begun.
            Ok(None) => {
                while answers.join_next().await.is_some() {}
                return;
            }
            Err(error) => return ends.send_modify(|all| all.push(format!("{error}"))),
        }
    }
}
