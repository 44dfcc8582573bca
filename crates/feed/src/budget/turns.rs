//! Turns of those who read what may be large, before anyone knows how large it is.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    pin,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{Budget, STATIC, lock, part};

/// A place is that many bytes.
const PLACE: u64 = 1 << 10;
/// For how long others wait for what was kept. A client that takes it slowly may take it for ever.
const HELD: Duration = Duration::from_secs(10);
/// How often one that waits looks for what was kept for so long.
const LOOK: Duration = Duration::from_secs(1);

/// What the turns of a budget share.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// For the limit that it has.
    places: Mutex<Option<Places>>,
    /// Since when something is kept, the oldest first. Some may be gone.
    kept: Mutex<VecDeque<(Instant, Weak<Held>)>>,
}

#[derive(Debug, Clone)]
struct Places {
    all: u32,
    free: Arc<Semaphore>,
}

/// Places that are given up at the latest with what they are for.
type Held = Mutex<Option<OwnedSemaphorePermit>>;

/// So many bytes, in places: at least one.
fn places(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PLACE)).unwrap_or(u32::MAX).max(1)
}

impl Budget {
    /// Waits until something may be read that takes up to `bytes` of memory: those who read at the same time, and what
    /// they [keep](Turn::keep), take a fifth of the limit together, which is what [histories](Self::for_histories) leave.
    /// Turns come in the order in which they were asked for. What takes more than a fifth has its turn alone. This charges
    /// nothing: what was read is to be charged once its size is known.
    ///
    /// Cancel safe: dropping the future gives up the place in the queue.
    pub async fn turn(&self, bytes: u64) -> Turn {
        let Places { all, free } = self.places();
        let waiting = free.acquire_many_owned(places(bytes).min(all));
        pin!(waiting);
        loop {
            match timeout(LOOK, &mut waiting).await {
                // It is never closed.
                Ok(places) => return Turn { budget: self.clone(), places: places.ok() },
                Err(_) => self.give_up(),
            }
        }
    }

    fn places(&self) -> Places {
        let all =
            places(part(self.limit(), 100 - STATIC)).min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let mut places = lock(&self.0.turns.places);
        // Those who have a turn when the limit is changed end it as they began it.
        places.take_if(|places| places.all != all);
        places.get_or_insert_with(|| Places { all, free: Arc::new(Semaphore::new(all as usize)) }).clone()
    }

    /// Lets others have the places of what was kept for too long.
    fn give_up(&self) {
        let mut kept = lock(&self.0.turns.kept);
        while kept.front().is_some_and(|(since, held)| since.elapsed() >= HELD || held.strong_count() == 0) {
            let places = kept.pop_front().and_then(|(_, held)| lock(&*held.upgrade()?).take());
            drop(places);
        }
    }
}

/// A turn to read what may be large: see [`Budget::turn`]. It ends when this is dropped.
pub struct Turn {
    budget: Budget,
    places: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.places.as_ref().map_or(0, |places| places.num_permits() as u64 * PLACE);
        f.debug_struct("Turn").field("bytes", &bytes).finish_non_exhaustive()
    }
}

impl Turn {
    /// The same bytes, which take as much of it from now on: until the last clone and slice of them is dropped, or 10 s
    /// later if others wait. What is copied from them does not count.
    #[must_use]
    pub fn keep(&mut self, bytes: Bytes) -> Bytes {
        let many = places(bytes.len() as u64) as usize;
        let Some(places) = self.places.as_mut().and_then(|places| places.split(many.min(places.num_permits()))) else {
            return bytes;
        };
        let held = Arc::new(Mutex::new(Some(places)));
        let mut kept = lock(&self.budget.0.turns.kept);
        while kept.front().is_some_and(|(_, held)| held.strong_count() == 0) {
            kept.pop_front();
        }
        kept.push_back((Instant::now(), Arc::downgrade(&held)));
        Bytes::from_owner(Kept { bytes, _held: held })
    }
}

struct Kept {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MB: u64 = 1_000_000;

    fn bytes(many: u64) -> Bytes {
        vec![0; usize::try_from(many).unwrap()].into()
    }

    #[tokio::test]
    async fn what_is_read_at_once_and_kept_takes_a_fifth() {
        let budget = Budget::new(100 * MB);
        let mut first = budget.turn(12 * MB).await;
        let mut second = Box::pin(budget.turn(12 * MB));
        assert!((&mut second).now_or_never().is_none());
        // What fits does not overtake it.
        let mut third = Box::pin(budget.turn(MB));
        assert!((&mut third).now_or_never().is_none());
        let kept = first.keep(bytes(4 * MB));
        drop(first);
        let second = second.now_or_never().expect("there is room for 16 MB");
        let _third = third.now_or_never().expect("and for one more");
        drop(second);
        let part = kept.slice(1..10);
        drop(kept);
        assert!(budget.turn(19 * MB).now_or_never().is_none(), "a slice keeps all of it");
        drop(part);
        assert!(budget.turn(19 * MB - 2 * PLACE).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_is_larger_than_that_has_its_turn_alone() {
        let budget = Budget::new(100 * MB);
        let mut first = budget.turn(60 * MB).await;
        let kept = first.keep(bytes(30 * MB));
        drop(first);
        assert!(budget.turn(1).now_or_never().is_none());
        drop(kept);
        assert!(budget.turn(60 * MB).now_or_never().is_some());
    }

    #[tokio::test]
    async fn one_who_leaves_the_queue_holds_up_no_one() {
        let budget = Budget::new(100 * MB);
        let first = budget.turn(20 * MB).await;
        let mut second = Box::pin(budget.turn(20 * MB));
        let mut third = Box::pin(budget.turn(MB));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        drop(first);
        drop(second);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_for_long_holds_up_no_one() {
        let budget = Budget::new(100 * MB);
        let mut first = budget.turn(60 * MB).await;
        let _kept = first.keep(bytes(30 * MB));
        drop(first);
        let began = Instant::now();
        let second = budget.turn(60 * MB).await;
        assert!((HELD..=HELD + LOOK).contains(&began.elapsed()), "{:?}", began.elapsed());
        // It is not given back twice.
        assert!(budget.turn(1).now_or_never().is_none());
        drop(second);
        assert!(budget.turn(20 * MB).now_or_never().is_some());
    }

    #[tokio::test]
    async fn another_limit_has_other_turns() {
        let budget = Budget::new(100 * MB);
        let first = budget.turn(20 * MB).await;
        budget.set_limit(200 * MB);
        let second = budget.turn(30 * MB).now_or_never().expect("there are 40 MB");
        drop((first, second));
        assert!(budget.turn(40 * MB).now_or_never().is_some());
    }
}
