//! Places for connections: no address takes all, and clients that ask for nothing give theirs up.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use bytes::Bytes;
use futures_util::stream;
use h3cast_transport::{
    Identity, Limits, Server,
    admission::{Carrier, Refusal, Room},
    server::ServerBuilder,
};
use http::{HeaderMap, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{
    addresses::{holding, is_reset, shows, tcp_from},
    h2::narrow,
    kit::{Serving, ask, ask_h3, loopback, router, soon, status},
};

/// Longer than a test waits: what gives a place up does so because another client needs it. How soon that one has it,
/// as docs/security.md promises, is measured in tests/attacks, beside which nothing else runs.
const LONG: Duration = Duration::from_secs(300);

fn patient() -> Limits {
    Limits::default().head_timeout(LONG).handshake_timeout(LONG).keep_alive(LONG).send_timeout(LONG)
}

/// From an address of its own.
async fn is_answered(what: &str, serving: &Serving) {
    let asked = async {
        let mut plain = tcp_from("127.0.0.100", serving.plain()).await;
        assert_eq!(status(&ask(&mut plain, "").await.unwrap()), 200);
        assert_eq!(status(&ask(&mut tls_from("127.0.0.101", serving).await, "").await.unwrap()), 200);
    };
    soon(&format!("an answer beside {what}"), asked).await;
}

async fn tls_from(address: &str, serving: &Serving) -> TlsStream<TcpStream> {
    let tcp = tcp_from(address, serving.tcp()).await;
    serving.trust().tls(tcp, "localhost", b"http/1.1").await.unwrap()
}

/// Ten clients of five addresses that ask for nothing, or not to the end, for eight places.
async fn kept_full(what: &str, begin: impl AsyncFn(&Serving, &str) -> (TcpStream, Option<TlsStream<TcpStream>>)) {
    let serving = Serving::start(|builder| builder.limits(patient().tcp_connections(8))).await;
    let mut silent = Vec::new();
    let filled = async {
        for _ in 0..2 {
            for address in ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"] {
                silent.push(begin(&serving, address).await);
            }
        }
    };
    soon(&format!("none waits for another's place: {what}"), filled).await;
    is_answered(what, &serving).await;
    assert!(serving.refused(Refusal::TcpConnections) > 0, "{what}");
}

#[tokio::test]
async fn clients_that_send_nothing_keep_nobody_out() {
    let plain = async |serving: &Serving, address: &str, sent: &[u8]| {
        let mut stream = tcp_from(address, serving.plain()).await;
        stream.write_all(sent).await.unwrap();
        stream
    };
    kept_full("silent clients", async |serving, address| {
        (plain(serving, address, b"").await, Some(tls_from(address, serving).await))
    })
    .await;
    kept_full("heads that are not complete", async |serving, address| {
        let mut tls = tls_from(address, serving).await;
        tls.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
        (plain(serving, address, b"GET / HTTP/1.1\r\nho").await, Some(tls))
    })
    .await;
    kept_full("HTTP/2 without a request", async |serving, address| {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        (plain(serving, address, preface).await, None)
    })
    .await;
    kept_full("clients that have had an answer", async |serving, address| {
        let mut stream = plain(serving, address, b"").await;
        assert_eq!(status(&soon("an answer", ask(&mut stream, "")).await.unwrap()), 200);
        (stream, None)
    })
    .await;
}

/// Clients that do not take the rest of what was sent, on connections that have ended here.
#[tokio::test]
async fn connections_that_have_ended_keep_nobody_out() {
    let large = async || vec![b'x'; 64 << 10];
    let router = Router::new().route("/", get(async || "hello")).route("/large", get(large));
    let limits = patient().tcp_connections(4).connections_per_address(0);
    let serving = Serving::start(|builder| builder.limits(limits).http_service(router)).await;
    let (mut ended, counters) = (Vec::new(), serving.counters());
    for _ in 0..4 {
        let mut stream = narrow(serving.plain()).await;
        stream.write_all(b"GET /large HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        soon("a response", stream.read_exact(&mut [0; 1])).await.unwrap();
        ended.push(stream);
    }
    shows(counters, "the end of all requests", |now| now.requests == 0).await;
    assert_eq!(serving.connections(), 4, "they count");
    for answered in 1..=4 {
        let mut plain = tcp_from("127.0.0.100", serving.plain()).await;
        assert_eq!(status(&soon("an answer", ask(&mut plain, "connection: close\r\n")).await.unwrap()), 200);
        assert!(serving.refused(Refusal::TcpConnections) <= answered, "more were told than there was need for");
    }
}

/// What is left of it counts for its client, and is not left to the system.
#[tokio::test]
async fn a_handshake_that_fails_keeps_its_place_until_its_client_has_what_was_sent() {
    let certs = tempfile::tempdir().unwrap();
    // More than the client's system takes.
    let names: Vec<_> = (0..1000).map(|number| format!("{number}.with-a-long-name.test")).collect();
    let identity = Identity::self_signed(certs.path(), &names, Default::default()).unwrap();
    let limits = Limits::default().connections_per_address(1);
    let builder = Server::builder(identity).http_service(router()).listen(loopback()).limits(limits);
    let serving = Serving::bare(|_| builder).await;
    let tls = rustls::ClientConnection::new(
        Arc::new(serving.trust().config(&[b"http/1.1"])),
        "localhost".to_owned().try_into().unwrap(),
    );
    let mut hello = Vec::new();
    tls.unwrap().write_tls(&mut hello).unwrap();
    let mut client = narrow(serving.tcp()).await;
    client.write_all(&hello).await.unwrap();
    soon("its answer", client.peek(&mut [0])).await.unwrap();
    client.shutdown().await.unwrap();
    let counters = serving.counters();
    shows(counters, "the end of the handshake", |now| now.handshakes == 0).await;
    assert!(is_reset(&mut tcp_from("127.0.0.1", serving.tcp()).await).await);
    assert_eq!(serving.refused(Refusal::ConnectionsPerAddress), 1);
    let mut sent = Vec::new();
    soon("the rest", client.read_to_end(&mut sent)).await.unwrap();
    assert!(sent.len() > 20_000);
    shows(counters, "its place is free", |now| now.connections == 0).await;
}

/// Clients without a request give their places up; those that have one keep theirs.
#[tokio::test]
async fn responses_are_not_ended_to_make_room() {
    let (serving, counters) = holding(Limits::default().tcp_connections(4)).await;
    let hold = async |address: &str| {
        let mut stream = tcp_from(address, serving.plain()).await;
        stream.write_all(b"GET /hold HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        stream
    };
    let mut held = Vec::new();
    for address in ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"] {
        held.push(hold(address).await);
    }
    shows(&counters, "four requests", |now| now.requests == 4).await;
    let mut waits = tcp_from("127.0.0.4", serving.plain()).await;
    assert!(tokio::time::timeout(Duration::from_millis(500), ask(&mut waits, "")).await.is_err(), "it found a place");
    assert_eq!(counters.snapshot().requests, 4);
    assert_eq!(counters.snapshot().refused(Refusal::TcpConnections), 1, "it is counted that one waits");
    drop(held.pop());
    let mut answer = String::new();
    soon("its turn", tokio::io::AsyncBufReadExt::read_line(&mut tokio::io::BufReader::new(waits), &mut answer))
        .await
        .unwrap();
    assert!(answer.contains("200"), "{answer}");
}

/// Whoever looks after a server that is full can see that it is, and why.
#[tokio::test]
async fn status_is_answered_when_there_is_no_place() {
    let no_memory = |carrier| match carrier {
        Carrier::Plain => Room::Full(Refusal::Memory),
        _ => Room::Plenty,
    };
    let cases = [
        (Limits::default().tcp_connections(4), None, Refusal::TcpConnections),
        (Limits::default().connections(4), None, Refusal::Connections),
        (Limits::default().connections_per_address(1), None, Refusal::ConnectionsPerAddress),
        (Limits::default(), Some(no_memory), Refusal::Memory),
    ];
    for (limits, room, reason) in cases {
        let endless = async || axum::body::Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let router = crate::kit::router().route("/hold", get(endless)).route("/status", get(|| async { "full" }));
        let serving = Serving::start(|builder| {
            let builder = builder.limits(limits).status_paths(["/status"]).http_service(router);
            room.into_iter().fold(builder, ServerBuilder::room)
        })
        .await;
        let mut held = Vec::new();
        let (from, many) = if reason == Refusal::ConnectionsPerAddress {
            (["127.0.0.1"; 4], 1)
        } else {
            (["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"], 4)
        };
        for address in from.into_iter().take(if room.is_some() { 0 } else { many }) {
            let mut stream = tcp_from(address, serving.plain()).await;
            stream.write_all(b"GET /hold HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            soon("a head", stream.read_exact(&mut [0; 12])).await.unwrap();
            held.push(stream);
        }
        let ask = async |path: &str| {
            let mut stream = tcp_from("127.0.0.1", serving.plain()).await;
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            // It is closed then.
            soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
            answer
        };
        // Silent ones keep nobody out here either.
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(tcp_from("127.0.0.1", serving.plain()).await);
        }
        for _ in 0..20 {
            let (shown, other) = (ask("/status").await, ask("/").await);
            assert!(shown.starts_with("HTTP/1.1 200") && shown.ends_with("full"), "{reason:?}: {shown}");
            assert!(other.starts_with("HTTP/1.1 503") && other.contains("no room"), "{reason:?}: {other}");
        }
        assert!(serving.refused(reason) >= 40, "{reason:?}: {}", serving.refused(reason));
    }
}

/// Whatever limit per address is given, or follows from a lower total.
#[tokio::test]
async fn one_address_never_takes_all_places() {
    let few = Limits::default().connections(16);
    for limits in [few, few.connections_per_address(100_000)] {
        let (serving, counters) = holding(limits).await;
        let mut open = Vec::new();
        for _ in 0..12 {
            let quic = serving.quic().await.unwrap();
            assert_eq!(soon("an answer", ask_h3(&quic, HeaderMap::new())).await.unwrap(), StatusCode::OK);
            open.push(quic);
        }
        assert!(is_reset(&mut tcp_from("127.0.0.1", serving.plain()).await).await);
        assert!(serving.quic().await.is_err());
        assert_eq!(counters.snapshot().refused(Refusal::ConnectionsPerAddress), 2);
        is_answered("one address with all that it gets", &serving).await;
    }
    // Of a listener's places over TCP, without a say in what there is over QUIC.
    let few = Limits::default().tcp_connections(8);
    for limits in [few, few.connections_per_address(8)] {
        let (serving, counters) = holding(limits).await;
        let mut open = Vec::new();
        for _ in 0..6 {
            open.push(tcp_from("127.0.0.1", serving.plain()).await);
        }
        assert!(is_reset(&mut tcp_from("127.0.0.1", serving.plain()).await).await);
        assert_eq!(counters.snapshot().refused(Refusal::ConnectionsPerAddress), 1);
        let quic = serving.quic().await.unwrap();
        assert_eq!(soon("an answer", ask_h3(&quic, HeaderMap::new())).await.unwrap(), StatusCode::OK);
        is_answered("one address with all that it gets", &serving).await;
    }
    // Of handshakes.
    for limits in [Limits::default().handshakes(8), Limits::default().handshakes(8).handshakes_per_address(8)] {
        let (serving, counters) = holding(limits).await;
        let mut open = Vec::new();
        for _ in 0..6 {
            open.push(tcp_from("127.0.0.1", serving.tcp()).await);
        }
        assert!(is_reset(&mut tcp_from("127.0.0.1", serving.tcp()).await).await);
        assert_eq!(counters.snapshot().refused(Refusal::HandshakesPerAddress), 1);
        is_answered("one address with all that it gets", &serving).await;
    }
    // Off is off.
    let (serving, _) = holding(Limits::default().tcp_connections(4).connections_per_address(0)).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = tcp_from("127.0.0.1", serving.plain()).await;
        assert_eq!(status(&soon("an answer", ask(&mut stream, "")).await.unwrap()), 200);
        open.push(stream);
    }
}
