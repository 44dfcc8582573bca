//! How much a feed carried, and its recent rate.

use tokio::time::Instant;

/// Rates are averages of this many seconds.
const SECONDS: u64 = 5;
/// One more: the current second does not count yet.
const SECONDS_KEPT: usize = SECONDS as usize + 1;

/// The average rate of the last five whole seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rate {
    /// Chunks per second.
    pub chunks: f64,
    /// Bytes per second.
    pub bytes: f64,
}

/// Counts chunks and bytes.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    began: Instant,
    /// When the last chunk was counted.
    pub(crate) last: Option<Instant>,
    /// The last seconds.
    seconds: [Second; SECONDS_KEPT],
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    number: u64,
    chunks: u64,
    bytes: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self { chunks: 0, bytes: 0, began: Instant::now(), last: None, seconds: Default::default() }
    }
}

impl Meter {
    pub(crate) fn count(&mut self, chunks: u64, bytes: usize) {
        let now = Instant::now();
        self.last = Some(now);
        self.count_at(now.duration_since(self.began).as_secs(), chunks, bytes);
    }

    pub(crate) fn rate(&self) -> Rate {
        self.rate_at(self.began.elapsed().as_secs())
    }

    fn count_at(&mut self, second: u64, chunks: u64, bytes: usize) {
        self.chunks += chunks;
        self.bytes += bytes as u64;
        let slot = &mut self.seconds[(second % SECONDS_KEPT as u64) as usize];
        if slot.number != second {
            *slot = Second { number: second, ..Second::default() };
        }
        slot.chunks += chunks;
        slot.bytes += bytes as u64;
    }

    fn rate_at(&self, now: u64) -> Rate {
        let recent = self.seconds.iter().filter(|slot| slot.number < now && slot.number + SECONDS >= now);
        let (chunks, bytes) = recent.fold((0, 0), |(chunks, bytes), slot| (chunks + slot.chunks, bytes + slot.bytes));
        // The average over its lifetime if a feed is younger than that.
        let seconds = now.clamp(1, SECONDS) as f64;
        Rate { chunks: chunks as f64 / seconds, bytes: bytes as f64 / seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_seconds_count() {
        let mut meter = Meter::default();
        assert_eq!(meter.rate_at(0), Rate::default());
        for second in 0..10 {
            meter.count_at(second, 1, 100);
            meter.count_at(second, 1, 300);
        }
        // The current second is not over, and older ones don't count.
        meter.count_at(10, 1, 1_000_000);
        assert_eq!(meter.rate_at(10), Rate { chunks: 2.0, bytes: 400.0 });
        assert_eq!(meter.rate_at(14), Rate { chunks: 0.6, bytes: 200_080.0 });
        assert_eq!(meter.rate_at(100), Rate::default());
        assert_eq!((meter.chunks, meter.bytes), (21, 1_004_000));
        let mut young = Meter::default();
        young.count_at(0, 1, 10);
        assert_eq!(young.rate_at(1), Rate { chunks: 1.0, bytes: 10.0 });
    }
}
