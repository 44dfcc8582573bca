//! What the handle of a request's connection reports.

use std::net::SocketAddr;

use axum::{Extension, Router, extract::ConnectInfo, routing::get};
use h3cast_transport::{
    ConnectionHandle,
    connection::{ConnectionEnd, Protocol},
    http3::code,
};
use http::Version;
use tokio::sync::mpsc;

use crate::peers::{H3, serve, soon, text};

/// Shows what there is to know.
async fn show(Extension(connection): Extension<ConnectionHandle>) -> String {
    let stats = connection.stats().await;
    let tls = connection.tls().map(|tls| {
        let alpn = String::from_utf8(tls.alpn.unwrap_or_default()).unwrap();
        (tls.server_name, alpn, tls.version, tls.cipher_suite.is_some(), tls.peer_certificates.len())
    });
    let tls = tls.map(|tls| format!("{tls:?}"));
    let known = [stats.rtt.is_some(), stats.sent_packets.is_some(), stats.received_bytes.is_some()];
    assert!(stats.rtt.is_none_or(|rtt| !rtt.is_zero()), "{stats:?}");
    assert!(stats.received_bytes.is_none_or(|bytes| bytes > 20), "{stats:?}");
    let version = connection.version();
    format!("{:?} {version:?} {} {known:?}", connection.protocol(), tls.as_deref().unwrap_or("-"))
}

/// A server that gives the handles of its requests' connections.
fn handles() -> (Router, mpsc::UnboundedReceiver<ConnectionHandle>) {
    let (tx, rx) = mpsc::unbounded_channel();
    let give = async move |Extension(connection): Extension<ConnectionHandle>| {
        let text = connection.id().to_string();
        tx.send(connection).unwrap();
        text
    };
    (Router::new().route("/", get(give)), rx)
}

#[tokio::test]
async fn every_request_has_one_over_every_version() {
    let server = serve(|builder| builder.http_service(Router::new().route("/", get(show)))).await;
    // Only Linux reports on TCP.
    let tcp = format!("{:?}", [cfg!(target_os = "linux"); 3]);
    let tls = |alpn| format!(r#"(Some("localhost"), "{alpn}", Some(TLSv1_3), {}, 0)"#, alpn != "h3");
    for (version, alpn) in [(Version::HTTP_11, "http/1.1"), (Version::HTTP_2, "h2")] {
        let expected = format!("Tcp Some({version:?}) - {tcp}");
        assert_eq!(server.plain(version).await.text("/").await, expected);
        let expected = format!("Tls Some({version:?}) {} {tcp}", tls(alpn));
        assert_eq!(server.secure(version).await.text("/").await, expected);
    }
    assert_eq!(server.h3("/").await.unwrap(), format!("Quic Some(HTTP/3.0) {} [true, true, true]", tls("h3")));
}

#[tokio::test]
async fn requests_of_one_connection_have_the_same() {
    let (router, mut handles) = handles();
    let server = serve(|builder| builder.http_service(router)).await;
    let connection = server.connect().await;
    let (one, two) = (text(&connection, &server.uri("/")).await, text(&connection, &server.uri("/")).await);
    let mut tcp = server.plain(Version::HTTP_2).await;
    let (three, four) = (tcp.text("/").await, tcp.text("/").await);
    assert!(one == two && three == four && one != three, "{one} {two} {three} {four}");
    let (first, second) = (handles.recv().await.unwrap(), handles.recv().await.unwrap());
    assert_eq!(first, second);
    assert_eq!(first.local_address(), Some(server.quic));
    // The client's side of it.
    assert_eq!(connection.handle().remote_address(), server.quic);
    let local = connection.handle().local_address().unwrap();
    assert_eq!(first.remote_address().port(), local.port());
    assert_eq!(connection.handle().tls().unwrap().server_name.as_deref(), Some("localhost"));
    assert!(!connection.handle().tls().unwrap().peer_certificates.is_empty());
}

#[tokio::test]
async fn its_address_follows_a_migrated_connection() {
    let (router, mut handles) = handles();
    let server = serve(|builder| builder.http_service(router)).await;
    let client = server.quinn();
    let connection = client.connect(server.quic, "localhost").unwrap().await.unwrap();
    let mut requests = H3::over(connection).await.unwrap();
    requests.text(&server.uri("/")).await.unwrap();
    let handle = handles.recv().await.unwrap();
    assert_eq!(handle.remote_address(), client.local_addr().unwrap());
    client.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    requests.text(&server.uri("/")).await.unwrap();
    assert_eq!(handle.remote_address(), client.local_addr().unwrap());
}

/// Another address may be forged: what limits and accounts go by stays the one that the handshake has shown.
#[tokio::test]
async fn an_address_that_was_not_validated_is_nobodys() {
    let (tx, mut seen) = mpsc::unbounded_channel();
    let look = async move |ConnectInfo(info): ConnectInfo<SocketAddr>, Extension(at): Extension<ConnectionHandle>| {
        tx.send((info.ip(), [at.remote_address(), at.peer_address(), at.current_address()].map(|at| at.ip()))).unwrap();
    };
    let server = serve(|builder| builder.http_service(Router::new().route("/", get(look)))).await;
    let client = server.quinn();
    let connection = client.connect(server.quic, "localhost").unwrap().await.unwrap();
    let mut requests = H3::over(connection).await.unwrap();
    let [first, moved] = ["127.0.0.1", "127.0.0.2"].map(|at| at.parse::<std::net::IpAddr>().unwrap());
    requests.text(&server.uri("/")).await.unwrap();
    assert_eq!(seen.recv().await.unwrap(), (first, [first; 3]));
    client.rebind(std::net::UdpSocket::bind((moved, 0)).unwrap()).unwrap();
    requests.text(&server.uri("/")).await.unwrap();
    assert_eq!(seen.recv().await.unwrap(), (first, [first, first, moved]));
}

#[tokio::test]
async fn the_peer_learns_code_and_reason_of_a_close() {
    let (router, mut handles) = handles();
    let server = serve(|builder| builder.http_service(router)).await;
    let connection = server.connect().await;
    text(&connection, &server.uri("/")).await;
    let handle = handles.recv().await.unwrap();
    assert!(handle.end().is_none());
    handle.close(4711, "enough");
    // Only the first counts.
    handle.close(1, "never");
    for (end, by_peer) in [
        (soon("the end at the server", handle.closed()).await, false),
        (soon("the end at the client", connection.handle().closed()).await, true),
    ] {
        let ConnectionEnd::Closed { code: 4711, reason, by_peer: of } = end else { panic!("{end}") };
        assert_eq!((reason.as_str(), of), ("enough", by_peer));
    }
}

/// One that is kept does not keep the connection, and shows what it was.
#[tokio::test]
async fn it_outlives_its_connection() {
    let (router, mut handles) = handles();
    let server = serve(|builder| builder.http_service(router)).await;
    let connection = server.connect().await;
    text(&connection, &server.uri("/")).await;
    let (handle, client) = (handles.recv().await.unwrap(), connection.handle().clone());
    let remote = handle.remote_address();
    connection.close().await;
    let end = soon("the end", handle.closed()).await;
    assert!(matches!(end, ConnectionEnd::Closed { code: code::H3_NO_ERROR, by_peer: true, .. }), "{end}");
    let end = soon("the client's end", client.closed()).await;
    assert!(matches!(end, ConnectionEnd::Closed { code: code::H3_NO_ERROR, by_peer: false, .. }), "{end}");
    assert_eq!((handle.remote_address(), handle.version()), (remote, Some(Version::HTTP_3)));
    assert!(handle.stats().await.sent_packets.unwrap() > 0);
    assert_eq!(handle.tls().unwrap().alpn.as_deref(), Some(&b"h3"[..]));
    assert_eq!(client.tls().unwrap().server_name.as_deref(), Some("localhost"));
    handle.close(1, "it is gone already");

    // It ends as well with the server, whatever is held of it.
    let connection = server.connect().await;
    text(&connection, &server.uri("/")).await;
    let handle = handles.recv().await.unwrap();
    assert_eq!(handle.protocol(), Protocol::Quic);
    server.stop.cancel();
    soon("the end of the server", server.running).await.unwrap();
    let end = soon("the end", handle.closed()).await;
    assert!(matches!(end, ConnectionEnd::Closed { code: code::H3_NO_ERROR, by_peer: false, .. }), "{end}");
}

/// The router need not know of connections that end before the handshake.
#[tokio::test]
async fn a_handler_may_wait_for_the_end() {
    let (tx, mut ends) = mpsc::unbounded_channel();
    let wait = async move |Extension(connection): Extension<ConnectionHandle>| {
        // The handler itself is dropped with its request.
        tokio::spawn(async move { tx.send(connection.closed().await).unwrap() });
        "waiting"
    };
    let server = serve(|builder| builder.http_service(Router::new().route("/", get(wait)))).await;
    let connection = server.connect().await;
    text(&connection, &server.uri("/")).await;
    drop(connection);
    let end = soon("the end", ends.recv()).await.unwrap();
    assert!(matches!(end, ConnectionEnd::Closed { by_peer: true, .. }), "{end}");
    let mut tcp = server.plain(Version::HTTP_11).await;
    tcp.text("/").await;
    drop(tcp);
    let end = soon("the end over TCP", ends.recv()).await.unwrap();
    assert!(matches!(end, ConnectionEnd::Finished), "{end}");
}
