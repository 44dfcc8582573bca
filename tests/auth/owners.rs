//! An `Idempotency-Key` is its client's, where that is known.

use h3cast::{
    App,
    auth::Tokens,
    feed::{Feed, Lag},
};
use http::{Method, Request, StatusCode};

use crate::{
    clients::{Way, ask, headers},
    common::{TestServer, soon},
};

const ALICE: &str = "the-token-of-alice";
const ALICE_TOO: &str = "another-token-of-alice";
const BOB: &str = "the-token-of-bob";
const SHARED: &str = "a-token-without-a-name";
const SHARED_TOO: &str = "another-without-a-name";

/// Both number their reports from 1.
#[tokio::test]
async fn keys_of_clients_with_names_do_not_meet() {
    let mut lines: String = [SHARED, SHARED_TOO].map(|token| format!("publish=log {token}\n")).concat();
    for (name, token) in [("alice", ALICE), ("alice", ALICE_TOO), ("bob", BOB)] {
        lines += &format!("publish=log name={name} {token}\n");
    }
    let tokens = Tokens::new().lines(&lines).unwrap();
    let feed = Feed::writable("log", 1 << 20, Lag::Skip);
    let kept = feed.clone();
    let server =
        TestServer::start(|builder, identity| App::new([feed], identity).authorize(tokens).install(builder)).await;
    let publish = async |token: &str, body: &str| {
        let with = headers(&[("authorization", &format!("Bearer {token}")), ("idempotency-key", "1")]);
        let answer = ask(&server, Way::Http2, Method::POST, "/stream/log", &with, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        (answer["bytes"].as_u64().unwrap(), kept.status().bytes)
    };
    assert_eq!(publish(ALICE, "alice's report").await, (14, 14));
    assert_eq!(publish(BOB, "bob's").await, (5, 19));
    // Whatever the token, it is her again.
    assert_eq!(publish(ALICE_TOO, "alice's report").await, (14, 19));
    assert_eq!(publish(SHARED, "a report").await, (8, 27));
    // It may be the same client: nothing tells.
    assert_eq!(publish(SHARED_TOO, "a report").await, (8, 27));

    // Nor does one end what the other publishes.
    let connection = server.connect().await;
    let mut request = Request::post(server.uri("/stream/log")).body(()).unwrap();
    request.headers_mut().extend(headers(&[("authorization", &format!("Bearer {ALICE}")), ("idempotency-key", "2")]));
    let (mut body, response) = soon("a request", connection.send_request(request)).await.unwrap();
    soon("a write", body.send("hello".into())).await.unwrap();
    crate::common::raw::until("it is published", || kept.status().bytes == 32).await;
    let with = headers(&[("authorization", &format!("Bearer {BOB}")), ("idempotency-key", "2")]);
    let answer = ask(&server, Way::Http2, Method::POST, "/stream/log", &with, "").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    soon("another write", body.send("again".into())).await.unwrap();
    soon("its end", body.finish()).await.unwrap();
    assert_eq!(soon("an answer", response).await.unwrap().status, StatusCode::OK);
    assert_eq!(kept.status().bytes, 37);
}
