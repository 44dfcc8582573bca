//! The examples as a reader runs them. `cargo test` builds them; `cargo test --test examples` alone
//! needs `cargo build --examples` first.
#![cfg(feature = "cli")]

mod common;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use common::soon;
use h3cast::client::{ClientResponse, Connection, Trust};
use http::{HeaderMap, Request, Uri};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long to wait for a line.
const DEADLINE: Duration = Duration::from_secs(60);

fn example(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_h3cast")).with_file_name("examples").join(name);
    assert!(program.is_file(), "{} is not built: cargo build --examples", program.display());
    program
}

/// An example that serves, in a folder of its own, until dropped.
struct Server {
    process: Child,
    lines: mpsc::Receiver<String>,
    url: String,
    dir: TempDir,
    certificate: PathBuf,
}

impl Server {
    fn start(name: &str, args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), name, args)
    }

    fn start_in(dir: TempDir, name: &str, args: &[&str]) -> Self {
        let mut command = Command::new(example(name));
        let mut process = command.current_dir(dir.path()).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let (tx, lines) = mpsc::channel();
        let out = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tx.send(line)));
        let certificate = dir.path().join("certs/cert.pem");
        let mut server = Self { process, lines, url: String::new(), dir, certificate };
        server.url = server.line("ready ").strip_prefix("ready ").unwrap().to_owned();
        server
    }

    /// The next line that begins so.
    fn line(&self, start: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no line began with {start:?}"));
            if line.starts_with(start) {
                return line;
            }
        }
    }

    fn uri(&self, path: &str) -> Uri {
        format!("{}{path}", self.url).parse().unwrap()
    }

    async fn connect(&self) -> Connection {
        let trust = Trust::Files(vec![self.certificate.clone()]);
        soon("a connection", Connection::open(&self.uri(""), &trust)).await.unwrap()
    }

    /// What the client example prints.
    fn read_by_client(&self) -> Output {
        Command::new(example("client")).arg(&self.url).arg(&self.certificate).output().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn text(mut response: ClientResponse) -> String {
    let mut text = Vec::new();
    while let Some(bytes) = soon("the body", response.body.next()).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn both_ways_of_streaming_and_the_client() {
    let expected: String = (0..10).map(|number| format!("data chunk #{number}\n")).collect();
    for name in ["response_stream", "takeover"] {
        let server = Server::start(name, &["localhost:0"]);
        let got = server.read_by_client();
        assert_eq!(String::from_utf8_lossy(&got.stdout), expected, "{name}: {}", String::from_utf8_lossy(&got.stderr));
        assert!(got.status.success());

        let connection = server.connect().await;
        let mut response = soon("the head", connection.get(&server.uri(""))).await.unwrap();
        // What a browser's window needs to show chunks as they come.
        assert_eq!(response.headers["content-type"], "text/plain; charset=utf-8", "{name}");
        assert_eq!(response.headers["x-content-type-options"], "nosniff", "{name}");
        let first = soon("the first chunk", response.body.next()).await.unwrap().unwrap();
        assert_eq!(first, "data chunk #0\n", "{name}: chunks are not joined");
    }
}

#[tokio::test]
async fn an_axum_app() {
    let server = Server::start("axum_app", &["localhost:0"]);
    let connection = server.connect().await;
    let response = soon("the head", connection.get(&server.uri("hello/world"))).await.unwrap();
    assert_eq!(response.headers["server"], "axum", "its layers apply");
    assert_eq!(text(response).await, "hello world over HTTP/3.0\n");
    assert_eq!(text(soon("the head", connection.get(&server.uri("visits"))).await.unwrap()).await, "1");
}

#[tokio::test]
async fn an_app_under_a_prefix() {
    let server = Server::start("app_under_prefix", &["localhost:0", "localhost:0"]);
    let connection = server.connect().await;
    let get = async |path: &str| text(soon("the head", connection.get(&server.uri(path))).await.unwrap()).await;
    assert!(get("").await.contains("href=\"live\""));
    assert!(get("live/stream").await.ends_with("data chunk #9\n"));
    assert!(get("live/info").await.contains(&format!("\"{}live/stream\"", server.url)));
    assert!(get("live/index.html").await.contains("<!doctype html>"));
    let uri = server.uri("live/stream");
    let session = soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    let mut chunks = String::new();
    let mut stream = soon("its stream", session.accept_uni()).await.unwrap();
    soon("the chunks", stream.read_to_string(&mut chunks)).await.unwrap();
    assert!(chunks.ends_with("data chunk #9\n"), "{chunks}");
}

#[tokio::test]
async fn a_webtransport_echo() {
    let server = Server::start("webtransport_echo", &["localhost:0", "localhost:0"]);
    let connection = server.connect().await;
    let uri = server.uri("echo");
    let session = soon("the session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    for word in ["one", "two"] {
        let (mut send, mut recv) = soon("a stream", session.open_bi()).await.unwrap();
        send.write_all(word.as_bytes()).await.unwrap();
        send.finish().unwrap();
        let mut echo = String::new();
        soon("the echo", recv.read_to_string(&mut echo)).await.unwrap();
        assert_eq!(echo, word);
    }
    session.send_datagram("three".into()).unwrap();
    assert_eq!(soon("the datagram", session.recv_datagram()).await.unwrap(), "three");
    let page = text(soon("the page", connection.get(&server.uri(""))).await.unwrap()).await;
    assert!(page.contains("new WebTransport(url"), "{page}");
}

#[tokio::test]
async fn telemetry_in_datagrams() {
    let server = Server::start("datagram_telemetry", &["localhost:0", "localhost:0"]);
    let connection = server.connect().await;
    let uri = server.uri("telemetry");
    let session = soon("the session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    let mut last = None;
    for _ in 0..5 {
        let datagram = soon("a reading", session.recv_datagram()).await.unwrap();
        let reading: serde_json::Value = serde_json::from_slice(&datagram).unwrap();
        assert!((19.0..=21.0).contains(&reading["celsius"].as_f64().unwrap()), "{reading}");
        let number = reading["number"].as_u64();
        assert!(number > last, "{number:?} after {last:?}");
        last = number;
    }
}

// The connection needs a thread while the test waits for a line.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tokens_stop_when_the_client_disconnects() {
    let server = Server::start("llm_tokens", &["localhost:0"]);
    let connection = server.connect().await;
    let complete = soon("the head", connection.get(&server.uri("?prompt=why+me&max_tokens=3"))).await.unwrap();
    assert_eq!(complete.headers["x-content-type-options"], "nosniff");
    assert_eq!(text(complete).await, "why me why ");
    assert_eq!(server.line("complete"), "complete after 3 tokens");

    let endless = server.uri("?prompt=why&max_tokens=1000000000");
    let mut cancelled = soon("the head", connection.get(&endless)).await.unwrap();
    assert_eq!(soon("a token", cancelled.body.next()).await.unwrap().unwrap(), "why ");
    drop(cancelled);
    server.line("cancelled after ");

    // The whole connection, as when a tab is closed.
    let mut cancelled = soon("the head", connection.get(&endless)).await.unwrap();
    assert_eq!(soon("a token", cancelled.body.next()).await.unwrap().unwrap(), "why ");
    connection.close().await;
    server.line("cancelled after ");
}

#[tokio::test]
async fn a_file_that_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let whole: Vec<u8> = (0..300_000_u32).flat_map(|number| number.to_be_bytes()).collect();
    std::fs::write(dir.path().join("file"), &whole).unwrap();
    let server = Server::start_in(dir, "file_transfer", &["serve", "file", "localhost:0"]);
    let path = |name: &str| server.dir.path().join(name);
    let get = || {
        let mut command = Command::new(example("file_transfer"));
        let got = command.current_dir(server.dir.path()).args(["get", &server.url, "copy"]).output().unwrap();
        assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
        assert_eq!(std::fs::read(path("copy")).unwrap(), whole);
        assert!(!path("copy.part").exists() && !path("copy.date").exists());
        (String::from_utf8(got.stdout).unwrap(), String::from_utf8(got.stderr).unwrap())
    };
    let (said, _) = get();
    assert_eq!(said, "", "nothing was there to continue");

    // As an earlier run left it.
    let request = Request::head(server.uri("")).body(()).unwrap();
    let head = soon("the head", server.connect().await.request(request)).await.unwrap();
    let version = head.headers["last-modified"].to_str().unwrap();
    std::fs::write(path("copy.part"), &whole[..100_001]).unwrap();
    std::fs::write(path("copy.date"), version).unwrap();
    assert_eq!(get().0, "continuing after 100001 bytes\n");

    // The part of another version is not continued.
    std::fs::write(path("copy.part"), "something else").unwrap();
    std::fs::write(path("copy.date"), "Fri, 09 Aug 1996 14:21:40 GMT").unwrap();
    let (said, log) = get();
    assert_eq!(said, "continuing after 14 bytes\n");
    assert_eq!(log, "cannot continue: 412 Precondition Failed; trying again\n");
}

#[test]
fn a_download_that_is_killed_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    // More than can arrive between two looks at the part.
    let whole: Vec<u8> = (0..12_000_000_u32).flat_map(|number| number.to_be_bytes()).collect();
    std::fs::write(dir.path().join("file"), &whole).unwrap();
    let server = Server::start_in(dir, "file_transfer", &["serve", "file", "localhost:0"]);
    let path = |name: &str| server.dir.path().join(name);
    let mut command = Command::new(example("file_transfer"));
    command.current_dir(server.dir.path()).args(["get", &server.url, "copy"]);
    let mut first = command.spawn().unwrap();
    let until = Instant::now() + DEADLINE;
    while std::fs::metadata(path("copy.part")).map_or(0, |part| part.len()) == 0 {
        assert!(Instant::now() < until && first.try_wait().unwrap().is_none(), "nothing arrived");
        std::thread::sleep(Duration::from_millis(1));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(!path("copy").exists());
    let second = command.output().unwrap();
    let said = String::from_utf8(second.stdout).unwrap();
    let have: u64 = said.strip_prefix("continuing after ").unwrap().strip_suffix(" bytes\n").unwrap().parse().unwrap();
    assert!((1..whole.len() as u64).contains(&have), "{have}");
    assert!(second.status.success() && std::fs::read(path("copy")).unwrap() == whole);
}

#[test]
fn a_certificate_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let identity = h3cast::Identity::self_signed(dir.path(), &[], Default::default()).unwrap();
    let (certificate, key) = (identity.certificate_path(), identity.key_path());
    let args = [certificate.to_str().unwrap(), key.to_str().unwrap(), "localhost:0"];
    let mut server = Server::start("own_certificate", &args);
    server.certificate = certificate.clone();
    let got = server.read_by_client();
    assert_eq!(String::from_utf8_lossy(&got.stdout), "hello over HTTP/3, 2 and 1.1\n");

    let usage = Command::new(example("own_certificate")).output().unwrap();
    assert!(!usage.status.success());
    assert!(String::from_utf8_lossy(&usage.stderr).contains("usage: own_certificate CERTIFICATE KEY"));
}

/// What an example's head must say: what its `[dependencies]` are, all of them, and how to run it.
#[test]
fn every_example_says_what_it_needs() {
    let known = [
        "anyhow",
        "axum",
        "bytes",
        "futures_util",
        "h3cast",
        "h3cast_feed",
        "h3cast_transport",
        "http",
        "serde",
        "serde_json",
        "tokio",
        "tokio_util",
        "tower",
        "tower_http",
    ];
    let folders = [
        ("examples", ""),
        ("crates/feed/examples", "-p h3cast-feed "),
        ("crates/transport/examples", "-p h3cast-transport "),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = folders.iter().map(|(folder, package)| (std::fs::read_dir(root.join(folder)).unwrap(), *package));
    for (entry, package) in listed.flat_map(|(entries, package)| entries.map(move |entry| (entry, package))) {
        let path = entry.unwrap().path();
        let Some(name) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".rs") else { continue };
        let source = std::fs::read_to_string(&path).unwrap();
        assert!(source.contains(&format!("//! cargo run {package}--example {name}")), "{name}: how to run it");
        let (_, block) =
            source.split_once("//! [dependencies]\n").unwrap_or_else(|| panic!("{name}: no [dependencies]"));
        let (block, code) = block.split_once("//! ```\n").unwrap();
        let listed: Vec<_> = block.lines().map(|line| line[4..].split(' ').next().unwrap().replace('-', "_")).collect();
        // `axum::http::` is not `http::`.
        let uses =
            |krate: &str| code.match_indices(&format!("{krate}::")).any(|(at, _)| !code[..at].ends_with([':', '_']));
        for listed in &listed {
            assert!(uses(listed), "{name}: {listed} is not used");
        }
        for used in known.iter().filter(|known| uses(known)) {
            assert!(listed.iter().any(|listed| listed == used), "{name}: {used} is not listed");
        }
    }
}
