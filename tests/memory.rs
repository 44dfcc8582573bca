//! What the program holds in memory, as its settings say.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;
#[path = "common/serving.rs"]
mod serving;

use std::{
    io::Write,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use common::{
    raw::{Raw, endpoint, request},
    soon,
};
use h3cast::{client::Connection, webtransport::Closed};
use http::{HeaderMap, StatusCode};
use serving::{Reading, Serving};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
};

/// A history of short lines, read by viewers of every format over both transports: the worst that a history is
/// made of. `crates/feed/tests/history.rs` has other sizes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_of_short_lines_in_three_formats() {
    const HISTORY: u64 = 8 << 20;
    /// Send buffers of the viewers, and what two workers' allocators keep.
    const BUFFERS: u64 = 6 << 20;
    const LINES: usize = 80_000;
    /// So many at once that what is on its way to viewers is little, however slow the machine is: they are charged as long
    /// as a viewer has not got them.
    const STEP: usize = 2000;
    let line = |number: usize| format!("{number:015}");
    let mut serving = Serving::start(|_| vec!["-", "--history", "8M", "--lag", "block", "--workers", "2"]);
    let connection = serving.connect().await;
    let (mut viewers, mut progress) = (Vec::new(), Vec::new());
    for (path, webtransport) in [
        ("/stream", false),
        ("/stream?format=sse", false),
        ("/stream?format=frames", false),
        ("/stream?format=sse", true),
        ("/stream?format=frames", true),
    ] {
        let mut reading = Reading::open(&connection, &serving.uri(path), webtransport).await;
        let (had, has) = watch::channel(0);
        progress.push(has);
        viewers.push(tokio::spawn(async move {
            let (mut next, mut rest) = (STEP, Vec::new());
            // The server stops at the end, and ends some of them in the middle.
            while let Ok(Some(bytes)) = reading.next().await {
                rest.extend_from_slice(&bytes);
                while rest.windows(15).any(|text| text == line(next - 1).as_bytes()) {
                    had.send_replace(next);
                    next += STEP;
                }
                rest.drain(..rest.len().saturating_sub(14));
            }
        }));
    }
    let viewing = viewers.len() as u64;
    serving.until(&connection, "viewers", |viewers| viewers == viewing).await;
    let idle = serving.memory();
    let mut stdin = serving.stdin.take().unwrap();
    for begin in (0..LINES).step_by(STEP) {
        let fed = tokio::task::spawn_blocking(move || {
            (begin..begin + STEP).for_each(|number| writeln!(stdin, "{}", line(number)).unwrap());
            stdin
        });
        stdin = fed.await.unwrap();
        for has in &mut progress {
            soon("a viewer has them", has.wait_for(|had| *had == begin + STEP)).await.unwrap();
        }
    }
    serving.until(&connection, "chunks", |chunks| chunks == LINES as u64).await;
    let kept = serving.feeds(&connection).await[0]["kept_bytes"].as_u64().unwrap();
    let grown = serving.memory().saturating_sub(idle);
    println!("idle {} KiB, {} KiB are charged, grown by {} KiB", idle >> 10, kept >> 10, grown >> 10);
    assert!((HISTORY / 2..=HISTORY / 8 * 9).contains(&kept), "{kept} bytes are charged");
    assert!(grown <= HISTORY * 3 / 2 + BUFFERS, "grew by {grown} bytes for a history of {HISTORY}");
    drop(stdin);
    for viewer in viewers {
        soon("the end", viewer).await.unwrap();
    }
    serving.stop();
}

/// A number of /metrics.
fn metric(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

async fn text(serving: &Serving, connection: &Connection, path: &str) -> String {
    let mut response = soon(path, connection.get(&serving.uri(path))).await.unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = soon(path, response.body.next()).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).unwrap()
}

/// More clients that take nothing than there is memory for: new viewers are refused, the slowest are cut, and the
/// one that reads loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn near_its_limit_viewers_are_refused_and_the_slowest_are_cut() {
    const CHUNK: usize = 32 << 10;
    let mut serving =
        Serving::start(|_| vec!["-", "--chunk", "bytes", "--history", "1M", "--workers", "2", "--memory", "80M"]);
    let mut stdin = serving.stdin.take().unwrap();
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream?format=raw"), false).await;
    let (mut written, mut read) = (0, 0);
    let mut publish = async |bytes: usize| {
        for piece in 0..bytes / CHUNK {
            stdin.write_all(&vec![piece as u8; CHUNK]).unwrap();
            written += CHUNK;
            // Not far ahead, so that it misses nothing.
            while read + 8 * CHUNK < written {
                read += reading.next().await.unwrap().expect("the feed goes on").len();
            }
        }
    };
    // Two that are told: they acknowledge what comes, and read none of it.
    let (one, other) = (serving.connect().await, serving.connect().await);
    let mut response = soon("a response", one.get(&serving.uri("/stream"))).await.unwrap();
    let session = soon("a session", other.webtransport(&serving.uri("/stream"), HeaderMap::new(), &[])).await.unwrap();
    publish(4 << 20).await;
    let before = text(&serving, &connection, "/metrics").await;
    assert_eq!(metric(&before, "h3cast_viewers_cut_total"), 0);
    assert!(metric(&before, "h3cast_memory_bytes") < metric(&before, "h3cast_memory_limit_bytes"));

    // Others fall silent, each with what it was sent.
    let (mut refused, mut silent) = (None, 0);
    let certificate = serving.certificate();
    while silent < 200 {
        let asked = soon("an answer", connection.get(&serving.uri("/stream?limit=0"))).await.unwrap();
        if asked.status == StatusCode::SERVICE_UNAVAILABLE {
            refused = Some((asked.headers.clone(), asked.body));
            break;
        }
        let (runtime, certificate, port) = (tokio::runtime::Runtime::new().unwrap(), certificate.clone(), serving.port);
        let joined = runtime.spawn(async move {
            let raw = Raw::open(endpoint(&certificate, |_| {}), port).await;
            let control = raw.settings().await;
            let mut streams = raw.bi(&request("GET", "/stream")).await;
            // It may be refused by now.
            let _ = soon("a response", streams.1.read_exact(&mut [0])).await;
            (raw, control, streams)
        });
        let client = joined.await;
        // Takes everything with it that could still say goodbye.
        runtime.shutdown_background();
        publish(1 << 20).await;
        drop(client);
        silent += 1;
    }
    let (headers, mut body) = refused.unwrap_or_else(|| panic!("{silent} were admitted"));
    assert_eq!(headers["retry-after"], "5");
    assert_eq!(headers["content-type"], "application/problem+json");
    let problem = soon("the problem", body.next()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&problem).contains("short of memory"), "{problem:?}");
    let session_refused = connection.webtransport(&serving.uri("/stream"), HeaderMap::new(), &[]).await.unwrap_err();
    println!("refused after {silent} silent clients; a session: {session_refused}");
    // More for those that are there, until it is too much.
    soon("viewers are cut", async {
        while metric(&text(&serving, &connection, "/metrics").await, "h3cast_viewers_cut_total") < 2 {
            publish(256 << 10).await;
        }
    })
    .await;
    let after = text(&serving, &connection, "/metrics").await;
    assert!(metric(&after, "h3cast_refused_total{reason=\"memory\"}") >= 1);
    // The first that took nothing are the first that are cut, and know why.
    let lost = async {
        loop {
            match response.body.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it looks whole"),
                Err(error) => return error.to_string(),
            }
        }
    };
    let lost = soon("the response is cut", lost).await;
    let closed = soon("the session is closed", session.closed()).await;
    assert!(lost.contains("EXCESSIVE_LOAD") || lost.contains("0x107"), "{lost}");
    let told = |closed: &Closed| matches!(closed, Closed::Clean { code: 3, reason, by_peer: true } if reason.contains("resume after its last chunk"));
    assert!(told(&closed), "{closed:?}");
    // And when there is memory again, new ones are admitted: what is left of clients that have vanished, their
    // connections, ends after the idle timeout of 30 s at the latest.
    let admitted = async {
        while connection.get(&serving.uri("/stream?limit=0")).await.unwrap().status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), admitted).await.expect("a viewer is admitted");
    drop(stdin);
    while let Some(bytes) = reading.next().await.unwrap() {
        read += bytes.len();
    }
    assert_eq!(read, written);
    serving.stop();
}

/// More TCP connections than there are file descriptors: some are refused and told so, before none is left for
/// anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn near_its_limit_of_open_files_connections_are_refused() {
    const LIMIT: u64 = 120;
    let limited = format!("ulimit -n {LIMIT} && exec \"$@\"");
    let serving = Serving::start_by(&["sh", "-c", &limited, "sh"], |dir| {
        std::fs::write(dir.join("file"), "of a file\n").unwrap();
        vec!["demo", "file=file:file", "--count", "0", "--interval", "20ms"]
    });
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream"), false).await;
    // What the server needs by itself differs between machines.
    let idle = serving.descriptors() as u64;
    assert!(idle < LIMIT / 3, "{idle}");
    let mut crowd = Vec::new();
    for _ in 0..2 * LIMIT {
        // One that is refused is reset.
        crowd.push(soon("a connection", TcpStream::connect(("127.0.0.1", serving.port))).await);
    }
    let refused = "h3cast_refused_total{reason=\"descriptors\"}";
    let shown = soon("all have come", async {
        loop {
            let shown = text(&serving, &connection, "/metrics").await;
            if metric(&shown, refused) >= LIMIT && idle + metric(&shown, "h3cast_connections") > LIMIT * 2 / 3 {
                return shown;
            }
        }
    })
    .await;
    assert_eq!(metric(&shown, "h3cast_descriptors_limit"), LIMIT);
    assert!(metric(&shown, "h3cast_descriptors") <= LIMIT - 16, "{shown}");
    assert!(serving.descriptors() as u64 <= LIMIT - 16);
    // What is there goes on, and nothing spins. What would take one more of them has to wait.
    let refusal = text(&serving, &connection, "/stream/file").await;
    assert!(refusal.contains("short of file descriptors"), "{refusal}");
    let (before, since) = (serving.processor_time(), Instant::now());
    for _ in 0..20 {
        reading.line().await;
    }
    // 400 ms, or more on a busy machine, in which as much more is to be done.
    let (spent, took) = (serving.processor_time() - before, since.elapsed());
    assert!(spent < took.max(Duration::from_millis(400)) / 2, "{spent:?} in {took:?}");
    // When some have gone, others are accepted.
    drop(crowd);
    soon("a connection is accepted", async {
        loop {
            let before = metric(&text(&serving, &connection, "/metrics").await, refused);
            let one = TcpStream::connect(("127.0.0.1", serving.port)).await;
            let shown = text(&serving, &connection, "/metrics").await;
            if one.is_ok() && metric(&shown, refused) == before && metric(&shown, "h3cast_connections") > 1 {
                return;
            }
        }
    })
    .await;
    soon("a file is opened", async { while text(&serving, &connection, "/stream/file").await != "of a file\n" {} })
        .await;
    serving.stop();
}

/// A burst of clients beside a full history: they get no more than there is, and when they have gone, viewers are
/// admitted again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_bounded_and_leaves_nothing() {
    let mut serving = Serving::start(|_| vec!["-", "--chunk", "bytes", "--history", "15M", "--memory", "60M"]);
    let mut stdin = serving.stdin.take().unwrap();
    let connection = serving.connect().await;
    for _ in 0..16 {
        stdin.write_all(&vec![b'x'; 1 << 20]).unwrap();
    }
    serving.until(&connection, "bytes", |bytes| bytes == 16 << 20).await;
    let mut crowd = Vec::new();
    for client in [2, 3].repeat(200) {
        // Silent, so that each has a handshake in progress: 256 of an address may.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, client), 0).into()).unwrap();
        crowd.push(socket.connect((Ipv4Addr::LOCALHOST, serving.port).into()).await);
    }
    let shown = soon("some are refused", async {
        loop {
            let shown = text(&serving, &connection, "/metrics").await;
            if metric(&shown, "h3cast_refused_total{reason=\"memory\"}") > 0 {
                return shown;
            }
        }
    })
    .await;
    let (charged, limit) = (metric(&shown, "h3cast_memory_charged_bytes"), metric(&shown, "h3cast_memory_limit_bytes"));
    // The last one gets in below 95 %; histories are looked at less often.
    assert!(charged <= limit, "{charged} of {limit}");
    let ready = soon("it is not ready", connection.get(&serving.uri("/readyz"))).await.unwrap();
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(crowd);
    // What is left of them goes bit by bit.
    for path in ["/readyz", "/stream?limit=0"] {
        soon(path, async {
            while connection.get(&serving.uri(path)).await.unwrap().status != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    drop(stdin);
    serving.stop();
}
