//! Subjects without JetStream.

use std::time::Duration;

use h3cast::client::{Viewer, viewer::Event};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{cluster::Cluster, common::soon, edge::Edge, serving::Serving};

/// Several times what NATS' client keeps until it is taken.
const MESSAGES: u64 = 300_000;

/// What a viewer has been given.
struct Seen {
    viewer: Viewer,
    chunks: u64,
    missing: u64,
}

impl Seen {
    /// The chunks and what is missing up to the first chunk that begins like this.
    async fn until(&mut self, begins: &str) -> String {
        loop {
            match soon("an event", self.viewer.next()).await.unwrap() {
                Some(Event::Chunk { bytes, .. }) => {
                    self.chunks += 1;
                    if bytes.starts_with(begins.as_bytes()) {
                        return String::from_utf8(bytes.to_vec()).unwrap();
                    }
                }
                Some(Event::Gap(gap)) => self.missing += gap.missing,
                Some(_) => {}
                None => panic!("it ends before {begins}"),
            }
        }
    }
}

/// The client that takes them for the server says that it drops some, and not how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn messages_that_are_dropped_are_a_gap() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let client = context.client();
    let live = format!("flood=nats://{}/flood?live", cluster.addresses());
    // One thread reads all that has arrived before it takes the first of them.
    let serving = tokio::task::block_in_place(|| Serving::start(|_| [live.as_str(), "--workers=1"].to_vec()));
    let edge = Edge::of(&serving);
    let viewer = Viewer::new(&edge.uri("/stream/flood?from=start"), edge.trust.clone()).unwrap();
    let mut seen = Seen { viewer, chunks: 0, missing: 0 };
    // The server's subscription may come later than it says that it is ready.
    tokio::select! {
        _ = seen.until("hello") => {}
        () = repeat(&client, "hello") => unreachable!(),
    }
    client.publish("flood", "begin".into()).await.unwrap();
    seen.until("begin").await;
    (seen.chunks, seen.missing) = (0, 0);

    // It arrives at once.
    let process = rustix::process::Pid::from_raw(serving.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    let mut flood = TcpStream::connect(cluster.addresses()).await.unwrap();
    flood.write_all(b"CONNECT {\"verbose\":false}\r\n").await.unwrap();
    flood.write_all("PUB flood 1\r\nx\r\n".repeat(MESSAGES as usize).as_bytes()).await.unwrap();
    flood.write_all(b"PING\r\n").await.unwrap();
    let mut answers = Vec::new();
    while !answers.ends_with(b"PONG\r\n") {
        soon("the flood has arrived", flood.read_buf(&mut answers)).await.unwrap();
    }
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    // The first of these may be lost, too; and of the last that were dropped, it is known a moment later.
    let all_are_told = async {
        loop {
            let end = seen.until("end").await;
            let number: u64 = end.split_once(' ').unwrap().1.parse().unwrap();
            eprintln!("{} chunks, {} missing, {end}", seen.chunks, seen.missing);
            assert!(seen.chunks + seen.missing <= MESSAGES + number + 1, "none is told that was not lost");
            if seen.chunks + seen.missing == MESSAGES + number + 1 {
                break;
            }
        }
    };
    tokio::select! {
        () = soon("all that is missing is told", all_are_told) => {}
        () = repeat(&client, "end") => unreachable!(),
    };
    let log = std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    assert!(log.contains("messages arrived faster than they could be read"), "{log}");
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
}

/// Publishes that and a number until it is dropped.
async fn repeat(client: &async_nats::Client, what: &str) {
    for number in 0.. {
        client.publish("flood", format!("{what} {number}").into()).await.unwrap();
        client.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
