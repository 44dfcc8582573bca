//! Feeds that clients create by writing to them.

use h3cast::{
    App,
    client::Body,
    feed::{Budget, Lag, WrittenFeeds, WrittenLimits},
    format::frames::{Frame, FrameDecoder},
};
use http::{HeaderMap, Request, StatusCode};

use crate::{
    common::{TestServer, soon},
    peers::{Publishing, WAYS, Way},
};

async fn server(all: usize, each: usize, token: Option<&str>) -> TestServer {
    let mut limits = WrittenLimits::default();
    (limits.all, limits.each) = (all, each);
    let feeds = WrittenFeeds::within("chat.*", 1 << 20, Lag::Skip, limits).unwrap();
    TestServer::start(|builder, identity| App::new([], identity).family(feeds).publish_token(token).install(builder))
        .await
}

async fn names(server: &TestServer) -> Vec<String> {
    let connection = server.connect().await;
    let mut response = soon("/feeds", connection.get(&server.uri("/feeds"))).await.unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = soon("the feeds", response.body.next()).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    let feeds: serde_json::Value = serde_json::from_slice(&text).unwrap();
    feeds["feeds"].as_array().unwrap().iter().map(|feed| feed["name"].as_str().unwrap().to_owned()).collect()
}

async fn write(server: &TestServer, way: Way, from: u8, name: &str) -> (u16, serde_json::Value) {
    let publishing = Publishing::begin(server, way, from, &format!("/stream/{name}")).await;
    let answer = publishing.sent(b"hello").await.finish().await;
    (answer.status, answer.body)
}

/// The next chunk.
async fn chunk(body: &mut Body, decoder: &mut FrameDecoder) -> String {
    loop {
        match decoder.pop().unwrap() {
            Some(Frame::Chunk { bytes, .. }) => return String::from_utf8(bytes.to_vec()).unwrap(),
            Some(_) => {}
            None => decoder.push(&soon("more", body.next()).await.unwrap().expect("it has no end")),
        }
    }
}

#[tokio::test]
async fn a_feed_is_there_when_it_is_written_and_views_wait_for_it() {
    let server = server(100, 100, None).await;
    let connection = server.connect().await;
    // Over each way: readers first, then the writer.
    for (number, way) in WAYS.into_iter().enumerate() {
        let name = format!("chat.{number}");
        let uri = server.uri(&format!("/stream/{name}?format=frames"));
        let mut response = soon("the head", connection.get(&uri)).await.unwrap();
        assert_eq!(response.status, 200);
        let raw = server.uri(&format!("/stream/{name}"));
        let session = soon("a session", connection.webtransport(&raw, HeaderMap::new(), &[])).await.unwrap();
        let mut stream = soon("its stream", session.accept_uni()).await.unwrap();
        assert_eq!(names(&server).await.len(), number, "it is not listed before it is written");
        let (status, written) = write(&server, way, 1, &name).await;
        assert_eq!((status, &written["feed"], &written["chunks"]), (200, &name.as_str().into(), &1.into()));
        assert_eq!(chunk(&mut response.body, &mut FrameDecoder::new(1 << 20)).await, "hello");
        assert_eq!(soon("the chunk", stream.read_bytes(usize::MAX)).await.unwrap().unwrap(), "hello");
        assert_eq!(names(&server).await.len(), number + 1);
    }
    // What it keeps is for late viewers.
    let uri = server.uri("/stream/chat.0?from=start&limit=1");
    let mut response = soon("the head", connection.get(&uri)).await.unwrap();
    assert_eq!(soon("the chunk", response.body.next()).await.unwrap().unwrap(), "hello");
    for name in ["chat", "chat.", "chat.a.b", "chat.%C3%BC", "other", "chat.%2e%2e"] {
        let status = soon("the head", connection.get(&server.uri(&format!("/stream/{name}")))).await.unwrap().status;
        assert_eq!(status, 404, "{name}");
        assert_eq!(write(&server, Way::H1, 1, name).await.0, 404, "{name}");
    }
    // To ask whether there is one leaves nothing behind.
    let head = Request::head(server.uri("/stream/chat.unwritten")).body(()).unwrap();
    assert_eq!(soon("the head", connection.request(head)).await.unwrap().status, 200);
    assert_eq!(names(&server).await.len(), 4);
}

/// A feed that nobody views takes memory as well.
#[tokio::test]
async fn a_feed_that_is_only_written_is_charged() {
    let feeds = WrittenFeeds::new("chat.*", 1 << 20, Lag::Skip).unwrap();
    let budget = Budget::new(1 << 30);
    let app = |identity| App::new([], identity).family(feeds).budget(&budget);
    let server = TestServer::start(|builder, identity| app(identity).install(builder)).await;
    for way in WAYS {
        let before = budget.charged();
        let (status, _) = write(&server, way, 1, &format!("chat.{way:?}")).await;
        assert_eq!(status, 200);
        assert!(budget.charged() > before, "{way:?}");
    }
}

#[tokio::test]
async fn a_client_creates_so_many_and_pushes_out_no_other() {
    for way in WAYS {
        let server = server(4, 3, None).await;
        assert_eq!(write(&server, Way::H1, 2, "chat.mine").await.0, 200);
        for number in 0..3 {
            assert_eq!(write(&server, way, 1, &format!("chat.{number}")).await.0, 200);
        }
        let (status, problem) = write(&server, way, 1, "chat.more").await;
        assert_eq!(status, 429, "{way:?} {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("has created 3 feeds"), "{problem}");
        server.gauge("h3cast_refused_total{reason=\"feeds_per_client\"}", 1).await;
        // There is no room: the client that has most loses its oldest, which is not the oldest of all.
        assert_eq!(write(&server, Way::H1, 3, "chat.third").await.0, 200);
        assert_eq!(names(&server).await, ["chat.1", "chat.2", "chat.mine", "chat.third"]);
        server.gauge("h3cast_feeds_evicted_total", 1).await;
    }
}

#[tokio::test]
async fn readers_remove_no_feed_and_keep_no_writer_out() {
    let server = server(4, 4, None).await;
    for number in 0..4 {
        assert_eq!(write(&server, Way::H1, 1, &format!("chat.{number}")).await.0, 200);
    }
    let connection = server.connect().await;
    let mut waiting = Vec::new();
    for number in 0..10 {
        let uri = server.uri(&format!("/stream/chat.unwritten{number}"));
        let response = soon("the head", connection.get(&uri)).await.unwrap();
        assert_eq!(response.status, 200);
        let session = soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
        waiting.push((response, session));
    }
    assert_eq!(names(&server).await, ["chat.0", "chat.1", "chat.2", "chat.3"]);
    server.gauge("h3cast_feeds_evicted_total", 0).await;
    for (number, way) in WAYS.into_iter().enumerate() {
        assert_eq!(write(&server, way, 2, &format!("chat.unwritten{number}")).await.0, 200, "{way:?}");
        let (response, _) = &mut waiting[number];
        assert_eq!(soon("the chunk", response.body.next()).await.unwrap().unwrap(), "hello", "{way:?}");
    }
}

#[tokio::test]
async fn only_those_who_may_write_create_a_feed() {
    let server = server(100, 100, Some("secret")).await;
    let (status, _) = write(&server, Way::H1, 1, "chat.a").await;
    assert_eq!(status, 401);
    assert!(names(&server).await.is_empty());
    let connection = server.connect().await;
    let request = |name: &str| {
        let request = Request::post(server.uri(&format!("/stream/{name}"))).header("authorization", "Bearer secret");
        request.body(()).unwrap()
    };
    let (mut body, response) = soon("the request", connection.send_request(request("chat.a"))).await.unwrap();
    body.send("hello".into()).await.unwrap();
    body.finish().await.unwrap();
    assert_eq!(soon("the answer", response).await.unwrap().status, StatusCode::OK);
    assert_eq!(names(&server).await, ["chat.a"]);
}
