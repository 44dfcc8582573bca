//! Response bodies that a handler writes to, as clients see them.

mod common;

use axum::{Router, routing::get};
use common::{TestServer, soon};
use h3cast::body::{self, Sender};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

/// A server that gives the sender of each response to the test.
async fn server() -> (TestServer, mpsc::UnboundedReceiver<Sender>) {
    let (tx, rx) = mpsc::unbounded_channel();
    let handler = async move || {
        let (sender, body) = body::channel(1);
        tx.send(sender).unwrap();
        body
    };
    let router = Router::new().route("/", get(handler));
    (TestServer::start(|builder, _| builder.http_service(router)).await, rx)
}

#[tokio::test]
async fn chunks_arrive_one_by_one_until_finish() {
    let (server, mut senders) = server().await;
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
    let sender = soon("the sender", senders.recv()).await.unwrap();
    for text in ["one", "two", "three"] {
        sender.send(text).await.unwrap();
        assert_eq!(soon("the chunk", response.body.next()).await.unwrap().unwrap(), text);
    }
    sender.finish();
    assert_eq!(soon("the end", response.body.next()).await.unwrap(), None);
}

#[tokio::test]
async fn without_finish_it_is_cut_after_its_chunks() {
    let (server, mut senders) = server().await;
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
    let sender = soon("the sender", senders.recv()).await.unwrap();
    let panicked = tokio::spawn(async move {
        sender.send("one").await.unwrap();
        panic!("on purpose");
    });
    soon("the panic", panicked).await.unwrap_err();
    assert_eq!(soon("the chunk", response.body.next()).await.unwrap().unwrap(), "one");
    soon("the cut", response.body.next()).await.unwrap_err();
}

#[tokio::test]
async fn over_http1_a_cut_body_lacks_its_last_chunk() {
    let (server, mut senders) = server().await;
    for finished in [true, false] {
        let mut tcp = TcpStream::connect(("127.0.0.1", server.http_port())).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: localhost:{}\r\nconnection: close\r\n\r\n", server.http_port());
        tcp.write_all(request.as_bytes()).await.unwrap();
        let sender = soon("the sender", senders.recv()).await.unwrap();
        sender.send("one").await.unwrap();
        if finished {
            sender.finish();
        } else {
            drop(sender);
        }
        let mut response = Vec::new();
        // A reset counts as an end here.
        let _ = soon("the end", tcp.read_to_end(&mut response)).await;
        let response = String::from_utf8(response).unwrap();
        let end = if finished { "3\r\none\r\n0\r\n\r\n" } else { "3\r\none\r\n" };
        assert!(response.ends_with(end), "{finished}: {response:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let (server, mut senders) = server().await;
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
    let sender = soon("the sender", senders.recv()).await.unwrap();
    sender.send("one").await.unwrap();
    assert_eq!(soon("the chunk", response.body.next()).await.unwrap().unwrap(), "one");
    drop(response);
    soon("the client's end", sender.closed()).await;
    assert_eq!(sender.send("two").await, Err(body::ClientGone));
}
