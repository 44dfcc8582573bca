//! What viewers are given, counted for those who operate a server.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// The upper bounds of the distribution of times from publication to sending, in seconds.
const BOUNDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// How often the time of one viewer is looked at, at most: of a fast feed some chunks tell as much as all.
const PAUSE: Duration = Duration::from_millis(100);
/// Threads that count at once without being in each other's way; more share.
const SHARDS: usize = 8;

/// Counts what some viewers are given, as all those of one transport: how many there are, their chunks and bytes, and
/// the time from a chunk's publication until it is given to the transport. Clones are handles of the same counters.
///
/// Counting costs a few instructions for each write, and no lock.
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
    viewers: AtomicU64,
    joined: AtomicU64,
    shards: [Shard; SHARDS],
}

/// Apart from the others in memory, so that processors do not take it from each other.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    chunks: AtomicU64,
    bytes: AtomicU64,
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

/// Where this thread counts.
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
        self.0.viewers.fetch_add(1, Ordering::Relaxed);
        self.0.joined.fetch_add(1, Ordering::Relaxed);
        Delivery { tally: self.0.clone(), since: SystemTime::now(), looked: None }
    }

    /// What they have counted by now.
    #[must_use]
    pub fn snapshot(&self) -> Delivered {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut now = Delivered {
            viewers: get(&self.0.viewers),
            joined: get(&self.0.joined),
            times: BOUNDS.into_iter().chain([f64::INFINITY]).map(|bound| (bound, 0)).collect(),
            ..Delivered::default()
        };
        let mut micros = 0;
        for shard in &self.0.shards {
            now.chunks += get(&shard.chunks);
            now.bytes += get(&shard.bytes);
            micros += get(&shard.sum);
            for ((_, count), bucket) in now.times.iter_mut().zip(&shard.buckets) {
                *count += get(bucket);
            }
        }
        now.times_sum = Duration::from_micros(micros).as_secs_f64();
        now
    }
}

/// A viewer that [`Deliveries`] count.
#[derive(Debug)]
pub struct Delivery {
    tally: Arc<Tally>,
    /// When it came.
    since: SystemTime,
    /// When the time of a chunk was looked at last.
    looked: Option<Instant>,
}

impl Delivery {
    /// Counts so many chunks, and bytes in all, that it is given now.
    pub fn count(&self, chunks: u64, bytes: u64) {
        let shard = &self.tally.shards[shard()];
        shard.chunks.fetch_add(chunks, Ordering::Relaxed);
        shard.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Looks at the time of the oldest of the chunks that it is given `now`, unless one was looked at just before.
    pub fn look(&mut self, published: SystemTime, now: Instant) {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < PAUSE) {
            return;
        }
        self.looked = Some(now);
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
        self.tally.viewers.fetch_sub(1, Ordering::Relaxed);
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
    fn threads_count_apart_and_are_summed() {
        let deliveries = Deliveries::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                let viewer = deliveries.viewer();
                scope.spawn(move || (0..1000).for_each(|_| viewer.count(1, 2)));
            }
        });
        let counted = deliveries.snapshot();
        assert_eq!((counted.viewers, counted.chunks, counted.bytes), (0, 16_000, 32_000));
    }
}
