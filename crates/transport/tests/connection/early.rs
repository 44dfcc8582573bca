//! Requests in early data.

use std::{net::SocketAddr, sync::Arc};

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
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::peers::{H3, serve, soon};

/// A way to a server on which what it says can be held back.
struct Relay {
    address: SocketAddr,
    held: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Relay {
    async fn to(server: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = front.local_addr().unwrap();
        let (held, mut holding) = watch::channel(false);
        let running = tokio::spawn(async move {
            let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let (mut client, mut waiting) = (server, Vec::new());
            let (mut said, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
            loop {
                tokio::select! {
                    Ok((len, from)) = front.recv_from(&mut said) => {
                        client = from;
                        back.send_to(&said[..len], server).await.unwrap();
                    }
                    Ok(len) = back.recv(&mut answered) => waiting.push(answered[..len].to_vec()),
                    Ok(()) = holding.changed() => {}
                }
                if !*holding.borrow() {
                    for packet in waiting.drain(..) {
                        front.send_to(&packet, client).await.unwrap();
                    }
                }
            }
        });
        Self { address, held, running }
    }

    fn hold(&self, hold: bool) {
        self.held.send_replace(hold);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

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
    let (relay, connector) = (Relay::to(server.quic).await, server.connector());
    let uri: Uri = format!("https://{}/refuse", relay.address).parse().unwrap();
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
    let (relay, client) = (Relay::to(server.quic).await, server.quinn());
    let (uri, connect) = (server.uri("/wait"), || client.connect(relay.address, "localhost").unwrap());
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
    let (relay, connector) = (Relay::to(server.quic).await, server.connector());
    let uri: Uri = format!("https://{}/refuse", relay.address).parse().unwrap();
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
    let (relay, connector) = (Relay::to(server.quic).await, server.connector());
    let uri: Uri = format!("https://{}/refuse", relay.address).parse().unwrap();
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
