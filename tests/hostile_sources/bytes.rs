//! Bytes that are not text, long lines, and chunks without bytes.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use h3cast::{
    feed::{End, Feed, Lag},
    format::frames::Frame,
    source::chunker::{Chunker, Chunking, MAX_CHUNK},
};
use sha2::{Digest, Sha256};

use crate::{
    ALONE, Frames, MIB,
    common::{TestServer, soon},
    random,
    serving::{Reading, Serving, memory},
};

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
