//! Requests in early data.

use std::net::SocketAddr;

use axum::{
    Extension, Router,
    response::{IntoResponse, Response},
    routing::get,
};
use h3cast_transport::{
    client::Connector,
    early::{EARLY_DATA, EarlyData, TooEarly},
};
use http::{Request, StatusCode, Uri, Version};
use tokio::sync::mpsc;

use crate::{
    peers::{H3, serve, soon},
    relay::Relay,
};

/// A handler that tells whether its request is early, and answers that with 425, or waits.
fn router() -> (Router, mpsc::UnboundedReceiver<bool>) {
    let (tx, rx) = mpsc::unbounded_channel();
    let tx_of_wait = tx.clone();
    let refuse = async move |early: Option<Extension<EarlyData>>| -> Response {
        tx.send(early.is_some()).unwrap();
        match early {
            Some(_) => TooEarly.into_response(),
            None => "in time".into_response(),
        }
    };
    let wait = async move |early: Option<Extension<EarlyData>>| {
        // Before the test lets the handshake continue.
        assert!(early.as_ref().is_none_or(|Extension(early)| !early.is_complete()));
        tx_of_wait.send(early.is_some()).unwrap();
        if let Some(Extension(early)) = early {
            early.handshake().await.unwrap();
            assert!(early.is_complete());
        }
        "waited"
    };
    (Router::new().route("/refuse", get(refuse)).route("/wait", get(wait)), rx)
}

fn address(relay: &Relay) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], relay.port))
}

fn at(relay: &Relay, path: &str) -> Uri {
    format!("https://{}{path}", address(relay)).parse().unwrap()
}

async fn get_text(connector: &Connector, uri: &Uri) -> (StatusCode, String) {
    let (connection, mut response) = soon("a response", connector.get(uri)).await.unwrap();
    let text = soon("its body", response.body.short()).await.unwrap();
    connection.close().await;
    (response.status, String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_requests_are_told_apart_and_our_client_asks_again() {
    let (router, mut early) = router();
    let server = serve(|builder| builder.http_service(router)).await;
    let (relay, connector) = (Relay::start(server.quic.port()).await, server.connector());
    let uri = at(&relay, "/refuse");
    // For a ticket.
    assert_eq!(get_text(&connector, &uri).await, (StatusCode::OK, "in time".into()));
    assert_eq!(early.recv().await, Some(false));
    relay.hold(true);
    let asking = tokio::spawn(async move { get_text(&connector, &uri).await });
    assert_eq!(soon("the early request", early.recv()).await, Some(true));
    relay.hold(false);
    assert_eq!(soon("the second answer", asking).await.unwrap(), (StatusCode::OK, "in time".into()));
    assert_eq!(early.recv().await, Some(false));
    // Over TCP there is no early data.
    assert_eq!(server.secure(Version::HTTP_2).await.text("/refuse").await, "in time");
    assert_eq!(early.recv().await, Some(false));
    assert!(early.try_recv().is_err());
}

/// Another client, which knows nothing of 425.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_wait_for_the_handshake() {
    let (router, mut early) = router();
    let server = serve(|builder| builder.http_service(router)).await;
    let (relay, client) = (Relay::start(server.quic.port()).await, server.quinn());
    let (uri, connect) = (server.uri("/wait"), || client.connect(address(&relay), "localhost").unwrap());
    let connection = soon("a connection", connect()).await.unwrap();
    assert_eq!(H3::over(connection.clone()).await.unwrap().text(&uri).await.unwrap(), "waited");
    assert_eq!(early.recv().await, Some(false));
    connection.close(0x100_u32.into(), b"");
    relay.hold(true);
    let (connection, _) = connect().into_0rtt().expect("there is a ticket");
    let mut requests = soon("HTTP/3", H3::over(connection)).await.unwrap();
    let asking = tokio::spawn(async move { requests.text(&uri).await.unwrap() });
    assert_eq!(soon("the early request", early.recv()).await, Some(true));
    assert!(!asking.is_finished());
    relay.hold(false);
    assert_eq!(soon("its answer", asking).await.unwrap(), "waited");
}

/// Before the handshake is complete, anyone may have sent a request from the address of a proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_address_of_a_trusted_proxy_nothing_is_early() {
    let (router, mut early) = router();
    let server = serve(|builder| builder.http_service(router).trust_proxy("127.0.0.1".parse().unwrap())).await;
    let (relay, connector) = (Relay::start(server.quic.port()).await, server.connector());
    let uri = at(&relay, "/refuse");
    assert_eq!(get_text(&connector, &uri).await, (StatusCode::OK, "in time".into()));
    assert_eq!(early.recv().await, Some(false));
    relay.hold(true);
    let asking = tokio::spawn(async move { get_text(&connector, &uri).await });
    // Time enough for the request above.
    assert_eq!(server.h3("/refuse").await.unwrap(), "in time");
    assert_eq!(early.recv().await, Some(false));
    assert!(early.try_recv().is_err());
    relay.hold(false);
    assert_eq!(soon("an answer", asking).await.unwrap(), (StatusCode::OK, "in time".into()));
    assert_eq!((early.recv().await, early.try_recv().is_err()), (Some(false), true));
}

/// The application is to know the client before its first request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_connect_hook_nothing_is_early() {
    let (router, mut early) = router();
    let (tx, mut connected) = mpsc::unbounded_channel();
    let hook = move |_| {
        tx.send(()).unwrap();
        std::future::ready(())
    };
    let server = serve(|builder| builder.http_service(router).on_connect(hook)).await;
    let (relay, connector) = (Relay::start(server.quic.port()).await, server.connector());
    let uri = at(&relay, "/refuse");
    for _ in 0..2 {
        assert_eq!(get_text(&connector, &uri).await, (StatusCode::OK, "in time".into()));
        assert_eq!((connected.recv().await, early.recv().await), (Some(()), Some(false)));
    }
}

/// RFC 8470 §5.1: a gateway may mark what came to it early, in any way.
#[test]
fn a_gateway_marks_early_requests() {
    for (value, is_early) in [(None, false), (Some("1"), true), (Some("0"), true), (Some(""), true)] {
        let mut request = Request::get("/").body(()).unwrap();
        if let Some(value) = value {
            request.headers_mut().append(EARLY_DATA, value.parse().unwrap());
        }
        assert_eq!(EarlyData::is_in(&request), is_early, "{value:?}");
    }
    let response: http::Response<String> = TooEarly.into();
    assert_eq!(response.status(), 425);
}
