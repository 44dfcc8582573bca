//! What is in a ring: its chunks, and who waits for the next one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::Waker,
};

use bytes::Bytes;

use crate::{Chunk, End};

#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) chunks: VecDeque<Slot>,
    /// All chunks from this number up to `next` are in `chunks`.
    pub(super) floor: u64,
    /// The number of the next chunk, or the least that it may have.
    pub(super) next: u64,
    /// How many chunks there have been.
    pub(super) count: u64,
    /// What all chunks have cost, in bytes.
    pub(super) total: u64,
    pub(super) end: Option<End>,
    /// What stores the feed cannot be reached.
    pub(super) stalled: bool,
    /// The wakers of viewers that wait for the next chunk.
    pub(super) waiting: Vec<Option<Waker>>,
    /// The places in it whose viewer has left.
    pub(super) free: Vec<usize>,
    /// Grows each time `waiting` is emptied.
    pub(super) woken: u64,
    /// How many viewers are at each number, for [`Lag::Block`](crate::Lag::Block) only.
    pub(super) places: BTreeMap<u64, usize>,
    pub(super) skipped: u64,
}

#[derive(Debug)]
pub(super) struct Slot {
    /// What all chunks before it have cost, in bytes.
    pub(super) before: u64,
    pub(super) chunk: Arc<Chunk>,
}

/// What a chunk costs in addition to its bytes, so that a feed of empty lines is bounded too.
const OVERHEAD: usize = size_of::<Chunk>() + 2 * size_of::<usize>() + size_of::<Slot>();

impl Contents {
    /// The first chunk that is not before `seq`, if there is one.
    pub(super) fn at(&self, seq: u64) -> Option<&Slot> {
        let at = usize::try_from(seq.saturating_sub(self.floor)).unwrap_or(usize::MAX);
        match self.chunks.get(at) {
            Some(kept) if kept.chunk.seq == seq => Some(kept),
            _ if seq >= self.next => None,
            _ => self.search(seq),
        }
    }

    /// The same where the numbering has gaps, in a feed that is stored externally.
    #[cold]
    pub(super) fn search(&self, seq: u64) -> Option<&Slot> {
        self.chunks.get(self.chunks.partition_point(|kept| kept.chunk.seq < seq))
    }

    /// The cost of the chunks from `seq` on that are still there.
    pub(super) fn since(&self, seq: u64) -> u64 {
        self.at(seq).map_or(0, |kept| self.total - kept.before)
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        self.chunks.front().map_or(0, |first| self.total - first.before)
    }

    /// Adds a chunk whose number is not before `next`, and drops the oldest ones beyond the history.
    pub(super) fn push(&mut self, chunk: Arc<Chunk>, history: u64) {
        let before = self.total;
        self.next = chunk.seq + 1;
        self.count += 1;
        self.total += cost(&chunk.bytes);
        self.chunks.push_back(Slot { before, chunk });
        // A chunk larger than the whole history still stands alone in it.
        while self.kept_bytes() > history && self.chunks.len() > 1 {
            if let Some(dropped) = self.chunks.pop_front() {
                self.floor = dropped.chunk.seq + 1;
            }
        }
    }

    /// The number of the first of the last `many` chunks; `None` if there are no more than that.
    pub(super) fn last(&self, many: u64) -> Option<u64> {
        let before = self.chunks.len().checked_sub(usize::try_from(many).unwrap_or(usize::MAX))?;
        (before > 0).then(|| self.chunks.get(before).map_or(self.next, |kept| kept.chunk.seq))
    }

    pub(super) fn slowest(&self) -> Option<u64> {
        self.places.keys().next().copied()
    }

    /// Removes a viewer from its place. Whether that moved the slowest place.
    pub(super) fn leave(&mut self, place: u64) -> bool {
        let slowest = self.slowest() == Some(place);
        match self.places.get_mut(&place) {
            Some(count) if *count > 1 => {
                *count -= 1;
                return false;
            }
            _ => self.places.remove(&place),
        };
        slowest
    }

    pub(super) fn wake(&mut self) -> Vec<Option<Waker>> {
        self.woken += 1;
        self.free.clear();
        std::mem::take(&mut self.waiting)
    }
}

pub(super) fn cost(bytes: &Bytes) -> u64 {
    (bytes.len() + OVERHEAD) as u64
}

#[cfg(all(test, target_os = "linux", target_pointer_width = "64"))]
mod tests {
    /// `--help`, the README and docs/protocol.md name it.
    #[test]
    fn the_overhead_is_as_documented() {
        assert_eq!(super::OVERHEAD, 136);
    }
}
