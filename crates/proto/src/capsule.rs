//! Capsules on a session's CONNECT stream ([RFC 9297 §3], draft-ietf-webtrans-http3 §6). A capsule of an
//! unknown type is dropped as it arrives, whatever its length.
//!
//! [RFC 9297 §3]: https://www.rfc-editor.org/rfc/rfc9297#section-3

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::varint;

const WT_CLOSE_SESSION: u64 = 0x2843;
const WT_DRAIN_SESSION: u64 = 0x78ae;

/// The longest reason of a close, in bytes.
pub const MAX_REASON: usize = 1024;

/// A peer's message about the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capsule {
    /// The session has ended.
    Close {
        /// The application's code.
        code: u32,
        /// The application's reason; invalid UTF-8 is replaced.
        reason: String,
    },
    /// The peer asks for the session to be ended soon.
    Drain,
}

/// The peer's capsules break the protocol: its message is malformed (H3_MESSAGE_ERROR).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// A close or drain capsule of a length that it cannot have.
    #[error("a capsule has a length that its type does not allow")]
    Length,
    /// The stream ended inside a capsule.
    #[error("a capsule is cut short by the end of its stream")]
    Truncated,
    /// Something followed a close capsule.
    #[error("data after the session was closed")]
    AfterClose,
}

/// Reads capsules out of the pieces of a stream.
#[derive(Debug, Default)]
pub struct CapsuleDecoder {
    buf: BytesMut,
    /// What is left of a capsule that is being dropped.
    skip: u64,
    closed: bool,
}

impl CapsuleDecoder {
    /// Takes the next bytes of the stream.
    ///
    /// Holds at most one close capsule (1,040 bytes) in addition to `bytes`.
    pub fn push(&mut self, mut bytes: impl Buf) {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.remaining());
        bytes.advance(skipped);
        self.skip -= skipped as u64;
        self.buf.put(bytes);
    }

    /// The next capsule, or `None` until more bytes come.
    ///
    /// # Errors
    ///
    /// When the peer broke the protocol; nothing more can be read then.
    pub fn pop(&mut self) -> Result<Option<Capsule>, CapsuleError> {
        loop {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(self.buf.len());
            self.buf.advance(skipped);
            self.skip -= skipped as u64;
            if self.closed && !self.buf.is_empty() {
                return Err(CapsuleError::AfterClose);
            }
            let Some((ty, first)) = varint::decode(&self.buf) else { return Ok(None) };
            let Some((len, second)) = varint::decode(&self.buf[first..]) else { return Ok(None) };
            let header = first + second;
            match ty {
                WT_CLOSE_SESSION if !(4..=4 + MAX_REASON as u64).contains(&len) => return Err(CapsuleError::Length),
                WT_DRAIN_SESSION if len != 0 => return Err(CapsuleError::Length),
                WT_CLOSE_SESSION => {
                    if self.buf.len() - header < len as usize {
                        return Ok(None);
                    }
                    self.buf.advance(header);
                    let mut value = self.buf.split_to(len as usize);
                    let code = value.get_u32();
                    self.closed = true;
                    return Ok(Some(Capsule::Close { code, reason: String::from_utf8_lossy(&value).into_owned() }));
                }
                WT_DRAIN_SESSION => {
                    self.buf.advance(header);
                    return Ok(Some(Capsule::Drain));
                }
                _ => {
                    self.buf.advance(header);
                    self.skip = len;
                }
            }
        }
    }

    /// Reports that the stream has ended.
    ///
    /// # Errors
    ///
    /// When it ended inside a capsule.
    pub fn finish(&self) -> Result<(), CapsuleError> {
        match self.buf.is_empty() && self.skip == 0 {
            true => Ok(()),
            false => Err(CapsuleError::Truncated),
        }
    }
}

/// A close capsule; `reason` is cut at a character boundary to [`MAX_REASON`] bytes.
#[must_use]
pub fn encode_close(code: u32, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
    let mut out = BytesMut::with_capacity(reason.len() + 8);
    varint::encode(WT_CLOSE_SESSION, &mut out);
    varint::encode(4 + reason.len() as u64, &mut out);
    out.put_u32(code);
    out.put_slice(reason.as_bytes());
    out.freeze()
}

/// A drain capsule.
#[must_use]
pub fn encode_drain() -> Bytes {
    let mut out = BytesMut::new();
    varint::encode(WT_DRAIN_SESSION, &mut out);
    varint::encode(0, &mut out);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8], cuts: &[usize]) -> Result<(Vec<Capsule>, Result<(), CapsuleError>), CapsuleError> {
        let mut decoder = CapsuleDecoder::default();
        let (mut rest, mut read) = (bytes, Vec::new());
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (piece, left) = rest.split_at(cut.min(rest.len()));
            rest = left;
            decoder.push(piece);
            while let Some(capsule) = decoder.pop()? {
                read.push(capsule);
            }
        }
        Ok((read, decoder.finish()))
    }

    fn unknown(ty: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        varint::encode(ty, &mut out);
        varint::encode(len as u64, &mut out);
        out.resize(out.len() + len, 0xaa);
        out
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(code: u32, reason in "\\PC{0,50}", junk in 0..3000usize, cuts in prop::collection::vec(0..40usize, 0..40)) {
            let bytes = [unknown(0x29, junk), encode_drain().to_vec(), encode_close(code, &reason).to_vec()].concat();
            let (capsules, end) = read(&bytes, &cuts).unwrap();
            prop_assert_eq!(capsules, vec![Capsule::Drain, Capsule::Close { code, reason }]);
            prop_assert_eq!(end, Ok(()));
        }

        #[test]
        fn takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(0..40usize, 0..40)) {
            let _ = read(&bytes, &cuts);
        }

        #[test]
        fn a_long_reason_is_cut_at_a_character(reason in "[a-zäß漢🦀]{900,1100}") {
            let (capsules, _) = read(&encode_close(7, &reason), &[]).unwrap();
            let [Capsule::Close { reason: cut, .. }] = &capsules[..] else { panic!("{capsules:?}") };
            prop_assert!(reason.starts_with(cut.as_str()));
            prop_assert!(cut.len() <= MAX_REASON && (cut.len() > MAX_REASON - 4 || cut.len() == reason.len()));
        }
    }

    #[test]
    fn malformed_capsules() {
        let close = |len: u64| {
            let mut out = Vec::new();
            varint::encode(WT_CLOSE_SESSION, &mut out);
            varint::encode(len, &mut out);
            out
        };
        assert_eq!(read(&close(3), &[]), Err(CapsuleError::Length));
        assert_eq!(read(&close(4 + 1025), &[]), Err(CapsuleError::Length));
        assert_eq!(read(&close(1 << 40), &[]), Err(CapsuleError::Length));
        assert_eq!(read(&unknown(WT_DRAIN_SESSION, 1), &[]), Err(CapsuleError::Length));
        let mut after = encode_close(0, "").to_vec();
        after.push(0);
        assert_eq!(read(&after, &[]), Err(CapsuleError::AfterClose));
        let cut = encode_close(1, "bye");
        assert_eq!(read(&cut[..cut.len() - 1], &[]), Ok((vec![], Err(CapsuleError::Truncated))));
        assert_eq!(read(&unknown(0x21, 9)[..5], &[]), Ok((vec![], Err(CapsuleError::Truncated))));
    }

    #[test]
    fn a_gigabyte_of_unknown_capsule_is_not_kept() {
        let mut decoder = CapsuleDecoder::default();
        let mut head = Vec::new();
        varint::encode(0x1234_5678, &mut head);
        varint::encode(1 << 30, &mut head);
        decoder.push(&head[..]);
        for _ in 0..1000 {
            assert_eq!(decoder.pop(), Ok(None));
            decoder.push(&[0; 4096][..]);
            assert!(decoder.buf.is_empty());
        }
    }
}
