//! What an application decides about connections, and learns of them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, routing::get};
use h3cast_transport::{
    ConnectionHandle,
    connection::{Admit, ConnectionEnd, Incoming, Protocol},
    server::ServerBuilder,
};
use http::Version;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::{Notify, mpsc},
};

use crate::peers::{Served, serve, soon, text};

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// A server that answers its clients' attempts in turn, and tells of them; then it accepts.
async fn admitting<const N: usize>(answers: [Admit; N]) -> (Served, mpsc::UnboundedReceiver<Incoming>) {
    let (tx, rx) = mpsc::unbounded_channel();
    let answers = Mutex::new(answers.into_iter());
    let hook = move |incoming: &Incoming| {
        tx.send(*incoming).unwrap();
        answers.lock().unwrap().next().unwrap_or_default()
    };
    (serve(|builder| builder.http_service(hello()).on_accept(hook)).await, rx)
}

#[tokio::test]
async fn a_client_is_refused_before_its_handshake() {
    let (server, mut seen) = admitting([Admit::Refuse; 3]).await;
    let client = server.quinn();
    let refused = soon("an answer", client.connect(server.quic, "localhost").unwrap()).await.unwrap_err();
    let quinn::ConnectionError::ConnectionClosed(close) = refused else { panic!("{refused}") };
    assert_eq!(u64::from(close.error_code), 0x2, "CONNECTION_REFUSED (RFC 9000 §20.1)");
    let first = seen.recv().await.unwrap();
    assert_eq!((first.protocol, first.validated), (Protocol::Quic, false));
    assert_eq!(first.remote_address, client.local_addr().unwrap());
    assert_eq!(first.local_address, Some(server.quic));

    for (address, protocol) in [(server.quic, Protocol::Tls), (server.http, Protocol::Tcp)] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let refused = soon("a reset", stream.read(&mut [0])).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
        let seen = seen.recv().await.unwrap();
        assert_eq!((seen.protocol, seen.validated), (protocol, true));
        assert_eq!((seen.remote_address, seen.local_address), (stream.local_addr().unwrap(), Some(address)));
    }
    // Those that come next are accepted.
    assert_eq!(server.h3("/").await.unwrap(), "hello");
    assert_eq!(server.secure(Version::HTTP_2).await.text("/").await, "hello");
}

#[tokio::test]
async fn a_client_is_not_answered() {
    let (server, mut seen) = admitting([Admit::Ignore]).await;
    // It sends its first packet again.
    assert_eq!(server.h3("/").await.unwrap(), "hello");
    let (first, second) = (seen.recv().await.unwrap(), seen.recv().await.unwrap());
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_client_shows_that_its_address_is_its_own() {
    let (server, mut seen) = admitting([Admit::Retry]).await;
    assert_eq!(server.h3("/").await.unwrap(), "hello");
    let (first, second) = (seen.recv().await.unwrap(), seen.recv().await.unwrap());
    assert_eq!((first.validated, second.validated), (false, true));
    assert_eq!(first.remote_address, second.remote_address);

    // Whoever has shown it is accepted.
    let (server, _seen) = admitting([Admit::Retry; 3]).await;
    assert_eq!(server.h3("/").await.unwrap(), "hello");
    assert_eq!(server.plain(Version::HTTP_11).await.text("/").await, "hello");
}

/// A server whose application looks at each connection, with what its close hook is told.
async fn watched(
    make: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> (Served, mpsc::UnboundedReceiver<(ConnectionHandle, ConnectionEnd)>, Arc<AtomicUsize>) {
    let (tx, ends) = mpsc::unbounded_channel();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let router = Router::new().route(
        "/",
        get(async move || {
            count.fetch_add(1, Ordering::SeqCst);
            "hello"
        }),
    );
    let close = move |connection: &ConnectionHandle, end: &ConnectionEnd| {
        tx.send((connection.clone(), end.clone())).unwrap();
    };
    (serve(|builder| make(builder.http_service(router).on_close(close))).await, ends, asked)
}

#[tokio::test]
async fn a_connection_is_refused_before_its_first_request() {
    let refuse = async |connection: ConnectionHandle| {
        assert!(connection.tls().is_none_or(|tls| tls.server_name.as_deref() == Some("localhost")));
        connection.close(4242, "not you");
    };
    let (server, mut ends, asked) = watched(|builder| builder.on_connect(refuse)).await;
    let client = server.quinn();
    let connection = soon("a handshake", client.connect(server.quic, "localhost").unwrap()).await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(close) = soon("its end", connection.closed()).await else {
        panic!("it was not refused");
    };
    assert_eq!((u64::from(close.error_code), &close.reason[..]), (4242, &b"not you"[..]));
    assert!(server.secure(Version::HTTP_11).await.get("/").await.is_err());
    assert!(server.plain(Version::HTTP_11).await.get("/").await.is_err());
    for _ in 0..3 {
        let (_, end) = soon("the end", ends.recv()).await.unwrap();
        assert!(matches!(end, ConnectionEnd::Closed { code: 4242, by_peer: false, .. }), "{end}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn requests_wait_for_the_application() {
    let (seen_tx, mut seen) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let gone = go.clone();
    let wait = move |connection: ConnectionHandle| {
        let (seen, go) = (seen_tx.clone(), gone.clone());
        async move {
            seen.send(connection).unwrap();
            go.notified().await;
        }
    };
    let (server, mut ends, asked) = watched(|builder| builder.on_connect(wait)).await;
    let mut plain = server.plain(Version::HTTP_11).await;
    let over_tcp = tokio::spawn(async move { plain.text("/").await });
    let uri = server.uri("/");
    let connector = server.connector();
    let over_quic = tokio::spawn(async move {
        let connection = connector.open(&uri).await.unwrap();
        (text(&connection, &uri).await, connection)
    });
    for _ in 0..2 {
        let handle = soon("the hook", seen.recv()).await.unwrap();
        assert!(handle.end().is_none());
    }
    // More than the request needs to come.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    go.notify_waiters();
    assert_eq!(soon("the text over TCP", over_tcp).await.unwrap(), "hello");
    let (text, connection) = soon("the text over QUIC", over_quic).await.unwrap();
    assert_eq!((text.as_str(), asked.load(Ordering::SeqCst)), ("hello", 2));

    drop(connection);
    let (mut tcp, mut quic) = (None, None);
    for _ in 0..2 {
        let (handle, end) = soon("an end", ends.recv()).await.unwrap();
        assert!(handle.end().is_some());
        *(if handle.protocol() == Protocol::Quic { &mut quic } else { &mut tcp }) = Some(end);
    }
    assert!(matches!(tcp, Some(ConnectionEnd::Finished)), "{tcp:?}");
    assert!(matches!(quic, Some(ConnectionEnd::Closed { by_peer: true, .. })), "{quic:?}");
}

/// It costs its connection, and no other.
#[tokio::test]
async fn a_hook_that_panics() {
    for hook in ["accept", "connect", "close"] {
        let (tx, mut calls) = mpsc::unbounded_channel();
        let count = AtomicUsize::new(0);
        // Panics every other time.
        let call = Arc::new(move |which| {
            if which == hook {
                tx.send(()).unwrap();
                assert!(count.fetch_add(1, Ordering::SeqCst) % 2 == 1, "the {hook} hook");
            }
        });
        let (accept, connect, close) = (call.clone(), call.clone(), call);
        let make = |builder: ServerBuilder| {
            let builder = builder.http_service(hello()).on_close(move |_, _| close("close"));
            let builder = builder.on_accept(move |_| {
                accept("accept");
                Admit::Accept
            });
            builder.on_connect(move |_| {
                let connect = connect.clone();
                async move { connect("connect") }
            })
        };
        let server = serve(make).await;
        for fails in [true, false] {
            let got = server.h3("/").await;
            assert_eq!(got.is_ok(), !fails || hook == "close", "{hook}");
            drop(got);
            soon("the call", calls.recv()).await.unwrap();
        }
        for fails in [true, false] {
            let got = server.plain(Version::HTTP_11).await.get("/").await;
            assert_eq!(got.is_ok(), !fails || hook == "close", "{hook}");
            drop(got);
            soon("the call", calls.recv()).await.unwrap();
        }
    }
}
