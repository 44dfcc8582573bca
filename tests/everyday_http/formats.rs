//! A client that prefers frames, and says so in ways that other servers ignore.

use h3cast::{
    App,
    feed::{End, Feed, Lag},
};
use http::{HeaderMap, Request, header};

use crate::common::{TestServer, soon};

const FRAMES: &str = "application/vnd.h3cast.frames";
/// `begin` is the first frame of all.
const BEGIN: u8 = 3;

async fn server() -> TestServer {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    publisher.publish("one\n".into()).await.unwrap();
    publisher.end(End::Clean);
    TestServer::start(|builder, identity| {
        let own = axum::Router::new().route("/own", axum::routing::get(async || "mine"));
        App::new([feed], identity).routes(own).install(builder)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_by_accept() {
    let server = server().await;
    let connection = server.connect().await;
    let ask = async |path: &str, accept: &str| {
        let request = Request::get(server.uri(path)).header(header::ACCEPT, accept).body(()).unwrap();
        let mut response = soon("the head", connection.request(request)).await.unwrap();
        let first = soon("the body", response.body.next()).await.unwrap().unwrap();
        (response.headers[header::CONTENT_TYPE].to_str().unwrap().to_owned(), first[0])
    };
    let preferred = format!("{FRAMES}, */*;q=0.1");
    assert_eq!(ask("/stream?from=start", &preferred).await, (FRAMES.into(), BEGIN));
    // Who names a format gets that.
    let (kind, first) = ask("/stream?from=start&format=raw", &preferred).await;
    assert!(kind.starts_with("text/plain") && first == b'o', "{kind}");
    let (kind, first) = ask("/stream?from=start", "*/*").await;
    assert!(kind.starts_with("text/plain") && first == b'o', "{kind}");
    assert_eq!(ask("/stream?from=start&format=frames", "*/*").await, (FRAMES.into(), BEGIN));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_by_subprotocol() {
    let server = server().await;
    let connection = server.connect().await;
    for (query, offered, chosen, first) in [
        ("", &[FRAMES][..], Some(FRAMES), BEGIN),
        ("", &["other", FRAMES], Some(FRAMES), BEGIN),
        ("&format=frames", &[FRAMES], Some(FRAMES), BEGIN),
        ("&format=raw", &[FRAMES], None, b'o'),
        ("", &[], None, b'o'),
    ] {
        let uri = server.uri(&format!("/stream?from=start{query}"));
        let session = soon("a session", connection.webtransport(&uri, HeaderMap::new(), offered)).await.unwrap();
        assert_eq!(session.protocol(), chosen, "{query} {offered:?}");
        let mut stream = soon("the stream", session.accept_uni()).await.unwrap();
        let piece = soon("the chunk", stream.read_bytes(1)).await.unwrap().unwrap();
        assert_eq!(piece[0], first, "{query} {offered:?}");
    }
}

/// What a client that wants a feed looks at.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_its_kind() {
    let server = server().await;
    let connection = server.connect().await;
    for (path, expected) in [
        ("/stream", Some("feed")),
        ("/", Some("page")),
        ("/js/client/frames.mjs", Some("page")),
        ("/info", Some("status")),
        ("/feeds", Some("status")),
        ("/metrics", Some("status")),
        ("/healthz", Some("status")),
        ("/own", None),
    ] {
        let response = soon("the head", connection.get(&server.uri(path))).await.unwrap();
        assert_eq!(response.status, 200, "{path}");
        let kind = response.headers.get("h3cast-resource").map(|kind| kind.to_str().unwrap());
        assert_eq!(kind, expected, "{path}");
    }
}
