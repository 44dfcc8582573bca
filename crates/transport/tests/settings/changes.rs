//! What an application changes of a server that runs.

use std::time::Duration;

use axum::{Extension, Router, routing::get};
use h3cast_transport::{
    ConnectionHandle, Limits,
    server::{ServerHandle, StartError},
};
use http::HeaderMap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use crate::{
    addresses::{holding, is_reset, tcp_from},
    idle::IDLE,
    kit::{Serving, ask, ask_h3, builder, loopback, soon, status},
};

/// What a request on a connection that is open is answered with.
async fn asked(stream: &mut TcpStream) -> u16 {
    status(&soon("an answer", ask(stream, "")).await.unwrap())
}

#[tokio::test]
async fn limits_of_one_address_change_for_connections_that_are_open() {
    let (serving, _) = holding(Limits::default()).await;
    let handle = serving.handle();
    let mut held = tcp_from("127.0.0.1", serving.plain()).await;
    held.write_all(b"GET /hold HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    soon("a response", held.read_exact(&mut [0; 12])).await.unwrap();
    let mut open = tcp_from("127.0.0.1", serving.plain()).await;
    assert_eq!(asked(&mut open).await, 200);
    handle.set_limits(Limits::default().requests_per_address(1).connections_per_address(2)).unwrap();
    assert_eq!(asked(&mut open).await, 429);
    assert!(is_reset(&mut tcp_from("127.0.0.1", serving.tcp()).await).await);
    let error = handle.set_limits(Limits::default().streams(0)).unwrap_err();
    assert!(error.to_string().starts_with("Limits::streams cannot be 0"), "{error}");
    assert_eq!(asked(&mut open).await, 429, "nothing has changed");
    handle.set_limits(Limits::default()).unwrap();
    assert_eq!(asked(&mut open).await, 200);
    assert_eq!(asked(&mut tcp_from("127.0.0.1", serving.plain()).await).await, 200);
}

#[tokio::test]
async fn limits_in_all_change_while_they_are_reached() {
    let serving = Serving::start(|builder| builder).await;
    let (handle, few) = (serving.handle(), Limits::default().connections_per_address(0));
    let first = serving.quic().await.unwrap();
    assert_eq!(soon("an answer", ask_h3(&first, HeaderMap::new())).await.unwrap(), 200);
    handle.set_limits(few.connections(1)).unwrap();
    assert!(serving.quic().await.unwrap_err().to_string().contains("refused"));
    // One that waits for a place gets it when there are more.
    let mut plain = TcpStream::connect(serving.plain()).await.unwrap();
    let mut waiting = Box::pin(ask(&mut plain, ""));
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting.as_mut()).await.is_err());
    handle.set_limits(few.connections(2)).unwrap();
    assert_eq!(status(&soon("its turn", waiting).await.unwrap()), 200);
    // And over TCP, for each listener.
    handle.set_limits(few.tcp_connections(1)).unwrap();
    let mut other = TcpStream::connect(serving.plain()).await.unwrap();
    assert_eq!(asked(&mut other).await, 200);
    let ended = async { while plain.read(&mut [0; 16]).await.is_ok_and(|size| size > 0) {} };
    soon("the end of the one that has no request", ended).await;
    assert!(first.close_reason().is_none());
}

/// The shorter one of both sides holds (RFC 9000 §10.1): here the server's.
#[tokio::test]
async fn connections_that_begin_later_have_the_new_timeouts() {
    let serving = Serving::start(|builder| builder).await;
    serving.handle().set_limits(Limits::default().idle_timeout(IDLE)).unwrap();
    let quic = serving.quic().await.unwrap();
    let ended = soon("the end of a connection that asks for nothing", quic.closed()).await;
    assert!(matches!(ended, quinn::ConnectionError::TimedOut), "{ended}");
    let mut plain = TcpStream::connect(serving.plain()).await.unwrap();
    assert_eq!(asked(&mut plain).await, 200);
    serving.handle().set_limits(Limits::default().keep_alive(Duration::ZERO)).unwrap();
    assert_eq!(asked(&mut plain).await, 200, "it keeps those with which it began");
    let mut once = TcpStream::connect(serving.plain()).await.unwrap();
    assert!(soon("an answer", ask(&mut once, "")).await.unwrap().contains("connection: close"));
}

#[tokio::test]
async fn the_proxies_that_are_trusted_change() {
    let who = async |Extension(connection): Extension<ConnectionHandle>| connection.remote_address().ip().to_string();
    let router = Router::new().route("/", get(who));
    let serving = Serving::start(|builder| builder.http_service(router)).await;
    let mut plain = TcpStream::connect(serving.plain()).await.unwrap();
    for (trusted, expected) in [("192.0.2.1", "127.0.0.1"), ("loopback", "192.0.2.7"), ("192.0.2.1", "127.0.0.1")] {
        serving.handle().set_trusted_proxies(trusted.parse().unwrap()).unwrap();
        let answer = soon("an answer", ask(&mut plain, "x-forwarded-for: 192.0.2.7\r\n")).await.unwrap();
        assert!(answer.ends_with(expected), "{trusted}: {answer}");
    }
    serving.handle().set_trusted_proxies(Default::default()).unwrap();
}

#[tokio::test]
async fn what_announces_clients_needs_a_proxy_that_is_trusted() {
    let serving = Serving::start(|builder| {
        builder.trust_proxy("loopback".parse().unwrap()).proxy_protocol(h3cast_transport::server::ProxyProtocol::Plain)
    })
    .await;
    let error = serving.handle().set_trusted_proxies(Default::default()).unwrap_err();
    assert!(matches!(error, StartError::NoTrustedProxy), "{error}");
}

/// A program may keep its handle for longer than the server.
#[tokio::test]
async fn a_handle_keeps_no_socket_open() {
    let (builder, _certs) = builder();
    let server = builder.listen(loopback()).build().await.unwrap();
    let (handle, at): (ServerHandle, _) = (server.handle(), server.addresses().clone());
    let stop = CancellationToken::new();
    stop.cancel();
    soon("the end", server.run(stop)).await.unwrap();
    // The engine's own task ends after that.
    let freed = async {
        while std::net::UdpSocket::bind(at.udp[0]).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("a free port", freed).await;
    std::net::TcpListener::bind(at.tcp[0]).unwrap();
    handle.set_limits(Limits::default().streams(7)).unwrap();
    assert_eq!(handle.limits(), Limits::default().streams(7));
}
