//! Bytes that are written to a stream, encoded once for all who view the feed.

use bytes::{BufMut, Bytes, BytesMut};

use h3cast_proto::{frame, varint};

/// Up to that many bytes of a chunk are copied behind what comes before them: one buffer costs each
/// viewer less than two. A larger chunk is shared.
const COPIED: usize = 1024;

/// What one event is on a stream, and over HTTP/3 as a DATA frame.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// The header of the DATA frame, and behind it the beginning of the bytes, or all of them.
    head: Bytes,
    /// How much of that is the header.
    header: usize,
    /// The rest of the bytes, which are those of the chunk.
    rest: Bytes,
}

/// How pieces are put on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As they are.
    Plain,
    /// Each as a DATA frame (RFC 9114 §7.2.1).
    Data,
}

impl Piece {
    /// `start`, and behind it `rest`.
    pub(super) fn new(start: &[u8], rest: &Bytes) -> Self {
        let copied = if rest.len() <= COPIED { rest.as_ref() } else { &[] };
        let mut head = BytesMut::with_capacity(1 + varint::MAX_LEN + start.len() + copied.len());
        frame::put_header(frame::DATA, start.len() + rest.len(), &mut head);
        let header = head.len();
        head.put_slice(start);
        head.put_slice(copied);
        let rest = if copied.len() == rest.len() { Bytes::new() } else { rest.clone() };
        Self { head: head.freeze(), header, rest }
    }

    /// Adds the piece's buffers to others; how many bytes they are.
    pub(super) fn put(&self, framing: Framing, out: &mut Vec<Bytes>) -> usize {
        let head = match framing {
            Framing::Data => self.head.clone(),
            Framing::Plain => self.head.slice(self.header..),
        };
        let len = head.len() + self.rest.len();
        if !head.is_empty() {
            out.push(head);
        }
        if !self.rest.is_empty() {
            out.push(self.rest.clone());
        }
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_data_frame_or_plain() {
        for size in [0, 1, 62, 63, 64, COPIED, COPIED + 1, 70_000] {
            let rest = Bytes::from(vec![7; size]);
            let piece = Piece::new(b"ab", &rest);
            let put = |framing| {
                let mut out = Vec::new();
                let len = piece.put(framing, &mut out);
                let joined = out.concat();
                assert_eq!(joined.len(), len);
                assert!(out.iter().all(|buffer| !buffer.is_empty()));
                (out.len(), joined)
            };
            let (buffers, plain) = put(Framing::Plain);
            assert_eq!((&plain[..2], &plain[2..]), (&b"ab"[..], &rest[..]));
            assert_eq!(buffers, if size > COPIED { 2 } else { 1 });
            let (_, framed) = put(Framing::Data);
            let (len, header) = varint::decode(&framed[1..]).unwrap();
            assert_eq!((framed[0], len as usize, &framed[1 + header..]), (0, plain.len(), &plain[..]));
        }
    }

    #[test]
    fn a_large_chunk_is_shared() {
        let rest = Bytes::from(vec![7; COPIED + 1]);
        let mut out = Vec::new();
        Piece::new(b"", &rest).put(Framing::Plain, &mut out);
        assert_eq!(out[0].as_ptr(), rest.as_ptr());
    }
}
