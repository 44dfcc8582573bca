//! Interim responses, as servers with early hints send them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::{Buf, Bytes};
use h3::server::RequestStream;
use h3_webtransport::server::WebTransportSession;
use h3cast::{
    Identity,
    chunk::{Chunk, Epoch},
    client::{ClientError, Connection, Trust},
    feed::End,
    format::frames,
};
use http::{HeaderMap, Method, Response, StatusCode};
use quinn::crypto::rustls::QuicServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::AsyncWriteExt;

use crate::{
    common::soon,
    program::{Program, output, text},
};

/// A server that sends interim responses (RFC 9114 §4.1) before each answer.
async fn hasty_server(identity: &Identity) -> quinn::Endpoint {
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
        let published = Arc::new(AtomicU64::new(0));
        while let Some(incoming) = accepting.accept().await {
            let published = published.clone();
            tokio::spawn(async move { answer(incoming.await.unwrap(), published).await });
        }
    });
    endpoint
}

type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

async fn interim(stream: &mut Stream, status: u16) {
    let hints = Response::builder().status(status).header("link", "</style.css>; rel=preload").body(()).unwrap();
    stream.send_response(hints).await.unwrap();
}

async fn answer(conn: quinn::Connection, published: Arc<AtomicU64>) {
    let mut h3 = h3::server::builder()
        .enable_webtransport(true)
        .enable_extended_connect(true)
        .enable_datagram(true)
        .max_webtransport_sessions(1)
        .build::<_, Bytes>(h3_quinn::Connection::new(conn))
        .await
        .unwrap();
    let feed = || {
        let chunk = frames::chunk(&Chunk::new(0, "hello\n".into()));
        [frames::begin(Epoch(7), Some(0)), chunk, frames::end(&End::Clean)].concat().into()
    };
    while let Ok(Some(resolver)) = h3.accept().await {
        let Ok((request, mut stream)) = resolver.resolve_request().await else { return };
        if request.method() == Method::CONNECT {
            interim(&mut stream, 103).await;
            // From here on the connection is the session's.
            let session = WebTransportSession::accept(request, stream, h3).await.unwrap();
            let mut uni = session.open_uni(session.session_id()).await.unwrap();
            uni.write_all(b"hello\n").await.unwrap();
            uni.shutdown().await.unwrap();
            return std::future::pending().await;
        }
        let (kind, body): (_, Bytes) = match request.uri().path() {
            "/101" => {
                interim(&mut stream, 101).await;
                continue;
            }
            "/endless" => {
                // Until the client has had enough.
                let hints = || Response::builder().status(103).body(()).unwrap();
                while stream.send_response(hints()).await.is_ok() {}
                continue;
            }
            _ if request.method() == Method::POST => {
                interim(&mut stream, 100).await;
                let mut bytes = 0;
                while let Some(piece) = stream.recv_data().await.unwrap() {
                    bytes += piece.remaining() as u64;
                }
                let bytes = published.fetch_add(bytes, Ordering::SeqCst) + bytes;
                let answer =
                    serde_json::json!({ "feed": "log", "first": null, "last": null, "chunks": 1, "bytes": bytes });
                ("application/json", answer.to_string().into())
            }
            "/frames" => ("application/vnd.h3cast.frames", feed()),
            _ => ("text/plain", "hello\n".into()),
        };
        interim(&mut stream, 103).await;
        interim(&mut stream, 103).await;
        stream.send_response(Response::builder().header("content-type", kind).body(()).unwrap()).await.unwrap();
        stream.send_data(body).await.unwrap();
        stream.finish().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::self_signed(&dir.path().join("certs"), &[], Default::default()).unwrap();
    let endpoint = hasty_server(&identity).await;
    let base = format!("https://{}", endpoint.local_addr().unwrap());
    let trust = Trust::Files(vec![identity.certificate_path()]);
    let plain = format!("{base}/plain").parse().unwrap();
    let connection = soon("a connection", Connection::open(&plain, &trust)).await.unwrap();
    let mut response = soon("the head", connection.get(&plain)).await.unwrap();
    assert_eq!((response.status, response.headers["content-type"].as_bytes()), (StatusCode::OK, &b"text/plain"[..]));
    assert_eq!(soon("the body", response.body.next()).await.unwrap().unwrap(), "hello\n");
    for path in ["/101", "/endless"] {
        let uri = format!("{base}{path}").parse().unwrap();
        let connection = soon("a connection", Connection::open(&uri, &trust)).await.unwrap();
        let error = soon("the answer", connection.get(&uri)).await.unwrap_err();
        assert!(matches!(&error, ClientError::Protocol(_)), "{error:?}");
    }
    let connection = soon("a connection", Connection::open(&plain, &trust)).await.unwrap();
    soon("a session", connection.webtransport(&plain, HeaderMap::new(), &[])).await.unwrap();

    let cert = identity.certificate_path();
    let cert = cert.to_str().unwrap();
    let (plain, frames) = (format!("{base}/plain"), format!("{base}/frames"));
    for args in
        [&["get", &plain][..], &["get", &frames], &["get", &frames, "--resume"], &["get", &plain, "--webtransport"]]
    {
        let got = output(dir.path(), &[args, &["--cacert", cert]].concat()).await;
        assert_eq!(text(&got.stdout), "hello\n", "{args:?}: {}", text(&got.stderr));
        assert_eq!((text(&got.stderr).as_str(), got.status.code()), ("", Some(0)), "{args:?}");
    }
    let mut publish = Program::start(dir.path(), &["publish", &plain, "--cacert", cert, "--json"]);
    tokio::io::AsyncWriteExt::write_all(publish.stdin.as_mut().unwrap(), b"a line\n").await.unwrap();
    let (out, told, code) = publish.end().await;
    assert_eq!(code, Some(0), "{told}");
    assert!(text(&out).contains("\"bytes\":7"), "{}", text(&out));
    let got = output(dir.path(), &["bench", &frames, "--cacert", cert, "-c", "1", "--warm-up", "0", "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&got.stdout).unwrap();
    assert_eq!(got.status.code(), Some(0), "{report:#} {}", text(&got.stderr));
    assert_eq!(report["chunks"], 1, "{report:#}");
}
