//! A server on the plain h3 crate, which sends whatever head it is told to: ours breaks off instead.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use h3cast::{
    Identity,
    client::{Connection, Trust},
};
use http::{Method, Response, Uri, header};
use quinn::crypto::rustls::QuicServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::task::JoinHandle;

use crate::common::soon;

/// A path, and the status and lengths in the head of its answer.
pub(crate) type Lie = (&'static str, u16, &'static [&'static str]);

/// Answers with five bytes in two pieces, whatever the head says.
pub(crate) struct Liar {
    endpoint: quinn::Endpoint,
    serving: JoinHandle<()>,
    certs: tempfile::TempDir,
}

impl Liar {
    pub(crate) fn start(lies: &'static [Lie]) -> Self {
        let certs = tempfile::tempdir().unwrap();
        let identity = Identity::self_signed(certs.path(), &[], Default::default()).unwrap();
        let chain = CertificateDer::pem_file_iter(identity.certificate_path()).unwrap();
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(identity.key_path()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut tls = tls.with_no_client_auth().with_single_cert(chain, key).unwrap();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let accepting = endpoint.clone();
        let serving = tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                tokio::spawn(async move { answer(incoming.await.unwrap(), lies).await });
            }
        });
        Self { endpoint, serving, certs }
    }

    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("https://localhost:{}{path}", self.endpoint.local_addr().unwrap().port()).parse().unwrap()
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.certs.path().join("cert.pem")
    }

    pub(crate) async fn connect(&self) -> Connection {
        let trust = Trust::Files(vec![self.certificate()]);
        soon("a connection", Connection::open(&self.uri("/"), &trust)).await.unwrap()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(conn: quinn::Connection, lies: &[Lie]) {
    let mut h3 = h3::server::builder().build::<_, Bytes>(h3_quinn::Connection::new(conn)).await.unwrap();
    while let Ok(Some(resolver)) = h3.accept().await {
        let Ok((request, mut stream)) = resolver.resolve_request().await else { return };
        let (_, status, lengths) = lies.iter().find(|(path, ..)| *path == request.uri().path()).unwrap();
        let head = lengths
            .iter()
            .fold(Response::builder().status(*status), |head, length| head.header(header::CONTENT_LENGTH, *length));
        // The client may break it off.
        let _ = stream.send_response(head.body(()).unwrap()).await;
        if *request.method() != Method::HEAD && *status != 304 {
            let _ = stream.send_data("par".into()).await;
            let _ = stream.send_data("t\n".into()).await;
        }
        let _ = stream.finish().await;
    }
}
