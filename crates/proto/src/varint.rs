//! QUIC variable-length integers ([RFC 9000 §16]).
//!
//! [RFC 9000 §16]: https://www.rfc-editor.org/rfc/rfc9000#section-16

/// The largest value that a variable-length integer can hold: 2^62 − 1.
pub const MAX: u64 = (1 << 62) - 1;

/// The longest encoding, in bytes.
pub const MAX_LEN: usize = 8;

/// Reads one integer from the front of `bytes`.
///
/// Returns the value and the number of bytes that it takes, or `None` when `bytes` ends before
/// the integer does. Every sequence of bytes is a valid beginning, so there is no error.
#[must_use]
#[inline]
pub fn decode(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let len = 1 << (first >> 6);
    let rest = bytes.get(1..len)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| (value << 8) | u64::from(*byte));
    Some((value, len))
}

/// The number of bytes that [`encode`] writes for `value`.
#[must_use]
#[inline]
pub const fn len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends `value` in its shortest encoding. Values above [`MAX`] are cut to it.
#[inline]
pub fn encode(value: u64, out: &mut impl bytes::BufMut) {
    let value = value.min(MAX);
    match len(value) {
        1 => out.put_u8(value as u8),
        2 => out.put_u16(0x4000 | value as u16),
        4 => out.put_u32(0x8000_0000 | value as u32),
        _ => out.put_u64(0xc000_0000_0000_0000 | value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The examples of RFC 9000 §A.1.
    #[test]
    fn vectors_of_the_specification() {
        let eight = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        assert_eq!(decode(&eight), Some((151_288_809_941_952_652, 8)));
        assert_eq!(decode(&[0x9d, 0x7f, 0x3e, 0x7d]), Some((494_878_333, 4)));
        assert_eq!(decode(&[0x7b, 0xbd]), Some((15_293, 2)));
        assert_eq!(decode(&[0x25]), Some((37, 1)));
        assert_eq!(decode(&[0x40, 0x25]), Some((37, 2)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(value in 0..=MAX, tail in any::<[u8; 3]>()) {
            let mut out = Vec::new();
            encode(value, &mut out);
            prop_assert_eq!(out.len(), len(value));
            for cut in 0..out.len() {
                prop_assert_eq!(decode(&out[..cut]), None);
            }
            let len = out.len();
            out.extend_from_slice(&tail);
            prop_assert_eq!(decode(&out), Some((value, len)));
        }
    }
}
