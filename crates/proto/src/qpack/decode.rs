//! Decoding field sections without a dynamic table ([RFC 9204 §4.5]).
//!
//! [RFC 9204 §4.5]: https://www.rfc-editor.org/rfc/rfc9204#section-4.5

use std::borrow::Cow;

use super::{huffman, static_table};

/// A field line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// In lower case, as RFC 9114 §4.2 wants it, if the peer keeps to that.
    pub name: Cow<'static, [u8]>,
    /// Any bytes.
    pub value: Cow<'static, [u8]>,
}

/// Why a field section was not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldsError {
    /// It is not QPACK, or refers to a dynamic table: QPACK_DECOMPRESSION_FAILED.
    Undecodable,
    /// It is larger than the limit (RFC 9114 §4.2.2).
    TooLarge,
}

/// Decodes a field section of at most `limit` bytes, counted as in RFC 9114 §4.2.2.
///
/// # Errors
///
/// If it is larger, or cannot be decoded.
pub fn decode(section: &[u8], limit: u64) -> Result<Vec<Field>, FieldsError> {
    let mut reader = FieldSection(section);
    let mut left = limit;
    let mut fields = Vec::new();
    reader.prefix().ok_or(FieldsError::Undecodable)?;
    while !reader.0.is_empty() {
        let field = reader.field().ok_or(FieldsError::Undecodable)?;
        let size = (field.name.len() + field.value.len() + 32) as u64;
        left = left.checked_sub(size).ok_or(FieldsError::TooLarge)?;
        fields.push(field);
    }
    Ok(fields)
}

/// What is left of a field section. `None` everywhere means that it cannot be decoded.
struct FieldSection<'a>(&'a [u8]);

impl FieldSection<'_> {
    /// RFC 9204 §4.5.1. Nothing can be required of a table that is not there.
    fn prefix(&mut self) -> Option<()> {
        let required = self.integer(8)?;
        let negative = self.first()? & 0x80 != 0;
        self.integer(7)?;
        (required == 0 && !negative).then_some(())
    }

    fn field(&mut self) -> Option<Field> {
        let first = self.first()?;
        match first {
            // An indexed field line, of the static table.
            0xc0..=0xff => {
                let (name, value) = self.indexed(6)?;
                Some(Field { name: name.as_bytes().into(), value: value.as_bytes().into() })
            }
            // A literal whose name is in the static table.
            _ if first & 0xd0 == 0x50 => {
                let (name, _) = self.indexed(4)?;
                Some(Field { name: name.as_bytes().into(), value: self.string(7)?.into() })
            }
            // A literal.
            0x20..=0x3f => Some(Field { name: self.string(3)?.into(), value: self.string(7)?.into() }),
            // All others refer to the dynamic table.
            _ => None,
        }
    }

    fn indexed(&mut self, bits: u32) -> Option<(&'static str, &'static str)> {
        let index = self.integer(bits)?;
        static_table::FIELDS.get(usize::try_from(index).ok()?).copied()
    }

    /// RFC 9204 §4.1.2: the bit before the prefix of the length says whether it is Huffman-coded.
    fn string(&mut self, bits: u32) -> Option<Vec<u8>> {
        let huffman = self.first()? & 1 << bits != 0;
        let len = usize::try_from(self.integer(bits)?).ok()?;
        let (string, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        match huffman {
            true => huffman::decode(string),
            false => Some(string.to_vec()),
        }
    }

    /// RFC 9204 §4.1.1. Longer than 62 bits is none.
    fn integer(&mut self, bits: u32) -> Option<u64> {
        let max = (1 << bits) - 1;
        let value = u64::from(self.next()?) & max;
        if value < max {
            return Some(value);
        }
        let mut value = value;
        for shift in (0..=56).step_by(7) {
            let byte = self.next()?;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn first(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(name: &'static str, value: &'static str) -> Field {
        Field { name: name.as_bytes().into(), value: value.as_bytes().into() }
    }

    /// RFC 9204 §B.1.
    #[test]
    fn vector_of_the_specification() {
        let section = b"\0\0\x51\x0b/index.html";
        assert_eq!(decode(section, 1000), Ok(vec![field(":path", "/index.html")]));
    }

    #[test]
    fn every_representation() {
        let huffman = huffman::tests::encode(b"custom");
        assert_eq!(huffman.len(), 4);
        let section = [b"\0\0\xd1\xff\x23\x2c", &huffman[..], b"\x01v"].concat();
        let fields = vec![field(":method", "GET"), field("x-frame-options", "sameorigin"), field("custom", "v")];
        assert_eq!(decode(&section, 1000), Ok(fields));
    }

    #[test]
    fn what_needs_a_dynamic_table_or_is_none() {
        for wrong in [
            &b""[..],
            b"\0",
            b"\x01\0",
            b"\0\x80",
            b"\0\0\x80",
            b"\0\0\x10",
            b"\0\0\0\0",
            b"\0\0\x40\0",
            b"\0\0\xff\x24", // index 99
            b"\0\0\xff",
            b"\0\0\x23ab",
            b"\0\0\x27\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(decode(wrong, 1000), Err(FieldsError::Undecodable), "{wrong:x?}");
        }
    }

    #[test]
    fn the_size_counts_what_is_decoded() {
        let section = [&[0, 0][..], &[0xc0 | 17; 4]].concat();
        let size = 4 * (7 + 3 + 32);
        assert_eq!(decode(&section, size).map(|fields| fields.len()), Ok(4));
        assert_eq!(decode(&section, size - 1), Err(FieldsError::TooLarge));
    }

    proptest! {
        #[test]
        fn takes_any_bytes(section in prop::collection::vec(any::<u8>(), 0..200), limit in 0..4000_u64) {
            if let Ok(fields) = decode(&section, limit) {
                let size: usize = fields.iter().map(|field| field.name.len() + field.value.len() + 32).sum();
                prop_assert!(size as u64 <= limit);
            }
        }

        #[test]
        fn reads_what_is_written(fields in prop::collection::vec(("[a-z-]{1,40}", "[ -~]{0,300}"), 0..10)) {
            let mut map = http::HeaderMap::new();
            for (name, value) in &fields {
                map.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            }
            let decoded = decode(&super::super::encode(&map), u64::MAX).unwrap();
            let read: Vec<_> = decoded.iter().map(|field| (&field.name[..], &field.value[..])).collect();
            let written: Vec<_> = map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
            prop_assert_eq!(read, written);
        }
    }
}
