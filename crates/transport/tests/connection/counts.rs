//! What a server counts of its connections, handshakes and requests.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use h3cast_transport::{
    Limits,
    counts::{Answer, Carrier, Counts, HandshakeFailure, Protocol},
};
use http::Version;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::peers::{Served, serve, soon};

async fn counted() -> (Served, Counts) {
    let mut counts = None;
    let served = serve(|builder| {
        counts = Some(builder.counts().clone());
        builder.http_service(Router::new().route("/", get(async || "hello\n")))
    });
    let served = served.await;
    (served, counts.unwrap())
}

/// Waits until something has been counted: a peer may learn of it before.
async fn until(what: &str, counted: impl Fn() -> bool) {
    let polled = async {
        while !counted() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, polled).await;
}

#[tokio::test]
async fn connections_and_requests_count_by_what_they_speak() {
    let (served, counts) = counted().await;
    let now = |protocol| (counts.snapshot().connections(protocol), counts.snapshot().opened(protocol));
    let mut clients = vec![
        served.plain(Version::HTTP_11).await,
        served.plain(Version::HTTP_2).await,
        served.secure(Version::HTTP_11).await,
        served.secure(Version::HTTP_2).await,
    ];
    for client in &mut clients {
        assert_eq!(client.get("/").await.unwrap().status(), 200);
        assert_eq!(client.get("/nothing").await.unwrap().status(), 404);
    }
    let connection = served.connect().await;
    assert_eq!(soon("a head", connection.get(&served.uri("/"))).await.unwrap().status, 200);
    assert_eq!([Protocol::Http1, Protocol::Http2, Protocol::Http3].map(now), [(2, 2), (2, 2), (1, 1)]);
    let snapshot = counts.snapshot();
    assert_eq!(Carrier::ALL.map(|carrier| snapshot.handshakes(carrier)), [1, 2]);
    let answers = |protocol| Answer::ALL.map(|answer| snapshot.requests(protocol, answer));
    assert_eq!(answers(Protocol::Http1), [0, 2, 0, 2, 0]);
    assert_eq!(answers(Protocol::Http2), [0, 2, 0, 2, 0]);
    assert_eq!(answers(Protocol::Http3), [0, 1, 0, 0, 0]);
    drop((clients, connection));
    until("the end of all", || {
        [Protocol::Http1, Protocol::Http2, Protocol::Http3].map(now) == [(0, 2), (0, 2), (0, 1)]
    })
    .await;
    // What the last one carried, at its end.
    until("its packets", || counts.snapshot().quic.sent_packets > 0).await;
    let quic = counts.snapshot().quic;
    assert!(quic.rtt.count() >= 1 && quic.sent_bytes > 1000 && quic.received_bytes > 1000, "{quic:?}");
}

/// With other settings off that have the connection looked at.
#[tokio::test]
async fn round_trips_are_measured_while_a_connection_is_open() {
    let mut counts = None;
    let served = serve(|builder| {
        counts = Some(builder.counts().clone());
        builder.limits(Limits::default().send_timeout(Duration::ZERO).control_frames(0))
    });
    let (served, counts) = (served.await, counts.unwrap());
    let _open = served.connect().await;
    until("one, after 3 s", || counts.snapshot().quic.rtt.count() > 0).await;
    assert_eq!(counts.snapshot().connections(Protocol::Http3), 1);
}

#[tokio::test]
async fn handshakes_that_fail_count_by_the_reason() {
    let (served, counts) = counted().await;
    // Its clients trust another certificate.
    let (other, _) = counted().await;
    let failed = |carrier, reason| counts.snapshot().failed(carrier, reason);
    let refused = soon("an answer", other.quinn().connect(served.quic, "localhost").unwrap()).await;
    assert!(refused.is_err());
    until("a certificate that is rejected over QUIC", || failed(Carrier::Quic, HandshakeFailure::Certificate) == 1)
        .await;
    let tls = async |tls| {
        let tcp = TcpStream::connect(served.quic).await.unwrap();
        TlsConnector::from(Arc::new(tls)).connect(ServerName::try_from("localhost").unwrap(), tcp).await
    };
    assert!(tls(other.tls(b"h2")).await.is_err());
    until("the same over TCP", || failed(Carrier::Tls, HandshakeFailure::Certificate) == 1).await;
    assert!(tls(served.tls(b"other")).await.is_err());
    until("no protocol in common", || failed(Carrier::Tls, HandshakeFailure::Tls) == 1).await;
    drop(TcpStream::connect(served.quic).await.unwrap());
    until("a client that goes", || failed(Carrier::Tls, HandshakeFailure::Closed) == 1).await;
    let all: u64 = Carrier::ALL
        .into_iter()
        .flat_map(|carrier| HandshakeFailure::ALL.map(|reason| counts.snapshot().failed(carrier, reason)))
        .sum();
    assert_eq!((all, Carrier::ALL.map(|carrier| counts.snapshot().handshakes(carrier))), (4, [0, 0]));
}
