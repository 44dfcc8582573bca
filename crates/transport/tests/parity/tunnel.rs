//! Extended CONNECT over HTTP/2 (RFC 8441), as WebSocket uses it.

use std::net::SocketAddr;

use axum::{Router, body::Body, extract::Request, routing::any};
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::peers::{Axum, Ours};

async fn echo(request: Request) -> &'static str {
    assert_eq!(request.extensions().get::<Protocol>().map(Protocol::as_str), Some("websocket"));
    tokio::spawn(async {
        let (mut read, mut write) = tokio::io::split(TokioIo::new(hyper::upgrade::on(request).await.unwrap()));
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    ""
}

async fn over(address: SocketAddr) -> Vec<u8> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let uri = |path: &str| format!("http://{address}{path}");
    // The server's SETTINGS come before the answer.
    sender.send_request(Request::get(uri("/missing")).body(Body::empty()).unwrap()).await.unwrap();
    let request = Request::connect(uri("/echo")).extension(Protocol::from_static("websocket"));
    let response = sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    tunnel.write_all(b"to and fro").await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut echoed = Vec::new();
    tunnel.read_to_end(&mut echoed).await.unwrap();
    echoed
}

#[tokio::test]
async fn websocket_over_http2() {
    let router = || Router::new().route("/echo", any(echo));
    let (axum, ours) = (Axum::start(router()).await, Ours::start(router()).await);
    assert_eq!(over(axum.address).await, b"to and fro");
    assert_eq!(over(ours.http).await, b"to and fro");
}
