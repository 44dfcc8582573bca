//! Many viewers of one feed, viewers that stall, many feeds: what each of them costs.
//!
//! The tests look at the memory of whole processes, so they run one after the other.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;
#[path = "common/serving.rs"]
mod serving;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use common::raw::{Raw, connect, endpoint, request, status};
use common::soon;
use futures_util::{StreamExt, stream};
use h3cast::feed::{End, Event, Feed, Lag, Start};
use serving::{Reading, Serving, gone, kill};
use tokio::sync::Mutex;

/// Held by the test that runs.
static ALONE: Mutex<()> = Mutex::const_new(());

const HISTORY: usize = 8 << 20;
const VIEWERS: usize = 10_000;

/// How many streams each connection of the crowd has: what the server allows.
const STREAMS: usize = 100;

/// What one more GET on a connection may cost the server, in bytes, in a debug build.
const GET_BUDGET: u64 = 32 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_responses_get_the_next_chunk() {
    let _alone = ALONE.lock().await;
    let mut serving = Serving::start(|_| vec!["-", "--history", "8M", "--requests-per-address", "0"]);
    let mut stdin = serving.stdin.take().unwrap();
    let connection = serving.connect().await;
    let filler = format!("{:08191}\n", 0);
    let filling = tokio::task::spawn_blocking(move || {
        for _ in 0..2 * HISTORY / filler.len() {
            stdin.write_all(filler.as_bytes()).unwrap();
        }
        stdin
    });
    let mut stdin = soon("the ring is full", filling).await.unwrap();
    serving.until(&connection, "chunks", |chunks| chunks == (2 * HISTORY / 8192) as u64).await;
    let before = serving.memory();

    let began = Instant::now();
    let client = endpoint(&serving.certificate(), |_| {});
    let (client, port) = (&client, serving.port);
    let crowd: Vec<_> = stream::iter(0..VIEWERS / STREAMS)
        .map(|_| async move {
            let raw = Raw::open(client.clone(), port).await;
            let control = raw.settings().await;
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                let (mut send, recv) = raw.bi(&request("GET", "/stream")).await;
                send.finish().unwrap();
                streams.push(recv);
            }
            for recv in &mut streams {
                assert_eq!(status(recv).await, 200);
            }
            (raw, control, streams)
        })
        .buffer_unordered(4)
        .collect()
        .await;
    serving.until(&connection, "viewers", |viewers| viewers == VIEWERS as u64).await;
    let (joined, there) = (began.elapsed(), serving.memory());

    let published = Instant::now();
    stdin.write_all(b"for everyone\n").unwrap();
    let expected = [&[0, 13], &b"for everyone\n"[..]].concat();
    let read = crowd.into_iter().map(async |(raw, control, mut streams)| {
        for recv in &mut streams {
            let mut data = [0; 15];
            soon("the chunk", recv.read_exact(&mut data)).await.unwrap();
            assert_eq!(data, *expected);
        }
        (raw, control, streams)
    });
    let crowd = futures_util::future::join_all(read).await;
    let (took, after) = (published.elapsed(), serving.memory());
    let each = after.saturating_sub(before) / VIEWERS as u64;
    println!(
        "{VIEWERS} viewers on {} connections there in {joined:?}; a chunk to all in {took:?}; memory {} MiB before, {} \
         with them, {} when all had it: {each} bytes each",
        crowd.len(),
        before >> 20,
        there >> 20,
        after >> 20
    );
    assert!(each < GET_BUDGET, "{each} bytes each");
    drop(crowd);
    serving.until(&connection, "viewers", |viewers| viewers == 0).await;
    connection.close().await;
    println!("stopped in {:?}", serving.stop());
}

/// What a connection keeps for a client that acknowledges nothing, in bytes.
const FIRST_SEND_WINDOW: u64 = 256 << 10;
/// What a connection may pin whose client takes nothing any more, in bytes: what is sent and not
/// acknowledged, the chunks on their way from the feed, and what any connection costs.
const STALLED_BUDGET: u64 = FIRST_SEND_WINDOW + 4 * (64 << 10) + (200 << 10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stalled_viewers_pin() {
    let _alone = ALONE.lock().await;
    const STALLED: usize = 24;
    const CHUNK: usize = 64 << 10;
    // Each gets more to send than it may pin, and no two the same chunks.
    const BETWEEN: usize = 32;
    let mut serving = Serving::start(|_| vec!["-", "--history", "1M", "--chunk", "bytes"]);
    let mut stdin = serving.stdin.take().unwrap();
    let connection = serving.connect().await;
    // Beside them, one that reads keeps its pace.
    let mut reading = Reading::open(&connection, &serving.uri("/stream"), false).await;
    let (mut written, mut read) = (0, 0);
    let mut publish = async || {
        for piece in 0..BETWEEN {
            stdin.write_all(&vec![piece as u8; CHUNK]).unwrap();
            written += CHUNK;
            // Half of the ring ahead at most, so that it misses nothing.
            while read + 8 * CHUNK < written {
                read += reading.next().await.unwrap().unwrap().len();
            }
        }
    };
    // The buffers on the way are filled first.
    publish().await;
    publish().await;
    let before = serving.memory();
    let (certificate, port) = (serving.certificate(), serving.port);
    for number in 0..STALLED {
        // Half of them read nothing and acknowledge it, up to their window; the other half fall silent, as
        // clients do whose network is gone.
        let silent = number % 2 == 0;
        let (certificate, runtime) = (certificate.clone(), tokio::runtime::Runtime::new().unwrap());
        let joined = runtime.spawn(async move {
            let raw = Raw::open(endpoint(&certificate, |_| {}), port).await;
            let control = raw.settings().await;
            let path = "/stream?format=frames";
            let mut streams = raw.bi(&if number % 4 < 2 { request("GET", path) } else { connect(path) }).await;
            assert_eq!(status(&mut streams.1).await, 200);
            (raw, control, streams)
        });
        let client = joined.await.unwrap();
        serving.until(&connection, "viewers", |viewers| viewers == number as u64 + 2).await;
        match silent {
            // Takes everything with it that could still say goodbye.
            true => runtime.shutdown_background(),
            // It lives as long as the test.
            false => std::mem::forget(runtime),
        }
        publish().await;
        // Dropped only now, when nobody can send what it has to say.
        match silent {
            true => drop(client),
            false => std::mem::forget(client),
        }
    }
    let grown = serving.memory().saturating_sub(before);
    println!(
        "{STALLED} stalled viewers of {} MiB: {} KiB each",
        (BETWEEN * CHUNK * STALLED) >> 20,
        (grown >> 10) / STALLED as u64
    );
    assert!(grown < STALLED as u64 * STALLED_BUDGET, "grew by {grown} bytes");
    // If those that are silent did not fill their windows, the test would show nothing.
    assert!(grown > STALLED as u64 / 2 * FIRST_SEND_WINDOW, "grew by {grown} bytes only");
    serving.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_feeds() {
    let _alone = ALONE.lock().await;
    const FEEDS: usize = 500;
    let began = Instant::now();
    let serving = Serving::start(|dir| {
        std::fs::write(dir.join("file"), "of a file\n").unwrap();
        std::fs::write(dir.join("log"), "").unwrap();
        let source = |number: usize| match number % 10 {
            // Ends at once, stays, and stays with a process of its own.
            0..4 => format!("exec:echo feed {number}"),
            4..6 => format!("exec:echo feed {number} $$; exec sleep 1000"),
            6..8 => format!("exec:trap '' TERM; sleep 1000 & echo feed {number} $$ $!; wait"),
            8 => "file:file".into(),
            _ if number < 100 => "tail:log".into(),
            _ => "demo".into(),
        };
        let sources = (0..FEEDS).map(|number| format!("f{number:03}={}", source(number)));
        sources.chain(["--count=2", "--interval=1ms", "--log=warn"].map(String::from)).collect()
    });
    let (started, descriptors) = (began.elapsed(), serving.descriptors());
    let connection = serving.connect().await;
    let feeds = serving.feeds(&connection).await;
    let names: Vec<_> = feeds.iter().map(|feed| feed["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, (0..FEEDS).map(|number| format!("f{number:03}")).collect::<Vec<_>>());

    let mut followed = Vec::new();
    let mut pids = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let uri = serving.uri(&format!("/stream/{name}?from=start"));
        let mut reading = Reading::open(&connection, &uri, number % 3 == 0).await;
        match number % 10 {
            0..4 => assert_eq!(reading.all().await, format!("feed {number}\n").into_bytes()),
            4..8 => {
                let line = reading.line().await;
                let mut words = line.split_whitespace();
                assert_eq!((words.next(), words.next()), (Some("feed"), Some(number.to_string().as_str())));
                pids.extend(words.map(String::from));
            }
            8 => assert_eq!(reading.all().await, b"of a file\n"),
            _ if number < 100 => followed.push(reading),
            _ => assert_eq!(reading.all().await, b"data chunk #0\ndata chunk #1\n"),
        }
    }
    assert_eq!(pids.len(), FEEDS / 10 * 6);
    std::fs::OpenOptions::new().append(true).open(serving.dir().join("log")).unwrap().write_all(b"appended\n").unwrap();
    for reading in &mut followed {
        assert_eq!(reading.line().await, "appended\n");
    }
    let viewed = began.elapsed() - started;
    connection.close().await;
    let stopped = serving.stop();
    println!(
        "{FEEDS} feeds: started in {started:?}, {descriptors} descriptors, viewed in {viewed:?}, stopped in {stopped:?}"
    );
    let left = gone(&pids);
    kill(&left);
    assert!(left.is_empty(), "{} processes are left of {}", left.len(), pids.len());
    assert!(started < Duration::from_secs(15) && stopped < Duration::from_secs(10));
}

/// Many more descriptors than the 1,024 that a shell gives by itself: what the system allows at most
/// (the hard limit) is what counts.
#[tokio::test]
async fn more_commands_than_the_soft_limit_of_open_files() {
    let _alone = ALONE.lock().await;
    const FEEDS: usize = 500;
    let args = (0..FEEDS).map(|number| format!("f{number}=exec:echo $$; exec sleep 1000")).collect();
    let serving = Serving::start_limited(1024, |_| args);
    // To start as many takes a busy machine longer than a client waits for its connection.
    let started = async {
        // And what watches over them.
        while serving.children() <= FEEDS {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), started).await.expect("all commands are started");
    let connection = serving.connect().await;
    assert_eq!(serving.feeds(&connection).await.len(), FEEDS);
    let mut pids = Vec::new();
    for number in 0..FEEDS {
        let uri = serving.uri(&format!("/stream/f{number}?from=start"));
        pids.push(Reading::open(&connection, &uri, false).await.line().await.trim().to_owned());
    }
    println!("{FEEDS} commands: {} descriptors", serving.descriptors());
    connection.close().await;
    serving.stop();
    let left = gone(&pids);
    kill(&left);
    assert!(left.is_empty(), "{} processes are left of {FEEDS}", left.len());
}

/// More files than a user may have inotify instances (128 by default).
#[tokio::test]
async fn many_followed_files() {
    let _alone = ALONE.lock().await;
    const FILES: usize = 200;
    let serving = Serving::start(|dir| {
        for number in 0..FILES {
            std::fs::write(dir.join(format!("log{number}")), "old\n").unwrap();
        }
        (0..FILES).map(|number| format!("f{number}=tail:log{number}")).collect()
    });
    let connection = serving.connect().await;
    println!("{FILES} files: {} descriptors", serving.descriptors());
    for number in 0..FILES {
        let log = serving.dir().join(format!("log{number}"));
        std::fs::OpenOptions::new()
            .append(true)
            .open(log)
            .unwrap()
            .write_all(format!("new {number}\n").as_bytes())
            .unwrap();
    }
    for number in 0..FILES {
        let uri = serving.uri(&format!("/stream/f{number}?from=start"));
        let mut reading = Reading::open(&connection, &uri, false).await;
        // What was there before is its history (`--tail-lines`).
        assert_eq!(reading.line().await, "old\n");
        assert_eq!(reading.line().await, format!("new {number}\n"));
    }
    connection.close().await;
    serving.stop();
}

/// The producer that waits for the slowest looks for it among all of them, each time that one has moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_for_ten_thousand_viewers() {
    let _alone = ALONE.lock().await;
    const CHUNKS: u64 = 40;
    const CHUNK: usize = 1000;
    let mut took = Vec::new();
    for lag in [Lag::Skip, Lag::Block] {
        // Ten chunks are kept.
        let (feed, publisher) = Feed::live("default", 12 * CHUNK, lag);
        let viewers: Vec<_> = (0..VIEWERS)
            .map(|_| {
                let mut viewer = feed.view(Start::Now, None);
                tokio::spawn(async move {
                    let mut seen = 0;
                    while let Some(event) = viewer.next().await {
                        seen += u64::from(matches!(event, Event::Chunk(_)));
                        // As one does that writes to a connection.
                        tokio::task::yield_now().await;
                    }
                    seen
                })
            })
            .collect();
        let began = Instant::now();
        for _ in 0..CHUNKS {
            soon("room", publisher.publish(vec![b'x'; CHUNK].into())).await.unwrap();
        }
        publisher.end(End::Clean);
        for viewer in viewers {
            let seen = soon("the end", viewer).await.unwrap();
            assert!(lag == Lag::Skip || seen == CHUNKS, "{seen} chunks");
        }
        took.push(began.elapsed());
    }
    println!("{CHUNKS} chunks to {VIEWERS} viewers: skip {:?}, block {:?}", took[0], took[1]);
    assert!(took[1] < Duration::from_secs(15), "{took:?}");
}
