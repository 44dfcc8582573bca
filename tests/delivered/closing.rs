//! An answer to HTTP/1.0 ends with its connection: one that was cut does not look whole.

use std::{path::Path, process::Output, time::Duration};

use bytes::Bytes;
use h3cast::feed::{End, Feed, FeedError, Lag, Publisher};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    task::JoinHandle,
};

use crate::{
    common::{TestServer, soon},
    viewers::Got,
};

const LINES: usize = 2_000;

fn lines() -> String {
    (0..LINES).map(|number| format!("{number:>99}\n")).collect()
}

fn feed() -> (Feed, Publisher) {
    Feed::live("default", 1 << 20, Lag::Disconnect)
}

async fn publish(publisher: &Publisher) {
    for line in lines().split_inclusive('\n') {
        publisher.publish(Bytes::from(line.to_owned())).await.unwrap();
    }
}

/// Waits until so many viewers are there.
async fn viewed(feed: &Feed, viewers: u64) {
    soon("its viewers", async {
        while feed.status().viewers < viewers {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn ask(server: &TestServer, query: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.http_port())).await.unwrap();
    stream.write_all(format!("GET /stream{query} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

/// The body of all that comes, and how it ends.
async fn rest(mut stream: TcpStream) -> Got {
    let mut bytes = Vec::new();
    let ended = soon("its end", stream.read_to_end(&mut bytes)).await;
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    assert!(
        text.contains(" 200 ") && !text.contains("transfer-encoding") && !text.contains("content-length"),
        "{text}"
    );
    Got { bytes: bytes.split_off(head), cut: ended.err().map(|error| error.kind().to_string()) }
}

fn curl(url: &str, certificate: Option<&Path>) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--http1.0", "--no-buffer", "--max-time", "60", url]).kill_on_drop(true);
    if let Some(certificate) = certificate {
        curl.arg("--cacert").arg(certificate);
    }
    curl
}

/// Reads all the time what it writes.
fn run(mut curl: Command) -> JoinHandle<Output> {
    tokio::spawn(async move { soon("curl ends", curl.output()).await.unwrap() })
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_feed_that_fails_it_has_everything_and_is_reset() {
    let (feed, publisher) = feed();
    let server = TestServer::feed(feed.clone()).await;
    let url = format!("http://localhost:{}/stream", server.http_port());
    let live = ask(&server, "").await;
    let (plain, tls) =
        (run(curl(&url, None)), run(curl(&server.uri("/stream").to_string(), Some(&server.certificate()))));
    viewed(&feed, 3).await;
    publish(&publisher).await;
    publisher.end(End::Failed(FeedError("by hand".into())));
    let late = ask(&server, "?from=start").await;
    let late_curl = run(curl(&format!("{url}?from=start"), None));
    // One that takes its time to read.
    let slow = ask(&server, "?from=start").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for (name, stream) in [("live", live), ("late", late), ("slow", slow)] {
        let got = rest(stream).await;
        assert!(got.bytes == lines().as_bytes(), "{name}: {} bytes, {:?}", got.bytes.len(), got.cut);
        assert!(got.cut.is_some(), "{name} looks whole");
    }
    for (name, curl) in [("live", plain), ("live over TLS", tls), ("late", late_curl)] {
        let output = curl.await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout == lines().as_bytes(), "{name}: {} bytes, {told}", output.stdout.len());
        assert!(!output.status.success(), "{name} looks whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_feed_that_ends_it_is_whole() {
    let (feed, publisher) = feed();
    let server = TestServer::feed(feed.clone()).await;
    let live = ask(&server, "").await;
    viewed(&feed, 1).await;
    publish(&publisher).await;
    publisher.end(End::Clean);
    let late = ask(&server, "?from=start").await;
    for stream in [live, late] {
        let got = rest(stream).await;
        assert!(got.bytes == lines().as_bytes() && got.cut.is_none(), "{} bytes, {:?}", got.bytes.len(), got.cut);
    }
    let url = format!("http://localhost:{}/stream?from=start", server.http_port());
    let output = soon("curl ends", curl(&url, None).output()).await.unwrap();
    assert!(output.status.success() && output.stdout == lines().as_bytes());
}

/// When the grace time is over, what is left is cut: a feed whose client does not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_resets_it() {
    let (feed, publisher) = Feed::live("default", 16 << 20, Lag::Skip);
    let server = TestServer::feed(feed.clone()).await;
    let (idle, stuck) = (ask(&server, "").await, ask(&server, "").await);
    viewed(&feed, 2).await;
    // More than the system takes for one that does not read.
    for _ in 0..150 {
        publisher.publish(Bytes::from(vec![b'x'; 100_000])).await.unwrap();
    }
    let idle = tokio::spawn(rest(idle));
    server.stop.cancel();
    soon("it stops", async {
        while !server.running.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(idle.await.unwrap().cut.is_some(), "the one that reads looks whole");
    assert!(rest(stuck).await.cut.is_some(), "the one that does not read looks whole");
}
