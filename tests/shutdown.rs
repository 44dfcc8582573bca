//! How a server stops: it tells its clients, lets streams end, and does not wait for ever.

mod common;

use common::{TestServer, by_hand, soon};
use h3cast::{App, client::ClientError, webtransport::Closed};
use http::HeaderMap;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn streams_end_in_peace_and_nothing_new_begins() {
    let (feed, mut hands) = by_hand();
    let server = TestServer::feed(feed).await;
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/stream"))).await.unwrap();
    let response_hand = hands.next().await;
    let session =
        soon("the session", connection.webtransport(&server.uri("/stream"), HeaderMap::new(), &[])).await.unwrap();
    let session_hand = hands.next().await;
    let mut stream = soon("the stream", session.accept_uni()).await.unwrap();
    let mut plain = TcpStream::connect(("127.0.0.1", server.http_port())).await.unwrap();
    plain.write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let plain_hand = hands.next().await;

    server.stop.cancel();
    // Sessions are asked to end; nothing is cut.
    soon("the drain", session.draining()).await;
    let refused = soon("a new request", connection.get(&server.uri("/healthz"))).await;
    assert!(refused.is_err(), "{refused:?}");

    for (hand, last) in [(&response_hand, "r"), (&session_hand, "s"), (&plain_hand, "p")] {
        hand.make(last).await;
    }
    assert_eq!(soon("the chunk", response.body.next()).await.unwrap().unwrap(), "r");
    assert_eq!(soon("the chunk", stream.read_bytes(9)).await.unwrap().unwrap(), "s");
    drop((response_hand, session_hand, plain_hand));
    assert_eq!(soon("the end", response.body.next()).await.unwrap(), None);
    assert_eq!(soon("the end", stream.read_bytes(9)).await.unwrap(), None);
    session.close(0, "");
    let mut answer = String::new();
    soon("the end", plain.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("1\r\np\r\n0\r\n\r\n"), "{answer}");
    // Well within the grace time, as nothing is left.
    soon("the server stops", server.running).await.unwrap();
}

#[tokio::test]
async fn what_does_not_end_is_cut_after_the_grace_time() {
    let (feed, mut hands) = by_hand();
    let grace = Duration::from_millis(300);
    let server = TestServer::start(|builder, identity| App::new([feed], identity).install(builder).grace(grace)).await;
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/stream"))).await.unwrap();
    let session =
        soon("the session", connection.webtransport(&server.uri("/stream"), HeaderMap::new(), &[])).await.unwrap();
    let (_one, _two) = (hands.next().await, hands.next().await);
    let start = Instant::now();
    server.stop.cancel();
    soon("the server stops", server.running).await.unwrap();
    assert!(start.elapsed() >= grace);
    let cut = soon("the cut", response.body.next()).await.unwrap_err();
    assert!(matches!(cut, ClientError::Connection(_)), "{cut}");
    assert!(matches!(soon("the end", session.closed()).await, Closed::ConnectionLost(_)));
}

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    let (feed, _hands) = by_hand();
    let server = TestServer::feed(feed).await;
    let connection = server.connect().await;
    soon("an answer", connection.get(&server.uri("/healthz"))).await.unwrap();
    server.stop.cancel();
    soon("the server stops", server.running).await.unwrap();
}
