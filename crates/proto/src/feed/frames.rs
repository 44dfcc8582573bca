//! The `frames` format: a feed as binary frames, with times, cursors and gaps.
//!
//! Each frame is a type, the length of its payload, and its payload; all integers are QUIC's
//! variable-length ones ([RFC 9000 §16]). Readers skip frames of unknown types, and what a payload has beyond what they
//! know of its type.
//!
//! | type | name | payload |
//! |---|---|---|
//! | 0 | chunk | sequence number, time (µs since 1970), then the bytes |
//! | 1 | gap | first missing sequence number, how many, 1 if the feed was restarted else 0 |
//! | 2 | end | 0 clean or 1 failed, then the reason (UTF-8) |
//! | 3 | begin | epoch, then, if known, the number of the next chunk unless some are missing; always the first frame |
//! | 4 | heartbeat | nothing |
//! | 5 | sparse | nothing; after `begin`: this feed's numbering has gaps, which do not mean lost chunks |
//! | 6 | stalled | 1: the server cannot receive or store new chunks of the feed, then, if known, why (UTF-8); 0: it can again |
//! | 7 | expired | nothing; the last frame: the viewer may read on with a new token, after the last chunk |
//!
//! A response names the format by [`MEDIA_TYPE`], a WebTransport session by a subprotocol of that name.
//!
//! ```
//! use h3cast_proto::feed::{Epoch, frames::{self, Frame, FrameDecoder}};
//!
//! let stream = [frames::begin(Epoch(7), Some(0)), frames::chunk(0, 1_000, b"hi")].concat();
//! let mut decoder = FrameDecoder::new(1 << 20);
//! decoder.push(&stream);
//! assert_eq!(decoder.pop(), Ok(Some(Frame::Begin { epoch: Epoch(7), next: Some(0) })));
//! assert_eq!(decoder.pop(), Ok(Some(Frame::Chunk { seq: 0, micros: 1_000, bytes: "hi".into() })));
//! assert_eq!(decoder.pop(), Ok(None));
//! ```
//!
//! [RFC 9000 §16]: https://www.rfc-editor.org/rfc/rfc9000#section-16

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{End, Epoch, FeedError, Gap};
use crate::varint;

/// The media type of this format.
pub const MEDIA_TYPE: &str = "application/vnd.h3cast.frames";

mod kind {
    pub(super) const CHUNK: u64 = 0;
    pub(super) const GAP: u64 = 1;
    pub(super) const END: u64 = 2;
    pub(super) const BEGIN: u64 = 3;
    pub(super) const HEARTBEAT: u64 = 4;
    pub(super) const SPARSE: u64 = 5;
    pub(super) const STALLED: u64 = 6;
    pub(super) const EXPIRED: u64 = 7;
}

/// An empty frame.
pub const HEARTBEAT: Bytes = Bytes::from_static(&[kind::HEARTBEAT as u8, 0]);

/// The first frame. `next` is the number of the next chunk unless some are missing, if known.
#[must_use]
pub fn begin(epoch: Epoch, next: Option<u64>) -> Bytes {
    match next {
        Some(next) => frame(kind::BEGIN, &[epoch.0, next], &[]),
        None => frame(kind::BEGIN, &[epoch.0], &[]),
    }
}

/// After the first frame: the feed's numbering has gaps.
pub const SPARSE: Bytes = Bytes::from_static(&[kind::SPARSE as u8, 0]);

/// The last frame of a stream that ends before its feed, because the viewer's right to read it has ended. A
/// viewer with a new token resumes after its last chunk. Readers that do not know it see a stream that ended
/// before its feed, and reconnect.
pub const EXPIRED: Bytes = Bytes::from_static(&[kind::EXPIRED as u8, 0]);

/// The server cannot receive or store new chunks of the feed, or it can again.
#[must_use]
pub fn stalled(stalled: bool) -> Bytes {
    frame(kind::STALLED, &[stalled.into()], &[])
}

/// The server cannot receive or store new chunks of the feed, and why, in words. Earlier readers skip those.
#[must_use]
pub fn stalled_by(cause: &str) -> Bytes {
    frame(kind::STALLED, &[1], cause.as_bytes())
}

/// A chunk, published `micros` microseconds after 1970 began.
#[must_use]
pub fn chunk(seq: u64, micros: u64, bytes: &[u8]) -> Bytes {
    frame(kind::CHUNK, &[seq, micros], bytes)
}

/// A chunk's frame without the `len` bytes of the chunk, which are to follow it.
#[must_use]
pub fn chunk_header(seq: u64, micros: u64, len: usize) -> Bytes {
    header(kind::CHUNK, &[seq, micros], len, 0).freeze()
}

/// A gap.
#[must_use]
pub fn gap(gap: &Gap) -> Bytes {
    frame(kind::GAP, &[gap.from, gap.missing, gap.restarted.into()], &[])
}

/// The end; empty for [`End::Stopped`].
#[must_use]
pub fn end(end: &End) -> Bytes {
    match end {
        End::Clean => frame(kind::END, &[0], &[]),
        End::Stopped => Bytes::new(),
        End::Failed(error) => frame(kind::END, &[1], error.0.as_bytes()),
    }
}

fn frame(kind: u64, integers: &[u64], rest: &[u8]) -> Bytes {
    let mut out = header(kind, integers, rest.len(), rest.len());
    out.put_slice(rest);
    out.freeze()
}

/// A frame without the `rest` bytes at its end, with room for `room` more.
fn header(kind: u64, integers: &[u64], rest: usize, room: usize) -> BytesMut {
    let integers_len = integers.iter().map(|integer| varint::len(*integer)).sum::<usize>();
    let len = integers_len + rest;
    let mut out = BytesMut::with_capacity(1 + varint::MAX_LEN + integers_len + room);
    varint::encode(kind, &mut out);
    varint::encode(len as u64, &mut out);
    for integer in integers {
        varint::encode(*integer, &mut out);
    }
    out
}

/// A frame as a client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// A chunk.
    Chunk {
        /// Its sequence number.
        seq: u64,
        /// When it was published, in microseconds since 1970.
        micros: u64,
        /// What it carries.
        bytes: Bytes,
    },
    /// Chunks that the viewer will not receive.
    Gap(Gap),
    /// The end of the feed.
    End(End),
    /// The beginning of the stream.
    Begin {
        /// The epoch of the chunks that follow.
        epoch: Epoch,
        /// The number of the next chunk unless some are missing, if the server knows.
        next: Option<u64>,
    },
    /// Nothing, to keep the stream alive.
    Heartbeat,
    /// The feed's numbering has gaps, which do not mean lost chunks.
    Sparse,
    /// Whether the server cannot receive or store new chunks of the feed. What is stored is not lost by that.
    Stalled {
        /// It cannot.
        stalled: bool,
        /// Why not, in words of the server's, if it says that.
        cause: Option<String>,
    },
    /// The viewer's right to read the feed has ended; nothing follows.
    Expired,
}

/// The bytes are not valid frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame's payload is shorter than its type needs.
    #[error("a frame's payload is too short for its type")]
    Short,
    /// A frame is longer than the reader accepts.
    #[error("a frame of {0} bytes is longer than this reader accepts")]
    Long(u64),
}

/// Reads frames from a stream that arrives in pieces.
#[derive(Debug)]
pub struct FrameDecoder {
    buf: BytesMut,
    limit: u64,
}

impl FrameDecoder {
    /// A decoder that accepts payloads of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { buf: BytesMut::new(), limit }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Whether the stream may end here, and not inside a frame.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.buf.is_empty()
    }

    /// The next frame, or `None` until more bytes arrive.
    ///
    /// # Errors
    ///
    /// If the bytes are not valid frames; nothing more can be read then.
    pub fn pop(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let Some((kind, first)) = varint::decode(&self.buf) else { return Ok(None) };
            let Some((len, second)) = varint::decode(&self.buf[first..]) else { return Ok(None) };
            if len > self.limit {
                return Err(FrameError::Long(len));
            }
            let header = first + second;
            if self.buf.len() - header < len as usize {
                return Ok(None);
            }
            self.buf.advance(header);
            let mut payload = self.buf.split_to(len as usize).freeze();
            let mut integer = || {
                let (value, size) = varint::decode(&payload).ok_or(FrameError::Short)?;
                payload.advance(size);
                Ok(value)
            };
            return Ok(Some(match kind {
                kind::CHUNK => {
                    let (seq, micros) = (integer()?, integer()?);
                    Frame::Chunk { seq, micros, bytes: payload }
                }
                kind::GAP => Frame::Gap(Gap { from: integer()?, missing: integer()?, restarted: integer()? != 0 }),
                kind::END => match integer()? {
                    0 => Frame::End(End::Clean),
                    _ => Frame::End(End::Failed(FeedError(String::from_utf8_lossy(&payload).into_owned()))),
                },
                kind::BEGIN => Frame::Begin { epoch: Epoch(integer()?), next: integer().ok() },
                kind::HEARTBEAT => Frame::Heartbeat,
                kind::SPARSE => Frame::Sparse,
                kind::STALLED => {
                    let stalled = integer()? != 0;
                    let cause = || String::from_utf8_lossy(&payload).into_owned();
                    Frame::Stalled { stalled, cause: (stalled && !payload.is_empty()).then(cause) }
                }
                kind::EXPIRED => Frame::Expired,
                _ => continue,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of docs/protocol.md.
    #[test]
    fn the_documented_bytes() {
        let gap_of_four = Gap { from: 1, missing: 4, restarted: false };
        let failed = End::Failed(FeedError("oop".into()));
        let bytes =
            [begin(Epoch(7), Some(0)), chunk(0, 1000, b"hi"), gap(&gap_of_four), HEARTBEAT, end(&failed)].concat();
        let documented = [
            0x03, 0x02, 0x07, 0x00, 0x00, 0x05, 0x00, 0x43, 0xe8, 0x68, 0x69, 0x01, 0x03, 0x01, 0x04, 0x00, 0x04, 0x00,
            0x02, 0x04, 0x01, 0x6f, 0x6f, 0x70,
        ];
        assert_eq!(bytes, documented);
        let mut decoder = FrameDecoder::new(100);
        decoder.push(&bytes);
        let read: Vec<_> = std::iter::from_fn(|| decoder.pop().unwrap()).collect();
        let expected = [
            Frame::Begin { epoch: Epoch(7), next: Some(0) },
            Frame::Chunk { seq: 0, micros: 1000, bytes: "hi".into() },
            Frame::Gap(gap_of_four),
            Frame::Heartbeat,
            Frame::End(failed),
        ];
        assert_eq!(read, expected);
        assert!(decoder.at_boundary());
    }

    proptest! {
        #[test]
        fn chunks_are_read_as_they_are_written(
            chunks in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..100)), 0..10),
            cuts in prop::collection::vec(1..50_usize, 1..50),
        ) {
            let bytes: Vec<u8> = chunks.iter().flat_map(|(seq, bytes)| chunk((*seq).into(), 0, bytes)).collect();
            let (mut decoder, mut rest, mut cuts, mut read) = (FrameDecoder::new(1000), &bytes[..], cuts.iter().cycle(), Vec::new());
            while !rest.is_empty() {
                let (piece, left) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                rest = left;
                decoder.push(piece);
                while let Some(frame) = decoder.pop().unwrap() {
                    let Frame::Chunk { seq, bytes, .. } = frame else { panic!("{frame:?}") };
                    read.push((seq as u32, bytes.to_vec()));
                }
            }
            prop_assert!(decoder.at_boundary());
            prop_assert_eq!(read, chunks);
        }
    }
}
