//! The numbers that were never given to chunks, or whose chunks a power loss took. They are noted at the beginning of each
//! file, since what was before them may not be there any more.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// So many runs of such numbers are known, the latest ones. A feed has one for each power loss at most.
const MOST: usize = 256;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// How many there are in all.
    total: u64,
    /// Where they begin, and the number after each run; the latest one last.
    runs: VecDeque<(u64, u64)>,
}

impl LeftOut {
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The feed continues at the number `next`, and its last chunk is before the number `from`.
    pub(crate) fn add(&mut self, from: u64, next: u64) {
        self.total += next.saturating_sub(from);
        match self.runs.back_mut() {
            Some((_, last)) if *last == from => *last = next,
            _ if next > from => self.runs.push_back((from, next)),
            _ => {}
        }
        if self.runs.len() > MOST {
            self.runs.pop_front();
        }
    }

    /// The number of the first of the last `many` chunks before the number `before`.
    pub(crate) fn last_before(&self, before: u64, mut many: u64) -> u64 {
        let mut end = before;
        for (from, next) in self.runs.iter().rev().filter(|(_, next)| *next <= before) {
            match many.checked_sub(end - next) {
                Some(more) if more > 0 => (many, end) = (more, *from),
                _ => break,
            }
        }
        end.saturating_sub(many)
    }

    /// `None` if there are none.
    pub(crate) fn write(&self) -> Option<Bytes> {
        let mut value = BytesMut::with_capacity(8 + 16 * self.runs.len());
        value.put_u64_le(self.total);
        for (from, next) in &self.runs {
            value.put_u64_le(*from);
            value.put_u64_le(*next);
        }
        (self.total > 0).then(|| value.freeze())
    }

    pub(crate) fn read(mut value: Bytes) -> Option<Self> {
        let total = value.try_get_u64_le().ok()?;
        let mut runs = VecDeque::new();
        while let Ok(from) = value.try_get_u64_le() {
            let next = value.try_get_u64_le().ok().filter(|next| *next > from)?;
            if runs.back().is_some_and(|(_, last)| *last > from) {
                return None;
            }
            runs.push_back((from, next));
        }
        Some(Self { total, runs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_counted_and_not_numbers() {
        let mut left_out = LeftOut::default();
        assert_eq!((left_out.last_before(10, 3), left_out.last_before(10, 11), left_out.write()), (7, 0, None));
        // Chunks 0 to 4, 10 and 11, 20 and on.
        left_out.add(5, 5);
        left_out.add(5, 8);
        left_out.add(8, 10);
        left_out.add(12, 20);
        let written = left_out.write().unwrap();
        assert_eq!((written.len(), LeftOut::read(written)), (8 + 2 * 16, Some(left_out.clone())));
        assert_eq!(left_out.total(), 13);
        let all: Vec<u64> = (0..5).chain(10..12).chain(20..23).collect();
        for before in all.iter().copied().chain([23]) {
            let there = all.iter().filter(|seq| **seq < before).count();
            for many in 1..=there {
                let first = left_out.last_before(before, many as u64);
                assert_eq!(first, all[there - many], "{many} before {before}");
            }
            assert_eq!(left_out.last_before(before, 100), 0);
        }
        assert_eq!(left_out.last_before(23, 0), 23);
    }

    #[test]
    fn so_many_are_known() {
        let mut left_out = LeftOut::default();
        (0..1000).for_each(|number| left_out.add(10 * number + 1, 10 * number + 10));
        assert_eq!((left_out.total(), left_out.runs.len()), (9000, MOST));
        assert_eq!(LeftOut::read(vec![0; 17].into()), None);
    }
}
