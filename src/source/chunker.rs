//! Cutting a stream of bytes into chunks.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Where a stream of bytes is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Chunking {
    /// Behind each newline. What is behind the last one comes when the stream ends.
    #[default]
    Lines,
    /// Wherever a read ends: what is there, is sent.
    Bytes,
}

/// The longest chunk, in bytes. A longer line comes in several.
pub const MAX_CHUNK: usize = 64 * 1024;

/// Reads chunks.
#[derive(Debug)]
pub struct Chunker<R> {
    reader: R,
    chunking: Chunking,
    buf: BytesMut,
    /// How much of `buf` is known to have no newline.
    scanned: usize,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Chunker<R> {
    /// Cuts what `reader` gives.
    pub fn new(reader: R, chunking: Chunking) -> Self {
        Self { reader, chunking, buf: BytesMut::new(), scanned: 0, ended: false }
    }

    /// Waits for the next chunk; `None` at the end. No chunk is empty, and together they are every
    /// byte of the stream.
    ///
    /// # Errors
    ///
    /// When the stream cannot be read. What was read before and is no whole chunk is the
    /// [rest](Self::rest).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(size) = self.cut() {
                self.scanned = 0;
                // A copy: a feed keeps chunks for long, and a part of this buffer would keep all of it.
                let chunk = Bytes::copy_from_slice(&self.buf[..size]);
                self.buf.advance(size);
                return Ok(Some(chunk));
            }
            if self.ended {
                return Ok(None);
            }
            self.buf.reserve(MAX_CHUNK);
            match self.reader.read_buf(&mut self.buf).await {
                Ok(size) => self.ended = size == 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What was read and has not been given, when there will be no more: less than a chunk.
    pub fn rest(self) -> Bytes {
        self.buf.freeze()
    }

    /// The size of the chunk at the front, if it is whole.
    fn cut(&mut self) -> Option<usize> {
        let len = self.buf.len();
        if self.chunking == Chunking::Lines {
            let searched = &self.buf[self.scanned..len.min(MAX_CHUNK)];
            if let Some(at) = searched.iter().position(|byte| *byte == b'\n') {
                return Some(self.scanned + at + 1);
            }
            self.scanned = len.min(MAX_CHUNK);
        }
        match (len, self.chunking) {
            (0, _) => None,
            (MAX_CHUNK.., Chunking::Lines) => Some(MAX_CHUNK - torn(&self.buf[..MAX_CHUNK])),
            (MAX_CHUNK.., Chunking::Bytes) => Some(MAX_CHUNK),
            (_, Chunking::Bytes) => Some(len),
            (_, Chunking::Lines) => self.ended.then_some(len),
        }
    }
}

/// How many bytes at the end are the beginning of a character (UTF-8) whose rest is behind it.
fn torn(text: &[u8]) -> usize {
    for back in 1..=3.min(text.len()) {
        let needed = match text[text.len() - back] {
            0b1100_0000..=0b1101_1111 => 2,
            0b1110_0000..=0b1110_1111 => 3,
            0b1111_0000..=0b1111_0111 => 4,
            0b1000_0000..=0b1011_1111 => continue,
            _ => return 0,
        };
        return if needed > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives its pieces one by one.
    async fn chunks(pieces: &[Vec<u8>], chunking: Chunking) -> Vec<Bytes> {
        let (mut writer, reader) = tokio::io::duplex(1 << 20);
        let mut chunker = Chunker::new(reader, chunking);
        let mut out = Vec::new();
        for piece in pieces {
            tokio::io::AsyncWriteExt::write_all(&mut writer, piece).await.unwrap();
            // Takes all that is whole by now.
            while let Some(chunk) = futures_util::FutureExt::now_or_never(chunker.next()) {
                out.push(chunk.unwrap().unwrap());
            }
        }
        drop(writer);
        while let Some(chunk) = chunker.next().await.unwrap() {
            out.push(chunk);
        }
        out
    }

    fn text() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![4 => Just(b'a'), 1 => Just(b'\n'), 1 => any::<u8>()];
        prop::collection::vec(prop::collection::vec(byte, 0..40), 0..20)
    }

    proptest! {
        #[test]
        fn lines_are_lines_however_they_come(pieces in text()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let chunks = runtime.block_on(chunks(&pieces, Chunking::Lines));
            let all = pieces.concat();
            prop_assert_eq!(chunks.concat(), all.clone());
            let lines: Vec<&[u8]> = all.split_inclusive(|byte| *byte == b'\n').collect();
            prop_assert_eq!(chunks, lines);
        }

        #[test]
        fn bytes_come_as_they_are_read(pieces in text()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let chunks = runtime.block_on(chunks(&pieces, Chunking::Bytes));
            let written: Vec<_> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
            prop_assert_eq!(chunks, written);
        }

        #[test]
        fn a_long_line_is_not_cut_inside_a_character(before in 0..9_usize, text in "[aé☕🌊]{0,9}") {
            let line = "x".repeat(MAX_CHUNK - before) + &text + &"é".repeat(MAX_CHUNK);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let chunks = runtime.block_on(chunks(&[line.clone().into()], Chunking::Lines));
            prop_assert!(chunks.iter().all(|chunk| std::str::from_utf8(chunk).is_ok()));
            prop_assert_eq!(chunks.concat(), line.into_bytes());
        }
    }

    #[tokio::test]
    async fn what_was_read_before_a_failure_is_not_lost() {
        let failing = tokio_util::io::StreamReader::new(futures_util::stream::iter([
            Ok(Bytes::from("one\ntw")),
            Err(io::Error::other("gone")),
        ]));
        let mut chunker = Chunker::new(failing, Chunking::Lines);
        assert_eq!(chunker.next().await.unwrap().unwrap(), "one\n");
        assert_eq!(chunker.next().await.unwrap_err().to_string(), "gone");
        assert_eq!(chunker.rest(), "tw");
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_not_lost() {
        let line: Vec<u8> = (0..3 * MAX_CHUNK + 5).map(|i| b'a' + (i % 26) as u8).chain([b'\n']).collect();
        for pieces in [vec![line.clone()], line.chunks(1000).map(<[u8]>::to_vec).collect()] {
            let chunks = chunks(&pieces, Chunking::Lines).await;
            assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [MAX_CHUNK, MAX_CHUNK, MAX_CHUNK, 6]);
            assert_eq!(chunks.concat(), line);
        }
    }
}
