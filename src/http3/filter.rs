//! The frame filter: what of a peer's stream may reach h3.
//!
//! h3 0.0.8 buffers every frame but DATA whole, whatever length it declares, and keeps frames of
//! unknown types in memory until they end. This filter stands before it: bytes in, bytes out, no
//! I/O. Frames of unknown types are dropped as they arrive ([RFC 9114 §9]), and a frame that h3
//! would have to hold is refused as soon as its declared length passes the limit.
//!
//! [RFC 9114 §9]: https://www.rfc-editor.org/rfc/rfc9114#section-9

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{code, varint};

/// Frame types ([RFC 9114 §7.2](https://www.rfc-editor.org/rfc/rfc9114#section-7.2)).
pub(crate) mod frame {
    pub(crate) const DATA: u64 = 0x0;
    pub(crate) const HEADERS: u64 = 0x1;
    pub(crate) const CANCEL_PUSH: u64 = 0x3;
    pub(crate) const SETTINGS: u64 = 0x4;
    pub(crate) const PUSH_PROMISE: u64 = 0x5;
    pub(crate) const GOAWAY: u64 = 0x7;
    pub(crate) const MAX_PUSH_ID: u64 = 0xd;
    /// Not a frame but the signal of a bidirectional WebTransport stream
    /// (draft-ietf-webtrans-http3 §4.3): what follows has no length.
    pub(crate) const WEBTRANSPORT_STREAM: u64 = 0x41;

    /// Types of HTTP/2 that HTTP/3 forbids (RFC 9114 §7.2.8).
    pub(crate) const fn is_reserved_http2(ty: u64) -> bool {
        matches!(ty, 0x2 | 0x6 | 0x8 | 0x9)
    }

    pub(crate) const fn is_known(ty: u64) -> bool {
        matches!(ty, DATA | HEADERS | CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID)
            || is_reserved_http2(ty)
    }
}

/// A peer's violation of HTTP/3 that ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The HTTP/3 error code that the specification names.
    pub(crate) code: u64,
    /// What the peer did, for the reason phrase and the log.
    pub(crate) reason: &'static str,
}

/// Where a stream is within its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between frames, or inside a type and length that are still incomplete.
    Header,
    /// Inside a payload that is passed on.
    Pass(u64),
    /// Inside a payload that is dropped.
    Skip(u64),
}

/// Passes the frames of one stream, chunk by chunk. See the module's text.
#[derive(Debug)]
pub(crate) struct FrameFilter {
    state: State,
    /// The bytes of an incomplete frame header, at most 16.
    header: BytesMut,
    /// The largest payload, in bytes, of a frame other than DATA that is passed on.
    limit: u64,
}

impl FrameFilter {
    /// A filter at the start of a stream. `limit` is the largest payload, in bytes, of a frame
    /// other than DATA.
    #[must_use]
    pub(crate) fn new(limit: u64) -> Self {
        Self { state: State::Header, header: BytesMut::new(), limit }
    }

    /// Takes the next bytes of the stream and appends to `out` what may be passed on.
    ///
    /// A payload is never copied; a frame header that is split over several chunks is.
    ///
    /// # Errors
    ///
    /// H3_EXCESSIVE_LOAD when a frame other than DATA declares more than the limit. The filter
    /// must not be used afterwards.
    pub(crate) fn push(&mut self, mut chunk: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), Violation> {
        while !chunk.is_empty() {
            match &mut self.state {
                State::Pass(left) => {
                    let piece = take(&mut chunk, left);
                    out.push_back(piece);
                    self.end_of_payload();
                }
                State::Skip(left) => {
                    take(&mut chunk, left);
                    self.end_of_payload();
                }
                State::Header => self.header(&mut chunk, out)?,
            }
        }
        Ok(())
    }

    /// Whether the stream may end here: not inside a frame.
    #[must_use]
    pub(crate) fn at_boundary(&self) -> bool {
        self.state == State::Header && self.header.is_empty()
    }

    fn end_of_payload(&mut self) {
        if matches!(self.state, State::Pass(0) | State::Skip(0)) {
            self.state = State::Header;
        }
    }

    fn header(&mut self, chunk: &mut Bytes, out: &mut VecDeque<Bytes>) -> Result<(), Violation> {
        let (ty, len, header) = if self.header.is_empty() {
            match parse(chunk) {
                // The common case: the header lies in one chunk and is passed on uncopied.
                Some((ty, len, size)) => (ty, len, chunk.split_to(size)),
                None => {
                    self.header.extend_from_slice(&chunk.split_off(0));
                    return Ok(());
                }
            }
        } else {
            // At most 16 bytes make a header: byte by byte is simplest and cannot be abused.
            self.header.extend_from_slice(&chunk.split_to(1));
            match parse(&self.header) {
                Some((ty, len, _)) => (ty, len, self.header.split().freeze()),
                None => return Ok(()),
            }
        };
        if !frame::is_known(ty) {
            self.state = State::Skip(len);
        } else if ty != frame::DATA && len > self.limit {
            return Err(Violation {
                code: code::H3_EXCESSIVE_LOAD,
                reason: "a frame is longer than this endpoint accepts",
            });
        } else {
            out.push_back(header);
            self.state = State::Pass(len);
        }
        self.end_of_payload();
        Ok(())
    }
}

/// Type, length and size in bytes of the frame header at the front of `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (ty, first) = varint::decode(bytes)?;
    let (len, second) = varint::decode(&bytes[first..])?;
    Some((ty, len, first + second))
}

/// Splits off the front of `chunk` up to `left` bytes and counts them off.
fn take(chunk: &mut Bytes, left: &mut u64) -> Bytes {
    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(chunk.len());
    *left -= size as u64;
    chunk.split_to(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (ty, payload) in frames {
            varint::encode(*ty, &mut out);
            varint::encode(payload.len() as u64, &mut out);
            out.extend_from_slice(payload);
        }
        out
    }

    fn run(bytes: &[u8], cuts: &[usize], limit: u64) -> Result<(Vec<u8>, bool), Violation> {
        let mut filter = FrameFilter::new(limit);
        let mut out = VecDeque::new();
        let mut rest = Bytes::copy_from_slice(bytes);
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let size = cut.min(rest.len());
            filter.push(rest.split_to(size), &mut out)?;
        }
        Ok((out.into_iter().flatten().collect(), filter.at_boundary()))
    }

    fn frames() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
        let ty = prop_oneof![Just(0), Just(1), Just(4), Just(0x21), Just(0x40), Just(varint::MAX)];
        prop::collection::vec((ty, prop::collection::vec(any::<u8>(), 0..80)), 0..8)
    }

    proptest! {
        /// However the stream is cut, known frames pass byte for byte and unknown ones vanish.
        #[test]
        fn passes_known_frames_only(frames in frames(), cuts in prop::collection::vec(0..20usize, 0..30)) {
            let kept: Vec<_> = frames.iter().filter(|(ty, _)| frame::is_known(*ty)).cloned().collect();
            let (out, boundary) = run(&encode(&frames), &cuts, 100).unwrap();
            prop_assert_eq!(out, encode(&kept));
            prop_assert!(boundary);
        }

        /// Whatever arrives, nothing panics, and what leaves is never more than what came.
        #[test]
        fn takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(0..20usize, 0..30)) {
            if let Ok((out, _)) = run(&bytes, &cuts, 1000) {
                prop_assert!(out.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn refuses_a_long_frame_by_its_header_alone() {
        let mut bytes = Vec::new();
        varint::encode(frame::HEADERS, &mut bytes);
        varint::encode(1 << 30, &mut bytes);
        assert_eq!(run(&bytes, &[], 1 << 14).unwrap_err().code, code::H3_EXCESSIVE_LOAD);
    }

    #[test]
    fn an_unknown_frame_of_a_gigabyte_is_dropped_as_it_comes() {
        let mut bytes = Vec::new();
        varint::encode(0x21, &mut bytes);
        varint::encode(1 << 30, &mut bytes);
        bytes.extend_from_slice(&[7; 10_000]);
        assert_eq!(run(&bytes, &[1, 1, 1], 1 << 14).unwrap(), (Vec::new(), false));
    }

    #[test]
    fn data_may_be_of_any_length() {
        let mut bytes = Vec::new();
        varint::encode(frame::DATA, &mut bytes);
        varint::encode(varint::MAX, &mut bytes);
        bytes.push(1);
        assert_eq!(run(&bytes, &[3], 10).unwrap(), (bytes.clone(), false));
    }
}
