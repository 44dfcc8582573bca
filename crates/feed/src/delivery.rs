//! What viewers are given, counted for those who operate a server.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// The upper bounds of the distribution of times from publication to sending, in seconds.
const BOUNDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// The least time between two samples of one viewer's times: of a fast feed some chunks show as much as all.
const PAUSE: Duration = Duration::from_millis(100);
/// How many threads can add to the distribution without contention; others share.
const SHARDS: usize = 8;

/// Counts what a group of viewers is given, such as all those of one transport: how many there are, their chunks and
/// bytes, and the time from a chunk's publication until it is given to the transport. Clones are handles of the same
/// counters.
///
/// Each viewer has counters of its own, which only a [`snapshot`](Self::snapshot) adds up. So a write costs a few
/// instructions, without a lock and without contention, and a snapshot is exact at any time; it takes time for each
/// viewer that is there.
///
/// ```
/// use futures_util::StreamExt;
/// use h3cast_feed::{
///     Deliveries, Feed, Lag, Start,
///     format::{Format, Framing, Writer},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), h3cast_feed::PublishError> {
/// let deliveries = Deliveries::default();
/// let (feed, publisher) = Feed::live("log", 1_000_000, Lag::Skip);
/// let writer = Writer::new(feed.view(Start::Start, None), Format::Raw, Framing::Plain).count_in(&deliveries);
/// publisher.publish("a line".into()).await?;
/// let mut written = Box::pin(writer.into_stream());
/// let _ = written.next().await;
/// let now = deliveries.snapshot();
/// assert_eq!((now.viewers, now.chunks, now.bytes), (1, 1, 6));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Deliveries(Arc<Tally>);

#[derive(Debug, Default)]
struct Tally {
    roll: Mutex<Roll>,
    shards: [Shard; SHARDS],
}

/// The viewers that are connected, and the totals of those that have left. A viewer moves from one to the other under
/// its lock, so that each snapshot counts it once.
#[derive(Debug, Default)]
struct Roll {
    present: Vec<Arc<Given>>,
    joined: u64,
    /// Chunks given to viewers that have left.
    chunks: u64,
    /// And bytes.
    bytes: u64,
}

/// What one viewer has been given. Only its [`Delivery`] writes here. In a cache line of its own, as its neighbour in
/// memory may be written by another processor.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Given {
    chunks: AtomicU64,
    bytes: AtomicU64,
    /// Where it is in `present`; changes under the lock of the roll.
    place: AtomicUsize,
}

/// A part of the distribution of times, in cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// In microseconds.
    sum: AtomicU64,
}

/// What [`Deliveries`] have counted, at one point in time.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Delivered {
    /// Viewers now.
    pub viewers: u64,
    /// How many there were so far.
    pub joined: u64,
    /// Chunks given to them.
    pub chunks: u64,
    /// The bytes given to them, with what a format adds.
    pub bytes: u64,
    /// Times from publication until a chunk was given to the transport: the upper bound of each bucket in seconds (the
    /// last one is infinite), and how many are in it and in none before. Of each viewer of a live feed it is at most
    /// one every 100 ms, that of the oldest chunk in a write, and only of chunks that were published since it came.
    pub times: Vec<(f64, u64)>,
    /// The sum of these times, in seconds.
    pub times_sum: f64,
}

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Where this thread adds to the distribution.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

impl Deliveries {
    /// Counts a viewer until this is dropped, and what it is given.
    #[must_use]
    pub fn viewer(&self) -> Delivery {
        let given = Arc::new(Given::default());
        let mut roll = self.0.roll();
        given.place.store(roll.present.len(), Ordering::Relaxed);
        roll.present.push(given.clone());
        roll.joined += 1;
        drop(roll);
        Delivery { tally: self.0.clone(), given, since: SystemTime::now(), next: None }
    }

    /// What they have counted by now.
    #[must_use]
    pub fn snapshot(&self) -> Delivered {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut now = Delivered {
            times: BOUNDS.into_iter().chain([f64::INFINITY]).map(|bound| (bound, 0)).collect(),
            ..Delivered::default()
        };
        {
            let roll = self.0.roll();
            now.viewers = roll.present.len() as u64;
            (now.joined, now.chunks, now.bytes) = (roll.joined, roll.chunks, roll.bytes);
            for given in &roll.present {
                now.chunks += get(&given.chunks);
                now.bytes += get(&given.bytes);
            }
        }
        let mut micros = 0;
        for shard in &self.0.shards {
            micros += get(&shard.sum);
            for ((_, count), bucket) in now.times.iter_mut().zip(&shard.buckets) {
                *count += get(bucket);
            }
        }
        now.times_sum = Duration::from_micros(micros).as_secs_f64();
        now
    }
}

impl Tally {
    fn roll(&self) -> MutexGuard<'_, Roll> {
        self.roll.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A viewer that [`Deliveries`] count.
#[derive(Debug)]
pub struct Delivery {
    tally: Arc<Tally>,
    given: Arc<Given>,
    /// When it came.
    since: SystemTime,
    /// When the time of a chunk is sampled next; `None` is now.
    next: Option<Instant>,
}

impl Delivery {
    /// Counts so many chunks, and bytes in all, that it is given now.
    #[inline]
    pub fn count(&mut self, chunks: u64, bytes: u64) {
        // Nothing else writes there, so that it need not be one atomic operation, which takes much longer.
        let add = |counter: &AtomicU64, more| counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        add(&self.given.chunks, chunks);
        add(&self.given.bytes, bytes);
    }

    /// The same for a viewer that several may hold.
    pub(crate) fn count_shared(&self, chunks: u64, bytes: u64) {
        self.given.chunks.fetch_add(chunks, Ordering::Relaxed);
        self.given.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Samples the time of the oldest of the chunks that it is given `now`, unless one was sampled just before.
    #[inline]
    pub fn look(&mut self, published: SystemTime, now: Instant) {
        if self.next.is_none_or(|next| now >= next) {
            self.sample(published, now);
        }
    }

    /// Apart from what happens for each write.
    #[inline(never)]
    fn sample(&mut self, published: SystemTime, now: Instant) {
        self.next = Some(now + PAUSE);
        // One that was there before is as old as its client wants it to be.
        if published < self.since {
            return;
        }
        let age = SystemTime::now().duration_since(published).unwrap_or_default();
        let shard = &self.tally.shards[shard()];
        let at = BOUNDS.partition_point(|bound| *bound < age.as_secs_f64());
        shard.buckets[at].fetch_add(1, Ordering::Relaxed);
        shard.sum.fetch_add(u64::try_from(age.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let mut roll = self.tally.roll();
        let place = self.given.place.load(Ordering::Relaxed);
        roll.present.swap_remove(place);
        if let Some(moved) = roll.present.get(place) {
            moved.place.store(place, Ordering::Relaxed);
        }
        roll.chunks += self.given.chunks.load(Ordering::Relaxed);
        roll.bytes += self.given.bytes.load(Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_distributed_and_sampled() {
        let deliveries = Deliveries::default();
        let mut viewer = deliveries.viewer();
        let start = Instant::now();
        let now = SystemTime::now();
        // What was published before it came does not count.
        viewer.look(viewer.since - Duration::from_secs(60), start);
        viewer.since = now - Duration::from_secs(100);
        viewer.look(now - Duration::from_secs(20), start + PAUSE);
        viewer.look(now - Duration::from_secs(20), start + PAUSE + PAUSE / 2);
        viewer.look(now - Duration::from_secs(50), start + 2 * PAUSE);
        // Of another machine whose clock is ahead.
        viewer.look(now + Duration::from_secs(50), start + 3 * PAUSE);
        viewer.count(3, 30);
        let counted = deliveries.snapshot();
        let filled: Vec<_> = counted.times.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(filled, [(0.001, 1), (30.0, 1), (f64::INFINITY, 1)]);
        assert!((70.0..80.0).contains(&counted.times_sum), "{counted:?}");
        drop(viewer);
        let counted = deliveries.snapshot();
        assert_eq!((counted.viewers, counted.joined, counted.chunks, counted.bytes), (0, 1, 3, 30));
    }

    #[test]
    fn nothing_is_lost_of_viewers_that_come_and_go() {
        const VIEWERS: u64 = 200;
        const WRITES: u64 = 50;
        let deliveries = Deliveries::default();
        let all = 2 * VIEWERS * WRITES;
        std::thread::scope(|scope| {
            let threads = [(); 2].map(|()| {
                scope.spawn(|| {
                    // Each leaves while one that came later is there, which takes its place.
                    let mut before = deliveries.viewer();
                    for _ in 1..VIEWERS {
                        let next = deliveries.viewer();
                        (0..WRITES).for_each(|_| before.count(1, 2));
                        before = next;
                    }
                    (0..WRITES).for_each(|_| before.count(1, 2));
                })
            });
            // One that leaves meanwhile is counted once by each.
            let mut seen = 0;
            while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                let now = deliveries.snapshot();
                assert!((seen..=all).contains(&now.chunks) && now.viewers <= 4, "{now:?} after {seen}");
                seen = now.chunks;
            }
        });
        let now = deliveries.snapshot();
        assert_eq!((now.viewers, now.joined, now.chunks, now.bytes), (0, 2 * VIEWERS, all, 2 * all));
    }

    #[test]
    fn a_viewer_keeps_its_numbers_when_another_leaves() {
        let deliveries = Deliveries::default();
        let mut viewers: Vec<_> = (0..5).map(|_| deliveries.viewer()).collect();
        let mut all = 0;
        // The first, one in the middle, the last. Each is given another number.
        for leaving in [0, 2, 2] {
            for (number, viewer) in (1..).zip(&mut viewers) {
                viewer.count(number, 10 * number);
                all += number;
            }
            drop(viewers.remove(leaving));
            assert_eq!(deliveries.snapshot().chunks, all);
        }
        viewers[0].count(1, 10);
        viewers[1].count_shared(1, 10);
        let now = deliveries.snapshot();
        assert_eq!((now.viewers, now.joined, now.chunks, now.bytes), (2, 5, all + 2, 10 * (all + 2)));
    }
}
