//! Connections over TCP that are closed.

use axum::{Extension, Router, body::Body, routing::get};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use h3cast_transport::{ConnectionHandle, connection::ConnectionEnd};
use http::{Request, Version};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use crate::peers::{Tcp, serve, soon};

/// A response that never ends, a connection that is upgraded to an echo, and their handles.
fn router() -> (Router, mpsc::UnboundedReceiver<ConnectionHandle>) {
    let (tx, rx) = mpsc::unbounded_channel();
    let tx_of_echo = tx.clone();
    let endless = async move |Extension(connection): Extension<ConnectionHandle>| {
        tx.send(connection).unwrap();
        let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"first"))]);
        Body::from_stream(first.chain(stream::pending()))
    };
    let echo = async move |Extension(connection): Extension<ConnectionHandle>, request: Request<Body>| {
        tx_of_echo.send(connection).unwrap();
        tokio::spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            let mut buffer = [0; 100];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..length]).await.unwrap();
            }
        });
        http::Response::builder().status(101).header("upgrade", "echo").body(Body::empty()).unwrap()
    };
    (Router::new().route("/", get(endless)).route("/echo", get(echo)), rx)
}

async fn is_closed(handle: &ConnectionHandle) {
    let end = soon("the end", handle.closed()).await;
    let ConnectionEnd::Closed { code: 9, reason, by_peer: false } = end else { panic!("{end}") };
    assert_eq!(reason, "enough");
}

async fn is_cut(mut client: Tcp, handles: &mut mpsc::UnboundedReceiver<ConnectionHandle>) -> hyper::Result<()> {
    let mut body = client.get("/").await.unwrap().into_body();
    let first = soon("a piece", body.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
    let handle = handles.recv().await.unwrap();
    handle.close(9, "enough");
    is_closed(&handle).await;
    let rest = soon("the end of the body", body.frame()).await;
    assert!(rest.unwrap().is_err(), "a response that was cut looks complete");
    client.ended().await
}

#[tokio::test]
async fn a_close_ends_all_and_nothing_looks_complete() {
    let (router, mut handles) = router();
    let server = serve(|builder| builder.http_service(router)).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let _ = is_cut(server.plain(version).await, &mut handles).await;
        let _ = is_cut(server.secure(version).await, &mut handles).await;
    }
}

#[tokio::test]
async fn an_upgraded_connection_is_closed_as_well_and_its_end_noticed() {
    let (router, mut handles) = router();
    let server = serve(|builder| builder.http_service(router)).await;
    for closes in [true, false] {
        let mut client = server.plain(Version::HTTP_11).await;
        let request = Request::get("/echo").header("connection", "upgrade").header("upgrade", "echo");
        let response = client.send(request.body(Body::empty()).unwrap()).await.unwrap();
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let handle = handles.recv().await.unwrap();
        stream.write_all(b"there").await.unwrap();
        let mut buffer = [0; 5];
        soon("the echo", stream.read_exact(&mut buffer)).await.unwrap();
        assert!(handle.end().is_none(), "it ended when it was upgraded");
        if closes {
            handle.close(9, "enough");
            is_closed(&handle).await;
            let rest = soon("the end of the stream", stream.read(&mut buffer)).await;
            assert!(!matches!(rest, Ok(1..)));
        } else {
            drop(stream);
            let end = soon("the end", handle.closed()).await;
            assert!(matches!(end, ConnectionEnd::Finished), "{end}");
        }
    }
}

/// As a handler is that sends to a client which does not read: it waits for the client, and not for the close.
#[tokio::test]
async fn a_close_ends_a_write_that_the_client_does_not_take() {
    let (tx, mut ended) = mpsc::unbounded_channel();
    let flood = async move |Extension(connection): Extension<ConnectionHandle>, request: Request<Body>| {
        tokio::spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            let written = async {
                // TLS takes what it cannot send, and waits when it is flushed.
                while stream.write_all(&[0; 64 << 10]).await.is_ok() && stream.flush().await.is_ok() {}
            };
            let mut written = std::pin::pin!(written);
            // It has come to a halt when nothing has woken it for a while; earlier is as good.
            let waits = tokio::time::timeout(std::time::Duration::from_millis(500), written.as_mut()).await.is_err();
            connection.close(9, "enough");
            written.await;
            tx.send(waits).unwrap();
        });
        http::Response::builder().status(101).header("upgrade", "flood").body(Body::empty()).unwrap()
    };
    let server = serve(|builder| builder.http_service(Router::new().route("/", get(flood)))).await;
    for mut client in [server.plain(Version::HTTP_11).await, server.secure(Version::HTTP_11).await] {
        let request = Request::get("/").header("connection", "upgrade").header("upgrade", "flood");
        let response = client.send(request.body(Body::empty()).unwrap()).await.unwrap();
        let _unread = hyper::upgrade::on(response).await.unwrap();
        assert!(soon("the end of the write", ended.recv()).await.unwrap(), "the write failed before the close");
    }
}
