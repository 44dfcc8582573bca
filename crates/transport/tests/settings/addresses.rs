//! Limits of what one address may have open, and of handshakes.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use h3cast_transport::{
    Limits,
    admission::{Carrier, Counters, Refusal, Room, Snapshot},
    client::{ClientError, Connection, Trust},
    server::ServerBuilder,
    webtransport::SessionRequest,
};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::kit::{Serving, ask, ask_h3, soon, status};

/// The server, and what it counts.
async fn counted(set: impl FnOnce(ServerBuilder) -> ServerBuilder) -> (Serving, Counters) {
    let mut counters = None;
    let serving = Serving::start(|builder| {
        counters = Some(builder.admission().clone());
        set(builder)
    })
    .await;
    (serving, counters.unwrap())
}

async fn limited(limits: Limits) -> (Serving, Counters) {
    counted(|builder| builder.limits(limits)).await
}

/// Waits until the counters show something.
pub(crate) async fn shows(counters: &Counters, what: &str, is: impl Fn(&Snapshot) -> bool) {
    let seen = async {
        while !is(&counters.snapshot()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, seen).await;
}

/// A TCP connection from another address of loopback.
pub(crate) async fn tcp_from(address: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    soon("a connection", socket.connect(to)).await.unwrap()
}

/// Waits until the server ends it; whether by a reset.
pub(crate) async fn is_reset(stream: &mut TcpStream) -> bool {
    soon("the end", stream.read(&mut [0])).await.is_err()
}

#[tokio::test]
async fn connections_of_one_address_over_quic_and_tcp() {
    let (serving, counters) = limited(Limits::default().connections_per_address(2)).await;
    let first = serving.quic().await.unwrap();
    soon("an answer", ask_h3(&first, HeaderMap::new())).await.unwrap();
    let mut second = tcp_from("127.0.0.1", serving.plain()).await;
    assert_eq!(status(&soon("an answer", ask(&mut second, "")).await.unwrap()), 200);

    let refused = serving.quic().await.unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
    // Before any work for TLS.
    for listener in [serving.plain(), serving.tcp()] {
        assert!(is_reset(&mut tcp_from("127.0.0.1", listener).await).await);
    }
    assert_eq!(counters.snapshot().refused(Refusal::ConnectionsPerAddress), 3);
    // Other addresses are as before.
    let quic = soon("a connection", serving.trust().quic_from("127.0.0.2", serving.udp())).await.unwrap();
    assert_eq!(soon("an answer", ask_h3(&quic, HeaderMap::new())).await.unwrap(), StatusCode::OK);
    let mut other = tcp_from("127.0.0.3", serving.plain()).await;
    assert_eq!(status(&soon("an answer", ask(&mut other, "")).await.unwrap()), 200);

    // A place that is given up is there for the next.
    first.close(0u32.into(), b"");
    shows(&counters, "its end", |now| now.connections == 3).await;
    assert!(serving.quic().await.is_ok());
}

#[tokio::test]
async fn no_limit_is_zero() {
    let limits = Limits::default().connections_per_address(0).handshakes_per_address(0);
    let (serving, _) = limited(limits.requests_per_address(0).sessions_per_address(0)).await;
    for _ in 0..3 {
        let quic = serving.quic().await.unwrap();
        assert_eq!(soon("an answer", ask_h3(&quic, HeaderMap::new())).await.unwrap(), StatusCode::OK);
    }
}

#[tokio::test]
async fn handshakes_of_one_address_over_tcp() {
    let (serving, counters) = limited(Limits::default().handshakes_per_address(2)).await;
    let mut silent = [tcp_from("127.0.0.1", serving.tcp()).await, tcp_from("127.0.0.1", serving.tcp()).await];
    shows(&counters, "two handshakes", |now| now.handshakes == 2).await;
    assert!(is_reset(&mut tcp_from("127.0.0.1", serving.tcp()).await).await);
    assert_eq!(counters.snapshot().refused(Refusal::HandshakesPerAddress), 1);
    // Plain HTTP has none.
    assert_eq!(
        status(&soon("an answer", ask(&mut tcp_from("127.0.0.1", serving.plain()).await, "")).await.unwrap()),
        200
    );
    silent[0].shutdown().await.unwrap();
    shows(&counters, "the end of one", |now| now.handshakes == 1).await;
    assert_eq!(status(&soon("an answer", ask(&mut serving.h1().await, "")).await.unwrap()), 200);
}

/// A server whose `/hold` answers and never ends.
pub(crate) async fn holding(limits: Limits) -> (Serving, Counters) {
    let endless =
        async || axum::body::Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let router = crate::kit::router().route("/hold", axum::routing::get(endless));
    counted(|builder| builder.limits(limits).http_service(router)).await
}

/// What each version answers to one more request.
async fn answers(serving: &Serving) -> [u16; 3] {
    let mut h1 = TcpStream::connect(serving.plain()).await.unwrap();
    let answer = soon("HTTP/1.1", ask(&mut h1, "")).await.unwrap();
    if status(&answer) == 429 {
        assert!(
            answer.contains("application/problem+json") && answer.contains("(limit: requests_per_address)"),
            "{answer}"
        );
        assert!(answer.to_ascii_lowercase().contains("retry-after: 1\r\n"), "{answer}");
    }
    let stream = TokioIo::new(TcpStream::connect(serving.plain()).await.unwrap());
    let (mut requests, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://localhost/").body(Empty::<bytes::Bytes>::new()).unwrap();
    let h2 = soon("HTTP/2", requests.send_request(request)).await.unwrap().status().as_u16();
    let quic = serving.quic().await.unwrap();
    let h3 = soon("HTTP/3", ask_h3(&quic, HeaderMap::new())).await.unwrap().as_u16();
    [status(&answer), h2, h3]
}

#[tokio::test]
async fn requests_of_one_address() {
    let (serving, counters) = holding(Limits::default().requests_per_address(2)).await;
    // One over HTTP/1.1, one over HTTP/3: each from the head of its response to its end.
    let mut h1 = TcpStream::connect(serving.plain()).await.unwrap();
    h1.write_all(b"GET /hold HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    soon("a head", h1.read_exact(&mut head)).await.unwrap();
    let uri = format!("https://{}/hold", serving.addresses.tls[0]).parse().unwrap();
    let trust = Trust::Files(vec![serving.certificate()]);
    let h3 = soon("a connection", Connection::open(&uri, &trust)).await.unwrap();
    let response = soon("a head", h3.get(&uri)).await.unwrap();
    assert_eq!(counters.snapshot().requests, 2);
    assert_eq!(answers(&serving).await, [429; 3]);
    assert_eq!(counters.snapshot().refused(Refusal::RequestsPerAddress), 3);
    assert_eq!(counters.snapshot().requests, 2);
    // From elsewhere.
    let mut other = tcp_from("127.0.0.2", serving.plain()).await;
    assert_eq!(status(&soon("an answer", ask(&mut other, "")).await.unwrap()), 200);
    drop((response, h1));
    shows(&counters, "their end", |now| now.requests == 0).await;
    assert_eq!(answers(&serving).await, [200; 3]);
    shows(&counters, "the end of each", |now| now.requests == 0).await;
}

#[tokio::test]
async fn sessions_of_one_address() {
    let hold = async |request: SessionRequest| {
        let session = request.accept().await.unwrap();
        session.closed().await;
    };
    let limits = Limits::default().sessions_per_address(1);
    let (serving, counters) = counted(|builder| builder.limits(limits).webtransport("/hold", hold)).await;
    let uri: http::Uri = format!("https://{}/hold", serving.addresses.tls[0]).parse().unwrap();
    let trust = Trust::Files(vec![serving.certificate()]);
    let open = async || {
        let connection = soon("a connection", Connection::open(&uri, &trust)).await.unwrap();
        (soon("an answer", connection.webtransport(&uri, HeaderMap::new(), &[])).await, connection)
    };
    let (first, _one) = open().await;
    let first = first.unwrap();
    assert_eq!(counters.snapshot().sessions, 1);
    let (second, _other) = open().await;
    assert!(matches!(second, Err(ClientError::Refused { status, .. }) if status == 429), "{second:?}");
    assert_eq!(counters.snapshot().refused(Refusal::SessionsPerAddress), 1);
    first.close(0, "");
    shows(&counters, "its end", |now| now.sessions == 0).await;
    let (third, _third) = open().await;
    third.unwrap();
}

#[tokio::test]
async fn the_application_reports_what_is_left() {
    let full = Arc::new(Mutex::new(None));
    let seen = full.clone();
    let room = move |carrier| seen.lock().unwrap().map_or(Room::Plenty, |full: fn(Carrier) -> Room| full(carrier));
    let (serving, counters) = counted(|builder| builder.room(room)).await;
    let first = serving.quic().await.unwrap();
    let set = |room| *full.lock().unwrap() = Some(room);
    // Little: an address that shows that it is its own gets in.
    set(|_| Room::Little);
    soon("an answer", ask_h3(&serving.quic().await.unwrap(), HeaderMap::new())).await.unwrap();
    assert_eq!(counters.snapshot().retries, 1);
    set(|carrier| match carrier {
        Carrier::Plain => Room::Plenty,
        Carrier::Tls => Room::Full(Refusal::Descriptors),
        _ => Room::Full(Refusal::Memory),
    });
    let refused = serving.quic().await.unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
    assert!(is_reset(&mut tcp_from("127.0.0.1", serving.tcp()).await).await);
    let snapshot = counters.snapshot();
    assert_eq!((snapshot.refused(Refusal::Memory), snapshot.refused(Refusal::Descriptors)), (1, 1));
    // What is there stays, and what is not full is open.
    soon("an answer", ask_h3(&first, HeaderMap::new())).await.unwrap();
    let mut plain = tcp_from("127.0.0.1", serving.plain()).await;
    assert_eq!(status(&soon("an answer", ask(&mut plain, "")).await.unwrap()), 200);
    set(|_| Room::Plenty);
    soon("an answer", ask_h3(&serving.quic().await.unwrap(), HeaderMap::new())).await.unwrap();
}
