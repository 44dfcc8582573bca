//! What one viewer of a stored feed holds by itself is charged for as long as it is held.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use h3cast_feed::{
    Budget, Chunk, Epoch, Event, Feed, FeedError, Filler, Keeper, Past, PublishError, Receipt, Start,
    format::{Format, Framing, Writer},
};

const SMALL: usize = 1 << 10;
const LARGE: usize = 20 << 10;
/// How many small chunks were read into one buffer.
const MANY: usize = 60;
/// The number of the chunk that is in a buffer of its own, among the others.
const ALONE: u64 = 30;
/// What they are when they are joined, in bytes, without what a format adds.
const JOINED: u64 = (MANY * SMALL) as u64;
/// How long chunks wait for others.
const WAIT: Duration = Duration::from_secs(1);

/// What was read from storage: it counts while any chunk has it.
struct Buffer(Vec<u8>, Arc<AtomicU64>);

impl Buffer {
    fn read(len: usize, held: &Arc<AtomicU64>) -> Bytes {
        held.fetch_add(len as u64, Ordering::Relaxed);
        Bytes::from_owner(Self(vec![b'x'; len], held.clone()))
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len() as u64, Ordering::Relaxed);
    }
}

/// Everything that it stores is one piece.
#[derive(Default)]
struct Piece {
    held: Arc<AtomicU64>,
    /// One chunk is large.
    mixed: bool,
    /// It is not there at once.
    slow: bool,
}

impl Piece {
    /// Its feed. The ring has what comes after the piece.
    fn feed(self, budget: &Budget) -> (Feed, Filler) {
        let next = MANY as u64 + u64::from(self.mixed);
        let (feed, filler) = Feed::kept("a", Arc::new(self), 1 << 20, Epoch(7), next, next);
        (feed.budget(budget), filler)
    }
}

impl Keeper for Piece {
    fn is_writable(&self) -> bool {
        false
    }

    fn is_sparse(&self) -> bool {
        false
    }

    fn publish(&self, _: Bytes, _: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(std::future::ready(Err(PublishError::Ended)))
    }

    fn read(self: Arc<Self>, _: Epoch, _: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
        let mut shared = Buffer::read(MANY * SMALL, &self.held);
        let all = 0..MANY as u64 + u64::from(self.mixed);
        let chunks: Vec<_> = all
            .map(|seq| match self.mixed && seq == ALONE {
                true => Chunk::new(seq, Buffer::read(LARGE, &self.held)),
                false => Chunk::new(seq, shared.split_to(SMALL)),
            })
            .collect();
        let next = chunks.len() as u64;
        Box::pin(async move {
            if self.slow {
                tokio::task::yield_now().await;
            }
            Ok(Past { first: 0, chunks, next })
        })
    }
}

/// The small ones have all of the buffer until the last of them is taken, whatever is taken between them.
#[tokio::test]
async fn chunks_are_charged_with_what_they_were_read_into() {
    let (budget, piece) = (Budget::new(1 << 30), Piece { mixed: true, ..Piece::default() });
    let held = piece.held.clone();
    let (feed, _filler) = piece.feed(&budget);
    let others = budget.charged();
    let mut viewer = feed.view(Start::Start, None);
    let mut most = 0;
    for seq in 0..=MANY as u64 {
        let event = viewer.next().now_or_never().flatten();
        assert!(matches!(&event, Some(Event::Chunk(chunk)) if chunk.seq == seq), "{event:?}");
        drop(event);
        let (charged, held) = (budget.charged() - others, held.load(Ordering::Relaxed));
        assert!(charged >= held, "after {seq}: {charged} for {held}");
        most = most.max(held);
    }
    assert_eq!((most, held.load(Ordering::Relaxed), budget.charged()), (JOINED + LARGE as u64, 0, others));
}

/// Small chunks that are joined may wait for more, when what they were read into is gone.
#[tokio::test(start_paused = true)]
async fn joined_chunks_that_wait_for_others_are_charged() {
    for format in [Format::Raw, Format::Sse, Format::Frames] {
        let (budget, piece) = (Budget::new(1 << 30), Piece { slow: true, ..Piece::default() });
        let held = piece.held.clone();
        let (feed, _filler) = piece.feed(&budget);
        let others = budget.charged();
        let mut writer = Writer::new(feed.view(Start::Start, None), format, Framing::Plain).coalesce(WAIT);
        let mut out = Vec::new();
        // What begins a stream does not wait.
        let begun = writer.next(&mut out).now_or_never();
        assert_eq!(begun, (format != Format::Raw).then_some(Ok(true)));
        out.clear();
        // Called again, it charges that once.
        for _ in 0..3 {
            assert_eq!(writer.next(&mut out).now_or_never(), None);
            assert_eq!(held.load(Ordering::Relaxed), 0);
            let charged = budget.charged() - others;
            assert!((JOINED..JOINED * 5 / 4).contains(&charged), "{format:?}: {charged}");
        }
        assert_eq!(writer.next(&mut out).await, Ok(true));
        let (charged, given) = (budget.charged() - others, out.iter().map(Bytes::len).sum::<usize>() as u64);
        assert!(given >= JOINED && (given..given * 5 / 4).contains(&charged), "{format:?}: {charged} for {given}");
        out.clear();
        assert_eq!(budget.charged(), others);
    }
}

/// What waits is not charged when its viewer has left.
#[tokio::test(start_paused = true)]
async fn what_waits_goes_with_its_viewer() {
    let (budget, piece) = (Budget::new(1 << 30), Piece { slow: true, ..Piece::default() });
    let (feed, _filler) = piece.feed(&budget);
    let others = budget.charged();
    let mut writer = Writer::new(feed.view(Start::Start, None), Format::Raw, Framing::Plain).coalesce(WAIT);
    let mut out = Vec::new();
    for _ in 0..2 {
        assert_eq!(writer.next(&mut out).now_or_never(), None);
    }
    drop(writer);
    assert_eq!(budget.charged(), others);
}
