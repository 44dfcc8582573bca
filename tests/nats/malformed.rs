//! Messages with headers that NATS' client library cannot parse. nats-server stores them all the same.

use std::time::Duration;

use async_nats::jetstream;
use h3cast::client::{Viewer, viewer::Event};
use http::Request;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::sleep,
};

use crate::{
    cluster::Cluster,
    common::soon,
    edge::{Edge, chunk_texts, read},
    presence::{shows, view},
    serving::Serving,
};

/// Latin-1, a line without a colon, a control byte in a name, another version, and what looks like an answer of the
/// server's to whoever reads from a consumer.
const HEADERS: [&[u8]; 5] = [
    b"NATS/1.0\r\nfile: M\xfcller.txt\r\n\r\n",
    b"NATS/1.0\r\nnothing\r\n\r\n",
    b"NATS/1.0\r\nna\x01me: x\r\n\r\n",
    b"NATS/2.0\r\n\r\n",
    b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
];

/// The client library panics at a carriage return in a value, and its client is gone.
pub(crate) const DEADLY: &[&[u8]] = &[b"NATS/1.0\r\nname: a\rb\r\n\r\n"];

/// A program that publishes whatever headers it likes.
pub(crate) struct Other(BufReader<TcpStream>);

impl Other {
    pub(crate) async fn of(cluster: &Cluster) -> Self {
        let mut own = Self(BufReader::new(TcpStream::connect(("127.0.0.1", cluster.nodes[0].port)).await.unwrap()));
        own.0.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n").await.unwrap();
        own.flush().await;
        own
    }

    /// Waits until the server has all of it.
    pub(crate) async fn flush(&mut self) {
        self.0.write_all(b"PING\r\n").await.unwrap();
        let mut line = String::new();
        while line != "PONG\r\n" {
            line.clear();
            assert_ne!(soon("a line", self.0.read_line(&mut line)).await.unwrap(), 0);
        }
    }

    pub(crate) async fn publish(&mut self, subject: &str, headers: &[u8], body: &str) {
        let (of_headers, all) = (headers.len(), headers.len() + body.len());
        let message =
            [format!("HPUB {subject} {of_headers} {all}\r\n").as_bytes(), headers, body.as_bytes(), b"\r\n"].concat();
        self.0.write_all(&message).await.unwrap();
    }
}

pub(crate) async fn streams(context: &jetstream::Context, all: &[(&str, &str)], direct: bool) {
    for (name, subject) in all {
        let config = jetstream::stream::Config {
            name: (*name).into(),
            subjects: vec![(*subject).into()],
            storage: jetstream::stream::StorageType::Memory,
            allow_direct: direct,
            ..Default::default()
        };
        context.create_stream(config).await.unwrap();
    }
}

pub(crate) async fn viewer(edge: &Edge, feed: &str) -> Viewer {
    let mut viewer = Viewer::new(&edge.uri(&format!("/stream/{feed}?from=start")), edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
    viewer
}

/// Takes chunks until there are so many. None may be missing.
pub(crate) async fn take(viewer: &mut Viewer, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        match soon("a chunk", viewer.next()).await.unwrap().unwrap() {
            Event::Chunk { bytes, .. } => texts.push(String::from_utf8(bytes.to_vec()).unwrap()),
            Event::Gap(gap) => panic!("{gap:?}"),
            _ => {}
        }
    }
    texts
}

/// How often a client of it has died so far, as it is told, each time after the panic.
pub(crate) fn deaths(serving: &Serving) -> usize {
    let log = log(serving);
    let (panics, told) = (log.matches("invalid header value").count(), log.matches(" its client panicked; ").count());
    assert!((told..=told + 1).contains(&panics), "{log}");
    told
}

async fn status_of_publishing(serving: &Serving, feed: &str) -> u16 {
    let connection = serving.connect().await;
    let request = Request::post(serving.uri(&format!("/stream/{feed}"))).body(()).unwrap();
    let (mut body, answer) = connection.send_request(request).await.unwrap();
    body.send("text".into()).await.unwrap();
    body.finish().await.unwrap();
    soon("an answer", answer).await.unwrap().status.as_u16()
}

pub(crate) fn log(serving: &Serving) -> String {
    std::fs::read_to_string(serving.dir().join("stderr")).unwrap()
}

/// How often it has lost its connection so far.
pub(crate) fn losses(serving: &Serving) -> usize {
    log(serving).matches("the connection to NATS is lost: ").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn malformed_headers_stop_no_feed() {
    assert_eq!(stop_no_feed(&HEADERS).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn deadly_headers_stop_no_feed() {
    assert!(stop_no_feed(DEADLY).await > 0);
}

/// Returns how often the client died.
async fn stop_no_feed(malformed: &[&[u8]]) -> usize {
    let cluster = Cluster::start(1);
    streams(&cluster.jetstream().await, &[("ORDERS", "orders"), ("OTHER", "other"), ("LOGS", "logs.>")], true).await;
    let address = cluster.addresses();
    let args = [
        format!("orders=nats://{address}/orders"),
        format!("other=nats://{address}/other"),
        format!("logs=nats://{address}/logs.*"),
        "q=publish".into(),
        format!("--engine=nats://{address}"),
        "--ensure-stream".into(),
    ];
    let start = || tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let serving = start();
    let (edge, mut program) = (Edge::of(&serving), Other::of(&cluster).await);
    program.publish("logs.good", b"NATS/1.0\r\n\r\n", "before").await;
    program.flush().await;
    let mut good = viewer(&edge, "logs.good").await;
    let (mut orders, mut other) = (viewer(&edge, "orders").await, viewer(&edge, "other").await);
    assert_eq!(take(&mut good, 1).await, ["before"]);

    // A flood of all kinds.
    let mut due: Vec<_> = (0..200).map(|number| format!("{number}")).collect();
    for (number, body) in due.iter().enumerate() {
        program.publish("orders", malformed[number % malformed.len()], body).await;
    }
    program.publish("orders", b"NATS/1.0\r\n\r\n", "after").await;
    program.publish("other", b"NATS/1.0\r\n\r\n", "other").await;
    program.publish("logs.good", b"NATS/1.0\r\n\r\n", "good").await;
    program.flush().await;
    due.push("after".into());
    assert_eq!(take(&mut orders, 201).await, due);
    assert_eq!(take(&mut other, 1).await, ["other"]);
    assert_eq!(take(&mut good, 1).await, ["good"]);
    assert_eq!(status_of_publishing(&serving, "q").await, 200);
    let told = log(&serving);
    assert!(told.contains("malformed headers") && told.contains("stream=\"ORDERS\" sequence=1 "), "{told}");
    let before = losses(&serving);
    assert!((1..=2).contains(&before), "{told}");

    // More of them do not cost the connection, for a while.
    program.publish("orders", malformed[0], "more").await;
    program.flush().await;
    assert_eq!(take(&mut orders, 1).await, ["more"]);
    assert_eq!(losses(&serving), before);

    // A subject of a pattern that nobody views.
    program.publish("logs.evil", malformed[0], "evil").await;
    program.publish("logs.good", b"NATS/1.0\r\n\r\n", "still").await;
    program.flush().await;
    assert_eq!(take(&mut good, 1).await, ["still"]);
    assert_eq!(status_of_publishing(&serving, "q").await, 200);
    assert_eq!(chunk_texts(&read(&edge, "/stream/logs.evil?from=start", 1).await), ["evil"]);

    // An edge that starts with all of that.
    let another = start();
    due.push("more".into());
    let mut orders = viewer(&Edge::of(&another), "orders").await;
    assert_eq!(take(&mut orders, 202).await, due);
    assert_eq!(status_of_publishing(&another, "q").await, 200);
    deaths(&serving) + deaths(&another)
}

/// Those that are older than what the edge has in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn malformed_headers_of_the_past_are_no_hindrance() {
    assert_eq!(are_no_hindrance(&HEADERS, true).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn deadly_headers_of_the_past_are_no_hindrance() {
    for direct in [true, false] {
        assert!(are_no_hindrance(DEADLY, direct).await > 0);
    }
}

/// Returns how often the client died.
async fn are_no_hindrance(malformed: &[&[u8]], direct: bool) -> usize {
    let cluster = Cluster::start(1);
    streams(&cluster.jetstream().await, &[("ORDERS", "orders"), ("LOGS", "logs.>")], direct).await;
    let mut program = Other::of(&cluster).await;
    let due: Vec<_> = (0..1500).map(|number| format!("{number}")).collect();
    for subject in ["orders", "logs.a"] {
        for (number, body) in due.iter().enumerate() {
            // Alone, and many in a row.
            let is_malformed = number == 30 || (200..300).contains(&number);
            let headers = if is_malformed { malformed[number % malformed.len()] } else { b"NATS/1.0\r\n\r\n" };
            program.publish(subject, headers, body).await;
        }
    }
    program.flush().await;
    let address = cluster.addresses();
    let (orders, logs) = (format!("orders=nats://{address}/orders"), format!("logs=nats://{address}/logs.*"));
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![orders, logs, "--history=16k".into()]));
    let edge = Edge::of(&serving);
    for feed in ["orders", "logs.a"] {
        assert_eq!(take(&mut viewer(&edge, feed).await, 1500).await, due, "{feed}");
        let before = losses(&serving);
        assert!(before > 0, "it was met");
        // They are known by now.
        assert_eq!(take(&mut viewer(&edge, feed).await, 1500).await, due, "{feed}");
        assert_eq!(losses(&serving), before);
    }
    assert!(losses(&serving) < 6, "{}", log(&serving));
    deaths(&serving)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn malformed_headers_where_edges_tell_their_viewers() {
    assert_eq!(are_where_edges_tell(&HEADERS[..4]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn deadly_headers_where_edges_tell_their_viewers() {
    assert!(are_where_edges_tell(DEADLY).await >= 2);
}

/// Returns how often the clients died.
async fn are_where_edges_tell(malformed: &[&[u8]]) -> usize {
    let cluster = Cluster::start(1);
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let start =
        || tokio::task::block_in_place(|| Serving::start(|_| vec!["chat=publish", engine.as_str(), "--ensure-stream"]));
    let (one, other) = (start(), start());
    let _viewer = view(&one).await;
    shows(&other, json!([1, 0, 1, 0])).await;
    let mut program = Other::of(&cluster).await;
    for number in 0..5 {
        program.publish("$KV.h3cast_presence.x", malformed[number % malformed.len()], "{}").await;
        program.flush().await;
    }
    soon("it is told", async {
        while ![&one, &other].iter().all(|serving| log(serving).contains("malformed headers")) {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let _viewers = [view(&one).await, view(&other).await];
    shows(&other, json!([3, 0, 2, 1])).await;
    program.publish("$KV.h3cast_presence.x", malformed[0], "{}").await;
    program.flush().await;
    shows(&one, json!([3, 0, 2, 2])).await;
    for serving in [&one, &other] {
        assert!((1..=2).contains(&losses(serving)), "{}", log(serving));
    }
    deaths(&one) + deaths(&other)
}
