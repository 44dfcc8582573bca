//! What viewers of a feed cost in memory. The memory is that of the process: one test after the other.
#![cfg(target_os = "linux")]

use std::{collections::BTreeSet, pin::Pin, time::Instant};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use h3cast_feed::{
    Cursor, Feed, Lag, Start,
    format::{self, Cut, Format},
};

/// Held by the test that runs.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const HISTORY: usize = 8 << 20;
const VIEWERS: usize = 10_000;

/// What a viewer may cost in addition to the ring, in bytes: its place, its waker, and its stream.
const PLACE: usize = 2 << 10;

type Written = Pin<Box<dyn Stream<Item = Result<Bytes, Cut>> + Send>>;

/// The resident memory of this process, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of memory");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The ring is held once, and so is its encoding in each format, wherever its viewers are.
#[tokio::test]
async fn ten_thousand_viewers_hold_one_ring() {
    let _alone = ALONE.lock().await;
    const CHUNK: usize = 16 << 10;
    let (feed, publisher) = Feed::live("default", HISTORY, Lag::Skip);
    for number in 0..HISTORY / CHUNK {
        let line = format!("{number:015}\n").repeat(CHUNK / 16);
        publisher.publish(line.into()).await.unwrap();
    }
    let status = feed.status();
    let oldest = status.oldest.unwrap();
    let kept = status.chunks - oldest.seq;
    let formats = [Format::Raw, Format::Sse, Format::Frames];
    let before = memory();
    let mut viewers = Vec::new();
    let mut read = 0;
    for number in 0..VIEWERS {
        // Each at a different chunk, as far as there are that many. Encodings take an eighth of the history from
        // the oldest ones when the next is published.
        let seq = oldest.seq + kept / 7 + number as u64 % (kept - kept / 7 - 1);
        let from = Start::After(Cursor { epoch: oldest.epoch, seq });
        let format = formats[number % 3];
        let mut stream: Written = Box::pin(format::write(feed.view(from, None), format));
        // What comes before the chunk: the beginning, and the header of a frame.
        let before = match format {
            Format::Raw => 0,
            Format::Sse => 1,
            Format::Frames => 2,
        };
        let pieces: Vec<Bytes> = stream.by_ref().take(before + 1).map(Result::unwrap).collect().await;
        assert!(pieces[before].len() >= CHUNK, "{format:?}");
        read += pieces[before].len();
        // Like a transport whose client reads nothing, it holds what it has to send.
        viewers.push((stream, pieces));
    }
    let different: BTreeSet<_> = viewers.iter().map(|(_, pieces)| pieces.last().unwrap().as_ptr()).collect();
    let grown = memory().saturating_sub(before);
    println!(
        "{VIEWERS} viewers hold {} MiB of pieces, {} different ones; grown by {} MiB, {} bytes a viewer beside an \
         encoded ring",
        read >> 20,
        different.len(),
        grown >> 20,
        grown.saturating_sub(HISTORY as u64) / VIEWERS as u64
    );
    assert_eq!(feed.status().viewers, VIEWERS as u64);
    // Only server-sent events have bytes of their own.
    assert!(different.len() as u64 <= 2 * kept);
    assert!(grown < (HISTORY + VIEWERS * PLACE) as u64, "grew by {grown} bytes");

    // All of them reach the end, and get what is published next.
    let began = Instant::now();
    publisher.publish("the last\n".into()).await.unwrap();
    let mut brought = 0_u64;
    for (stream, pieces) in &mut viewers {
        pieces.clear();
        while let Some(Some(piece)) = stream.next().now_or_never() {
            brought += 1;
            pieces.push(piece.unwrap());
            pieces.drain(..pieces.len() - 1);
        }
        assert!(String::from_utf8_lossy(&pieces[0]).contains("the last"));
    }
    println!("{brought} chunks to {VIEWERS} viewers in {:?}", began.elapsed());
    drop(viewers);
    assert_eq!(feed.status().viewers, 0);
}

/// A feed that is silent remembers none of the viewers that came and went meanwhile.
#[tokio::test]
async fn viewers_that_come_and_go_in_silence() {
    let _alone = ALONE.lock().await;
    const VIEWERS: u64 = 100_000;
    let (feed, _publisher) = Feed::live("default", 1 << 20, Lag::Skip);
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
    let before = memory();
    stream::iter(0..VIEWERS).for_each(visit).await;
    let grown = memory().saturating_sub(before);
    assert_eq!(feed.status().viewers, 0);
    println!("{VIEWERS} viewers have come and gone: grown by {} KiB", grown >> 10);
    assert!(grown < 4 << 20, "{} bytes of each viewer are left", grown / VIEWERS);
}
