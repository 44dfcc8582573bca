//! Feeds that are kept elsewhere, for any number of servers: one of them has what came lately in a
//! ring, and asks for what is older.

use std::{
    collections::VecDeque,
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::{
    Counters, End, Event, FeedError, From, Gap, Lag, log,
    ring::{Ring, RingViewer},
};
use crate::chunk::{Chunk, Cursor, Epoch};

/// How long a viewer waits before it asks again where it could not be answered.
const RETRY: Duration = Duration::from_secs(1);

/// Where the chunks of a feed are kept.
pub trait Keeper: Send + Sync + 'static {
    /// Whether clients may write the feed.
    fn is_writable(&self) -> bool;

    /// Whether numbers are left out between the feed's chunks, so that a jump is no loss.
    fn is_sparse(&self) -> bool;

    /// Publishes a chunk, and says so when it is kept. With an `id`, one that is kept already is not
    /// kept again.
    fn publish(&self, bytes: Bytes, id: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>>;

    /// Reads some of the chunks from the number `next` on, in their order. Dropping the future leaves
    /// off.
    fn read(self: Arc<Self>, epoch: Epoch, next: u64) -> BoxFuture<'static, Result<Past, FeedError>>;
}

/// What has been published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The chunk's cursor.
    pub cursor: Cursor,
    /// The size of the chunk that is kept, in bytes: not that of the one given, when another one had
    /// its id before.
    pub size: usize,
}

/// Why a chunk was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The feed has ended.
    #[error("the feed has ended")]
    Ended,
    /// It is too large for where the feed is kept.
    #[error("a chunk of {size} bytes is longer than the {max} that the feed takes")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// What would be taken, in bytes.
        max: usize,
    },
    /// Where the feed is kept does not answer. It may have been kept nevertheless.
    #[error("the feed cannot be written now: {0}")]
    Unavailable(String),
}

/// A part of what is kept.
#[derive(Debug, Default)]
pub struct Past {
    /// The oldest number that is kept.
    pub first: u64,
    /// Chunks, the oldest first.
    pub chunks: Vec<Chunk>,
    /// The number to go on with: before it, nothing is left out.
    pub next: u64,
}

/// The ring of a feed that is kept elsewhere; another one when the feed is made anew there.
#[derive(Clone)]
pub(super) struct Kept {
    ring: Arc<Mutex<Arc<Ring>>>,
    pub(super) keeper: Arc<dyn Keeper>,
    history: usize,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Kept {
    pub(super) fn new(keeper: Arc<dyn Keeper>, history: usize, epoch: Epoch, next: u64, now: u64) -> Self {
        let ring = Arc::new(Ring::starting_at(epoch, history, Lag::Skip, next, now));
        Self { ring: Arc::new(Mutex::new(ring)), keeper, history }
    }

    pub(super) fn ring(&self) -> Arc<Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn view(&self, from: From) -> KeptViewer {
        let ring = self.ring();
        let viewer = |next| At::Ring(ring.view_at(next, false));
        let at = match from {
            From::Start => At::past(0, false, false),
            From::Now => viewer(ring.now()),
            // Which numbers the feed has is known for what the ring has; before it, if none are left out.
            From::Last(many) => match ring.now().saturating_sub(many) {
                _ if self.keeper.is_sparse() => viewer(ring.last(many).unwrap_or_else(|| ring.floor())),
                first if first < ring.floor() => At::past(first, false, false),
                first => viewer(first),
            },
            From::After(cursor) if cursor.epoch == ring.epoch() => match cursor.seq.saturating_add(1) {
                next if next < ring.floor() => At::past(next, true, false),
                next => viewer(next),
            },
            From::End(epoch) if epoch == ring.epoch() => viewer(ring.now()),
            // Of another run: nothing of what there is now has been seen.
            From::After(_) | From::End(_) => At::past(0, false, true),
        };
        KeptViewer { keeper: self.keeper.clone(), ring, at, stalled: false }
    }
}

/// Fills the ring of a feed that is stored externally. When the last clone is dropped before the feed has
/// ended or its server stops, the feed has failed: nothing would come any more.
#[derive(Debug, Clone)]
pub struct Filler {
    kept: Arc<FailOnDrop>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct FailOnDrop {
    name: Arc<str>,
    kept: Kept,
}

impl Deref for FailOnDrop {
    type Target = Kept;

    fn deref(&self) -> &Kept {
        &self.kept
    }
}

impl Drop for FailOnDrop {
    fn drop(&mut self) {
        let end = End::Failed(FeedError("nothing fills the feed any more: its task is gone".into()));
        // Changes nothing when the feed has ended.
        if self.kept.ring().end(end.clone()) {
            log::ended(&self.name, &end);
        }
    }
}

impl Filler {
    pub(super) fn new(name: Arc<str>, kept: Kept, counters: Arc<Counters>) -> Self {
        Self { kept: Arc::new(FailOnDrop { name, kept }), counters }
    }

    /// The number of the next chunk that is wanted.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.kept.ring().next()
    }

    /// The run of numbers that it has.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.kept.ring().epoch()
    }

    /// Adds a chunk that came. One that has come before is left out.
    pub fn add(&self, chunk: Chunk) {
        let size = chunk.bytes.len();
        if self.kept.ring().add(chunk) {
            self.counters.count(size);
        }
    }

    /// Goes on at `next`: what is before is not kept any more, or was never seen.
    pub fn skip_to(&self, next: u64) {
        self.kept.ring().skip_to(next);
    }

    /// Tells viewers that nothing can come now, or that it can again.
    pub fn stall(&self, stalled: bool) {
        self.kept.ring().stall(stalled);
    }

    /// The feed was made anew: its viewers are cut off, and come again to another run of numbers. The ring
    /// begins at `next` of it; what comes before `now` is there already.
    pub fn renew(&self, epoch: Epoch, next: u64, now: u64) {
        let ring = Arc::new(Ring::starting_at(epoch, self.kept.history, Lag::Skip, next, now));
        let old = std::mem::replace(&mut *self.kept.ring.lock().unwrap_or_else(PoisonError::into_inner), ring);
        old.end(End::Stopped);
    }
}

/// A viewer of a feed that is kept elsewhere.
pub(super) struct KeptViewer {
    keeper: Arc<dyn Keeper>,
    ring: Arc<Ring>,
    at: At,
    /// It has been told that nothing can come.
    stalled: bool,
}

enum At {
    Ring(RingViewer),
    /// Before all that the ring has.
    Past {
        next: u64,
        asked: Option<BoxFuture<'static, Result<Past, FeedError>>>,
        chunks: VecDeque<Chunk>,
        /// It had the chunk before `next`, and is told of what is missing.
        known: bool,
        /// Its cursor was of another epoch, and that has not been told yet.
        restarted: bool,
    },
}

impl At {
    fn past(next: u64, known: bool, restarted: bool) -> Self {
        Self::Past { next, asked: None, chunks: VecDeque::new(), known, restarted }
    }
}

impl KeptViewer {
    pub(super) fn epoch(&self) -> Epoch {
        self.ring.epoch()
    }

    pub(super) fn is_sparse(&self) -> bool {
        self.keeper.is_sparse()
    }

    /// Only what is known without asking where the feed is kept.
    pub(super) fn gap(&self) -> Option<Gap> {
        matches!(self.at, At::Past { restarted: true, .. }).then_some(super::viewer::RESTARTED)
    }

    pub(super) fn next_seq(&self) -> Option<u64> {
        match &self.at {
            At::Ring(viewer) => viewer.next_seq(),
            At::Past { next, known, .. } => known.then_some(*next),
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        match &self.at {
            At::Ring(viewer) => viewer.is_behind(),
            At::Past { chunks, .. } => !chunks.is_empty(),
        }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            let (next, known) = match &mut self.at {
                At::Ring(viewer) => match ready!(viewer.poll_next(cx)) {
                    // It was too slow for the ring, and not for what is kept elsewhere.
                    Some(Event::Gap(gap)) if !gap.restarted => (gap.from, true),
                    event => {
                        if let Some(Event::Stalled(stalled)) = event {
                            self.stalled = stalled;
                        }
                        return Poll::Ready(event);
                    }
                },
                // It was made anew, or the server stops.
                At::Past { .. } if self.ring.has_ended() => {
                    self.at = At::Ring(self.ring.view_at(self.ring.next(), self.stalled));
                    continue;
                }
                At::Past { restarted, .. } if *restarted => {
                    *restarted = false;
                    return Poll::Ready(Some(Event::Gap(super::viewer::RESTARTED)));
                }
                At::Past { next, asked, chunks, known, .. } => {
                    if let Some(chunk) = chunks.pop_front() {
                        (*next, *known) = (chunk.seq + 1, true);
                        return Poll::Ready(Some(Event::Chunk(Arc::new(chunk))));
                    }
                    if *next >= self.ring.floor() && asked.is_none() {
                        self.at = At::Ring(self.ring.view_at(*next, self.stalled));
                        continue;
                    }
                    let asking = asked.get_or_insert_with(|| self.keeper.clone().read(self.ring.epoch(), *next));
                    let read = match ready!(asking.as_mut().poll(cx)) {
                        // What the ring has had is not there: asked again at once, it would be no other.
                        Ok(past) if past.chunks.is_empty() && past.next.max(past.first) <= *next => Err(()),
                        Ok(past) => Ok(past),
                        Err(error) => {
                            tracing::debug!(%error, "what is older than the ring cannot be read");
                            Err(())
                        }
                    };
                    match read {
                        Ok(past) => {
                            *asked = None;
                            *chunks = past.chunks.into();
                            let gap = Gap { from: *next, missing: past.first.saturating_sub(*next), restarted: false };
                            // The last of them says where it goes on; without any, nothing is there before that.
                            *next = past.first.max(*next);
                            if chunks.is_empty() {
                                *next = past.next.max(*next);
                            }
                            if gap.missing > 0 && *known {
                                self.ring.skipped(gap.missing);
                                return Poll::Ready(Some(Event::Gap(gap)));
                            }
                            if std::mem::take(&mut self.stalled) {
                                return Poll::Ready(Some(Event::Stalled(false)));
                            }
                        }
                        Err(_) if self.ring.has_ended() => {}
                        Err(()) => {
                            let (keeper, epoch, next) = (self.keeper.clone(), self.ring.epoch(), *next);
                            *asked = Some(Box::pin(async move {
                                sleep(RETRY).await;
                                keeper.read(epoch, next).await
                            }));
                            if !std::mem::replace(&mut self.stalled, true) {
                                return Poll::Ready(Some(Event::Stalled(true)));
                            }
                        }
                    }
                    continue;
                }
            };
            self.at = At::past(next, known, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::atomic::{AtomicBool, AtomicU64, Ordering},
    };

    use futures_util::{FutureExt, StreamExt};
    use proptest::prelude::*;

    use super::*;
    use crate::feed::{Feed, Viewer};

    /// Keeps chunks in memory, as much as the test says.
    #[derive(Default)]
    struct Shelf {
        chunks: Mutex<BTreeMap<u64, Bytes>>,
        first: AtomicU64,
        broken: AtomicBool,
    }

    impl Keeper for Shelf {
        fn is_writable(&self) -> bool {
            false
        }

        fn is_sparse(&self) -> bool {
            true
        }

        fn publish(&self, _: Bytes, _: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>> {
            Box::pin(std::future::ready(Err(PublishError::Ended)))
        }

        fn read(self: Arc<Self>, _: Epoch, next: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
            Box::pin(async move {
                if self.broken.load(Ordering::Relaxed) {
                    return Err(FeedError("broken".into()));
                }
                let first = self.first.load(Ordering::Relaxed);
                let all = self.chunks.lock().unwrap();
                let some = all.range(next.max(first)..).take(3);
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
                        Some(seq) => From::After(Cursor { epoch: Epoch(7), seq }),
                        None => From::Start,
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

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_is_told_and_what_fails_stalls() {
        let (shelf, feed, filler) = shelf();
        (0..20).for_each(|seq| add(&shelf, &filler, seq));
        let behind = |seq| From::After(Cursor { epoch: Epoch(7), seq });
        shelf.first.store(10, Ordering::Relaxed);
        let mut late = feed.view(behind(4), None);
        let Some(Event::Gap(gap)) = late.next().await else { panic!("a gap") };
        assert_eq!(gap, Gap { from: 5, missing: 5, restarted: false });
        assert_eq!(seqs(&some(&mut late, usize::MAX)), (10..20).collect::<Vec<_>>());
        // Who wants what there is gets that, and nothing else.
        assert_eq!(seqs(&some(&mut feed.view(From::Start, None), usize::MAX)), (10..20).collect::<Vec<_>>());

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
        let mut waiting = feed.view(From::Now, None);
        // Told once, whoever says it.
        filler.stall(true);
        filler.stall(true);
        assert!(matches!(some(&mut waiting, usize::MAX)[..], [Event::Stalled(true)]));
        filler.stall(false);
        assert!(matches!(some(&mut waiting, usize::MAX)[..], [Event::Stalled(false)]));
    }

    /// A ring that begins before what is there by now: it fills up, and who views from now on waits for that.
    #[tokio::test]
    async fn what_was_there_before_the_ring_is_nothing_new() {
        let shelf = Arc::new(Shelf::default());
        let (feed, filler) = Feed::kept("default", shelf.clone(), HISTORY, Epoch(7), 5, 8);
        let (mut now, mut late) =
            (feed.view(From::Now, None), feed.view(From::After(Cursor { epoch: Epoch(7), seq: 5 }), None));
        (5..10).for_each(|seq| add(&shelf, &filler, seq));
        assert_eq!(seqs(&some(&mut now, usize::MAX)), [8, 9]);
        assert_eq!(seqs(&some(&mut late, usize::MAX)), [6, 7, 8, 9]);
    }

    #[cfg(feature = "cli")]
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

    #[tokio::test]
    async fn the_last_chunks() {
        let (shelf, feed, filler) = shelf();
        // Numbers are left out: those that the ring has.
        (0..10).for_each(|seq| add(&shelf, &filler, 3 * seq));
        assert_eq!(seqs(&some(&mut feed.view(From::Last(2), None), usize::MAX)), [24, 27]);
        let all = seqs(&some(&mut feed.view(From::Last(1000), None), usize::MAX));
        assert!(all.len() > 2 && all.ends_with(&[24, 27]), "{all:?}");
        assert!(some(&mut feed.view(From::Last(0), None), usize::MAX).is_empty());
    }

    #[tokio::test]
    async fn another_run_is_told() {
        let shelf = Arc::new(Shelf::default());
        let (feed, filler) = Feed::kept("default", shelf.clone(), HISTORY, Epoch(7), 0, 3);
        (0..3).for_each(|seq| add(&shelf, &filler, seq));
        let mut viewer = feed.view(From::Now, None);
        shelf.chunks.lock().unwrap().clear();
        filler.renew(Epoch(8), 0, 0);
        assert!(matches!(some(&mut viewer, usize::MAX)[..], [Event::End(End::Stopped)]));
        add(&shelf, &filler, 0);
        let mut now = feed.view(From::Now, None);
        add(&shelf, &filler, 1);
        assert_eq!(seqs(&some(&mut now, usize::MAX)), [1]);
        let mut again = feed.view(From::After(Cursor { epoch: Epoch(7), seq: 2 }), None);
        assert_eq!(again.epoch(), Epoch(8));
        let events = some(&mut again, usize::MAX);
        assert!(matches!(events[0], Event::Gap(Gap { restarted: true, .. })));
        assert_eq!(seqs(&events), [0, 1]);
    }
}
