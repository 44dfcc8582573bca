use std::{
    fs::File,
    io::Write,
    sync::{Arc, Mutex},
};

use h3cast_transport::server::StartError;
use http::HeaderMap;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::CertificateDer,
    server::{ResolvesServerCertUsingSni, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use crate::{
    certificates,
    kit::{Serving, Trusting, ask, ask_h3, builder, loopback, soon, status},
};

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[tokio::test]
async fn clients_without_a_certificate_are_refused() {
    let (ca, own) = certificates::of_client();
    let mut roots = RootCertStore::empty();
    roots.add(ca).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider()).build().unwrap();
    let serving = Serving::start(|builder| builder.client_certificates(verifier)).await;

    // With TLS 1.3, a client learns it after its own handshake is complete.
    let mut refused = serving.h1().await;
    assert!(soon("the refusal over TCP", ask(&mut refused, "")).await.is_err());
    let refused = serving.quic().await;
    let error = match refused {
        Ok(connection) => soon("the refusal over QUIC", connection.closed()).await,
        Err(error) => error,
    };
    // TLS alert 116, certificate_required (RFC 8446 §6.2).
    assert!(error.to_string().contains("116"), "{error}");

    let mut known = serving.trust();
    known.own = Some(own);
    let mut tcp = soon("a connection", known.tcp(serving.tcp(), "localhost", b"http/1.1")).await.unwrap();
    assert_eq!(status(&soon("an answer over TCP", ask(&mut tcp, "")).await.unwrap()), 200);
    let quic = soon("a connection", known.quic(serving.udp(), "localhost")).await.unwrap();
    assert_eq!(soon("an answer over QUIC", ask_h3(&quic, HeaderMap::new())).await.unwrap(), 200);
}

#[tokio::test]
async fn a_resolver_gives_each_name_its_certificate() {
    let (a, b) = (certificates::for_name("a.test"), certificates::for_name("b.test"));
    let mut resolver = ResolvesServerCertUsingSni::new();
    for (name, (certificate, key)) in [("a.test", &a), ("b.test", &b)] {
        let key = provider().key_provider.load_private_key(key.clone_key()).unwrap();
        resolver.add(name, CertifiedKey::new(vec![certificate.clone()], key)).unwrap();
    }
    let resolver = Arc::new(resolver);
    let serving = Serving::start(|builder| builder.tls(move |tls| tls.cert_resolver = resolver.clone())).await;
    let trusting = Trusting::new([a.0.clone(), b.0.clone()]);
    for (name, expected) in [("a.test", a.0), ("b.test", b.0)] {
        let tcp = soon("a connection", trusting.tcp(serving.tcp(), name, b"h2")).await.unwrap();
        assert_eq!(tcp.get_ref().1.peer_certificates().unwrap()[0], expected);
        let quic = soon("a connection", trusting.quic(serving.udp(), name)).await.unwrap();
        let shown = quic.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
        assert_eq!(shown[0], expected);
    }
    assert!(trusting.quic(serving.udp(), "c.test").await.is_err());
}

/// As `SSLKEYLOGFILE` has it.
#[derive(Debug)]
struct KeyLog(Mutex<File>);

impl rustls::KeyLog for KeyLog {
    fn log(&self, label: &str, _client_random: &[u8], _secret: &[u8]) {
        writeln!(self.0.lock().unwrap(), "{label}").unwrap();
    }
}

#[tokio::test]
async fn keys_are_logged_for_every_listener() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let log = Arc::new(KeyLog(Mutex::new(File::create(&path).unwrap())));
    let serving = Serving::start(|builder| builder.tls(move |tls| tls.key_log = log.clone())).await;
    let logged = || std::fs::read_to_string(&path).unwrap().matches("SERVER_TRAFFIC_SECRET_0").count();
    assert_eq!(status(&ask(&mut serving.h1().await, "").await.unwrap()), 200);
    assert_eq!(logged(), 1);
    ask_h3(&serving.quic().await.unwrap(), HeaderMap::new()).await.unwrap();
    assert_eq!(logged(), 2);
}

#[tokio::test]
async fn protocols_can_be_taken_away_from_tcp_alone() {
    let without_h2 = |tls: &mut ServerConfig| tls.alpn_protocols.retain(|protocol| protocol != b"h2");
    let serving = Serving::start(|builder| builder.tls(without_h2)).await;
    // One that knows nothing else is turned away.
    assert!(serving.trust().tcp(serving.tcp(), "localhost", b"h2").await.is_err());
    assert_eq!(serving.h1().await.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    ask_h3(&serving.quic().await.unwrap(), HeaderMap::new()).await.unwrap();
}

#[tokio::test]
async fn what_quic_needs_is_kept_or_refused() {
    let start = async |change: fn(&mut ServerConfig)| {
        let (builder, _certs) = builder();
        builder.listen(loopback()).tls(change).build().await.map(drop)
    };
    let error = start(|tls| tls.alpn_protocols = vec![b"http/1.1".to_vec()]).await.unwrap_err();
    assert!(matches!(&error, StartError::Alpn { host } if host == "127.0.0.1"), "{error:?}");
    assert!(error.to_string().contains("lacks `h3`"), "{error}");
    // Each client would have met a panic.
    assert!(matches!(start(|tls| tls.max_early_data_size = 1).await, Err(StartError::Tls(_))));
    let old = |tls: &mut ServerConfig| {
        let old = ServerConfig::builder_with_provider(provider());
        let old = old.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
        *tls = old.with_no_client_auth().with_cert_resolver(tls.cert_resolver.clone());
    };
    assert!(matches!(start(old).await, Err(StartError::Tls(_) | StartError::Quic(_))));
    // Other protocols are for other listeners.
    start(|tls| tls.alpn_protocols.push(b"acme-tls/1".to_vec())).await.unwrap();
}

#[tokio::test]
async fn the_configuration_can_be_replaced() {
    let replaced = |tls: &mut ServerConfig| {
        let own = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        *tls = own.with_no_client_auth().with_cert_resolver(tls.cert_resolver.clone());
    };
    let serving = Serving::start(|builder| builder.tls(replaced)).await;
    assert_eq!(status(&ask(&mut serving.h1().await, "").await.unwrap()), 200);
    ask_h3(&serving.quic().await.unwrap(), HeaderMap::new()).await.unwrap();
}
