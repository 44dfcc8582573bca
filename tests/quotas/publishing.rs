//! Publications at once, keys, and bodies that bring nothing.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use futures_util::future::join_all;
use h3cast::{
    App,
    app::Quotas,
    feed::{Feed, Lag},
};
use http::{Request, StatusCode};
use tower::ServiceExt;

use crate::{
    common::TestServer,
    peers::{Publishing, WAYS, Way},
};

async fn server(quotas: Quotas) -> TestServer {
    let feed = Feed::writable("default", 1 << 20, Lag::Skip);
    TestServer::start(|builder, identity| App::new([feed], identity).quotas(quotas).install(builder)).await
}

/// The loopback address of one who has done nothing.
const OTHER: u8 = 2;

#[tokio::test]
async fn a_client_that_takes_its_share_stops_no_other() {
    let server = server(Quotas::default().publications(5, 3)).await;
    for way in WAYS {
        let mut silent = Vec::new();
        for _ in 0..3 {
            let mut publishing = Publishing::begin(&server, way, 1, "/stream").await;
            // It has its place when what it brings is there.
            publishing.send(b"x").await;
            silent.push(publishing);
        }
        server.gauge("h3cast_publications", 3).await;
        let refused = Publishing::begin(&server, way, 1, "/stream").await;
        let refused = match way {
            // Clients that see nothing on a stream may not tell of it.
            Way::Session => refused.sent(b"x").await.answer().await,
            _ => refused.answer().await,
        };
        assert_eq!(refused.status, 429, "{way:?}: {refused:?}");
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains("already has 3 publications running"), "{detail}");
        assert!(way == Way::Session || refused.retry_after.is_some(), "{refused:?}");

        let mut other = Publishing::begin(&server, Way::H1, OTHER, "/stream").await;
        other.send(b"hello").await;
        let mut another = Publishing::begin(&server, Way::H1, OTHER + 1, "/stream").await;
        another.send(b"hello").await;
        server.gauge("h3cast_publications", 5).await;
        // Over QUIC every client of these tests has the same address.
        if matches!(way, Way::H1 | Way::H2) {
            let all = Publishing::begin(&server, way, OTHER + 2, "/stream").await.answer().await;
            assert_eq!(all.status, 503, "{way:?}: {all:?}");
            assert!(all.retry_after.is_some(), "{all:?}");
        }
        for publishing in [other, another] {
            let answer = publishing.finish().await;
            assert_eq!((answer.status, &answer.body["bytes"]), (200, &5.into()), "{answer:?}");
        }
        for publishing in silent {
            assert_eq!(publishing.finish().await.status, 200);
        }
        server.gauge("h3cast_publications", 0).await;
    }
    server.gauge("h3cast_refused_total{reason=\"publications_per_client\"}", 4).await;
    server.gauge("h3cast_refused_total{reason=\"publications\"}", 2).await;
}

#[tokio::test]
async fn a_body_that_brings_nothing_is_ended_and_one_that_rests_is_not() {
    let server = server(Quotas::default().publish_wait(Duration::from_millis(250))).await;
    let of_each_way = WAYS.map(async |way| {
        let mut resting = Publishing::begin(&server, way, 1, "/stream").await;
        resting.send(b"one ").await;
        // Twice the time at least.
        for _ in 0..2 {
            let silent = Publishing::begin(&server, way, 1, "/stream").await.answer().await;
            assert_eq!(silent.status, 408, "{way:?}: {silent:?}");
            let detail = silent.body["detail"].as_str().unwrap();
            assert!(detail.contains("nothing was sent for 250ms"), "{detail}");
        }
        resting.send(b"two").await;
        let answer = resting.finish().await;
        assert_eq!((answer.status, &answer.body["bytes"]), (200, &7.into()), "{way:?}: {answer:?}");
    });
    join_all(of_each_way).await;
    server.gauge("h3cast_refused_total{reason=\"publish_wait\"}", 8).await;
}

/// Asks the router as a client of that address does.
async fn publish(router: &Router, from: Ipv4Addr, key: &str, text: &'static str) -> (StatusCode, serde_json::Value) {
    let mut request = Request::post("/stream")
        .header("host", "localhost")
        .header("idempotency-key", key)
        .body(Body::from(text))
        .unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from((from, 1))));
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn the_keys_of_one_client_push_out_no_others() {
    let feed = Feed::writable("default", 1 << 20, Lag::Skip);
    let router = App::without_identity([feed]).quotas(Quotas::default().keys(300, 100)).router();
    let address = |last| Ipv4Addr::new(192, 0, 2, last);
    let chunks = |answer: (StatusCode, serde_json::Value)| (answer.0.as_u16(), answer.1["chunks"].as_u64());
    assert_eq!(chunks(publish(&router, address(1), "mine", "hello").await), (200, Some(1)));
    for number in 0..400 {
        let answer = publish(&router, address(2), &number.to_string(), "x").await;
        assert_eq!(chunks(answer), (200, Some(1)));
    }
    // All that one may have, though there is room for more, and the one of the other.
    assert_eq!(remembered(&router).await, 101);
    // More clients than there is room for: those that have most give way.
    for client in 3..8 {
        for number in 0..100 {
            let answer = publish(&router, address(client), &format!("{client} {number}"), "x").await;
            assert_eq!(chunks(answer), (200, Some(1)));
        }
    }
    // Nothing is published twice: it is still known, and so are the newest of the others.
    let answer = publish(&router, address(1), "mine", "hello there").await;
    assert_eq!((answer.0, &answer.1["bytes"], &answer.1["chunks"]), (StatusCode::OK, &11.into(), &2.into()));
    assert_eq!(chunks(publish(&router, address(2), "399", "x").await), (200, Some(1)));
    assert_eq!(remembered(&router).await, 300);
}

/// How many keys are remembered, as /metrics shows it.
async fn remembered(router: &Router) -> u64 {
    let metrics = Request::get("/metrics").header("host", "localhost").body(Body::empty()).unwrap();
    let metrics = router.clone().oneshot(metrics).await.unwrap().into_body();
    let metrics = axum::body::to_bytes(metrics, 1 << 20).await.unwrap();
    let mut lines = std::str::from_utf8(&metrics).unwrap().lines();
    lines.find_map(|line| line.strip_prefix("h3cast_idempotency_keys ")).unwrap().parse().unwrap()
}
