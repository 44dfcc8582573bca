//! Frames: their types and headers ([RFC 9114 §7](https://www.rfc-editor.org/rfc/rfc9114#section-7)).

use bytes::BufMut;

use crate::varint;

/// DATA.
pub const DATA: u64 = 0x0;
/// HEADERS.
pub const HEADERS: u64 = 0x1;
/// CANCEL_PUSH.
pub const CANCEL_PUSH: u64 = 0x3;
/// SETTINGS.
pub const SETTINGS: u64 = 0x4;
/// PUSH_PROMISE.
pub const PUSH_PROMISE: u64 = 0x5;
/// GOAWAY.
pub const GOAWAY: u64 = 0x7;
/// MAX_PUSH_ID.
pub const MAX_PUSH_ID: u64 = 0xd;
/// Not a frame but the signal of a bidirectional WebTransport stream (draft-ietf-webtrans-http3 §4.3): what
/// follows has no length.
pub const WEBTRANSPORT_STREAM: u64 = 0x41;

/// Whether a type belongs to HTTP/2 and is forbidden in HTTP/3 (RFC 9114 §7.2.8).
#[must_use]
pub const fn is_reserved_http2(ty: u64) -> bool {
    matches!(ty, 0x2 | 0x6 | 0x8 | 0x9)
}

/// Whether HTTP/3 defines or forbids a type. Frames of other types are to be ignored (RFC 9114 §9).
#[must_use]
#[inline]
pub const fn is_known(ty: u64) -> bool {
    matches!(ty, DATA | HEADERS | CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID) || is_reserved_http2(ty)
}

/// A frame's type, the length of its payload, and the size of its header, all in bytes; `None` while `bytes`
/// ends before the header does.
#[must_use]
#[inline]
pub fn parse_header(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (ty, first) = varint::decode(bytes)?;
    let (len, second) = varint::decode(&bytes[first..])?;
    Some((ty, len, first + second))
}

/// Appends the header of a frame whose payload has `len` bytes.
#[inline]
pub fn put_header(ty: u64, len: usize, out: &mut impl BufMut) {
    varint::encode(ty, out);
    varint::encode(len as u64, out);
}
