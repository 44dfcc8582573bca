//! A place in a file, and whether the file is still the one that was read up to there.
//!
//! A file that is truncated and written again may be as long as before, or longer, when it is looked at
//! next. What was last read of it shows that: it is not there any more.

use std::{
    fmt,
    io::{self, Read, Seek, SeekFrom},
};
#[cfg(unix)]
use std::{fs::File, ops::Range, os::unix::fs::FileExt};

/// How much of what was last read is remembered, in bytes.
pub(super) const LAST: usize = 64;

/// Up to where a file has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) at: u64,
    /// The bytes before that.
    last: Vec<u8>,
}

/// Why a file is to be read from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is shorter than what was read of it.
    Truncated,
    /// It holds something else where it was read. It may have been truncated and have grown since.
    #[cfg_attr(not(unix), allow(dead_code, reason = "what was read is not compared there"))]
    Rewritten,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated",
            Self::Rewritten => "rewritten",
        })
    }
}

impl Checkpoint {
    /// The place at `at`, with the bytes before it that are remembered; `None` if there cannot be so many.
    pub(super) fn new(at: u64, last: Vec<u8>) -> Option<Self> {
        (last.len() <= LAST && last.len() as u64 <= at).then_some(Self { at, last })
    }

    /// The bytes before it that are remembered.
    pub(super) fn last(&self) -> &[u8] {
        &self.last
    }

    /// The place at `at`, to where the file is sought.
    pub(super) fn in_file(file: &mut (impl Read + Seek), at: u64) -> io::Result<Self> {
        let from = at.saturating_sub(LAST as u64);
        file.seek(SeekFrom::Start(from))?;
        let mut last = Vec::new();
        file.by_ref().take(at - from).read_to_end(&mut last)?;
        // It has just been truncated: all that it has is new.
        let place = if from + last.len() as u64 == at { Self { at, last } } else { Self::default() };
        file.seek(SeekFrom::Start(place.at))?;
        Ok(place)
    }

    /// So much more has been read.
    pub(super) fn advance(&mut self, read: &[u8]) {
        self.at += read.len() as u64;
        let read = &read[read.len().saturating_sub(LAST)..];
        self.last.drain(..(self.last.len() + read.len()).saturating_sub(LAST));
        self.last.extend_from_slice(read);
    }

    /// Leaves out a hole before `to`: it reads as NULs.
    #[cfg(target_os = "linux")]
    pub(super) fn skip_to(&mut self, to: u64) {
        let hole = usize::try_from(to - self.at).unwrap_or(LAST).min(LAST);
        self.advance(&[0; LAST][..hole]);
        self.at = to;
    }

    /// Reads what follows, and says where in `buf` it is; unless the file begins again. Not to be called
    /// on a worker.
    #[cfg(unix)]
    pub(super) fn read(&self, file: &File, buf: &mut [u8]) -> io::Result<Result<Range<usize>, Change>> {
        self.read_by(buf, |buf, at| file.read_at(buf, at))
    }

    /// The same by `read`, which reads from a place in the file.
    ///
    /// What was last read is read once more in the same call, so that the file cannot change between a
    /// look and a read. Since a kernel may copy page by page, the first bytes are compared again after it:
    /// if they are still there, so was all that followed them. If the file is too short for that, it has
    /// been truncated after it was read.
    #[cfg(unix)]
    pub(super) fn read_by(
        &self,
        buf: &mut [u8],
        read_at: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<Result<Range<usize>, Change>> {
        let known = self.last.len();
        let from = self.at - known as u64;
        let read = read_at(buf, from)?;
        if read < known {
            return Ok(Err(Change::Truncated));
        }
        let first = &buf[..read.min(LAST)];
        let mut still = [0; LAST];
        let is_still = |still: &mut [u8]| read_at(still, from).map(|there| there < still.len() || *still == *first);
        if buf[..known] != self.last || read > known && !is_still(&mut still[..first.len()])? {
            return Ok(Err(Change::Rewritten));
        }
        Ok(Ok(known..read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn what_was_read_is_remembered() {
        let mut place = Checkpoint::in_file(&mut Cursor::new(b"before"), 3).unwrap();
        place.advance(b"de");
        assert_eq!((place.at, &place.last[..]), (5, &b"befde"[..]));
        place.advance(&[b'x'; 63]);
        assert_eq!((place.at, place.last.clone()), (68, [&b"e"[..], &[b'x'; 63]].concat()));
        place.advance(&[b'y'; 100]);
        assert_eq!((place.at, &place.last[..]), (168, &[b'y'; 64][..]));
        let long = Checkpoint::in_file(&mut Cursor::new([b'z'; 100]), 80).unwrap();
        assert_eq!((long.at, &long.last[..]), (80, &[b'z'; 64][..]));
        // Shorter than it was said to be.
        assert_eq!(Checkpoint::in_file(&mut Cursor::new(b"before"), 7).unwrap(), Checkpoint::default());
    }

    #[cfg(unix)]
    #[test]
    fn a_change_before_the_place_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut place = Checkpoint::default();
        let mut buf = [0; 200];
        let mut read = |place: &Checkpoint, content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            let read = place.read(&File::open(&path).unwrap(), &mut buf).unwrap();
            read.map(|range| buf[range].to_vec())
        };
        assert_eq!(read(&place, b""), Ok(vec![]));
        assert_eq!(read(&place, b"one\n"), Ok(b"one\n".to_vec()));
        place.advance(b"one\n");
        assert_eq!(read(&place, b"one\n"), Ok(vec![]));
        assert_eq!(read(&place, b"one\ntwo\n"), Ok(b"two\n".to_vec()));
        assert_eq!(read(&place, b"two\n"), Err(Change::Rewritten));
        assert_eq!(read(&place, b"two\none\n"), Err(Change::Rewritten));
        assert_eq!(read(&place, b"one"), Err(Change::Truncated));
        assert_eq!(read(&place, b""), Err(Change::Truncated));
        place.advance(&[b'x'; 96]);
        // As far as it is remembered.
        let as_before = [&[b'y'; 36][..], &[b'x'; 64], b"more"].concat();
        assert_eq!(read(&place, &as_before), Ok(b"more".to_vec()));
        assert_eq!(read(&place, &[&[b'y'; 37][..], &[b'x'; 63], b"more"].concat()), Err(Change::Rewritten));
    }
}
