//! Sources that send what no text is, too much, nothing, or do not want to end.
//!
//! Some tests look at the memory of a process, so those of this file run one after the other.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;
#[path = "common/serving.rs"]
mod serving;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{TestServer, soon};
use futures_util::{StreamExt, stream};
use h3cast::{
    feed::{End, Feed, Gap, Lag, Publisher, Start},
    format::frames::{Frame, FrameDecoder},
    source::chunker::{Chunker, Chunking, MAX_CHUNK},
};
use http::Uri;
use serving::{Reading, Serving, gone, kill, memory};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

/// Held by the test that runs.
static ALONE: Mutex<()> = Mutex::const_new(());

const MIB: u64 = 1 << 20;

/// Bytes that a seed gives again: a linear congruential generator (Knuth's MMIX), its high byte.
fn random(seed: u64) -> impl Iterator<Item = u8> {
    std::iter::successors(Some(seed), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
    .map(|state| (state >> 56) as u8)
}

/// Frames as they come over either transport.
struct Frames {
    reading: Reading,
    decoder: FrameDecoder,
}

impl Frames {
    async fn open(connection: &h3cast::client::Connection, uri: &Uri, webtransport: bool) -> Self {
        Self { reading: Reading::open(connection, uri, webtransport).await, decoder: FrameDecoder::new(MIB) }
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.pop().unwrap() {
                return Some(frame);
            }
            match self.reading.next().await.unwrap() {
                Some(bytes) => self.decoder.push(&bytes),
                None => {
                    assert!(self.decoder.at_boundary());
                    return None;
                }
            }
        }
    }

    /// The chunks up to the clean end, numbered without a gap from 0.
    async fn chunks(&mut self) -> Vec<Bytes> {
        assert!(matches!(self.next().await, Some(Frame::Begin { .. })));
        let mut chunks = Vec::new();
        loop {
            match self.next().await {
                Some(Frame::Chunk { seq, bytes, .. }) => {
                    assert_eq!(seq, chunks.len() as u64);
                    chunks.push(bytes);
                }
                Some(Frame::Heartbeat) => {}
                Some(Frame::End(End::Clean)) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(self.next().await, None);
        chunks
    }
}

/// The `data` of each event up to the `end`.
fn events(sse: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(sse).expect("an event stream is UTF-8");
    let mut events = Vec::new();
    for event in text.split_terminator("\n\n") {
        if event.ends_with("event: end\ndata: {}") {
            return events;
        }
        let lines: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        if event.lines().any(|line| line.starts_with("id: ")) {
            events.push(lines.join("\n"));
        }
    }
    panic!("no end: {}", events.len());
}

#[tokio::test]
async fn bytes_that_are_no_text() {
    let _alone = ALONE.lock().await;
    // Every byte, stray continuations, an overlong form, a surrogate, a character cut off, NUL, and
    // whatever else 200 kB of noise has.
    let mut sent: Vec<u8> = (0..=255).collect();
    sent.extend(b"\n\x80\xbf\n\xc0\xaf\n\xed\xa0\x80\n\xf0\x9f\xa6\n\0\0\n");
    sent.extend(random(7).take(200_000));
    let mut serving = Serving::start(|_| vec!["-"]);
    serving.stdin.take().unwrap().write_all(&sent).unwrap();
    let connection = serving.connect().await;
    let lines: Vec<&[u8]> = sent.split_inclusive(|byte| *byte == b'\n').collect();
    for webtransport in [false, true] {
        let uri = |format: &str| serving.uri(&format!("/stream?from=start&format={format}"));
        let raw = Reading::open(&connection, &uri("raw"), webtransport).await.all().await;
        assert!(raw == sent, "{} bytes of {}", raw.len(), sent.len());
        let chunks = Frames::open(&connection, &uri("frames"), webtransport).await.chunks().await;
        assert!(chunks == lines, "{} chunks of {} lines", chunks.len(), lines.len());
        let sse = Reading::open(&connection, &uri("sse"), webtransport).await.all().await;
        let expected: Vec<_> = lines
            .iter()
            .map(|line| {
                let text = String::from_utf8_lossy(line);
                let text = text.strip_suffix('\n').unwrap_or(&text);
                text.strip_suffix('\r').unwrap_or(text).replace('\r', "\n")
            })
            .collect();
        assert!(events(&sse) == expected);
    }
    serving.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_100_megabytes() {
    let _alone = ALONE.lock().await;
    const LINE: usize = 100_000_000;
    let mut serving = Serving::start(|_| vec!["-", "--history", "8M", "--lag", "block"]);
    let connection = serving.connect().await;
    let before = serving.memory();
    let uri = serving.uri("/stream?from=start&format=frames");
    let mut viewers = Vec::new();
    for webtransport in [false, true] {
        let mut frames = Frames::open(&connection, &uri, webtransport).await;
        viewers.push(tokio::spawn(async move {
            let (mut hash, mut size, mut expected) = (Sha256::new(), 0, 0);
            assert!(matches!(frames.next().await, Some(Frame::Begin { .. })));
            loop {
                match frames.next().await {
                    Some(Frame::Chunk { seq, bytes, .. }) => {
                        assert_eq!(seq, expected);
                        assert!(bytes.len() <= MAX_CHUNK);
                        hash.update(&bytes);
                        (size, expected) = (size + bytes.len(), expected + 1);
                    }
                    Some(Frame::End(End::Clean)) => return (hash.finalize(), size, expected),
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    serving.until(&connection, "viewers", |viewers| viewers == 2).await;
    let mut stdin = serving.stdin.take().unwrap();
    let began = Instant::now();
    let fed = tokio::task::spawn_blocking(move || {
        let piece: Vec<u8> = random(1).map(|byte| if byte == b'\n' { b'x' } else { byte }).take(1_000_000).collect();
        let mut hash = Sha256::new();
        for _ in 0..LINE / piece.len() {
            stdin.write_all(&piece).unwrap();
            hash.update(&piece);
        }
        stdin.write_all(b"\n").unwrap();
        hash.update(b"\n");
        hash.finalize()
    });
    let mut most = 0;
    let mut all = std::pin::pin!(futures_util::future::join_all(viewers));
    let got = loop {
        tokio::select! {
            got = &mut all => break got,
            () = tokio::time::sleep(Duration::from_millis(50)) => most = most.max(serving.memory()),
        }
        assert!(began.elapsed() < Duration::from_secs(90), "too slow");
    };
    let expected = fed.await.unwrap();
    for got in got {
        let (hash, size, chunks) = got.unwrap();
        assert_eq!((size, chunks), (LINE + 1, (LINE + 1).div_ceil(MAX_CHUNK) as u64));
        assert_eq!(hash, expected);
    }
    let grown = most.saturating_sub(before) / MIB;
    println!("100 MB to two viewers in {:?}, grown by {grown} MiB at most", began.elapsed());
    // The ring, once more for its frames, the windows of one connection, and the allocator's share.
    assert!(grown < 40, "grew by {grown} MiB");
    connection.close().await;
    serving.stop();
}

/// What is empty is a chunk like any other where there are chunks, and nothing where there are bytes.
#[tokio::test]
async fn chunks_without_bytes() {
    let _alone = ALONE.lock().await;
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let server = TestServer::feed(feed.clone()).await;
    let connection = server.connect().await;
    let texts = ["", "", "one\n", "", "two\n", "", ""];
    let mut viewers = Vec::new();
    for webtransport in [false, true] {
        for format in ["raw", "sse", "frames"] {
            let uri = server.uri(&format!("/stream?format={format}&from=start"));
            viewers.push((format, webtransport, Reading::open(&connection, &uri, webtransport).await));
        }
    }
    for text in texts {
        publisher.publish(text.into()).await.unwrap();
    }
    let status = feed.status();
    assert_eq!((status.chunks, status.bytes), (7, 8));
    // Those that are there get all of them before the end is known.
    for (format, webtransport, reading) in &mut viewers {
        let until: &[u8] = match *format {
            "raw" => b"two\n",
            "sse" => b"-6\ndata: \n\n",
            _ => b"two\n",
        };
        let mut got = Vec::new();
        while !got.ends_with(until) {
            got.extend_from_slice(&reading.next().await.unwrap().expect("the feed is not at its end"));
            if *format == "frames" && got.windows(until.len()).any(|part| part == until) {
                break;
            }
        }
        if *format == "raw" {
            assert_eq!(got, b"one\ntwo\n", "{webtransport}");
        }
    }
    publisher.end(End::Clean);
    for (_, _, reading) in &mut viewers {
        reading.all().await;
    }
    for webtransport in [false, true] {
        let uri = |query: &str| server.uri(&format!("/stream?from=start&{query}"));
        assert_eq!(Reading::open(&connection, &uri("format=raw"), webtransport).await.all().await, b"one\ntwo\n");
        let sse = Reading::open(&connection, &uri("format=sse"), webtransport).await.all().await;
        assert_eq!(events(&sse), ["", "", "one", "", "two", "", ""]);
        let chunks = Frames::open(&connection, &uri("format=frames"), webtransport).await.chunks().await;
        assert_eq!(chunks, texts);
        // They count, too.
        assert_eq!(Reading::open(&connection, &uri("format=raw&limit=3"), webtransport).await.all().await, b"one\n");
        assert_eq!(Reading::open(&connection, &uri("format=raw&limit=2"), webtransport).await.all().await, b"");
    }
}

/// A command that prints as fast as it can, in each way of treating those who are too slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_floods() {
    let _alone = ALONE.lock().await;
    for lag in ["skip", "disconnect", "block"] {
        let serving =
            Serving::start(|_| vec!["exec:yes 0123456789abcde", "--chunk=bytes", "--history=8M", "--lag", lag]);
        let (slow, fast) = (serving.connect().await, serving.connect().await);
        let before = serving.memory();
        let uri = serving.uri("/stream?format=frames");
        // It has joined, and reads nothing.
        let stopped = Reading::open(&slow, &uri, false).await;
        if lag == "block" {
            // The producer stands still when all that may be kept for the slow one is full.
            let bytes = standstill(&serving, &fast).await;
            let grown = serving.memory().saturating_sub(before) / MIB;
            println!("block: stands at {} MiB, grown by {grown} MiB", bytes / MIB);
            // The ring, the windows of both sides, and what the command made before anybody viewed it.
            assert!(grown < 40, "grew by {grown} MiB");
            // It goes on as soon as the slow one does.
            let mut reading = Frames { reading: stopped, decoder: FrameDecoder::new(MIB) };
            let mut read = 0;
            let mut next = None;
            while read < 32 * MIB {
                if let Some(Frame::Chunk { seq, bytes: chunk, .. }) = reading.next().await {
                    assert!(next.is_none_or(|next| next == seq), "{next:?} {seq}");
                    next = Some(seq + 1);
                    read += chunk.len() as u64;
                }
            }
            serving.until(&fast, "bytes", |now| now > bytes + 8 * MIB).await;
            assert_eq!(serving.feeds(&fast).await[0]["skipped"], 0);
            drop((reading, slow));
        } else {
            // One that reads gets what is made, in order, beside it.
            let mut frames = Frames::open(&fast, &uri, true).await;
            let (mut read, mut next, mut gaps) = (0, None, 0);
            while read < 32 * MIB {
                match frames.next().await {
                    Some(Frame::Chunk { seq, bytes, .. }) => {
                        assert!(next.is_none_or(|next| next == seq), "{next:?} {seq}");
                        next = Some(seq + 1);
                        read += bytes.len() as u64;
                    }
                    // The command may be faster than anybody; then it is told.
                    Some(Frame::Gap(Gap { from, missing, restarted: false })) => {
                        assert!(next.is_none_or(|next| next == from), "{next:?} {from}");
                        next = Some(from + missing);
                        gaps += 1;
                        if lag == "disconnect" {
                            assert_eq!(frames.next().await, None);
                            frames = Frames::open(&fast, &uri, true).await;
                            next = None;
                        }
                    }
                    Some(Frame::Begin { .. }) => {}
                    other => panic!("{other:?}"),
                }
            }
            let grown = serving.memory().saturating_sub(before) / MIB;
            println!("{lag}: {gaps} gaps in {} MiB, grown by {grown} MiB", read / MIB);
            assert!(grown < 64, "grew by {grown} MiB");
            // The slow one is told of what it missed when it reads on: a gap, and then the end or more.
            let mut slow = Frames { reading: stopped, decoder: FrameDecoder::new(MIB) };
            let gap = loop {
                match slow.next().await.expect("the gap is told first") {
                    Frame::Gap(gap) => break gap,
                    Frame::Begin { .. } | Frame::Chunk { .. } | Frame::Heartbeat => {}
                    other => panic!("{other:?}"),
                }
            };
            assert!(gap.missing > 0);
            match slow.next().await {
                None => assert_eq!(lag, "disconnect"),
                // It may have been overtaken once more on the way.
                Some(Frame::Chunk { seq: next, .. } | Frame::Gap(Gap { from: next, .. })) => {
                    assert_eq!((lag, next), ("skip", gap.from + gap.missing));
                }
                other => panic!("{other:?}"),
            }
        }
        drop(fast);
        println!("{lag}: stopped in {:?}", serving.stop());
    }
}

/// Waits until a feed's producer has made nothing for a while, and says how much there is then.
async fn standstill(serving: &Serving, connection: &h3cast::client::Connection) -> u64 {
    const STILL: u32 = 10;
    let (mut last, mut same) = (0, 0);
    soon("the producer stands still", async {
        while same < STILL {
            // That nothing happens can only be seen by looking for some time.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = serving.feeds(connection).await[0]["bytes"].as_u64().unwrap();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    })
    .await
}

/// A command may say on standard error what it likes; it is logged line by line and not gathered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_floods_standard_error() {
    let _alone = ALONE.lock().await;
    for flood in ["yes on standard error", "cat /dev/zero"] {
        let command = format!("exec:{flood} >&2 & while :; do echo here; sleep 0.05; done");
        let serving = Serving::start(|_| vec![command.as_str(), "--stderr", "log", "--log", "warn"]);
        let connection = serving.connect().await;
        let mut reading = Reading::open(&connection, &serving.uri("/stream?from=start"), false).await;
        assert!(reading.line().await.contains("here\n"));
        let before = serving.memory();
        for _ in 0..40 {
            reading.line().await;
        }
        let grown = serving.memory().saturating_sub(before) / MIB;
        println!("`{flood}`: grown by {grown} MiB in two seconds");
        assert!(grown < 16, "`{flood}`: grew by {grown} MiB");
        drop((reading, connection));
        serving.stop();
    }
}

/// Stops the program while each of these commands has a viewer, and gives the processes that are left of
/// those that the commands have told.
async fn left_of(commands: &[(&str, &str)], more: &[&str]) -> Vec<String> {
    let serving = Serving::start(|_| {
        let sources = commands.iter().map(|(name, command)| format!("{name}=exec:{command}"));
        sources.chain(more.iter().map(ToString::to_string)).collect()
    });
    let connection = serving.connect().await;
    let (mut readings, mut pids) = (Vec::new(), Vec::new());
    for (number, (name, _)) in commands.iter().enumerate() {
        let uri = serving.uri(&format!("/stream/{name}?from=start"));
        let mut reading = Reading::open(&connection, &uri, number % 2 == 1).await;
        pids.extend(reading.line().await.split_whitespace().map(String::from));
        readings.push(reading);
    }
    let stopping = tokio::task::spawn_blocking(|| serving.stop());
    let took = soon("the end", stopping).await.unwrap();
    let left = gone(&pids);
    kill(&left);
    println!("{more:?}: {} processes, {} left, stopped in {took:?}", pids.len(), left.len());
    left
}

/// Processes that do not heed a signal that asks, and those of their own, end with the program.
#[tokio::test]
async fn commands_that_do_not_want_to_end() {
    let _alone = ALONE.lock().await;
    let commands = [
        ("ignores", "trap '' TERM INT HUP; echo $$; while :; do sleep 1; done"),
        ("children", "trap '' TERM; (trap '' TERM; sleep 1000 & echo $$ $!; wait) & wait"),
        ("deaf", "echo $$; exec >/dev/null 2>&1; sleep 1000"),
    ];
    let none: [String; 0] = [];
    assert_eq!(left_of(&commands, &["--grace=1s"]).await, none);
    assert_eq!(left_of(&commands, &["--per-viewer", "--grace=1s"]).await, none);
    // The program does not wait for streams here.
    assert_eq!(left_of(&commands, &["--per-viewer", "--grace=0s"]).await, none);
}

/// What a command has started belongs to it, even when its shell has ended by itself before.
#[tokio::test]
async fn processes_that_outlive_their_command() {
    let _alone = ALONE.lock().await;
    let commands = [("quiet", "sleep 1000 >/dev/null 2>&1 & echo $!"), ("heard", "sleep 1000 & echo $!")];
    let none: [String; 0] = [];
    for command in commands {
        assert_eq!(left_of(&[command], &["--grace=1s"]).await, none);
        assert_eq!(left_of(&[command], &["--grace=1s", "--per-viewer"]).await, none);
    }
}

/// Who asks twice does not want to wait, and wants nothing left behind all the same.
#[tokio::test]
async fn the_second_signal_leaves_no_command() {
    let _alone = ALONE.lock().await;
    const VIEWERS: usize = 20;
    let serving = Serving::start(|_| vec!["exec:echo $$; exec sleep 1000", "--per-viewer", "--grace=15s"]);
    let connection = serving.connect().await;
    let (mut readings, mut pids) = (Vec::new(), Vec::new());
    for _ in 0..VIEWERS {
        let mut reading = Reading::open(&connection, &serving.uri("/stream"), false).await;
        pids.push(reading.line().await.trim().to_owned());
        readings.push(reading);
    }
    let stopping = tokio::task::spawn_blocking(|| serving.stop_at_once());
    soon("the end", stopping).await.unwrap();
    let left = gone(&pids);
    kill(&left);
    assert!(left.is_empty(), "{} processes are left of {VIEWERS}", left.len());
}

/// A log that is written to without a pause, while it is rotated again and again: every line comes once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_continuous_writing() {
    let _alone = ALONE.lock().await;
    const ROTATIONS: u64 = 20;
    /// How far the writer may be ahead, in lines.
    const AHEAD: u64 = 5_000;
    let serving = Serving::start(|dir| {
        std::fs::write(dir.join("log"), "").unwrap();
        vec!["tail:log", "--lag", "block"]
    });
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream?from=start"), true).await;
    let log = serving.dir().join("log");
    // How many lines the viewer has seen.
    let (seen_tx, seen_rx) = tokio::sync::watch::channel(0_u64);
    let writing = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Handle::current();
        let open = || std::fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        let (mut file, mut number, mut begun, mut rotations, mut seen_rx) = (open(), 0_u64, 0, 0, seen_rx);
        while rotations < ROTATIONS {
            runtime.block_on(seen_rx.wait_for(|seen| seen + AHEAD > number)).unwrap();
            let lines: String = (number..number + 50).map(|number| format!("line {number}\n")).collect();
            file.write_all(lines.as_bytes()).unwrap();
            number += 50;
            // Once something of this file has been seen: who follows a name loses a file that comes and
            // goes before the one before it has been read.
            if *seen_rx.borrow() > begun && number - begun > 1000 {
                std::fs::rename(&log, log.with_extension(rotations.to_string())).unwrap();
                (file, begun, rotations) = (open(), number, rotations + 1);
            }
        }
        file.write_all(b"the end\n").unwrap();
        number
    });
    let (mut text, mut seen) = (String::new(), 0_u64);
    'reading: loop {
        text += &reading.line().await;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        for line in text.drain(..whole).as_str().lines() {
            if line == "the end" {
                break 'reading;
            }
            assert_eq!(line, format!("line {seen}"));
            seen += 1;
        }
        seen_tx.send_replace(seen);
    }
    assert_eq!(seen, soon("the writer ends", writing).await.unwrap());
    println!("{seen} lines through {ROTATIONS} rotations");
    serving.stop();
}

/// copytruncate: what was read before the cut comes once, and what is written behind it too. What is
/// written between the copy and the cut is lost to everybody, so nothing is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncation_again_and_again() {
    let _alone = ALONE.lock().await;
    let serving = Serving::start(|dir| {
        std::fs::write(dir.join("log"), "").unwrap();
        vec!["tail:log"]
    });
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream?from=start"), false).await;
    let log = serving.dir().join("log");
    let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    for round in 0..10 {
        // Shorter each time, so that what is there after the cut is always less than before it.
        let lines: String = (0..1000 - 100 * round).map(|number| format!("round {round} line {number}\n")).collect();
        file.write_all(lines.as_bytes()).unwrap();
        let mut got = String::new();
        while got.len() < lines.len() {
            got += &reading.line().await;
        }
        assert_eq!(got, lines);
        file.set_len(0).unwrap();
    }
    serving.stop();
}

/// What a chunk costs beside its bytes, when it comes alone: lines of a source that is not in a hurry.
#[tokio::test]
async fn lines_that_come_one_by_one() {
    let _alone = ALONE.lock().await;
    const LINES: usize = 20_000;
    let (mut writer, reader) = tokio::io::duplex(1024);
    let mut chunker = Chunker::new(reader, Chunking::Lines);
    let (feed, publisher) = Feed::live("default", 8 << 20, Lag::Skip);
    let before = memory(std::process::id());
    for number in 0..LINES {
        tokio::io::AsyncWriteExt::write_all(&mut writer, format!("line {number}\n").as_bytes()).await.unwrap();
        let chunk = soon("the line", chunker.next()).await.unwrap().unwrap();
        publisher.publish(chunk).await.unwrap();
    }
    let (kept, grown) = (feed.status().kept_bytes, memory(std::process::id()).saturating_sub(before));
    println!("{LINES} lines: {} KiB kept by the feed's own account, {} KiB in fact", kept >> 10, grown >> 10);
    assert!(grown < 2 * kept as u64 + 2 * MIB, "{grown} bytes for a ring of {kept}");
}

/// A feed that is silent remembers none of the viewers that came and went meanwhile.
#[tokio::test]
async fn viewers_that_come_and_go_in_silence() {
    let _alone = ALONE.lock().await;
    const VIEWERS: u64 = 100_000;
    let (feed, _publisher): (Feed, Publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let visit = |_| {
        let mut viewer = feed.view(Start::Now, None);
        // A task of its own, as each request has; it is given up while it waits for a chunk.
        let task = tokio::spawn(async move { viewer.next().await.is_some() });
        async move {
            tokio::task::yield_now().await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
    };
    let before = memory(std::process::id());
    stream::iter(0..VIEWERS).for_each(visit).await;
    let grown = memory(std::process::id()).saturating_sub(before);
    assert_eq!(feed.status().viewers, 0);
    println!("{VIEWERS} viewers have come and gone: grown by {} KiB", grown >> 10);
    assert!(grown < 4 * MIB, "{} bytes of each viewer are left", grown / VIEWERS);
}
