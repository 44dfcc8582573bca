//! The Huffman code of string literals ([RFC 7541 §B], which RFC 9204 §4.1.2 takes over). It is
//! canonical: the symbols in order of their codes, and how many have each length, say it all.
//!
//! [RFC 7541 §B]: https://www.rfc-editor.org/rfc/rfc7541#appendix-B

/// How many symbols have a code of so many bits. The last code of 30 bits is EOS, no symbol.
const COUNTS: [u32; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 3];

/// The symbols by the length of their code, then by its value.
#[rustfmt::skip]
const SYMBOLS: [u8; 256] = [
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57, 61, 65, 95, 98,
    100, 102, 103, 104, 108, 109, 110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79,
    80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119, 120, 121, 122, 38, 42, 44, 59, 88, 90, 33, 34, 40,
    41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91, 93, 126, 94, 125, 60, 96, 123, 92, 195, 208, 128, 130, 131, 162,
    184, 194, 224, 226, 153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129, 132, 133, 134, 136,
    146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233, 1, 135,
    137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182, 183,
    188, 191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237, 199, 207, 234, 235, 192, 193,
    200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241,
    244, 245, 246, 247, 248, 250, 251, 252, 253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21,
    23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220, 249, 10, 13, 22,
];

/// Decodes a string; `None` when it holds EOS, an incomplete code, or padding that is not made of
/// less than a byte of ones.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    // The shortest code has 5 bits.
    let mut out = Vec::with_capacity(bytes.len() * 8 / 5);
    let mut code = Code::default();
    let mut padding = true;
    for byte in bytes {
        for bit in (0..8).rev() {
            let bit = u32::from(byte >> bit & 1);
            padding = bit == 1 && (padding || code.bits == 0);
            if let Some(symbol) = code.push(bit)? {
                out.push(symbol);
                code = Code::default();
                padding = true;
            }
        }
    }
    (padding && code.bits < 8).then_some(out)
}

/// A code that is being read, bit by bit.
#[derive(Default)]
struct Code {
    value: u32,
    bits: usize,
    /// The first code of this length.
    first: u32,
    /// Where the symbols of this length begin.
    index: u32,
}

impl Code {
    /// Takes a bit and gives the symbol that it completes; `None` outside when no code begins so.
    fn push(&mut self, bit: u32) -> Option<Option<u8>> {
        let shorter = COUNTS[self.bits];
        self.first = (self.first + shorter) << 1;
        self.index += shorter;
        self.value = self.value << 1 | bit;
        self.bits += 1;
        let count = COUNTS.get(self.bits)?;
        let nth = self.value - self.first;
        if nth < *count {
            return Some(SYMBOLS.get((self.index + nth) as usize).copied());
        }
        // All ones of the last length are EOS.
        (self.bits + 1 < COUNTS.len()).then_some(None)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The codes of all symbols, made as RFC 7541 §B lists them.
    pub(in super::super) fn encode(string: &[u8]) -> Vec<u8> {
        let (mut codes, mut code, mut symbols) = ([(0_u32, 0_usize); 256], 0_u32, SYMBOLS.iter());
        for (bits, count) in COUNTS.iter().enumerate() {
            code <<= 1;
            for symbol in symbols.by_ref().take(*count as usize) {
                codes[usize::from(*symbol)] = (code, bits);
                code += 1;
            }
        }
        let mut bits: Vec<bool> = Vec::new();
        for symbol in string {
            let (code, len) = codes[usize::from(*symbol)];
            bits.extend((0..len).rev().map(|bit| code >> bit & 1 == 1));
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
    }

    /// The examples of RFC 7541 §C.4 and §C.6.
    #[test]
    fn vectors_of_the_specification() {
        let url = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decode(&url).unwrap(), b"www.example.com");
        assert_eq!(decode(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        assert_eq!(decode(&[0xae, 0xc3, 0x77, 0x1a, 0x4b]).unwrap(), b"private");
        assert_eq!(decode(&[]).unwrap(), b"");
    }

    #[test]
    fn wrong_endings() {
        assert_eq!(decode(&[0xff]), None, "a byte of padding");
        assert_eq!(decode(&[0xff; 4]), None, "EOS");
        assert_eq!(decode(&[0x00]), None, "padding of zeros");
        assert_eq!(decode(&[0xfe]), None, "an incomplete code");
        assert_eq!(decode(&[0x07]).unwrap(), b"0");
    }

    proptest! {
        #[test]
        fn reads_what_is_written(string in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&encode(&string)), Some(string));
        }

        /// Whatever decodes is the one encoding of its string.
        #[test]
        fn takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(string) = decode(&bytes) {
                prop_assert_eq!(encode(&string), bytes);
            }
        }
    }
}
