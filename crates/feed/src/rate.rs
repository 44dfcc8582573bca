//! How much went by, and how fast lately.

use std::time::Instant;

/// Over how many seconds a rate is taken.
const SECONDS: u64 = 5;
/// One more: the second that runs is not counted yet.
const SLOTS: usize = SECONDS as usize + 1;

/// How fast chunks came in the last five whole seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rate {
    /// Chunks a second.
    pub chunks: f64,
    /// Bytes a second.
    pub bytes: f64,
}

/// Counts chunks and bytes.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    began: Instant,
    /// What came in each of the last seconds.
    slots: [Slot; SLOTS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    second: u64,
    chunks: u64,
    bytes: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { chunks: 0, bytes: 0, began: Instant::now(), slots: Default::default() }
    }
}

impl Tally {
    pub(crate) fn count(&mut self, bytes: usize) {
        self.count_at(self.began.elapsed().as_secs(), bytes);
    }

    pub(crate) fn rate(&self) -> Rate {
        self.rate_at(self.began.elapsed().as_secs())
    }

    fn count_at(&mut self, second: u64, bytes: usize) {
        self.chunks += 1;
        self.bytes += bytes as u64;
        let slot = &mut self.slots[(second % SLOTS as u64) as usize];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot.chunks += 1;
        slot.bytes += bytes as u64;
    }

    fn rate_at(&self, now: u64) -> Rate {
        let recent = self.slots.iter().filter(|slot| slot.second < now && slot.second + SECONDS >= now);
        let (chunks, bytes) = recent.fold((0, 0), |(chunks, bytes), slot| (chunks + slot.chunks, bytes + slot.bytes));
        // Of a feed that is younger than that, over as long as there is.
        let seconds = now.clamp(1, SECONDS) as f64;
        Rate { chunks: chunks as f64 / seconds, bytes: bytes as f64 / seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_seconds_count() {
        let mut tally = Tally::default();
        assert_eq!(tally.rate_at(0), Rate::default());
        for second in 0..10 {
            tally.count_at(second, 100);
            tally.count_at(second, 300);
        }
        // The running second is not over, and what was longer ago is no matter.
        tally.count_at(10, 1_000_000);
        assert_eq!(tally.rate_at(10), Rate { chunks: 2.0, bytes: 400.0 });
        assert_eq!(tally.rate_at(14), Rate { chunks: 0.6, bytes: 200_080.0 });
        assert_eq!(tally.rate_at(100), Rate::default());
        assert_eq!((tally.chunks, tally.bytes), (21, 1_004_000));
        let mut young = Tally::default();
        young.count_at(0, 10);
        assert_eq!(young.rate_at(1), Rate { chunks: 1.0, bytes: 10.0 });
    }
}
