//! Settings of the client: trust from memory, certificates of its own, where it connects from.

use std::{
    net::UdpSocket,
    sync::Arc,
    time::{Duration, Instant},
};

use h3cast_transport::{
    client::{ClientError, Connector, Trust},
    identity::Fingerprint,
};
use http::{Request, Response};
use rustls::{
    KeyLog, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::servers::{Plain, Stream, provider, soon};

async fn empty(_: Request<()>, mut stream: Stream) {
    stream.send_response(Response::new(())).await.unwrap();
    stream.finish().await.unwrap();
}

#[tokio::test]
async fn trust_from_memory() {
    let server = Plain::start(empty);
    let der = CertificateDer::from_pem_slice(&server.pem()).unwrap();
    let trusts = [
        Trust::pem(&server.pem()).unwrap(),
        Trust::der([der.to_vec()]).unwrap(),
        Trust::Hashes(vec![Fingerprint::of(&der)]),
    ];
    for trust in trusts {
        let connector = Connector::builder().trust(trust).build().unwrap();
        soon("a connection", connector.open(&server.uri("/"))).await.unwrap();
    }
    let error = soon("the refusal", Connector::builder().build().unwrap().open(&server.uri("/"))).await.unwrap_err();
    assert!(matches!(error, ClientError::Untrusted { .. }), "{error}");
    for wrong in [Trust::pem(b""), Trust::pem(b"hello"), Trust::der([b"hello".to_vec()])] {
        let error = wrong.unwrap_err();
        assert!(matches!(error, ClientError::Certificate { .. }) && error.is_final(), "{error}");
    }
}

#[derive(Debug)]
struct Secrets(tokio::sync::mpsc::UnboundedSender<String>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], _: &[u8]) {
        self.0.send(label.to_owned()).unwrap();
    }
}

#[tokio::test]
async fn a_certificate_of_the_client_s_own_and_a_key_log() {
    let own = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["me".into()]).unwrap().self_signed(&own).unwrap().der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let server = Plain::with(|tls| tls.with_client_cert_verifier(verifier), empty);

    let (tx, mut labels) = tokio::sync::mpsc::unbounded_channel();
    let key = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    let connector = Connector::builder().trust(server.trust()).tls(move |tls| {
        let own = CertifiedKey::from_der(vec![certificate], key, tls.crypto_provider()).unwrap();
        tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(own));
        tls.key_log = Arc::new(Secrets(tx));
    });
    let connection = soon("a connection", connector.build().unwrap().open(&server.uri("/"))).await.unwrap();
    assert_eq!(soon("the head", connection.get(&server.uri("/"))).await.unwrap().status, 200);
    assert_eq!(soon("a secret", labels.recv()).await.unwrap(), "CLIENT_HANDSHAKE_TRAFFIC_SECRET");

    // Without one, the server ends the connection.
    let without = async {
        let connection = server.connect().await;
        connection.get(&server.uri("/")).await
    };
    assert!(matches!(soon("the refusal", without).await, Err(ClientError::Connection(_))));
}

#[tokio::test]
async fn where_it_connects_from() {
    let server = Plain::start(empty);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let builder = || Connector::builder().trust(server.trust()).connect_timeout(Duration::from_secs(20));
    let connector = builder().socket(socket).unwrap().build().unwrap();
    let open = soon("a connection", connector.open(&server.uri("/"))).await.unwrap();
    assert_eq!(server.accepted(1).await[0].remote_address(), address);
    drop(open);

    let connector = builder().bind("127.0.0.2:0".parse().unwrap()).build().unwrap();
    let _open = soon("a connection", connector.open(&server.uri("/"))).await.unwrap();
    assert_eq!(server.accepted(2).await[1].remote_address().ip().to_string(), "127.0.0.2");

    let connector = builder().bind("[::1]:0".parse().unwrap()).build().unwrap();
    let error = soon("the error", connector.open(&server.uri("/"))).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("no local address"), "{error}");
}

#[tokio::test]
async fn settings_of_quic_and_of_heads() {
    let server = Plain::start(async |_, mut stream: Stream| {
        let head = Response::builder().header("x-long", "x".repeat(2000)).body(()).unwrap();
        let _ = stream.send_response(head).await;
        let _ = stream.finish().await;
    });
    let builder = || Connector::builder().trust(server.trust());
    let connector = builder().quic(|quic| {
        quic.datagram_receive_buffer_size(None);
    });
    let connection = soon("a connection", connector.build().unwrap().open(&server.uri("/"))).await.unwrap();
    assert_eq!(server.accepted(1).await[0].max_datagram_size(), None);
    assert_eq!(soon("the head", connection.get(&server.uri("/"))).await.unwrap().headers["x-long"].len(), 2000);

    let connector = builder().max_field_section_size(1000).build().unwrap();
    let connection = soon("a connection", connector.open(&server.uri("/"))).await.unwrap();
    assert!(soon("the error", connection.get(&server.uri("/"))).await.is_err());
}

/// Who closes a connection does not wait for the end of the time in which its last packets may still arrive, which is
/// three probe timeouts (RFC 9000 §10.2), each of a round trip and the 25 ms that an acknowledgement may take, or more.
#[tokio::test]
async fn closing_takes_less_than_three_probe_timeouts() {
    let server = Plain::start(empty);
    let connector = Connector::builder().trust(Trust::pem(&server.pem()).unwrap()).build().unwrap();
    let mut closing = Vec::new();
    for _ in 0..7 {
        let connection = soon("a connection", connector.open(&server.uri("/"))).await.unwrap();
        let response = soon("the answer", connection.get(&server.uri("/"))).await.unwrap();
        drop(response);
        let opened = Instant::now();
        connection.close().await;
        closing.push(opened.elapsed());
    }
    // None would be faster; on a busy machine, some take long for other reasons.
    assert!(closing.iter().min() < Some(&Duration::from_millis(3 * 25)), "closing took {closing:?}");
}
