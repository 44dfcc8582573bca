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
    /// When the stream cannot be read. What was read before has been given.
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
                Err(error) if self.buf.is_empty() => return Err(error),
                // First what there is; the next read fails again.
                Err(_) => return Ok(Some(Bytes::copy_from_slice(&self.buf.split()))),
            }
        }
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
            (MAX_CHUNK.., _) => Some(MAX_CHUNK),
            (_, Chunking::Bytes) => Some(len),
            (_, Chunking::Lines) => self.ended.then_some(len),
        }
    }
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
