//! Text that comes in odd pieces stays text in `sse`, and binary data stays what it is.

use bytes::Bytes;
use h3cast::{
    App,
    client::{Body, Connection, Trust},
    feed::{Feed, Lag},
};
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value;

use crate::{
    clients::{At, Over, ask},
    common::{TestServer, soon},
    program::Serving,
};

/// Pieces of "日本語 🌊\n", and what becomes a chunk with each.
const PIECES: [(&[u8], &str); 6] = [
    (b"\xe6\x97", ""),
    (b"\xa5\xe6", "日"),
    (b"\x9c\xac\xe8", "本"),
    (b"\xaa\x9e \xf0\x9f", "語 "),
    (b"\x8c", ""),
    (b"\x8a\n", "🌊"),
];

async fn server() -> TestServer {
    let feed = Feed::writable("default", 1 << 20, Lag::Skip);
    TestServer::start(|builder, identity| App::new([feed], identity).install(builder)).await
}

async fn view(server: &TestServer, connection: &Connection, query: &str) -> Body {
    let response = soon("the head", connection.get(&server.uri(&format!("/stream?{query}")))).await.unwrap();
    assert_eq!(response.status, StatusCode::OK);
    response.body
}

/// Reads on until the text ends so.
async fn until(body: &mut Body, read: &mut String, end: &str) {
    // Altogether: what keeps the stream alive is no progress.
    let reading = async {
        while !read.ends_with(end) {
            let piece = body.next().await.unwrap().expect("the feed has ended");
            *read += std::str::from_utf8(&piece).unwrap();
            assert!(!read.contains('\u{fffd}'), "{read}");
        }
    };
    soon(end, reading).await;
}

/// What a viewer of `sse` sees of a feed whose pieces are written by `write`, each when all that comes of
/// those before has been seen.
async fn seen(body: &mut Body, mut write: impl AsyncFnMut(&'static [u8])) {
    let mut read = String::new();
    for (piece, chunk) in PIECES {
        write(piece).await;
        if !chunk.is_empty() {
            until(body, &mut read, &format!("data: {chunk}\n\n")).await;
        }
    }
    assert_eq!(read.matches("data: ").count(), 4, "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_body() {
    let server = server().await;
    let connection = server.connect().await;
    let mut events = view(&server, &connection, "format=sse").await;
    let (mut body, answer) =
        soon("the request", connection.send_request(Request::post(server.uri("/stream")).body(()).unwrap()))
            .await
            .unwrap();
    seen(&mut events, async |piece| body.send(Bytes::from_static(piece)).await.unwrap()).await;
    body.finish().await.unwrap();
    let mut answer = soon("the answer", answer).await.unwrap();
    let json: Value = serde_json::from_slice(&soon("it", answer.body.next()).await.unwrap().unwrap()).unwrap();
    assert_eq!((&json["bytes"], &json["chunks"]), (&15.into(), &4.into()), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_stream_of_a_session() {
    let server = server().await;
    let connection = server.connect().await;
    let mut events = view(&server, &connection, "format=sse").await;
    let uri = server.uri("/stream?limit=0");
    let session = soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    let (mut stream, _reply) = soon("a stream", session.open_bi()).await.unwrap();
    seen(&mut events, async |piece| stream.write_bytes(Bytes::from_static(piece)).await.unwrap()).await;
}

/// Two publishers at once: each waits for its own characters only.
#[tokio::test(flavor = "multi_thread")]
async fn publishers_do_not_wait_for_each_other() {
    let server = server().await;
    let connection = server.connect().await;
    let mut events = view(&server, &connection, "format=sse").await;
    let post = async || {
        let request = Request::post(server.uri("/stream")).body(()).unwrap();
        soon("the request", connection.send_request(request)).await.unwrap()
    };
    let ((mut one, _one), (mut other, _other)) = (post().await, post().await);
    let mut read = String::new();
    one.send(Bytes::from_static(b"A\xe6\x97")).await.unwrap();
    until(&mut events, &mut read, "data: A\n\n").await;
    other.send(Bytes::from_static(b"B\xe8\xaa")).await.unwrap();
    until(&mut events, &mut read, "data: B\n\n").await;
    one.send(Bytes::from_static(b"\xa5")).await.unwrap();
    until(&mut events, &mut read, "data: 日\n\n").await;
    other.send(Bytes::from_static(b"\x9e")).await.unwrap();
    until(&mut events, &mut read, "data: 語\n\n").await;
}

/// What waits has not been published, and is not confirmed: whoever comes again with the key sends it again.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_not_confirmed() {
    let server = server().await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    let connection = server.connect().await;
    let mut raw = view(&server, &connection, "format=raw").await;
    let request = || Request::post(server.uri("/stream")).header("idempotency-key", "k");
    let (mut body, answer) = soon("the request", connection.send_request(request().body(()).unwrap())).await.unwrap();
    body.send(Bytes::from_static(b"ab\xe6\x97")).await.unwrap();
    assert_eq!(soon("a chunk", raw.next()).await.unwrap().unwrap(), "ab");
    // The client goes away in the middle of a character.
    drop(body);
    drop(answer);
    let progress = ask(&at, Over::Http2, Method::POST, "/stream", &[("idempotency-key", "k")]).await;
    let json: Value = serde_json::from_slice(&progress.body).unwrap();
    assert_eq!(json["bytes"], 2, "{json}");
    let continued = request().header("upload-offset", "2").body(()).unwrap();
    let (mut body, answer) = soon("the request", connection.send_request(continued)).await.unwrap();
    body.send(Bytes::from_static("日本".as_bytes())).await.unwrap();
    body.finish().await.unwrap();
    let mut answer = soon("the answer", answer).await.unwrap();
    let json: Value = serde_json::from_slice(&soon("it", answer.body.next()).await.unwrap().unwrap()).unwrap();
    assert_eq!(json["bytes"], 8, "{json}");
    let mut rest = Vec::new();
    while rest.len() < 6 {
        rest.extend_from_slice(&soon("the rest", raw.next()).await.unwrap().unwrap());
    }
    assert_eq!(rest, "日本".as_bytes());
}

/// Every byte comes out as it went in, whatever it is; what ends a body is let out with it.
#[tokio::test(flavor = "multi_thread")]
async fn binary_data_is_not_changed() {
    let server = server().await;
    let connection = server.connect().await;
    let mut raw = view(&server, &connection, "format=raw").await;
    let pieces: [&[u8]; 6] =
        [b"\xff\xfe\xc3", b"\xe8\xe8\xe8", b"\x00\xf0\x9f", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf0\x9f"];
    let (mut body, answer) =
        soon("the request", connection.send_request(Request::post(server.uri("/stream")).body(()).unwrap()))
            .await
            .unwrap();
    for piece in pieces {
        body.send(Bytes::from_static(piece)).await.unwrap();
    }
    body.finish().await.unwrap();
    let mut answer = soon("the answer", answer).await.unwrap();
    let json: Value = serde_json::from_slice(&soon("it", answer.body.next()).await.unwrap().unwrap()).unwrap();
    assert_eq!(json["bytes"], pieces.concat().len());
    let mut read = Vec::new();
    while read.len() < pieces.concat().len() {
        read.extend_from_slice(&soon("more", raw.next()).await.unwrap().unwrap());
    }
    assert_eq!(read, pieces.concat());
}

/// A source in pieces, as a program prints that flushes where it likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_in_pieces() {
    use tokio::io::AsyncWriteExt;
    let dir = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(dir.path(), 0, &["-", "--chunk", "bytes"]).await;
    let trust = Trust::Files(vec![dir.path().join("certs/cert.pem")]);
    let uri = serving.url("/stream?format=sse&from=start").parse().unwrap();
    let connection = soon("a connection", Connection::open(&uri, &trust)).await.unwrap();
    let mut events = soon("the head", connection.get(&uri)).await.unwrap().body;
    let mut stdin = serving.program.stdin.take().unwrap();
    seen(&mut events, async |piece| {
        stdin.write_all(piece).await.unwrap();
        stdin.flush().await.unwrap();
    })
    .await;
}
