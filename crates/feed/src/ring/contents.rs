//! What is in a ring: its chunks, and who waits for the next one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::Waker,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{
    Behind, Chunk, End, Gap,
    cost::{block, buffer},
};

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
    /// What the encodings of its chunks cost now, in bytes.
    pub(super) encoded: u64,
    /// The numbers of the chunks with encodings, in the order in which they got the first one. Some may be gone.
    pub(super) encodings: VecDeque<u64>,
    pub(super) end: Option<End>,
    /// New chunks cannot be received or stored.
    pub(super) stalled: bool,
    /// Publishers wait: another process takes the feed over.
    pub(super) held: bool,
    /// The wakers of viewers that wait for the next chunk.
    pub(super) waiting: Vec<Option<Waker>>,
    /// The places in it whose viewer has left.
    pub(super) free: Vec<usize>,
    /// Grows each time `waiting` is emptied.
    pub(super) woken: u64,
    /// How many viewers are at each number, for [`Lag::Block`](crate::Lag::Block) only.
    pub(super) places: BTreeMap<u64, usize>,
    pub(super) skipped: u64,
    /// How often viewers were told of a gap.
    pub(super) gaps: u64,
    /// The next number of each viewer, or [`VACANT`].
    pub(super) positions: Vec<u64>,
    /// The places in it whose viewer has left.
    pub(super) vacant: Vec<u32>,
}

/// No viewer is here.
const VACANT: u64 = u64::MAX;

/// A viewer that has had a chunk waiting for longer than that is behind.
const PROMPT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Slot {
    /// What all chunks before it have cost, in bytes.
    pub(super) before: u64,
    /// What its encodings cost, in bytes.
    encoded: u64,
    pub(super) chunk: Arc<Chunk>,
}

/// What a chunk costs in addition to its buffer, so that a feed of empty lines is bounded too: its block on the
/// heap with two counters, and its slot, of which up to an eighth more are reserved.
const OVERHEAD: usize = block(size_of::<Chunk>() + 2 * size_of::<usize>()) + size_of::<Slot>() * 9 / 8;

/// Encodings may take one part in this many of the history. Viewers at the live edge share the latest ones; a
/// viewer further behind costs an encoding of its own, whatever is kept.
const ENCODED_PART: u64 = 8;
/// How many encodings are looked at at once to give them up: each new one pays for that.
const LOOKED_AT: usize = 8;
/// How many numbers of encodings are reserved at least.
const STEP: usize = 16;

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

    /// The same where the numbering has gaps: in a feed that shares its numbers with others where it is stored, or
    /// whose source has lost something.
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

    /// What the chunks and their encodings cost now.
    pub(super) fn charged(&self) -> u64 {
        self.kept_bytes() + self.encoded
    }

    /// Adds a chunk whose number is not before `next`, and drops the oldest ones beyond the history.
    pub(super) fn push(&mut self, chunk: Arc<Chunk>, history: u64) {
        let before = self.total;
        self.next = chunk.seq + 1;
        self.count += 1;
        self.total += cost(&chunk.bytes);
        reserve(&mut self.chunks);
        self.chunks.push_back(Slot { before, encoded: 0, chunk });
        // Only here, since a chunk leaves when another is published, not when one is read. Encodings that viewers
        // still hold take no more than their part from chunks: slow viewers could empty the history otherwise.
        let room = history - self.encoded.min(history / ENCODED_PART);
        // A chunk larger than the whole history still stands alone in it.
        while self.kept_bytes() > room && self.chunks.len() > 1 {
            if let Some(dropped) = self.chunks.pop_front() {
                self.floor = dropped.chunk.seq + 1;
                self.encoded -= dropped.encoded;
            }
        }
    }

    /// Charges the history for an encoding of that chunk, if the chunk is still there.
    pub(super) fn encode(&mut self, chunk: &Arc<Chunk>, cost: u64, history: u64) {
        let Some(slot) = self.index(chunk.seq).and_then(|at| self.chunks.get_mut(at)) else { return };
        if !Arc::ptr_eq(&slot.chunk, chunk) {
            // Its other encodings were given up meanwhile, and this one goes with the viewer.
            return;
        }
        let first = slot.encoded == 0;
        slot.encoded += cost;
        self.encoded += cost;
        if first {
            while self.encodings.front().is_some_and(|seq| *seq < self.floor) {
                self.encodings.pop_front();
            }
            reserve(&mut self.encodings);
            self.encodings.push_back(chunk.seq);
        }
        self.trim(history);
    }

    /// Gives up the oldest encodings beyond their part of the history, except those that viewers still hold.
    #[inline]
    pub(super) fn trim(&mut self, history: u64) {
        if self.encoded > history / ENCODED_PART {
            self.give_up(history / ENCODED_PART);
        }
    }

    #[inline(never)]
    fn give_up(&mut self, room: u64) {
        for _ in 0..LOOKED_AT {
            if self.encoded <= room {
                return;
            }
            let Some(seq) = self.encodings.pop_front() else { return };
            let newest = seq + 1 == self.next;
            let Some(slot) = self.index(seq).and_then(|at| self.chunks.get_mut(at)) else { continue };
            // The newest is what viewers ask for now.
            if newest || Arc::strong_count(&slot.chunk) > 1 || slot.chunk.is_held() {
                self.encodings.push_back(seq);
                continue;
            }
            self.encoded -= std::mem::take(&mut slot.encoded);
            slot.chunk = Arc::new(slot.chunk.bare());
        }
    }

    /// Where the chunk of that number is.
    fn index(&self, seq: u64) -> Option<usize> {
        let at = usize::try_from(seq.checked_sub(self.floor)?).ok()?;
        match self.chunks.get(at) {
            Some(slot) if slot.chunk.seq == seq => Some(at),
            // The numbering has gaps.
            _ => self.chunks.binary_search_by_key(&seq, |slot| slot.chunk.seq).ok(),
        }
    }

    /// Drops the chunks before that number.
    pub(super) fn clear_before(&mut self, first: u64) {
        let gone = self.chunks.partition_point(|slot| slot.chunk.seq < first);
        for dropped in self.chunks.drain(..gone) {
            // Not `first`: the numbers up to there may be those of other feeds, and a viewer who is there misses nothing.
            self.floor = dropped.chunk.seq + 1;
            self.encoded -= dropped.encoded;
        }
    }

    /// Drops all chunks.
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.encodings.clear();
        self.encoded = 0;
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

    /// Notes a viewer at that number; gives where its position is.
    pub(super) fn enter(&mut self, next: u64) -> u32 {
        let at = self.vacant.pop().unwrap_or_else(|| {
            self.positions.push(VACANT);
            // More viewers than that have no room in memory.
            u32::try_from(self.positions.len() - 1).unwrap_or(u32::MAX)
        });
        self.advance(at, next);
        at
    }

    /// The viewer whose position is there has come to that number.
    #[inline]
    pub(super) fn advance(&mut self, at: u32, next: u64) {
        if let Some(position) = self.positions.get_mut(at as usize) {
            *position = next;
        }
    }

    /// The viewer whose position is there gets a gap of these numbers, and continues after them. If that is
    /// `counted`, they are lost.
    #[cold]
    pub(super) fn miss(&mut self, at: u32, gap: Gap, counted: bool) {
        self.advance(at, gap.from + gap.missing);
        match gap.restarted {
            // It has started over, and everything of it may still be there.
            true => self.gaps += u64::from(gap.missing > 0),
            false if counted => {
                self.skipped = self.skipped.saturating_add(gap.missing);
                self.gaps += 1;
            }
            false => {}
        }
    }

    /// The viewer whose position is there has left.
    pub(super) fn exit(&mut self, at: u32) {
        self.advance(at, VACANT);
        self.vacant.push(at);
        if self.vacant.len() == self.positions.len() {
            // No more than were there at once.
            (self.positions, self.vacant) = Default::default();
        }
    }

    /// How far its viewers are behind.
    pub(super) fn behind(&self) -> Behind {
        let furthest = self.positions.iter().copied().min().unwrap_or(VACANT).max(self.floor);
        let mut behind = Behind::default();
        let at = self.chunks.partition_point(|slot| slot.chunk.seq < furthest);
        let Some(first) = self.chunks.get(at) else { return behind };
        let now = SystemTime::now();
        // Not the numbers from there on: where the feed is stored, some may be of other feeds.
        behind.chunks = (self.chunks.len() - at) as u64;
        behind.time = now.duration_since(first.chunk.time).unwrap_or_default();
        if let Some(late) = now.checked_sub(PROMPT) {
            let fresh = self.chunks.partition_point(|slot| slot.chunk.time <= late);
            let prompt = self.chunks.get(fresh).map_or(self.next, |slot| slot.chunk.seq);
            behind.viewers = self.positions.iter().filter(|position| **position < prompt).count() as u64;
        }
        behind
    }

    pub(super) fn wake(&mut self) -> Vec<Option<Waker>> {
        self.woken += 1;
        self.free.clear();
        std::mem::take(&mut self.waiting)
    }
}

/// Makes room for one more, and for fewer others than `VecDeque` would: a ring of short lines is mostly slots.
/// Returns what is not needed any more.
#[inline]
fn reserve<T>(queue: &mut VecDeque<T>) {
    let (len, capacity) = (queue.len(), queue.capacity());
    if len == capacity {
        queue.reserve_exact(len / 8 + STEP);
    } else if capacity > 4 * (len + STEP) {
        queue.shrink_to(2 * (len + STEP));
    }
}

pub(super) fn cost(bytes: &Bytes) -> u64 {
    (buffer(bytes.len()) + OVERHEAD) as u64
}

#[cfg(all(test, target_os = "linux", target_pointer_width = "64"))]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::{Chunk, Contents};

    #[test]
    fn numbers_of_other_feeds_are_no_lag() {
        let mut contents = Contents::default();
        contents.enter(0);
        for seq in [3, 90, 1000] {
            contents.push(Arc::new(Chunk::new(seq, Bytes::from_static(b"a line"))), 1 << 20);
        }
        assert_eq!(contents.behind().chunks, 3);
        let at = contents.enter(91);
        contents.advance(0, 91);
        assert_eq!((contents.behind().chunks, at), (1, 1));
    }

    /// `--help`, the README and docs/protocol.md name it.
    #[test]
    fn the_overhead_is_as_documented() {
        let line = 70;
        assert_eq!(super::cost(&Bytes::from(vec![b'x'; line])), 267);
    }
}
