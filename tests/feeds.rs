//! Live feeds over both transports: late viewers, resuming, formats, lag.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{TestServer, soon};
use h3cast::{
    App, Limits,
    chunk::Cursor,
    client::{ClientError, Connection},
    feed::{End, Feed, FeedError, Gap, Lag, PublishError, Publisher},
    format::frames::{Frame, FrameDecoder},
};
use http::{HeaderMap, Request, StatusCode};
use tokio::io::AsyncWriteExt;

const HISTORY: usize = 1 << 20;

async fn live(lag: Lag, history: usize) -> (TestServer, Connection, Publisher, Feed) {
    let (feed, publisher) = Feed::live("default", history, lag);
    let server = TestServer::feed(feed.clone()).await;
    let connection = server.connect().await;
    (server, connection, publisher, feed)
}

/// A reader of frames over either transport.
enum Reading {
    Response(Box<h3cast::client::Body>),
    /// The session's handle keeps it open.
    Session(#[expect(dead_code)] h3cast::webtransport::Session, h3cast::webtransport::RecvStream),
}

struct Frames {
    source: Reading,
    decoder: FrameDecoder,
}

impl Frames {
    async fn open(server: &TestServer, connection: &Connection, webtransport: bool, query: &str) -> Self {
        let uri = server.uri(&format!("/stream?format=frames&{query}"));
        let source = match webtransport {
            false => Reading::Response(Box::new(soon("the head", connection.get(&uri)).await.unwrap().body)),
            true => {
                let session = soon("the session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
                let stream = soon("the stream", session.accept_uni()).await.unwrap();
                Reading::Session(session, stream)
            }
        };
        Self { source, decoder: FrameDecoder::new(1 << 20) }
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.pop().unwrap() {
                return Some(frame);
            }
            let bytes = match &mut self.source {
                Reading::Response(body) => soon("more", body.next()).await.unwrap(),
                Reading::Session(_, stream) => soon("more", stream.read_bytes(usize::MAX)).await.unwrap(),
            };
            let Some(bytes) = bytes else {
                assert!(self.decoder.at_boundary());
                return None;
            };
            self.decoder.push(&bytes);
        }
    }

    async fn chunk(&mut self) -> (u64, Bytes) {
        match self.next().await {
            Some(Frame::Chunk { seq, bytes, .. }) => (seq, bytes),
            other => panic!("{other:?}"),
        }
    }

    async fn epoch(&mut self) -> h3cast::chunk::Epoch {
        match self.next().await {
            Some(Frame::Begin { epoch, .. }) => epoch,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_viewer_resumes_on_the_other_transport_with_nothing_lost_or_doubled() {
    let (server, connection, publisher, _feed) = live(Lag::Skip, HISTORY).await;
    let text = |n: u64| Bytes::from(format!("chunk {n}\n"));
    for n in 0..10 {
        publisher.publish(text(n)).await.unwrap();
    }
    let (mut seen, mut cursor) = (0, None);
    for round in 0..6 {
        let query = cursor.map_or("from=start".to_owned(), |cursor: Cursor| format!("from={cursor}"));
        let mut frames = Frames::open(&server, &connection, round % 2 == 1, &query).await;
        let epoch = frames.epoch().await;
        for _ in 0..10 {
            assert_eq!(frames.chunk().await, (seen, text(seen)));
            cursor = Some(Cursor { epoch, seq: seen });
            seen += 1;
        }
        // It goes away in the middle; what is published meanwhile is kept for it.
        drop(frames);
        for n in seen..seen + 10 {
            publisher.publish(text(n)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn both_transports_give_the_same_bytes_as_they_are_published() {
    let (server, connection, publisher, _feed) = live(Lag::Skip, HISTORY).await;
    let mut viewers = Vec::new();
    for webtransport in [false, true, false, true] {
        let mut frames = Frames::open(&server, &connection, webtransport, "").await;
        frames.epoch().await;
        viewers.push(frames);
    }
    for n in 0..20_u64 {
        let bytes = Bytes::from(vec![n as u8; n as usize * 100]);
        publisher.publish(bytes.clone()).await.unwrap();
        for viewer in &mut viewers {
            assert_eq!(viewer.chunk().await, (n, bytes.clone()));
        }
    }
    publisher.end(End::Failed(FeedError("the source is gone".into())));
    for viewer in &mut viewers {
        let end = viewer.next().await;
        assert_eq!(end, Some(Frame::End(End::Failed(FeedError("the source is gone".into())))));
        assert_eq!(viewer.next().await, None);
    }
}

#[tokio::test]
async fn a_stale_cursor_and_one_behind_the_ring_are_told() {
    let (server, connection, publisher, feed) = live(Lag::Skip, 2000).await;
    for n in 0..100_u8 {
        publisher.publish(Bytes::from(vec![n; 100])).await.unwrap();
    }
    let oldest = feed.status().oldest.unwrap();
    let epoch = oldest.epoch;
    let mut frames = Frames::open(&server, &connection, false, &format!("from={epoch}-4")).await;
    frames.epoch().await;
    let missing = oldest.seq - 5;
    assert_eq!(frames.next().await, Some(Frame::Gap(Gap { from: 5, missing, restarted: false })));
    assert_eq!(frames.chunk().await.0, oldest.seq);

    let mut frames = Frames::open(&server, &connection, true, "from=1-4").await;
    frames.epoch().await;
    assert!(matches!(frames.next().await, Some(Frame::Gap(Gap { restarted: true, .. }))));
    assert_eq!(frames.chunk().await.0, oldest.seq);

    // Raw has no way to say it, and is refused.
    for cursor in [format!("{epoch}-4"), "1-4".into()] {
        let uri = server.uri(&format!("/stream?from={cursor}"));
        assert_eq!(soon("the head", connection.get(&uri)).await.unwrap().status, StatusCode::GONE);
        let refused = soon("the answer", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap_err();
        assert!(matches!(refused, ClientError::Refused { status: StatusCode::GONE, .. }), "{refused}");
    }
    // When it falls behind later, it is cut.
    let mut response = soon("the head", connection.get(&server.uri("/stream"))).await.unwrap();
    for n in 0..500_u64 {
        publisher.publish(Bytes::from(vec![n as u8; 16 * 1024])).await.unwrap();
    }
    let cut = soon("the cut", async {
        loop {
            match response.body.next().await {
                Ok(Some(_)) => {}
                other => return other,
            }
        }
    });
    let cut = cut.await.unwrap_err();
    assert!(matches!(cut, ClientError::Reset(_)), "{cut}");
}

#[tokio::test]
async fn events_as_event_source_reads_them() {
    let (server, connection, publisher, _feed) = live(Lag::Skip, HISTORY).await;
    for text in ["one\n", "two\nlines\r\nand\rmore\n", "", "no newline"] {
        publisher.publish(text.into()).await.unwrap();
    }
    publisher.end(End::Clean);
    let ask = async |path: &str, headers: &[(&'static str, &str)]| {
        let mut request = Request::get(server.uri(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = soon("the head", connection.request(request.body(()).unwrap())).await.unwrap();
        let mut body = Vec::new();
        while let Some(bytes) = soon("more", response.body.next()).await.unwrap() {
            body.extend_from_slice(&bytes);
        }
        (response.status, response.headers, String::from_utf8(body).unwrap())
    };
    let (status, headers, body) = ask("/stream?from=start", &[("accept", "text/event-stream")]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "text/event-stream; charset=utf-8");
    let epoch = body.split("id: ").nth(1).unwrap().split('-').next().unwrap();
    let expected = [
        "retry: 1000\n".to_owned(),
        format!("id: {epoch}-0\ndata: one\n\n"),
        format!("id: {epoch}-1\ndata: two\ndata: lines\ndata: and\ndata: more\n\n"),
        format!("id: {epoch}-2\ndata: \n\n"),
        format!("id: {epoch}-3\ndata: no newline\n\n"),
        format!("id: {epoch}-3-end\nevent: end\ndata: {{}}\n\n"),
    ];
    assert_eq!(body, expected.concat());
    let last = format!("{epoch}-2");
    let (_, _, body) = ask("/stream", &[("last-event-id", &last)]).await;
    let rest = ["retry: 1000\n", &expected[4], &expected[5]].concat();
    assert_eq!(body, rest);
    let (status, ..) = ask("/stream", &[("last-event-id", "nonsense")]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_viewer_that_does_not_read_costs_the_others_nothing() {
    let (server, connection, publisher, feed) = live(Lag::Skip, 64 * 1024).await;
    let mut stalled = Frames::open(&server, &connection, true, "").await;
    stalled.epoch().await;
    let other = server.connect().await;
    let mut reading = Frames::open(&server, &other, false, "").await;
    reading.epoch().await;
    // More than every buffer on the way to the stalled one holds.
    for n in 0..1000_u64 {
        publisher.publish(Bytes::from(vec![n as u8; 16 * 1024])).await.unwrap();
        assert_eq!(reading.chunk().await.0, n);
    }
    assert!(feed.status().kept_bytes <= 64 * 1024);
    // It is told exactly what it missed.
    let mut next = 0;
    loop {
        match stalled.next().await.unwrap() {
            Frame::Chunk { seq, .. } => {
                assert_eq!(seq, next);
                next += 1;
            }
            Frame::Gap(gap) => {
                assert_eq!(gap.from, next);
                next += gap.missing;
            }
            other => panic!("{other:?}"),
        }
        if next == 1000 {
            break;
        }
    }
    assert!(feed.status().skipped > 0);
}

#[tokio::test]
async fn a_producer_that_may_not_lose_waits_for_the_slowest() {
    let (server, connection, publisher, feed) = live(Lag::Block, 64 * 1024).await;
    let mut slow = Frames::open(&server, &connection, false, "").await;
    slow.epoch().await;
    let producing = tokio::spawn(async move {
        for n in 0..500_u64 {
            publisher.publish(Bytes::from(vec![n as u8; 16 * 1024])).await.unwrap();
        }
        publisher.end(End::Clean);
    });
    for n in 0..500 {
        assert_eq!(slow.chunk().await.0, n);
    }
    soon("the producer is done", producing).await.unwrap();
    assert_eq!(slow.next().await, Some(Frame::End(End::Clean)));
    assert_eq!(feed.status().skipped, 0);
}

/// A viewer that takes nothing; it is there as long as this.
async fn taking_nothing(way: &str, server: &TestServer) -> Box<dyn std::any::Any> {
    let narrow = async || {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(([127, 0, 0, 1], server.http_port()).into()).await.unwrap()
    };
    match way {
        "HTTP/1.1" => {
            let mut stream = narrow().await;
            stream.write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            Box::new(stream)
        }
        "HTTP/2" => {
            let mut stream = narrow().await;
            // Its preface, SETTINGS, and HEADERS: what there is may fill the first window.
            let fields = b"\x82\x86\x04\x07/stream\x01\x09localhost";
            let head = [&[0, 0, fields.len() as u8, 1, 5, 0, 0, 0, 1], &fields[..]].concat();
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            stream.write_all(&[&preface[..], &head].concat()).await.unwrap();
            Box::new(stream)
        }
        "HTTP/3" => {
            let connection = server.connect().await;
            Box::new((soon("the head", connection.get(&server.uri("/stream"))).await.unwrap(), connection))
        }
        _ => {
            let (connection, uri) = (server.connect().await, server.uri("/stream"));
            let session = soon("the session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
            let stream = soon("the stream", session.accept_uni()).await.unwrap();
            Box::new((stream, session, connection))
        }
    }
}

/// As with `--lag block` and a short `--send-timeout`.
#[tokio::test]
async fn a_producer_that_waits_for_the_slowest_does_not_wait_for_ever() {
    for way in ["HTTP/1.1", "HTTP/2", "HTTP/3", "WebTransport"] {
        let (feed, publisher) = Feed::live("default", 256 * 1024, Lag::Block);
        let (served, limits) = (feed.clone(), Limits::default().send_timeout(Duration::from_millis(500)));
        let server =
            TestServer::start(|builder, identity| App::new([served], identity).install(builder).limits(limits)).await;
        let connection = server.connect().await;
        let mut reading = Frames::open(&server, &connection, false, "").await;
        reading.epoch().await;
        let held = taking_nothing(way, &server).await;
        soon("both viewers", async {
            while feed.status().viewers < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let producing = tokio::spawn(async move {
            for n in 0..100_u64 {
                publisher.publish(Bytes::from(vec![n as u8; 64 * 1024])).await.unwrap();
            }
            publisher.end(End::Clean);
        });
        // What others read is complete.
        for n in 0..100 {
            assert_eq!(reading.chunk().await.0, n, "beside a viewer over {way}");
        }
        soon("the producer is done", producing).await.unwrap();
        assert_eq!((reading.next().await, feed.status().skipped), (Some(Frame::End(End::Clean)), 0));
        drop(held);
    }
}

#[tokio::test]
async fn a_server_that_stops_does_not_end_its_feeds() {
    let (server, connection, publisher, feed) = live(Lag::Skip, HISTORY).await;
    let mut readings = Vec::new();
    for webtransport in [false, true] {
        let mut frames = Frames::open(&server, &connection, webtransport, "from=start").await;
        frames.epoch().await;
        readings.push(frames);
    }
    let mut raw = soon("the head", connection.get(&server.uri("/stream"))).await.unwrap();
    publisher.publish("the last".into()).await.unwrap();
    assert_eq!(soon("the chunk", raw.body.next()).await.unwrap().unwrap(), "the last");
    feed.stop();
    for frames in &mut readings {
        assert_eq!(frames.chunk().await, (0, "the last".into()));
        // Without its end: whoever views it comes again.
        assert_eq!(frames.next().await, None);
    }
    // Which raw cannot tell from a whole one, unless it breaks off.
    assert!(matches!(soon("the end", raw.body.next()).await, Err(ClientError::Reset(_))));
    assert_eq!(publisher.publish("late".into()).await, Err(PublishError::Ended));
}

#[tokio::test]
async fn what_is_said_of_feeds() {
    let (server, connection, publisher, _feed) = live(Lag::Skip, HISTORY).await;
    for bytes in ["four", "chars"] {
        publisher.publish(bytes.into()).await.unwrap();
    }
    let mut frames = Frames::open(&server, &connection, false, "from=start").await;
    let epoch = frames.epoch().await;
    let get = async |path| {
        let mut response = soon("the head", connection.get(&server.uri(path))).await.unwrap();
        let mut body = Vec::new();
        while let Some(bytes) = soon("the body", response.body.next()).await.unwrap() {
            body.extend_from_slice(&bytes);
        }
        (response.headers, String::from_utf8(body).unwrap())
    };
    let (_, body) = get("/feeds").await;
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    let feed = &said["feeds"][0];
    assert_eq!(feed["name"], "default");
    assert_eq!((&feed["kind"], &feed["state"]), (&"live".into(), &"open".into()));
    assert_eq!((&feed["viewers"], &feed["chunks"], &feed["bytes"]), (&1.into(), &2.into(), &9.into()));
    assert_eq!((&feed["epoch"], &feed["oldest"]), (&epoch.to_string().into(), &format!("{epoch}-0").into()));
    assert_eq!((&feed["skipped"], &feed["blocked_seconds"]), (&0.into(), &0.0.into()));
    assert!(feed["rate"]["chunks"].is_f64() && feed["rate"]["bytes"].is_f64() && feed["writable"] == false);

    let (headers, text) = get("/metrics").await;
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let lines: Vec<&str> = text.lines().collect();
    for line in [
        "h3cast_feed_viewers{feed=\"default\"} 1",
        "# TYPE h3cast_feed_chunks_total counter",
        "h3cast_feed_chunks_total{feed=\"default\"} 2",
        "h3cast_feed_bytes_total{feed=\"default\"} 9",
        "h3cast_feed_open{feed=\"default\"} 1",
        "# TYPE h3cast_half_open gauge",
        "h3cast_retries_total 0",
        "h3cast_refused_total{reason=\"connections_per_address\"} 0",
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{text}");
    }
}
