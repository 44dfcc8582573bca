//! Small pieces for one viewer alone, joined.

use bytes::{BufMut, Bytes, BytesMut};
use h3cast_proto::varint;

use super::{Format, Framing, PREFIX_TYPE, frames, sse};
use crate::{Chunk, Epoch, Past};

/// How long a buffer of joined pieces is, in bytes: a DATA frame of HTTP/2 (RFC 9113 §4.2).
const JOINED: usize = 16 << 10;
/// What precedes a piece in [`Framing::Prefixed`], in bytes.
const PREFIX: usize = 1 + varint::MAX_LEN;

/// Chunks that no other viewer gets, one after another in one buffer: transports then have one to write in place of
/// many, and what was read with them does not stay in memory for the few that the viewer has not taken.
#[derive(Debug, Default)]
pub(super) struct Joined(BytesMut);

impl Joined {
    /// Whether a chunk is short enough.
    pub(super) fn takes(chunk: &Chunk) -> bool {
        chunk.bytes.len() <= Past::SHARED
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes its buffer takes.
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Adds a chunk, which may move buffers that are full to `out`. Returns how many bytes it added. With `more`, others
    /// are there already.
    pub(super) fn chunk(
        &mut self,
        chunk: &Chunk,
        epoch: Epoch,
        (format, framing): (Format, Framing),
        more: bool,
        out: &mut Vec<Bytes>,
    ) -> usize {
        match format {
            Format::Raw if chunk.bytes.is_empty() => 0,
            Format::Raw => self.add(&[], &chunk.bytes, framing, more, out),
            Format::Sse => self.add(&[], &sse::chunk(chunk, epoch), framing, more, out),
            Format::Frames => self.add(&frames::chunk_header(chunk), &chunk.bytes, framing, more, out),
        }
    }

    fn add(&mut self, start: &[u8], rest: &[u8], framing: Framing, more: bool, out: &mut Vec<Bytes>) -> usize {
        let len = start.len() + rest.len();
        let most = PREFIX + len;
        if self.0.capacity() - self.0.len() < most {
            self.flush(out);
            // As many as fit, if the others are like it: a buffer with much room left would be copied once more.
            let many = if more { (JOINED / most).max(1) } else { 1 };
            self.0 = BytesMut::with_capacity(many * most);
        }
        let before = self.0.len();
        if framing == Framing::Prefixed {
            varint::encode(PREFIX_TYPE, &mut self.0);
            varint::encode(len as u64, &mut self.0);
        }
        self.0.put_slice(start);
        self.0.put_slice(rest);
        self.0.len() - before
    }

    /// Moves what it has to `out`.
    #[inline]
    pub(super) fn flush(&mut self, out: &mut Vec<Bytes>) {
        // It is for all who share their chunks.
        if !self.is_empty() {
            self.give(out);
        }
    }

    #[inline(never)]
    fn give(&mut self, out: &mut Vec<Bytes>) {
        let joined = std::mem::take(&mut self.0);
        let unused = joined.capacity() - joined.len();
        // It may stay for as long as the viewer takes nothing, and is charged by its length.
        let is_full = unused <= (joined.capacity() / 8).max(PREFIX);
        out.push(if is_full { joined.freeze() } else { Bytes::copy_from_slice(&joined) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::piece::Piece;

    #[test]
    fn are_the_same_bytes_as_pieces_of_their_own() {
        let epoch = Epoch(7);
        let sizes = [0, 1, 62, 63, 64, 200, 200, 1000, 1024, 1025, Past::SHARED - 1, Past::SHARED].repeat(20);
        let chunks: Vec<Chunk> = sizes
            .iter()
            .zip(0..)
            .map(|(size, seq)| Chunk::new(seq, vec![b'a' + seq as u8 % 26; *size].into()))
            .collect();
        for format in [Format::Raw, Format::Sse, Format::Frames] {
            for framing in [Framing::Plain, Framing::Prefixed] {
                let (mut joined, mut out, mut expected, mut added) = (Joined::default(), Vec::new(), Vec::new(), 0);
                for chunk in &chunks {
                    assert!(Joined::takes(chunk));
                    added += joined.chunk(chunk, epoch, (format, framing), true, &mut out);
                    let (start, rest) = match format {
                        Format::Raw if chunk.bytes.is_empty() => continue,
                        Format::Raw => (Bytes::new(), chunk.bytes.clone()),
                        Format::Sse => (Bytes::new(), sse::chunk(chunk, epoch)),
                        Format::Frames => (frames::chunk_header(chunk), chunk.bytes.clone()),
                    };
                    Piece::new(&start, &rest).put(framing, &mut expected);
                }
                joined.flush(&mut out);
                joined.flush(&mut out);
                assert_eq!(out.concat(), expected.concat());
                assert_eq!(out.concat().len(), added);
                assert!(out.iter().all(|buffer| !buffer.is_empty() && buffer.len() <= JOINED), "{}", out.len());
                assert!(out.len() <= added.div_ceil(JOINED - Past::SHARED - 100) + 1, "{}", out.len());
            }
        }
    }

    #[test]
    fn holds_no_more_than_its_bytes_need() {
        for count in [1, 5, 60, 75] {
            let (mut joined, mut out) = (Joined::default(), Vec::new());
            for seq in 0..count {
                joined.chunk(
                    &Chunk::new(seq, vec![7; 200].into()),
                    Epoch(7),
                    (Format::Raw, Framing::Plain),
                    count > 1,
                    &mut out,
                );
            }
            joined.flush(&mut out);
            assert_eq!(out.len(), 1);
            let buffer = out.remove(0).try_into_mut().expect("nobody else has it");
            assert!(buffer.capacity() * 7 / 8 <= buffer.len(), "{} for {}", buffer.capacity(), buffer.len());
        }
    }
}
