//! Turns of those who read what may be large, before anyone knows how large it is.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Budget, STATIC, lock, part};

/// A place is that many bytes.
const PLACE: u64 = 1 << 10;

/// What the turns of a budget share, for the limit that it is of.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Option<Places>>);

#[derive(Debug, Clone)]
struct Places {
    all: u32,
    free: Arc<Semaphore>,
}

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
        let places = free.acquire_many_owned(places(bytes).min(all)).await;
        // It is never closed.
        Turn(places.ok())
    }

    fn places(&self) -> Places {
        let all =
            places(part(self.limit(), 100 - STATIC)).min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let mut places = lock(&self.0.turns.0);
        // Those who have a turn when the limit is changed end it as they began it.
        places.take_if(|places| places.all != all);
        places.get_or_insert_with(|| Places { all, free: Arc::new(Semaphore::new(all as usize)) }).clone()
    }
}

/// A turn to read what may be large: see [`Budget::turn`]. It ends when this is dropped.
pub struct Turn(Option<OwnedSemaphorePermit>);

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_ref().map_or(0, |places| places.num_permits() as u64 * PLACE);
        f.debug_struct("Turn").field("bytes", &bytes).finish_non_exhaustive()
    }
}

impl Turn {
    /// The same bytes, which take as much of it from now on until the last clone and slice of them is dropped.
    #[must_use]
    pub fn keep(&mut self, bytes: Bytes) -> Bytes {
        let many = places(bytes.len() as u64) as usize;
        match self.0.as_mut().and_then(|places| places.split(many.min(places.num_permits()))) {
            Some(places) => Bytes::from_owner(Kept { bytes, _places: places }),
            None => bytes,
        }
    }
}

struct Kept {
    bytes: Bytes,
    _places: OwnedSemaphorePermit,
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
