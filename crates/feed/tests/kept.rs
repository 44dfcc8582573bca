//! Feeds that are stored externally.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use h3cast_feed::format::{
    Format, Framing, Writer,
    frames::{Frame, FrameDecoder},
};
use h3cast_feed::{
    Budget, Chunk, Cursor, End, Epoch, Event, Feed, FeedError, Filler, Gap, Keeper, Past, PublishError, Receipt, Start,
    Viewer,
};
use proptest::prelude::*;

/// Keeps chunks in memory, as much as the test says.
#[derive(Default)]
struct Shelf {
    chunks: Mutex<BTreeMap<u64, Bytes>>,
    first: AtomicU64,
    broken: AtomicBool,
    /// Gives this many chunks before those that it is asked for, too.
    early: AtomicU64,
    /// No numbers are left out between them, until the next reading: then others are between.
    dense: AtomicBool,
    /// How often it was read.
    reads: AtomicU64,
    /// Its readings take a while.
    slow: AtomicBool,
}

impl Keeper for Shelf {
    fn is_writable(&self) -> bool {
        false
    }

    fn is_sparse(&self) -> bool {
        !self.dense.load(Ordering::Relaxed)
    }

    fn publish(&self, _: Bytes, _: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(std::future::ready(Err(PublishError::Ended)))
    }

    fn read(self: Arc<Self>, _: Epoch, next: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
        Box::pin(async move {
            self.reads.fetch_add(1, Ordering::Relaxed);
            if self.slow.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
            self.dense.store(false, Ordering::Relaxed);
            if self.broken.load(Ordering::Relaxed) {
                return Err(FeedError("broken".into()));
            }
            let first = self.first.load(Ordering::Relaxed);
            let all = self.chunks.lock().unwrap();
            let from = next.saturating_sub(self.early.load(Ordering::Relaxed));
            let some = all.range(from.max(first)..).take(3);
            let chunks: Vec<_> = some.map(|(seq, bytes)| Chunk::new(*seq, bytes.clone())).collect();
            let end = all.last_key_value().map_or(0, |(seq, _)| seq + 1);
            let next = chunks.last().map_or(end.max(next), |last| last.seq + 1);
            Ok(Past { first, chunks, next })
        })
    }
}

/// Room for some four of the chunks.
const HISTORY: usize = 1000;

fn shelf() -> (Arc<Shelf>, Feed, Filler) {
    let shelf = Arc::new(Shelf::default());
    let (feed, filler) = Feed::kept("default", shelf.clone(), HISTORY, Epoch(7), 0, 0);
    (shelf, feed, filler)
}

fn add(shelf: &Shelf, filler: &Filler, seq: u64) {
    let bytes = Bytes::from(vec![seq as u8; 100]);
    shelf.chunks.lock().unwrap().insert(seq, bytes.clone());
    filler.add(Chunk::new(seq, bytes));
}

fn some(viewer: &mut Viewer, events: usize) -> Vec<Event> {
    std::iter::from_fn(|| viewer.next().now_or_never().flatten()).take(events).collect()
}

fn seqs(events: &[Event]) -> Vec<u64> {
    events.iter().filter_map(|event| if let Event::Chunk(chunk) = event { Some(chunk.seq) } else { None }).collect()
}

proptest! {
    /// However slow a viewer is, and wherever it begins, it gets each chunk from there on once.
    #[test]
    fn nobody_misses_what_is_kept(
        steps in prop::collection::vec((0_u64..3, 0_usize..4), 1..60),
        from in prop::option::of(0_u64..80),
        joins in 0_usize..60,
    ) {
        let (shelf, feed, filler) = shelf();
        let (mut viewer, mut begins, mut got) = (None, 0, Vec::new());
        for (number, (jump, reads)) in steps.iter().enumerate() {
            if number == joins.min(steps.len() - 1) {
                let place = match from {
                    Some(seq) => Start::After(Cursor { epoch: Epoch(7), seq }),
                    None => Start::Start,
                };
                begins = from.map_or(0, |seq| seq + 1);
                viewer = Some(feed.view(place, None));
            }
            add(&shelf, &filler, filler.next() + jump);
            if let Some(viewer) = &mut viewer {
                got.extend(some(viewer, *reads));
            }
        }
        got.extend(some(viewer.as_mut().unwrap(), usize::MAX));
        let kept: Vec<_> = shelf.chunks.lock().unwrap().keys().copied().filter(|seq| *seq >= begins).collect();
        prop_assert_eq!(seqs(&got), kept);
        prop_assert!(!got.iter().any(|event| matches!(event, Event::Gap(_) | Event::Stalled(_))));
    }
}

#[test]
fn one_piece_of_the_past_is_read_ahead() {
    let (shelf, feed, filler) = shelf();
    (0..20).for_each(|seq| add(&shelf, &filler, seq));
    let mut viewer = feed.view(Start::Start, None);
    let reads = |viewer: &mut Viewer, chunks| {
        assert_eq!(some(viewer, chunks).len(), chunks);
        shelf.reads.load(Ordering::Relaxed)
    };
    // Three at once.
    assert_eq!([1, 2, 1, 2, 1].map(|chunks| reads(&mut viewer, chunks)), [2, 2, 3, 3, 4]);
    assert_eq!(seqs(&some(&mut viewer, usize::MAX)), (7..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn chunks_before_those_that_were_asked_for_are_not_given_again() {
    let (shelf, feed, filler) = shelf();
    (0..20).for_each(|seq| add(&shelf, &filler, seq));
    for early in [1, 2] {
        shelf.early.store(early, Ordering::Relaxed);
        let mut viewer = feed.view(Start::After(Cursor { epoch: Epoch(7), seq: 4 }), None);
        assert_eq!(seqs(&some(&mut viewer, usize::MAX)), (5..20).collect::<Vec<_>>());
    }
    // Nothing else is there, as of a server that lags: it is asked again later.
    shelf.early.store(3, Ordering::Relaxed);
    let mut viewer = feed.view(Start::After(Cursor { epoch: Epoch(7), seq: 4 }), None);
    assert!(matches!(some(&mut viewer, usize::MAX)[..], [Event::Stalled(true)]));
}

/// It would report the left-out numbers as a gap. A viewer that begins after the ring was renewed knows them.
#[test]
fn a_viewer_who_was_not_told_of_left_out_numbers_gets_none_after_them() {
    let (shelf, feed, filler) = shelf();
    shelf.dense.store(true, Ordering::Relaxed);
    (0..20).for_each(|seq| add(&shelf, &filler, 2 * seq));
    let mut viewer = feed.view(Start::Start, None);
    assert!(seqs(&some(&mut viewer, usize::MAX)).is_empty());
    filler.renew(Epoch(7), 40, 40);
    assert!(seqs(&some(&mut viewer, usize::MAX)).is_empty());
    assert_eq!(seqs(&some(&mut feed.view(Start::Start, None), 3)), [0, 2, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_told_and_what_fails_stalls() {
    let (shelf, feed, filler) = shelf();
    (0..20).for_each(|seq| add(&shelf, &filler, seq));
    let behind = |seq| Start::After(Cursor { epoch: Epoch(7), seq });
    shelf.first.store(10, Ordering::Relaxed);
    let mut late = feed.view(behind(4), None);
    let Some(Event::Gap(gap)) = late.next().await else { panic!("a gap") };
    assert_eq!(gap, Gap { from: 5, missing: 5, restarted: false });
    assert_eq!(seqs(&some(&mut late, usize::MAX)), (10..20).collect::<Vec<_>>());
    // Who wants what there is gets that, and nothing else.
    assert_eq!(seqs(&some(&mut feed.view(Start::Start, None), usize::MAX)), (10..20).collect::<Vec<_>>());

    shelf.broken.store(true, Ordering::Relaxed);
    let mut waiting = feed.view(behind(11), None);
    assert!(matches!(waiting.next().await, Some(Event::Stalled(true))));
    assert!(waiting.next().now_or_never().is_none());
    shelf.broken.store(false, Ordering::Relaxed);
    assert!(matches!(waiting.next().await, Some(Event::Stalled(false))));
    assert_eq!(seqs(&some(&mut waiting, usize::MAX)), (12..20).collect::<Vec<_>>());
    // Also when what it waited for is gone by then.
    shelf.broken.store(true, Ordering::Relaxed);
    let mut waiting = feed.view(behind(11), None);
    assert!(matches!(waiting.next().await, Some(Event::Stalled(true))));
    shelf.first.store(20, Ordering::Relaxed);
    filler.skip_to(20);
    shelf.broken.store(false, Ordering::Relaxed);
    assert!(matches!(waiting.next().await, Some(Event::Gap(Gap { from: 12, missing: 8, restarted: false }))));
    assert!(matches!(some(&mut waiting, usize::MAX)[..], [Event::Stalled(false)]));
    // And when it answers without what the ring has had.
    shelf.chunks.lock().unwrap().clear();
    shelf.first.store(0, Ordering::Relaxed);
    let mut waiting = feed.view(behind(11), None);
    assert!(matches!(some(&mut waiting, usize::MAX)[..], [Event::Stalled(true)]));
    drop(waiting);
    shelf.first.store(20, Ordering::Relaxed);
    let mut waiting = feed.view(Start::Now, None);
    // Told once, whoever says it.
    filler.stall(true);
    filler.stall(true);
    assert!(matches!(some(&mut waiting, usize::MAX)[..], [Event::Stalled(true)]));
    filler.stall(false);
    assert!(matches!(some(&mut waiting, usize::MAX)[..], [Event::Stalled(false)]));
}

/// What was deleted where the feed is stored is not read from memory either.
#[tokio::test]
async fn what_is_deleted_is_not_in_the_ring() {
    let shelf = Arc::new(Shelf::default());
    let (feed, filler) = Feed::kept("default", shelf.clone(), 100 * HISTORY, Epoch(7), 0, 0);
    let start = filler.next();
    (start..start + 4).for_each(|seq| add(&shelf, &filler, seq));
    let mut behind = feed.view(Start::After(Cursor { epoch: Epoch(7), seq: start }), None);
    shelf.first.store(start + 3, Ordering::Relaxed);
    // Of another run.
    assert!(filler.forget_before(Epoch(6), start + 3));
    assert_eq!(feed.status().oldest.unwrap().seq, start);
    assert!(filler.forget_before(Epoch(7), start + 3));
    let Some(Event::Gap(gap)) = behind.next().await else { panic!("a gap") };
    assert_eq!(gap, Gap { from: start + 1, missing: 2, restarted: false });
    assert_eq!(seqs(&some(&mut behind, usize::MAX)), [start + 3]);
    // It has not come that far: what is added until then stays.
    assert!(!filler.forget_before(Epoch(7), start + 9));
    assert_eq!(feed.status().kept_bytes, 0);
    add(&shelf, &filler, start + 4);
    assert_eq!(feed.status().oldest.unwrap().seq, start + 4);
    assert!(behind.next().await.is_some());
}

/// What other feeds of the same stream had is nobody's gap here.
#[tokio::test]
async fn what_is_deleted_of_other_feeds_is_no_gap() {
    let shelf = Arc::new(Shelf::default());
    let (feed, filler) = Feed::kept("default", shelf.clone(), 100 * HISTORY, Epoch(7), 0, 0);
    add(&shelf, &filler, 1);
    let after_first = Start::After(Cursor { epoch: Epoch(7), seq: 1 });
    let mut behind = feed.view(after_first, None);
    add(&shelf, &filler, 9);
    shelf.first.store(8, Ordering::Relaxed);
    assert!(filler.forget_before(Epoch(7), 8));
    assert_eq!(feed.status().oldest.unwrap().seq, 9);
    // Nor where nothing was dropped by then.
    assert!(filler.forget_before(Epoch(7), 8));
    for viewer in [&mut behind, &mut feed.view(after_first, None)] {
        let events = some(viewer, usize::MAX);
        assert!(matches!(events[..], [Event::Chunk(_)]), "{events:?}");
    }
    assert_eq!(shelf.reads.load(Ordering::Relaxed), 0);
}

/// A ring that begins before what is there by now: it fills up, and who views from now on waits for that.
#[tokio::test]
async fn what_was_there_before_the_ring_is_nothing_new() {
    let shelf = Arc::new(Shelf::default());
    let (feed, filler) = Feed::kept("default", shelf.clone(), HISTORY, Epoch(7), 5, 8);
    let (mut now, mut late) =
        (feed.view(Start::Now, None), feed.view(Start::After(Cursor { epoch: Epoch(7), seq: 5 }), None));
    (5..10).for_each(|seq| add(&shelf, &filler, seq));
    assert_eq!(seqs(&some(&mut now, usize::MAX)), [8, 9]);
    assert_eq!(seqs(&some(&mut late, usize::MAX)), [6, 7, 8, 9]);
}

#[test]
fn a_feed_that_nothing_fills_any_more_is_a_line_of_the_log() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let log = Log::default();
    let to = log.clone();
    // With one alone, what another test's thread logs first would count as wanted by nobody, on all threads.
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone()).finish();
    tracing::subscriber::with_default(lines, || {
        let (feed, filler) = Feed::kept("news", Arc::new(Shelf::default()), HISTORY, Epoch(7), 0, 0);
        let other = filler.clone();
        drop(filler);
        assert_eq!(feed.status().end, None);
        drop(other);
        assert!(matches!(feed.status().end, Some(End::Failed(_))));
        // That the server stops is not a failure.
        let (feed, filler) = Feed::kept("stopped", Arc::new(Shelf::default()), HISTORY, Epoch(7), 0, 0);
        feed.stop();
        drop(filler);
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("WARN") && log.contains("news") && log.contains("nothing fills the feed"), "{log}");
}

/// Nothing fills the feed any more, but its chunks are there.
#[tokio::test]
async fn a_failed_feed_gives_all_chunks_before_its_end() {
    let ends = |events: &[Event]| matches!(events.last(), Some(Event::End(End::Failed(_))));
    let (shelf, feed, filler) = shelf();
    (0..20).for_each(|seq| add(&shelf, &filler, seq));
    let mut early = feed.view(Start::Start, None);
    assert_eq!(seqs(&some(&mut early, 2)), [0, 1]);
    drop(filler);
    assert_eq!(seqs(&some(&mut early, usize::MAX)), (2..20).collect::<Vec<_>>());
    let late = some(&mut feed.view(Start::Start, None), usize::MAX);
    assert_eq!(seqs(&late), (0..20).collect::<Vec<_>>());
    assert!(ends(&late), "{late:?}");
    let later = some(&mut feed.view(Start::After(Cursor { epoch: Epoch(7), seq: 4 }), None), usize::MAX);
    assert_eq!(seqs(&later), (5..20).collect::<Vec<_>>());
    // Where they can no longer be read, those that are in memory.
    shelf.broken.store(true, Ordering::Relaxed);
    let mut behind = feed.view(Start::After(Cursor { epoch: Epoch(7), seq: 4 }), None);
    let last = some(&mut behind, usize::MAX);
    let Some(Event::Gap(Gap { from: 5, missing, restarted: false })) = last.first() else { panic!("{last:?}") };
    assert_eq!(seqs(&last), (5 + missing..20).collect::<Vec<_>>());
    assert!(*missing < 14 && ends(&last), "{last:?}");
}

#[tokio::test]
async fn the_last_chunks() {
    let (shelf, feed, filler) = shelf();
    // Numbers are left out: those that the ring has.
    (0..10).for_each(|seq| add(&shelf, &filler, 3 * seq));
    assert_eq!(seqs(&some(&mut feed.view(Start::Last(2), None), usize::MAX)), [24, 27]);
    let all = seqs(&some(&mut feed.view(Start::Last(1000), None), usize::MAX));
    assert!(all.len() > 2 && all.ends_with(&[24, 27]), "{all:?}");
    assert!(some(&mut feed.view(Start::Last(0), None), usize::MAX).is_empty());
}

#[tokio::test]
async fn another_run_is_told() {
    let shelf = Arc::new(Shelf::default());
    let (feed, filler) = Feed::kept("default", shelf.clone(), HISTORY, Epoch(7), 0, 3);
    (0..3).for_each(|seq| add(&shelf, &filler, seq));
    let mut viewer = feed.view(Start::Now, None);
    shelf.chunks.lock().unwrap().clear();
    filler.renew(Epoch(8), 0, 0);
    assert!(matches!(some(&mut viewer, usize::MAX)[..], [Event::End(End::Stopped)]));
    add(&shelf, &filler, 0);
    let mut now = feed.view(Start::Now, None);
    add(&shelf, &filler, 1);
    assert_eq!(seqs(&some(&mut now, usize::MAX)), [1]);
    let mut again = feed.view(Start::After(Cursor { epoch: Epoch(7), seq: 2 }), None);
    assert_eq!(again.epoch(), Epoch(8));
    let events = some(&mut again, usize::MAX);
    assert!(matches!(events[0], Event::Gap(Gap { restarted: true, .. })));
    assert_eq!(seqs(&events), [0, 1]);
}

/// What was read for a viewer counts as memory, in whoever's task it is, until it has been taken.
#[tokio::test]
async fn what_is_read_for_one_viewer_is_charged() {
    let (shelf, feed, filler) = shelf();
    let budget = Budget::new(1 << 30);
    let feed = feed.budget(&budget);
    (0..40).for_each(|seq| add(&shelf, &filler, seq));
    let histories = budget.charged();
    let mut viewer = feed.view(Start::Start, None);
    assert_eq!(seqs(&some(&mut viewer, 1)), [0]);
    // The rest of three chunks, and as many that come next and are there already.
    let charged = budget.charged() - histories;
    assert!((600..2000).contains(&charged), "{charged}");
    let got = seqs(&some(&mut viewer, 100));
    assert_eq!(got, (1..40).collect::<Vec<_>>());
    assert_eq!(budget.charged(), histories);
    let mut slow = feed.view(Start::Start, None);
    some(&mut slow, 1);
    assert!(budget.charged() > histories);
    drop(slow);
    assert_eq!(budget.charged(), histories);

    // It has taken the six chunks that were read, and what stores the others is away.
    let mut viewer = feed.view(Start::Start, None);
    some(&mut viewer, 1);
    shelf.broken.store(true, Ordering::Relaxed);
    let rest = some(&mut viewer, 100);
    assert_eq!(seqs(&rest), [1, 2, 3, 4, 5]);
    assert!(matches!(rest.last(), Some(Event::Stalled(true))));
    assert_eq!(budget.charged(), histories);
}

/// It is charged again with what is on its way to its client.
#[tokio::test]
async fn a_large_chunk_is_charged_once() {
    let (shelf, feed, filler) = shelf();
    let budget = Budget::new(1 << 30);
    let feed = feed.budget(&budget);
    for seq in 0..40 {
        let bytes = Bytes::from(vec![seq as u8; if seq % 3 == 1 { 1_000_000 } else { 10 }]);
        shelf.chunks.lock().unwrap().insert(seq, bytes.clone());
        filler.add(Chunk::new(seq, bytes));
    }
    let histories = budget.charged();
    let mut viewer = feed.view(Start::Start, None);
    // One is in the piece that was read, and one in the next.
    for (taken, large) in [(0, 2), (1, 1), (2, 1), (3, 2)] {
        assert_eq!(seqs(&some(&mut viewer, 1)), [taken]);
        let charged = budget.charged() - histories;
        assert!((large * 1_000_000..large * 1_000_000 + 20_000).contains(&charged), "{taken}: {charged}");
    }
}

/// Its client may not take the beginning of the stream.
#[tokio::test]
async fn the_first_piece_of_a_viewer_is_charged_before_it_is_there() {
    let (shelf, feed, filler) = shelf();
    let budget = Budget::new(1 << 30);
    let feed = feed.budget(&budget);
    (0..40).for_each(|seq| add(&shelf, &filler, seq));
    let histories = budget.charged();
    shelf.slow.store(true, Ordering::Relaxed);
    let mut writer = Writer::new(feed.view(Start::Start, None), Format::Frames, Framing::Plain);
    let mut out = Vec::new();
    assert_eq!(writer.next(&mut out).now_or_never(), Some(Ok(true)));
    let charged = budget.charged() - histories;
    // Besides the beginning.
    assert!((256 << 10..(256 << 10) + 1000).contains(&charged), "{charged}");
}

/// Small chunks are joined on their way to one viewer, and large ones are not: their order stays.
#[tokio::test]
async fn what_one_viewer_gets_stays_in_order() {
    let (shelf, feed, filler) = shelf();
    for seq in 0..60 {
        let bytes = Bytes::from(vec![seq as u8; if seq % 7 < 5 { 100 } else { 3000 }]);
        shelf.chunks.lock().unwrap().insert(seq, bytes.clone());
        filler.add(Chunk::new(seq, bytes));
    }
    let mut writer = Writer::new(feed.view(Start::Start, None), Format::Frames, Framing::Plain);
    let (mut out, mut decoder, mut seqs, mut missing) = (Vec::new(), FrameDecoder::new(10_000), Vec::new(), 0);
    while seqs.len() as u64 + missing < 60 {
        assert!(writer.next(&mut out).await.unwrap());
        if seqs.len() > 20 {
            // What was removed is a gap between chunks.
            shelf.first.store(40, Ordering::Relaxed);
        }
        out.drain(..).for_each(|buffer| decoder.push(&buffer));
        while let Some(frame) = decoder.pop().unwrap() {
            match frame {
                Frame::Chunk { seq, bytes, .. } => {
                    assert!(bytes.iter().all(|byte| *byte == seq as u8), "{seq}");
                    assert_eq!(seq, seqs.len() as u64 + missing);
                    seqs.push(seq);
                }
                Frame::Gap(gap) => missing += gap.missing,
                _ => {}
            }
        }
    }
    assert!(missing > 0 && seqs.len() > 30, "{missing}");
}
