//! A record: some chunks of a feed that were written together, with the notes that belong to them.
//!
//! All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `H3R1` |
//! | 4 | CRC-32 of everything after it in the record, begun with the feed's salt |
//! | 4 | how many bytes follow this header |
//! | 4 | how many chunks |
//! | 8 | the number of the first one |
//! | 8 | the size of all chunks of the feed before it, in bytes |
//! | 8 | when the first one was published, in microseconds since 1970 |
//! | 8 each | for each chunk: its size (4), and how many microseconds after the first one it was published (4) |
//! | 4 | how many notes |
//! | … | for each note: the lengths of its key (2) and of its value (4; all ones: removed), when it expires in milliseconds since 1970 (8; 0: never), key, value |
//! | … | the bytes of the chunks |

use std::{
    ops::Range,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BufMut, Bytes};
use h3cast_feed::Chunk;

/// The length of a record's header, in bytes.
pub(crate) const HEADER: usize = 40;
pub(crate) const MAGIC: [u8; 4] = *b"H3R1";
/// What follows a header is never longer, in bytes: a damaged length must not have all memory asked for.
pub(crate) const MAX_BODY: usize = 1 << 30;
/// The length of a removed note's value.
const REMOVED: u32 = u32::MAX;

/// A note as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) key: Bytes,
    /// `None` removes it.
    pub(crate) value: Option<Bytes>,
    /// In milliseconds since 1970; 0 for never.
    pub(crate) expires: u64,
}

/// What a record's header states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) crc: u32,
    pub(crate) body: usize,
    pub(crate) count: u32,
    pub(crate) first: u64,
    pub(crate) before: u64,
    pub(crate) micros: u64,
}

impl Header {
    /// Reads a header; `None` if this is none.
    pub(crate) fn read(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER || bytes[..4] != MAGIC {
            return None;
        }
        bytes.advance(4);
        let crc = bytes.get_u32_le();
        let body = bytes.get_u32_le() as usize;
        let count = bytes.get_u32_le();
        let header = Self {
            crc,
            body,
            count,
            first: bytes.get_u64_le(),
            before: bytes.get_u64_le(),
            micros: bytes.get_u64_le(),
        };
        (body <= MAX_BODY && count as usize <= body / 8).then_some(header)
    }

    /// The number after its last chunk.
    pub(crate) fn next(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// The length of the whole record.
    pub(crate) fn len(&self) -> usize {
        HEADER + self.body
    }

    /// The same of one that a file begins with, and that has only notes.
    pub(crate) fn head(&self) -> u64 {
        if self.count == 0 { self.len() as u64 } else { 0 }
    }
}

/// Writes a record after what is in `to`: the number of its first chunk, the size of all before it, and the time of the
/// first, then the chunks with their times, in microseconds since 1970.
pub(crate) fn write(
    to: &mut Vec<u8>,
    salt: u32,
    (first, before, micros): (u64, u64, u64),
    chunks: &[(Bytes, u64)],
    notes: &[Note],
) {
    let start = to.len();
    to.put_slice(&MAGIC);
    to.put_u64_le(0);
    to.put_u32_le(chunks.len() as u32);
    to.put_u64_le(first);
    to.put_u64_le(before);
    to.put_u64_le(micros);
    for (bytes, at) in chunks {
        to.put_u32_le(bytes.len() as u32);
        to.put_u32_le(u32::try_from(at.saturating_sub(micros)).unwrap_or(u32::MAX));
    }
    to.put_u32_le(notes.len() as u32);
    for note in notes {
        to.put_u16_le(note.key.len() as u16);
        to.put_u32_le(note.value.as_ref().map_or(REMOVED, |value| value.len() as u32));
        to.put_u64_le(note.expires);
        to.put_slice(&note.key);
        to.put_slice(note.value.as_deref().unwrap_or_default());
    }
    for (bytes, _) in chunks {
        to.put_slice(bytes);
    }
    let body = (to.len() - start - HEADER) as u32;
    to[start + 8..start + 12].copy_from_slice(&body.to_le_bytes());
    let crc = checksum(salt, &to[start + 8..]);
    to[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Begun with a number that is the feed's own: published bytes cannot be taken for a record.
fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

/// A record that was read whole, and is what was written.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) header: Header,
    bytes: Bytes,
    /// Where its notes are, and its chunks' bytes.
    notes: Range<usize>,
    data: usize,
}

impl Record {
    /// Reads the record at the start of `bytes`; `None` if it is not whole, or damaged.
    pub(crate) fn read(salt: u32, bytes: &Bytes) -> Option<Self> {
        let header = Header::read(bytes)?;
        let bytes = (bytes.len() >= header.len()).then(|| bytes.slice(..header.len()))?;
        if checksum(salt, &bytes[8..]) != header.crc {
            return None;
        }
        let notes = HEADER + header.count as usize * 8;
        let mut record = Self { header, bytes, notes: notes..notes, data: 0 };
        let size: usize = record.sizes().map(|(size, _)| size).sum();
        record.data = header.len().checked_sub(size)?;
        record.notes = notes..record.data;
        (notes + 4 <= record.data).then_some(record)
    }

    /// As it was written.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn sizes(&self) -> impl Iterator<Item = (usize, u64)> {
        let mut table = &self.bytes[HEADER..self.notes.start];
        (0..self.header.count).map(move |_| (table.get_u32_le() as usize, u64::from(table.get_u32_le())))
    }

    /// The size of its chunks, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.header.len() - self.data
    }

    /// When its last chunk was published, in microseconds since 1970.
    pub(crate) fn newest(&self) -> u64 {
        self.header.micros.saturating_add(self.sizes().last().map_or(0, |(_, after)| after))
    }

    /// Its chunks. They share its buffer.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Chunk> {
        let mut at = self.data;
        self.sizes().zip(self.header.first..).map(move |((size, after), seq)| {
            let bytes = self.bytes.slice(at..at + size);
            at += size;
            Chunk::published_at(seq, time(self.header.micros.saturating_add(after)), bytes)
        })
    }

    /// Its notes; what does not follow the format, which a checksum makes unlikely, ends them.
    pub(crate) fn notes(&self) -> Vec<Note> {
        let mut left = self.bytes.slice(self.notes.clone());
        let count = left.get_u32_le();
        let mut notes = Vec::new();
        for _ in 0..count {
            if left.len() < 14 {
                break;
            }
            let (key, value, expires) = (left.get_u16_le() as usize, left.get_u32_le(), left.get_u64_le());
            let size = if value == REMOVED { 0 } else { value as usize };
            if left.len() < key + size {
                break;
            }
            let key = left.split_to(key);
            let bytes = left.split_to(size);
            notes.push(Note { key, value: (value != REMOVED).then_some(bytes), expires });
        }
        notes
    }
}

/// A time in microseconds since 1970.
pub(crate) fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn time(micros: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_micros(micros)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u32 = 7;

    fn note(key: &'static str, value: Option<&'static str>, expires: u64) -> Note {
        Note { key: key.into(), value: value.map(Bytes::from), expires }
    }

    #[test]
    fn a_record_has_these_bytes() {
        let mut written = Vec::new();
        let chunks = [(Bytes::from("ab"), 1000), (Bytes::from("c"), 1007)];
        write(&mut written, SALT, (5, 70, 1000), &chunks, &[note("k", Some("v"), 9), note("gone", None, 0)]);
        let expected = [
            &b"H3R1"[..],
            &checksum(SALT, &written[8..]).to_le_bytes(),
            &57_u32.to_le_bytes(),
            &[2, 0, 0, 0],
            &[5, 0, 0, 0, 0, 0, 0, 0],
            &[70, 0, 0, 0, 0, 0, 0, 0],
            &[0xe8, 3, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 7, 0, 0, 0],
            &[2, 0, 0, 0],
            &[1, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, b'k', b'v'],
            &[4, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0],
            b"gone",
            b"abc",
        ]
        .concat();
        assert_eq!(written, expected);
        assert_eq!(written.len(), HEADER + 57);

        let record = Record::read(SALT, &Bytes::from(written.clone())).expect("it is whole");
        assert_eq!((record.header.first, record.header.next(), record.header.before), (5, 7, 70));
        assert_eq!((record.size(), record.newest()), (3, 1007));
        let read: Vec<_> = record.chunks().map(|chunk| (chunk.seq, chunk.bytes.clone(), chunk.micros())).collect();
        assert_eq!(read, [(5, "ab".into(), 1000), (6, "c".into(), 1007)]);
        assert_eq!(record.notes(), [note("k", Some("v"), 9), note("gone", None, 0)]);

        assert!(Record::read(SALT + 1, &written.clone().into()).is_none());
        // What follows is another record's.
        let more = Bytes::from([&written[..], b"H3R1"].concat());
        assert!(Record::read(SALT, &more).is_some());
        for len in 0..written.len() {
            assert!(Record::read(SALT, &Bytes::copy_from_slice(&written[..len])).is_none(), "{len}");
        }
        for at in 0..written.len() {
            let mut damaged = written.clone();
            damaged[at] ^= 1;
            assert!(Record::read(SALT, &damaged.into()).is_none(), "{at}");
        }
    }

    #[test]
    fn a_record_may_have_no_chunks() {
        let mut written = Vec::new();
        write(&mut written, SALT, (7, 100, 0), &[], &[]);
        let record = Record::read(SALT, &written.into()).expect("it is whole");
        assert_eq!((record.header.first, record.header.next(), record.size(), record.newest()), (7, 7, 0, 0));
        assert!(record.chunks().next().is_none() && record.notes().is_empty());
    }
}
