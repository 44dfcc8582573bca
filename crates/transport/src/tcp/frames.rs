//! The frames of an HTTP/2 connection as their bytes pass (RFC 9113 §4.1), without their payload.

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PING: u8 = 0x6;

/// The same bit on PING and SETTINGS, and on DATA and HEADERS.
pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) ty: u8,
    pub(super) flags: u8,
    /// Bytes of payload; of DATA, without padding.
    pub(super) content: u32,
}

/// Finds the heads of frames in what passes.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; 10],
    have: usize,
    /// What is left of the payload.
    skip: usize,
}

impl Frames {
    /// Takes the next bytes; calls `each` with every frame whose head is complete with them.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (self.wanted() - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            // With its first nine bytes it may turn out to want one more.
            if self.have == self.wanted() {
                let [_, _, _, ty, flags, ..] = self.head;
                let padding = if self.have > 9 { 1 + u32::from(self.head[9]) } else { 0 };
                let content = (self.len() as u32).saturating_sub(padding);
                self.skip = self.len() - (self.have - 9);
                self.have = 0;
                each(Frame { ty, flags, content });
            }
        }
    }

    /// The length of the payload, once it has come.
    fn len(&self) -> usize {
        u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]) as usize
    }

    fn wanted(&self) -> usize {
        let padded = self.have >= 9 && self.head[3] == DATA && self.head[4] & PADDED != 0 && self.len() > 0;
        if padded { 10 } else { 9 }
    }

    /// Whether another frame may begin here.
    pub(super) fn at_boundary(&self) -> bool {
        self.have == 0 && self.skip == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ty: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        [&[len[1], len[2], len[3], ty, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn finds_frames_however_the_bytes_are_cut() {
        let bytes = [
            frame(SETTINGS, 0, &[]),
            frame(DATA, 0, b"text"),
            frame(DATA, PADDED, b"\x03me\0\0\0"),
            frame(DATA, PADDED, b"\x03\0\0\0"),
            // Malformed, which is for h2 to say.
            frame(DATA, PADDED, b"\xff"),
            frame(DATA, PADDED, b""),
            frame(PING, ACK, &[7; 8]),
            frame(HEADERS, 0, &[1; 300]),
        ]
        .concat();
        let expected =
            [(SETTINGS, 0), (DATA, 4), (DATA, 2), (DATA, 0), (DATA, 0), (DATA, 0), (PING, 8), (HEADERS, 300)];
        for size in 1..bytes.len() {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.push(piece, |frame| found.push((frame.ty, frame.content)));
            }
            assert_eq!(found, expected, "in pieces of {size} bytes");
            assert!(frames.at_boundary());
        }
        let mut frames = Frames::default();
        frames.push(&bytes[..9 + 10], |_| {});
        assert!(!frames.at_boundary());
    }
}
