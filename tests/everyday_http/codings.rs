//! Bodies that come encoded: nothing is published as if it were plain.

use h3cast::feed::{Feed, Lag};
use http::Method;

use crate::{
    clients::{ALL, At, ask, raw},
    common::TestServer,
};

async fn server() -> (TestServer, Feed) {
    let feed = Feed::writable("log", 1 << 20, Lag::Skip);
    (TestServer::feed(feed.clone()).await, feed)
}

/// RFC 9112 §6.1.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_coding_that_is_not_understood_is_501() {
    let (server, feed) = server().await;
    let post = async |codings: &str| {
        let request = format!(
            "POST /stream/log HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{codings}\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        raw(server.http_port(), request.as_bytes()).await
    };
    for codings in [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        "Transfer-Encoding: Deflate , Chunked\r\n",
        "transfer-encoding: x, chunked\r\n",
    ] {
        let answer = post(codings).await;
        assert!(answer.starts_with("HTTP/1.1 501 "), "{codings}: {answer}");
        assert!(answer.contains("application/problem+json") && answer.contains("the transfer coding"), "{answer}");
    }
    // hyper refuses this one by itself: where does its body end?
    let answer = post("transfer-encoding: gzip\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 501 "), "{answer}");
    assert_eq!(feed.status().chunks, 0);
    for codings in ["transfer-encoding: chunked\r\n", "Transfer-Encoding: Chunked\r\n"] {
        let answer = post(codings).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{codings}: {answer}");
    }
    assert_eq!(feed.status().chunks, 2);
}

/// RFC 9110 §15.5.16, on every version.
#[tokio::test(flavor = "multi_thread")]
async fn a_content_coding_is_415() {
    let (server, feed) = server().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    for over in ALL {
        for coding in ["gzip", "br, identity", "identity, gzip"] {
            let answer = ask(&at, over, Method::POST, "/stream/log", &[("content-encoding", coding)]).await;
            assert_eq!(
                (answer.status.as_u16(), &answer.headers["accept-encoding"]),
                (415, &"identity".parse().unwrap()),
                "{over:?}"
            );
            assert!(answer.problem().contains("Content-Encoding"), "{answer:?}");
        }
        for coding in ["identity", "Identity"] {
            let answer = ask(&at, over, Method::POST, "/stream/log", &[("content-encoding", coding)]).await;
            assert_eq!(answer.status.as_u16(), 200, "{over:?} {coding}: {answer:?}");
        }
    }
    assert_eq!(feed.status().bytes, 0);
}
