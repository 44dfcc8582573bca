//! QPACK without a dynamic table ([RFC 9204]): field sections, and what a peer may send on its encoder and
//! decoder streams when neither side has such a table.
//!
//! [RFC 9204]: https://www.rfc-editor.org/rfc/rfc9204

mod decode;
mod huffman;
mod static_table;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

pub use decode::{Field, FieldsError, decode};

use crate::{Violation, code};

/// A field section of literals only (RFC 9204 §4.5.6), as trailers need.
pub fn encode(fields: &HeaderMap) -> Bytes {
    let mut out = BytesMut::new();
    // Required Insert Count 0, Delta Base 0: no dynamic table.
    out.put_slice(&[0, 0]);
    for (name, value) in fields {
        prefix_int(0x20, 3, name.as_str().len(), &mut out);
        out.put_slice(name.as_str().as_bytes());
        prefix_int(0x00, 7, value.len(), &mut out);
        out.put_slice(value.as_bytes());
    }
    out.freeze()
}

/// An integer with an N-bit prefix (RFC 9204 §4.1.1).
fn prefix_int(flags: u8, bits: u32, value: usize, out: &mut BytesMut) {
    let max = (1_usize << bits) - 1;
    if value < max {
        out.put_u8(flags | value as u8);
        return;
    }
    out.put_u8(flags | max as u8);
    let mut rest = value - max;
    while rest >= 0x80 {
        out.put_u8(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// The violation of a peer whose field section cannot be decoded (RFC 9204 §2.2).
pub const UNDECODABLE: Violation =
    Violation { code: code::QPACK_DECOMPRESSION_FAILED, reason: "a field section cannot be decoded" };

/// A HEADERS frame with status 431 (Request Header Fields Too Large), for a request whose field
/// section is refused before h3 reads it.
pub const FIELDS_TOO_LARGE: &[u8] = &[
    0x01, 0x08, // HEADERS, 8 bytes
    0x00, 0x00, // no dynamic table
    0x5f, 0x09, // literal with the name `:status` (static table index 24)
    0x03, b'4', b'3', b'1',
];

/// A HEADERS frame with status 501 (Not Implemented), for a body of plain text.
pub const NOT_IMPLEMENTED: &[u8] = &[
    0x01, 0x09, // HEADERS, 9 bytes
    0x00, 0x00, // no dynamic table
    0x5f, 0x09, // as above
    0x03, b'5', b'0', b'1', //
    0xf6, // `content-type: text/plain;charset=utf-8` (static table index 54)
];

/// Checks the bytes of a peer's encoder stream.
///
/// An endpoint that announces a dynamic table of capacity 0 leaves its peer one instruction: Set Dynamic Table
/// Capacity to 0 (RFC 9204 §3.2.3, §4.3.1).
///
/// # Errors
///
/// QPACK_ENCODER_STREAM_ERROR for any other instruction.
pub fn check_encoder_stream(bytes: &[u8]) -> Result<(), Violation> {
    match bytes.iter().all(|byte| *byte == 0x20) {
        true => Ok(()),
        false => Err(Violation {
            code: code::QPACK_ENCODER_STREAM_ERROR,
            reason: "an encoder instruction needs a dynamic table, which this endpoint does not offer",
        }),
    }
}

/// Checks a peer's decoder stream.
///
/// This endpoint inserts nothing, so a Section Acknowledgment or an Insert Count Increment
/// acknowledges what was never sent (RFC 9204 §4.4.1, §4.4.3). Stream Cancellation is allowed.
#[derive(Debug, Default)]
pub struct DecoderStream {
    in_integer: bool,
}

impl DecoderStream {
    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    ///
    /// QPACK_DECODER_STREAM_ERROR when an instruction acknowledges something that was never sent.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        for byte in bytes {
            if self.in_integer {
                self.in_integer = byte & 0x80 != 0;
            } else if byte & 0xc0 == 0x40 {
                self.in_integer = byte & 0x3f == 0x3f;
            } else {
                return Err(Violation {
                    code: code::QPACK_DECODER_STREAM_ERROR,
                    reason: "a decoder instruction acknowledges what was never sent",
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_as_the_specification_lays_them_out() {
        let mut fields = HeaderMap::new();
        fields.insert("a-name-of-14ch", http::HeaderValue::from_static("v"));
        let mut expected = vec![0, 0, 0x27, 14 - 7];
        expected.extend_from_slice(b"a-name-of-14ch\x01v");
        assert_eq!(&encode(&fields)[..], &expected[..]);
    }

    #[test]
    fn answers_that_are_made_beforehand() {
        let field = |name: &'static str, value: &'static str| Field {
            name: name.as_bytes().into(),
            value: value.as_bytes().into(),
        };
        let text = field("content-type", "text/plain;charset=utf-8");
        for (answer, expected) in
            [(FIELDS_TOO_LARGE, vec![field(":status", "431")]), (NOT_IMPLEMENTED, vec![field(":status", "501"), text])]
        {
            let [0x01, len, section @ ..] = answer else { panic!("{answer:x?}") };
            assert_eq!(usize::from(*len), section.len());
            assert_eq!(decode(section, 1000).unwrap(), expected);
        }
    }

    #[test]
    fn long_integers_continue() {
        let mut out = BytesMut::new();
        prefix_int(0, 5, 1337, &mut out); // RFC 7541 §C.1.2
        assert_eq!(&out[..], [0b0001_1111, 0b1001_1010, 0b0000_1010]);
    }

    #[test]
    fn the_encoder_stream_may_only_set_capacity_to_nothing() {
        assert!(check_encoder_stream(&[0x20, 0x20]).is_ok());
        assert!(check_encoder_stream(&[0x21]).is_err());
        assert!(check_encoder_stream(&[0xc0]).is_err());
    }

    #[test]
    fn the_decoder_stream_may_only_cancel() {
        let mut stream = DecoderStream::default();
        assert!(stream.check(&[0x44, 0x7f, 0x80]).is_ok());
        assert!(stream.check(&[0x01, 0x40]).is_ok());
        assert!(stream.check(&[0x84]).is_err());
        assert!(DecoderStream::default().check(&[0x01]).is_err());
    }
}
