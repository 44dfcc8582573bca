//! Cutting a stream of bytes into chunks.

use std::{io, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::{consume_budget, coop::unconstrained, yield_now},
    time::{Instant, timeout_at},
};

use super::TOGETHER;

/// Where a stream of bytes is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Chunking {
    /// Behind each newline. What is behind the last one comes when the stream ends.
    #[default]
    Lines,
    /// Wherever a read ends: what is there, is sent. The beginning of a character (UTF-8) waits for its
    /// rest, so that text in pieces stays text.
    Bytes,
}

/// The longest chunk, in bytes. A longer line comes in several.
pub const MAX_CHUNK: usize = 64 * 1024;

/// How long the beginning of a character waits for its rest. What looks like one may be something else,
/// and whoever sent it may wait for an answer.
pub const CHARACTER_WAIT: Duration = Duration::from_secs(5);

/// After so many chunks that are handled together, others have their turn: about as many as Tokio has a task do.
pub(crate) const MANY: usize = 128;

/// Reads chunks.
#[derive(Debug)]
pub struct Chunker<R> {
    reader: R,
    chunking: Chunking,
    buf: BytesMut,
    /// How much of `buf` is known to have no newline.
    scanned: usize,
    /// Until when the beginning of a character waits in `buf`, if it does.
    held: Option<Instant>,
    /// It has waited for long enough.
    overdue: bool,
    ended: bool,
    /// What was found after chunks that were given together.
    found: Option<io::Result<Option<Bytes>>>,
    /// So many were given together that others are to have their turn.
    many: bool,
}

impl<R: AsyncRead + Unpin> Chunker<R> {
    /// Cuts what `reader` gives.
    pub fn new(reader: R, chunking: Chunking) -> Self {
        Self {
            reader,
            chunking,
            buf: BytesMut::new(),
            scanned: 0,
            held: None,
            overdue: false,
            ended: false,
            found: None,
            many: false,
        }
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
    ///
    /// # Panics
    ///
    /// When a character waits for its rest and there is no Tokio runtime with timers.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        // Thousands of short lines may be in the buffer. Whoever publishes them all without a wait would keep
        // everyone else from its worker.
        consume_budget().await;
        loop {
            if let Some(size) = self.cut() {
                (self.scanned, self.held, self.overdue) = (0, None, false);
                // A feed keeps chunks for long, and a part of this buffer keeps all of it.
                if size >= self.buf.capacity() / 8 * 7 {
                    return Ok(Some(self.buf.split_to(size).freeze()));
                }
                let chunk = Bytes::copy_from_slice(&self.buf[..size]);
                self.buf.advance(size);
                return Ok(Some(chunk));
            }
            if self.ended {
                return Ok(None);
            }
            self.buf.reserve(MAX_CHUNK);
            let reading = self.reader.read_buf(&mut self.buf);
            let read = match self.held {
                None => reading.await,
                Some(until) => match timeout_at(until, reading).await {
                    Ok(read) => read,
                    Err(_) => {
                        self.overdue = true;
                        continue;
                    }
                },
            };
            match read {
                Ok(size) => self.ended = size == 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // There is no more now, and that was not waited for.
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && self.held.is_some_and(|until| until <= Instant::now()) =>
                {
                    self.overdue = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the next chunk as [`next`](Self::next) does, and gives it with those that are there after it; none at
    /// the end. For what stores them, which takes less for many than for each.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub(super) async fn next_ones(&mut self) -> io::Result<Vec<Bytes>> {
        if std::mem::take(&mut self.many) {
            yield_now().await;
        }
        let first = match self.found.take() {
            Some(found) => found?,
            None => self.next().await?,
        };
        let mut together = Vec::from_iter(first);
        let mut bytes = together.iter().map(Bytes::len).sum::<usize>();
        while !together.is_empty() && together.len() < TOGETHER.0 && bytes < TOGETHER.1 {
            // Otherwise what a task may do at once would end this after 128 chunks.
            match unconstrained(self.next()).now_or_never() {
                Some(Ok(Some(chunk))) => {
                    bytes += chunk.len();
                    together.push(chunk);
                }
                found => {
                    self.found = found;
                    break;
                }
            }
        }
        self.many = together.len() > MANY;
        Ok(together)
    }

    /// How much was read and has not been given, in bytes.
    pub(super) fn held_back(&self) -> usize {
        self.buf.len()
    }

    /// When the beginning of a character has waited for long enough, if one waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held
    }

    /// What the bytes come from.
    pub(super) fn reader(&self) -> &R {
        &self.reader
    }

    /// The same, to be changed. What has been read of it stays.
    pub(super) fn reader_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// Reads on after the end, when all has been given.
    pub(super) fn begin(&mut self) {
        (self.ended, self.found) = (false, None);
    }

    /// What was read and has not been given, when there will be no more: less than a chunk.
    pub fn rest(self) -> Bytes {
        self.buf.freeze()
    }

    /// The same, taken from it.
    pub(super) fn take_rest(&mut self) -> Bytes {
        self.buf.split().freeze()
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
            (MAX_CHUNK.., _) => Some(MAX_CHUNK - torn(&self.buf[..MAX_CHUNK])),
            (_, Chunking::Bytes) if self.ended || self.overdue => Some(len),
            (_, Chunking::Bytes) => match len - torn(&self.buf) {
                0 => {
                    self.held.get_or_insert_with(|| Instant::now() + CHARACTER_WAIT);
                    None
                }
                whole => Some(whole),
            },
            (_, Chunking::Lines) => self.ended.then_some(len),
        }
    }
}

/// How many bytes at the end are the beginning of a character (UTF-8) whose rest is missing: 3 at most.
fn torn(text: &[u8]) -> usize {
    let last = &text[text.len().saturating_sub(3)..];
    let Some(start) = last.iter().rposition(|byte| !matches!(byte, 0x80..=0xbf)) else { return 0 };
    // An error without a length is one that more bytes could mend.
    match std::str::from_utf8(&last[start..]) {
        Err(error) if error.error_len().is_none() => last.len() - start,
        _ => 0,
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

        /// What is sent behind each piece differs from what has been written by no more than a character's
        /// beginning.
        #[test]
        fn bytes_come_as_they_are_read(pieces in text()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let (mut writer, reader) = tokio::io::duplex(1 << 20);
                let mut chunker = Chunker::new(reader, Chunking::Bytes);
                let (mut written, mut read) = (Vec::new(), Vec::new());
                for piece in &pieces {
                    tokio::io::AsyncWriteExt::write_all(&mut writer, piece).await.unwrap();
                    written.extend_from_slice(piece);
                    while let Some(chunk) = futures_util::FutureExt::now_or_never(chunker.next()) {
                        read.extend_from_slice(&chunk.unwrap().unwrap());
                    }
                    prop_assert_eq!(&read, &written[..written.len() - torn(&written)]);
                }
                drop(writer);
                while let Some(chunk) = chunker.next().await.unwrap() {
                    read.extend_from_slice(&chunk);
                }
                prop_assert_eq!(read, written);
                Ok(())
            })?;
        }

        #[test]
        fn text_in_pieces_stays_text(text in "[aé語🌊\n]{0,60}", sizes in prop::collection::vec(1..7_usize, 1..9)) {
            let (mut rest, mut pieces) = (text.as_bytes(), Vec::new());
            for size in sizes.into_iter().cycle().take_while(|_| !text.is_empty()) {
                let (piece, left) = rest.split_at(size.min(rest.len()));
                pieces.push(piece.to_vec());
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let chunks = runtime.block_on(chunks(&pieces, Chunking::Bytes));
            prop_assert!(chunks.iter().all(|chunk| std::str::from_utf8(chunk).is_ok()), "{:?}", chunks);
            prop_assert_eq!(chunks.concat(), text.into_bytes());
        }

        #[test]
        fn no_character_is_cut_in_a_long_piece(before in 0..9_usize, text in "[aé☕🌊]{0,9}") {
            let piece = "x".repeat(MAX_CHUNK - before) + &text + &"é".repeat(MAX_CHUNK);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let chunks = runtime.block_on(chunks(&[piece.clone().into()], Chunking::Bytes));
            prop_assert!(chunks.iter().all(|chunk| std::str::from_utf8(chunk).is_ok()));
            prop_assert_eq!(chunks.concat(), piece.into_bytes());
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

    #[test]
    fn beginnings_of_characters() {
        for (text, count) in [
            (&b""[..], 0),
            (b"a", 0),
            ("語".as_bytes(), 0),
            (b"\xe8", 1),
            (b"\xe8\xaa", 2),
            (b"\xf0\x9f\x8c", 3),
            (b"a\xc3", 1),
            (b"\xff\xc3", 1),
            (b"\xc3\xc3", 1),
            // What can never become a character.
            (b"\xc0", 0),
            (b"\xc1", 0),
            (b"\xf5", 0),
            (b"\xff", 0),
            (b"\x80", 0),
            (b"\xe0\x80", 0),
            (b"\xed\xa0", 0),
            (b"\xf4\x90", 0),
            (b"\xc3\x28", 0),
            (b"\x9f\x8c\x8a", 0),
        ] {
            assert_eq!(torn(text), count, "{text:x?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_becomes_a_character_does_not_wait_for_ever() {
        let (mut writer, reader) = tokio::io::duplex(100);
        let mut chunker = Chunker::new(reader, Chunking::Bytes);
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"a\xe8").await.unwrap();
        assert_eq!(chunker.next().await.unwrap().unwrap(), "a");
        let since = Instant::now();
        // Given up and asked again, as in a `select!`: it does not wait anew.
        assert!(tokio::time::timeout(CHARACTER_WAIT / 2, chunker.next()).await.is_err());
        assert_eq!(chunker.next().await.unwrap().unwrap(), &b"\xe8"[..]);
        assert_eq!(since.elapsed(), CHARACTER_WAIT);
        // The bytes that follow show at once that it is none.
        let since = Instant::now();
        for (piece, chunk) in [
            (&b"\xe8"[..], &b""[..]),
            (b"\xff", b"\xe8\xff"),
            (b"\xf0\x9f\xe8", b"\xf0\x9f"),
            (b"\xaa\x9e", b"\xe8\xaa\x9e"),
        ] {
            tokio::io::AsyncWriteExt::write_all(&mut writer, piece).await.unwrap();
            match chunk.is_empty() {
                true => assert!(futures_util::FutureExt::now_or_never(chunker.next()).is_none()),
                false => assert_eq!(chunker.next().await.unwrap().unwrap(), chunk),
            }
        }
        assert_eq!(since.elapsed(), Duration::ZERO);
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"\xe8").await.unwrap();
        drop(writer);
        assert_eq!(chunker.next().await.unwrap().unwrap(), &b"\xe8"[..]);
        assert_eq!(chunker.next().await.unwrap(), None);
    }

    /// Gives one piece, and from then on says that there is no more now, as a pipe that is followed does.
    struct Dry(Option<&'static [u8]>);

    impl AsyncRead for Dry {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(match self.0.take() {
                Some(piece) => {
                    buf.put_slice(piece);
                    Ok(())
                }
                None => Err(io::ErrorKind::WouldBlock.into()),
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_begun_character_does_not_wait_for_ever_where_reads_do_not_wait() {
        let mut chunker = Chunker::new(Dry(Some(b"caf\xe9")), Chunking::Bytes);
        assert_eq!(chunker.next().await.unwrap().unwrap(), "caf");
        let begun = Instant::now();
        let late = loop {
            match chunker.next().await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(begun.elapsed() < 2 * CHARACTER_WAIT, "it still waits");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                chunk => break chunk.unwrap().unwrap(),
            }
        };
        assert_eq!((&late[..], begun.elapsed()), (&b"\xe9"[..], CHARACTER_WAIT));
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
    async fn those_that_are_there_come_together() {
        let (mut writer, reader) = tokio::io::duplex(1 << 20);
        let mut chunker = Chunker::new(reader, Chunking::Lines);
        for expected in [&["a\n"][..], &["b\n", "c\n"], &["d\n", "e"]] {
            tokio::io::AsyncWriteExt::write_all(&mut writer, expected.concat().as_bytes()).await.unwrap();
            if expected.concat().ends_with('e') {
                writer = tokio::io::duplex(1).0;
            }
            let mut given = chunker.next_ones().await.unwrap();
            // The end of the stream is found after a chunk.
            while given.len() < expected.len() {
                given.extend(chunker.next_ones().await.unwrap());
            }
            assert_eq!(given, expected);
        }
        assert!(chunker.next_ones().await.unwrap().is_empty() && chunker.next_ones().await.unwrap().is_empty());
        let failing = tokio_util::io::StreamReader::new(futures_util::stream::iter([
            Ok(Bytes::from("one\ntwo\n")),
            Err(io::Error::other("gone")),
        ]));
        let mut chunker = Chunker::new(failing, Chunking::Lines);
        assert_eq!(chunker.next_ones().await.unwrap(), ["one\n", "two\n"]);
        assert_eq!(chunker.next_ones().await.unwrap_err().to_string(), "gone");
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
