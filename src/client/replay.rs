//! What has been given to be published and is not yet known to be: it is sent again when it may
//! have been lost. No I/O.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// How much is held, in bytes.
pub(super) const HOLD: usize = 4 << 20;
/// What a piece costs beside its bytes, so that many small ones are bounded too.
const OVERHEAD: usize = 64;
/// A line of which that much has come is not waited for any more, in bytes: the server cuts it too.
const LONGEST_LINE: u64 = 64 << 10;

/// Bytes of a publication from the first one that is not acknowledged on. All positions count from
/// the publication's beginning.
#[derive(Debug)]
pub(super) struct Replay {
    /// Lines are not torn: what is behind the last newline waits.
    lines: bool,
    pieces: VecDeque<Bytes>,
    acknowledged: u64,
    sent: u64,
    /// How far may be sent.
    ready: u64,
    end: u64,
    /// The piece that is sent next, and how much of it has been.
    next: (usize, usize),
    /// Where what may be sent at once ends, for how far that would be.
    cut: Option<(u64, u64)>,
    /// There will be no more.
    ended: bool,
}

impl Replay {
    pub(super) fn new(lines: bool) -> Self {
        Self {
            lines,
            pieces: VecDeque::new(),
            acknowledged: 0,
            sent: 0,
            ready: 0,
            end: 0,
            next: (0, 0),
            cut: None,
            ended: false,
        }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let newline = piece.iter().rposition(|byte| *byte == b'\n');
        if let Some(at) = newline.filter(|_| self.lines) {
            self.ready = self.end + at as u64 + 1;
        }
        self.end += piece.len() as u64;
        self.pieces.push_back(piece);
        // A line that is longer than may be held, or than the server takes as one, is torn.
        let torn = self.end - self.ready >= LONGEST_LINE || self.is_full() && self.ready == self.acknowledged;
        if !self.lines || torn {
            self.ready = self.end;
        }
    }

    /// There will be no more bytes.
    pub(super) fn finish(&mut self) {
        self.ended = true;
        self.ready = self.end;
    }

    /// There may be more after all.
    pub(super) fn resume(&mut self) {
        self.ended = false;
    }

    pub(super) fn is_finished(&self) -> bool {
        self.ended
    }

    /// Whether no more may be pushed now.
    pub(super) fn is_full(&self) -> bool {
        (self.end - self.acknowledged) as usize + self.pieces.len() * OVERHEAD >= HOLD
    }

    /// Whether there is something to send or to have acknowledged.
    pub(super) fn is_waiting(&self) -> bool {
        self.ready > self.acknowledged
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Everything that was given.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// What was sent and not acknowledged is to be sent again.
    pub(super) fn rewind(&mut self) {
        (self.sent, self.next) = (self.acknowledged, (0, 0));
    }

    /// How far may be sent, of `max` that may be before they are acknowledged: to the end of a line, if
    /// one ends there.
    fn until(&mut self, max: u64) -> u64 {
        let most = self.acknowledged.saturating_add(max);
        if self.ready <= most || !self.lines {
            return self.ready.min(most);
        }
        if let Some((_, cut)) = self.cut.filter(|(of, _)| *of == most) {
            return cut;
        }
        let (mut at, mut cut) = (self.acknowledged, most);
        for piece in &self.pieces {
            let len = piece.len().min(usize::try_from(most - at).unwrap_or(usize::MAX));
            if let Some(newline) = piece[..len].iter().rposition(|byte| *byte == b'\n') {
                cut = at + newline as u64 + 1;
            }
            at += len as u64;
            if at >= most {
                break;
            }
        }
        self.cut = Some((most, cut));
        cut
    }

    /// The next bytes to send, of `max` that may be sent before they are acknowledged.
    pub(super) fn send(&mut self, max: u64) -> Option<Bytes> {
        let until = self.until(max);
        let (at, offset) = self.next;
        let piece = self.pieces.get(at).filter(|_| self.sent < until)?.slice(offset..);
        let len = piece.len().min(usize::try_from(until - self.sent).unwrap_or(usize::MAX));
        self.sent += len as u64;
        self.next = if len == piece.len() { (at + 1, 0) } else { (at, offset + len) };
        Some(piece.slice(..len))
    }

    /// Everything before `to` has been published. What was sent behind it is to be sent again.
    pub(super) fn acknowledge(&mut self, to: u64) {
        debug_assert!((self.acknowledged..=self.end).contains(&to));
        let mut left = to.min(self.end).saturating_sub(self.acknowledged);
        self.acknowledged += left;
        while let Some(first) = self.pieces.front_mut().filter(|_| left > 0) {
            let taken = left.min(first.len() as u64);
            left -= taken;
            first.advance(taken as usize);
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
        self.ready = self.ready.max(self.acknowledged);
        self.rewind();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sent(replay: &mut Replay) -> Vec<u8> {
        std::iter::from_fn(|| replay.send(u64::MAX)).flatten().collect()
    }

    #[test]
    fn a_line_is_sent_when_it_is_whole() {
        let mut replay = Replay::new(true);
        replay.push("one\ntw".into());
        assert_eq!(sent(&mut replay), b"one\n");
        assert!(replay.is_waiting());
        replay.acknowledge(4);
        assert!(!replay.is_waiting());
        replay.push("o".into());
        assert_eq!(sent(&mut replay), b"");
        replay.push("\nend".into());
        assert_eq!(sent(&mut replay), b"two\n");
        replay.finish();
        assert_eq!(sent(&mut replay), b"end");
        assert_eq!((replay.acknowledged(), replay.end()), (4, 11));
        // Not the longest ones: they are cut anyway.
        let mut replay = Replay::new(true);
        replay.push(vec![b'x'; LONGEST_LINE as usize - 1].into());
        assert!(!replay.is_waiting());
        replay.push("x".into());
        assert!(replay.is_waiting());
    }

    #[test]
    fn lines_are_not_torn_where_a_request_ends() {
        let mut replay = Replay::new(true);
        while !replay.is_full() {
            replay.push("a line of some length\nanother".into());
        }
        assert!(sent(&mut replay).ends_with(b"\n"));
        replay.rewind();
        // Nor where the server takes no more at once.
        let some: Vec<u8> = std::iter::from_fn(|| replay.send(1000)).flatten().collect();
        assert!(some.len() > 950 && some.ends_with(b"\n"), "{}", some.len());
        // Unless it takes less than a line.
        replay.rewind();
        assert_eq!(replay.send(10).unwrap(), "a line of ");
    }

    #[test]
    fn pieces_stay_as_they_were_given() {
        let mut replay = Replay::new(false);
        ["ab", "c", "", "def"].into_iter().for_each(|piece| replay.push(piece.into()));
        let pieces = |replay: &mut Replay| std::iter::from_fn(|| replay.send(5)).collect::<Vec<_>>();
        assert_eq!(pieces(&mut replay), ["ab", "c", "de"]);
        replay.rewind();
        assert_eq!(pieces(&mut replay), ["ab", "c", "de"]);
        replay.acknowledge(1);
        assert_eq!(pieces(&mut replay), ["b", "c", "def"]);
        replay.acknowledge(6);
        assert_eq!(pieces(&mut replay), [""; 0]);
    }

    #[test]
    fn holds_no_more_than_it_may() {
        for size in [1, 1000, HOLD] {
            let mut replay = Replay::new(false);
            let mut pushed = 0;
            while !replay.is_full() {
                replay.push(vec![0; size].into());
                pushed += 1;
            }
            assert!(pushed * (size + OVERHEAD) <= HOLD + size + OVERHEAD);
            replay.acknowledge(replay.end());
            assert!(!replay.is_full());
        }
    }

    proptest! {
        /// Whatever is pushed, sent, lost and acknowledged in whatever order: what was published is
        /// what was given.
        #[test]
        fn nothing_lost_or_doubled(
            lines: bool,
            steps in prop::collection::vec((0..4_u8, prop::collection::vec(0..12_u8, 0..20), 0..30_u64), 0..60),
        ) {
            let mut replay = Replay::new(lines);
            let (mut given, mut published) = (Vec::new(), Vec::new());
            // What the server has of the request that runs.
            let mut request = Vec::new();
            for (step, piece, number) in steps {
                match step {
                    0 => {
                        given.extend_from_slice(&piece);
                        replay.push(piece.into());
                    }
                    1 => request.extend(replay.send(number).into_iter().flatten()),
                    2 => {
                        // Some of it was published, and the rest is lost.
                        let got = request.len().min(number as usize);
                        published.extend(request.drain(..got));
                        request.clear();
                        replay.acknowledge(published.len() as u64);
                    }
                    _ => {
                        request.clear();
                        replay.rewind();
                    }
                }
                if lines {
                    let torn = published.last().is_some_and(|_| published.len() > given.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
                    prop_assert!(!torn);
                }
            }
            replay.finish();
            replay.rewind();
            published.extend(sent(&mut replay));
            prop_assert_eq!(published, given);
        }
    }
}
