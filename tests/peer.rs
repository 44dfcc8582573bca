//! Our client against a server that is not ours: h3-quinn and h3-webtransport as their
//! documentation shows them.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::soon;
use h3_webtransport::server::{AcceptedBi, WebTransportSession};
use h3cast::{
    Identity,
    client::{ClientError, Connection, Trust},
};
use http::{HeaderMap, Method, Response};
use quinn::crypto::rustls::QuicServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that answers requests with a greeting, and sessions with one unidirectional stream and
/// an echo of bidirectional ones.
async fn plain_server(identity: &Identity) -> quinn::Endpoint {
    let chain = CertificateDer::pem_file_iter(identity.certificate_path()).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(identity.key_path()).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            tokio::spawn(async move { connection(incoming.await.unwrap()).await });
        }
    });
    endpoint
}

async fn connection(conn: quinn::Connection) {
    let mut h3 = h3::server::builder()
        .enable_webtransport(true)
        .enable_extended_connect(true)
        .enable_datagram(true)
        .max_webtransport_sessions(1)
        .build::<_, Bytes>(h3_quinn::Connection::new(conn))
        .await
        .unwrap();
    while let Ok(Some(resolver)) = h3.accept().await {
        let (request, mut stream) = resolver.resolve_request().await.unwrap();
        if request.method() != Method::CONNECT {
            stream.send_response(Response::new(())).await.unwrap();
            stream.send_data("hello".into()).await.unwrap();
            stream.finish().await.unwrap();
            continue;
        }
        // From here on the connection is the session's.
        let session = WebTransportSession::accept(request, stream, h3).await.unwrap();
        let mut uni = session.open_uni(session.session_id()).await.unwrap();
        uni.write_all(b"pushed").await.unwrap();
        uni.shutdown().await.unwrap();
        while let Ok(Some(AcceptedBi::BidiStream(_, stream))) = session.accept_bi().await {
            let (mut send, mut recv) = h3::quic::BidiStream::<Bytes>::split(stream);
            let mut text = Vec::new();
            recv.read_to_end(&mut text).await.unwrap();
            send.write_all(&text).await.unwrap();
            send.shutdown().await.unwrap();
        }
        return;
    }
}

#[tokio::test]
async fn requests_and_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::self_signed(dir.path(), &[], Default::default()).unwrap();
    let endpoint = plain_server(&identity).await;
    let uri = format!("https://{}/", endpoint.local_addr().unwrap()).parse().unwrap();
    let trust = Trust::Files(vec![identity.certificate_path()]);
    let connection = soon("a connection", Connection::open(&uri, &trust)).await.unwrap();

    for _ in 0..3 {
        let mut response = soon("the head", connection.get(&uri)).await.unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(soon("the body", response.body.next()).await.unwrap().unwrap(), "hello");
        assert_eq!(soon("the end", response.body.next()).await.unwrap(), None);
    }

    let connection = soon("a connection", Connection::open(&uri, &trust)).await.unwrap();
    let session = soon("the session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    // h3 0.0.8 names a session's streams wrongly unless the session is a connection's first request.
    assert_eq!(session.id(), 0);
    let (mut send, mut recv) = soon("a stream", session.open_bi()).await.unwrap();
    send.write_all(b"echoed").await.unwrap();
    send.finish().unwrap();
    let mut text = String::new();
    soon("the echo", recv.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "echoed");
    let mut uni = soon("the pushed stream", session.accept_uni()).await.unwrap();
    let mut text = String::new();
    soon("the push", uni.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "pushed");

    let other = Identity::self_signed(&dir.path().join("other"), &[], Default::default()).unwrap();
    let refused = Connection::open(&uri, &Trust::Files(vec![other.certificate_path()])).await.unwrap_err();
    assert!(matches!(refused, ClientError::Untrusted { .. }), "{refused}");
}
