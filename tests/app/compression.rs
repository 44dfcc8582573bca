//! A layer that changes the bodies of the app's feeds.

use std::{io::Read, sync::Arc};

use h3cast::App;
use http::Request;
use tower_http::compression::CompressionLayer;

use crate::common::{TestServer, by_hand, soon};

/// A feed is written by takeover, unless a layer wants its body.
#[tokio::test]
async fn a_feed_under_compression_is_compressed() {
    let (feed, mut hands) = by_hand();
    let server = TestServer::start(|builder, identity| {
        let app = App::new([feed], identity);
        builder.http_service(Arc::new(app).router().layer(CompressionLayer::new()))
    })
    .await;
    let connection = server.connect().await;
    for (accept, encoding) in [("text/plain", Some("gzip")), ("text/event-stream", None)] {
        let request = Request::get(server.uri("/stream")).header("accept-encoding", "gzip").header("accept", accept);
        let mut response = soon("the head", connection.request(request.body(()).unwrap())).await.unwrap();
        assert_eq!(response.headers.get("content-encoding").map(|value| value.to_str().unwrap()), encoding);
        let hand = hands.next().await;
        let mut read = Vec::new();
        for chunk in ["one\n", "two\n"] {
            hand.make(chunk).await;
            // Each leaves at once, compressed or not.
            loop {
                let text = match encoding {
                    Some(_) => gunzip(&read),
                    None => read.clone(),
                };
                if String::from_utf8_lossy(&text).contains(chunk.trim()) {
                    break;
                }
                read.extend_from_slice(&soon("the chunk", response.body.next()).await.unwrap().unwrap());
            }
        }
        drop(hand);
        while soon("the end", response.body.next()).await.unwrap().is_some() {}
    }
}

/// What can be told so far.
fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let _ = flate2::read::GzDecoder::new(bytes).read_to_end(&mut text);
    text
}
