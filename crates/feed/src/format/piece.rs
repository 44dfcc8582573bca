//! The bytes of an event, encoded once for all viewers of the feed.

use bytes::{BufMut, Bytes, BytesMut};

use h3cast_proto::varint;

use crate::cost::{block, buffer};

/// Up to this many bytes of a chunk are copied after what precedes them: one buffer costs each viewer less
/// than two. A larger chunk is shared.
const COPIED: usize = 1024;

/// The type in the prefix of [`Framing::Prefixed`].
pub const PREFIX_TYPE: u64 = 0;

/// One event as the bytes of a stream, encoded once with its prefix, which a viewer gets or not.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// The prefix, and after it the beginning of the bytes, or all of them.
    head: Bytes,
    /// The length of the prefix.
    prefix: usize,
    /// The rest of the bytes, which are those of the chunk.
    rest: Bytes,
}

/// How the pieces of a feed are put on a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Framing {
    /// As they are.
    #[default]
    Plain,
    /// Each after a prefix: [`PREFIX_TYPE`] and the length of the piece, both as QUIC's variable-length
    /// integers (RFC 9000 §16). A transport whose frames begin like this, as HTTP/3's DATA frames do, writes
    /// the buffers as they are; the prefix too is encoded once for all viewers.
    Prefixed,
}

impl Piece {
    /// `start`, followed by `rest`.
    pub(super) fn new(start: &[u8], rest: &Bytes) -> Self {
        let copied = if rest.len() <= COPIED { rest.as_ref() } else { &[] };
        let mut head = BytesMut::with_capacity(1 + varint::MAX_LEN + start.len() + copied.len());
        varint::encode(PREFIX_TYPE, &mut head);
        varint::encode((start.len() + rest.len()) as u64, &mut head);
        let prefix = head.len();
        head.put_slice(start);
        head.put_slice(copied);
        let rest = if copied.len() == rest.len() { Bytes::new() } else { rest.clone() };
        Self { head: head.freeze(), prefix, rest }
    }

    /// What it costs in memory, in bytes, in addition to its chunk, whose bytes these are.
    pub(crate) fn cost(&self, chunk: &Bytes) -> usize {
        let rest = if self.is_shared(chunk) { 0 } else { buffer(self.rest.len()) };
        block(size_of::<Self>()) + buffer(self.head.len() + varint::MAX_LEN) + rest
    }

    /// Whether a viewer has its bytes.
    pub(crate) fn is_held(&self, chunk: &Bytes) -> bool {
        !self.head.is_unique() || !(self.is_shared(chunk) || self.rest.is_unique())
    }

    /// Whether its rest is that of the chunk, and costs nothing more.
    fn is_shared(&self, chunk: &Bytes) -> bool {
        self.rest.is_empty() || self.rest.as_ptr() == chunk.as_ptr()
    }

    /// Adds the piece's buffers to `out`, and returns their length in bytes.
    pub(super) fn put(&self, framing: Framing, out: &mut Vec<Bytes>) -> usize {
        let head = match framing {
            Framing::Prefixed => self.head.clone(),
            Framing::Plain => self.head.slice(self.prefix..),
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
    fn is_prefixed_or_plain() {
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
            let (_, framed) = put(Framing::Prefixed);
            let (len, size) = varint::decode(&framed[1..]).unwrap();
            assert_eq!((framed[0], len as usize, &framed[1 + size..]), (0, plain.len(), &plain[..]));
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
