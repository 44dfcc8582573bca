//! Where the last lines of a file begin.

use std::io::{self, Read, Seek, SeekFrom};

/// How much is read at once.
const BLOCK: u64 = 64 << 10;

/// Where the last `lines` whole lines before `end` begin, with no more than the last `most` bytes read.
/// Lines that begin before that do not count; a line without a newline at its end is begun, not whole.
pub(super) fn lines(file: &mut (impl Read + Seek), end: u64, lines: u64, most: u64) -> io::Result<u64> {
    if lines == 0 {
        return Ok(end);
    }
    let first = end.saturating_sub(most);
    let (mut at, mut begins, mut newlines) = (end, end, 0);
    let mut block = Vec::new();
    while at > first {
        let from = at.saturating_sub(BLOCK).max(first);
        file.seek(SeekFrom::Start(from))?;
        block.clear();
        file.by_ref().take(at - from).read_to_end(&mut block)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // Behind the one before the first of them.
            begins = from + index as u64 + 1;
            newlines += 1;
            if newlines > lines {
                return Ok(begins);
            }
        }
        at = from;
    }
    // So many lines as there are not.
    Ok(if first == 0 { 0 } else { begins })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn last(text: &[u8], many: u64, most: u64) -> &[u8] {
        let begins = lines(&mut Cursor::new(text), text.len() as u64, many, most).unwrap();
        &text[begins as usize..]
    }

    #[test]
    fn of_small_files() {
        assert_eq!(last(b"a\nb\nc\n", 2, 99), b"b\nc\n");
        assert_eq!(last(b"a\nb\nbegun", 1, 99), b"b\nbegun");
        assert_eq!(last(b"a\nb\n", 9, 99), b"a\nb\n");
        assert_eq!(last(b"a\nb\n", 0, 99), b"");
        assert_eq!(last(b"begun", 3, 99), b"begun");
        assert_eq!(last(b"", 3, 99), b"");
        // Not from the middle of a line.
        assert_eq!(last(b"a long line\nb\n", 9, 6), b"b\n");
        assert_eq!(last(b"a long line", 9, 6), b"");
    }

    /// Counts what is read.
    struct Counting(Cursor<Vec<u8>>, u64);

    impl Read for Counting {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0.read(buf).inspect(|read| self.1 += *read as u64)
        }
    }

    impl Seek for Counting {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn no_more_is_read_than_is_needed() {
        let text = b"x\n".repeat(1 << 20);
        let mut file = Counting(Cursor::new(text), 0);
        assert_eq!(lines(&mut file, 2 << 20, 10, 1 << 20).unwrap(), (2 << 20) - 20);
        assert!(file.1 <= BLOCK, "{}", file.1);
        let mut file = Counting(Cursor::new(vec![b'x'; 4 << 20]), 0);
        assert_eq!(lines(&mut file, 4 << 20, 10, 1 << 20).unwrap(), 4 << 20);
        assert!(file.1 <= 1 << 20, "{}", file.1);
    }

    proptest! {
        #[test]
        fn they_are_the_last_ones(lengths in prop::collection::vec(0..70_000_usize, 0..8), many in 0..9_u64) {
            let mut text = Vec::new();
            for length in lengths {
                text.extend(std::iter::repeat_n(b'x', length));
                text.push(b'\n');
            }
            let all: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
            let expected = all[all.len().saturating_sub(many as usize)..].concat();
            prop_assert!(last(&text, many, u64::MAX) == expected);
        }
    }
}
