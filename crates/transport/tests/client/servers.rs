//! The two servers that the client is tested against: ours, and one on the plain h3 crate.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use bytes::Bytes;
use h3::server::RequestStream;
use h3cast_transport::{
    Identity, Listen, Server,
    client::{Connection, Trust},
};
use http::{Request, Uri};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::task::JoinSet;
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
    pub(crate) endpoint: quinn::Endpoint,
    dir: tempfile::TempDir,
    _serving: JoinSet<()>,
}

impl Plain {
    pub(crate) fn start<F>(answer: impl Fn(Request<()>, Stream) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::at("127.0.0.1:0".parse().unwrap(), tempfile::tempdir().unwrap(), |_| {}, answer)
    }

    /// One with the certificate in `dir`.
    pub(crate) fn at<F>(
        address: SocketAddr,
        dir: tempfile::TempDir,
        tls: impl FnOnce(&mut rustls::ServerConfig),
        answer: impl Fn(Request<()>, Stream) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let identity = identity(&dir);
        let chain = CertificateDer::pem_file_iter(identity.certificate_path()).unwrap();
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(identity.key_path()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h3".to_vec()];
        tls(&mut config);
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()));
        let endpoint = quinn::Endpoint::server(config, address).unwrap();
        let accepting = endpoint.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(incoming) = accepting.accept().await {
                let answer = answer.clone();
                connections.spawn(async move {
                    // The client may have given up.
                    let Ok(conn) = incoming.await else { return };
                    serve(conn, answer).await;
                });
            }
        });
        Self { endpoint, dir, _serving: serving }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::Files(vec![self.dir.path().join("cert.pem")])
    }

    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("https://127.0.0.1:{}{path}", self.endpoint.local_addr().unwrap().port()).parse().unwrap()
    }

    pub(crate) async fn connect(&self) -> Connection {
        soon("a connection", Connection::open(&self.uri("/"), &self.trust())).await.unwrap()
    }
}

async fn serve<F>(conn: quinn::Connection, answer: impl Fn(Request<()>, Stream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut h3 = h3::server::builder().build::<_, Bytes>(h3_quinn::Connection::new(conn)).await.unwrap();
    let mut answers = JoinSet::new();
    while let Ok(Some(resolver)) = h3.accept().await {
        if let Ok((request, stream)) = resolver.resolve_request().await {
            answers.spawn(answer(request, stream));
        }
    }
}
