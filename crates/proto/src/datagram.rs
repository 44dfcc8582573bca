//! HTTP datagrams in QUIC's ([RFC 9297 §2.1]): the quarter stream id, then the payload.
//!
//! [RFC 9297 §2.1]: https://www.rfc-editor.org/rfc/rfc9297#section-2.1

use bytes::BufMut;

use crate::{Violation, code, varint};

/// The id of the request stream that a datagram belongs to, and its payload.
///
/// # Errors
///
/// H3_DATAGRAM_ERROR when it does not begin with a quarter stream id.
pub fn parse(datagram: &[u8]) -> Result<(u64, &[u8]), Violation> {
    let malformed = Violation { code: code::H3_DATAGRAM_ERROR, reason: "a datagram has no valid quarter stream id" };
    let (quarter, size) = varint::decode(datagram).ok_or(malformed)?;
    match quarter <= varint::MAX / 4 {
        true => Ok((quarter * 4, &datagram[size..])),
        false => Err(malformed),
    }
}

/// Appends what comes before the payload of a datagram of the request stream `id`.
pub fn put_header(id: u64, out: &mut impl BufMut) {
    varint::encode(id / 4, out);
}

/// How many bytes [`put_header`] appends.
#[must_use]
pub const fn header_len(id: u64) -> usize {
    varint::len(id / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_has_no_stream() {
        assert!(parse(b"").is_err());
        assert!(parse(&[0x40]).is_err());
        assert!(parse(&[0xd0, 0, 0, 0, 0, 0, 0, 0]).is_err(), "four times this is no stream id");
        assert_eq!(parse(&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Ok((varint::MAX - 3, &b""[..])));
    }

    proptest! {
        #[test]
        fn there_and_back(quarter in 0..=varint::MAX / 4, payload in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut datagram = Vec::new();
            put_header(quarter * 4, &mut datagram);
            prop_assert_eq!(datagram.len(), header_len(quarter * 4));
            datagram.extend_from_slice(&payload);
            prop_assert_eq!(parse(&datagram), Ok((quarter * 4, &payload[..])));
        }
    }
}
