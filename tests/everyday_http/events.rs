//! Server-sent events as clients of all kinds count them.

use h3cast::feed::{End, Feed, Lag};

use crate::common::{TestServer, soon};

/// A block of `retry:` alone, or of a comment, is an event for some clients: what is not an event
/// stands in the block of one.
#[tokio::test(flavor = "multi_thread")]
async fn every_block_is_an_event() {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let server = TestServer::feed(feed).await;
    publisher.publish("one\n".into()).await.unwrap();
    publisher.publish("two\n".into()).await.unwrap();
    publisher.end(End::Clean);
    let connection = server.connect().await;
    let mut response = connection.get(&server.uri("/stream?format=sse&from=start")).await.unwrap();
    let mut body = Vec::new();
    while let Some(bytes) = soon("more", response.body.next()).await.unwrap() {
        body.extend_from_slice(&bytes);
    }
    let body = String::from_utf8(body).unwrap();
    let blocks: Vec<_> = body.split_terminator("\n\n").collect();
    assert_eq!(blocks.len(), 3, "{body}");
    assert!(blocks[0].starts_with("retry: 1000\nid: ") && blocks[0].ends_with("\ndata: one"), "{body}");
    let kept_alive = String::from_utf8(h3cast::format::sse::HEARTBEAT.to_vec()).unwrap();
    assert!(kept_alive.starts_with(':') && !kept_alive.contains("\n\n"), "{kept_alive:?}");
}
