//! A file from one of its places on, in pieces that can be given away. What the system has in memory is read at once;
//! only what it has to wait for takes a thread that may wait.

use std::{
    fs::File,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, ReadBuf},
    task::{JoinHandle, coop::poll_proceed, spawn_blocking},
};

/// How long a piece is at most, in bytes. What a client does not take is held in pieces: with 128 KiB it was 284 KiB a
/// client, and saved at most 4 % of CPU (`benches/input file`).
pub(crate) const PIECE: usize = 64 << 10;

/// A file that is read on.
#[derive(Debug)]
pub(crate) struct Pieces {
    file: Arc<File>,
    at: u64,
    /// The piece that was given last: when no one has it any more, the next one is read into its memory.
    given: Bytes,
    /// Kept when whoever waits for it goes away.
    job: Option<JoinHandle<(BytesMut, io::Result<usize>)>>,
}

impl Pieces {
    /// Reads from `at`.
    pub(crate) fn new(file: Arc<File>, at: u64) -> Self {
        Self { file, at, given: Bytes::new(), job: None }
    }

    /// The next piece, of `most` bytes at most; empty at the end of the file.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(crate) fn poll_piece(&mut self, most: u64, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let most = usize::try_from(most).unwrap_or(PIECE).min(PIECE);
        if self.job.is_none() {
            let progress = ready!(poll_proceed(cx));
            let mut buf = std::mem::take(&mut self.given).try_into_mut().unwrap_or_default();
            buf.resize(most, 0);
            if let Some(size) = at_once(&self.file, &mut buf, self.at) {
                progress.made_progress();
                return Poll::Ready(Ok(self.give(buf, size)));
            }
            self.wait_for(buf);
        }
        let (buf, read) = ready!(self.poll_job(cx))?;
        Poll::Ready(read.map(|size| self.give(buf, size)))
    }

    fn give(&mut self, mut buf: BytesMut, size: usize) -> Bytes {
        buf.truncate(size);
        self.at += size as u64;
        self.given = buf.freeze();
        self.given.clone()
    }

    fn wait_for(&mut self, mut buf: BytesMut) {
        let (file, at) = (self.file.clone(), self.at);
        self.job = Some(spawn_blocking(move || {
            let read = read_at(&file, &mut buf, at);
            (buf, read)
        }));
    }

    fn poll_job(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(BytesMut, io::Result<usize>)>> {
        let Some(job) = &mut self.job else { return Poll::Pending };
        let done = ready!(Pin::new(job).poll(cx));
        self.job = None;
        Poll::Ready(done.map_err(io::Error::other))
    }
}

/// Reads as much as there is room for, and what is there at once straight into it.
impl AsyncRead for Pieces {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.job.is_none() {
            let progress = ready!(poll_proceed(cx));
            let most = buf.remaining().min(PIECE);
            if let Some(size) = at_once(&this.file, buf.initialize_unfilled_to(most), this.at) {
                progress.made_progress();
                buf.advance(size);
                this.at += size as u64;
                return Poll::Ready(Ok(()));
            }
            this.wait_for(BytesMut::zeroed(most));
        }
        let (read, size) = ready!(this.poll_job(cx))?;
        // Who asks now may have less room than who asked first.
        let read = &read[..size?.min(buf.remaining())];
        buf.put_slice(read);
        this.at += read.len() as u64;
        Poll::Ready(Ok(()))
    }
}

/// Reads what is in memory; `None` if it has to be waited for, or this is the end, or nothing can be known.
#[cfg(target_os = "linux")]
pub(super) fn at_once(file: &File, buf: &mut [u8], at: u64) -> Option<usize> {
    use rustix::io::{IoSliceMut, ReadWriteFlags, preadv2};
    // Linux 5.9 and 5.10 may report an end where only the rest is not in memory.
    preadv2(file, &mut [IoSliceMut::new(buf)], at, ReadWriteFlags::NOWAIT).ok().filter(|size| *size > 0)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn at_once(_: &File, _: &mut [u8], _: u64) -> Option<usize> {
    None
}

/// Reads, and waits for it: not on a worker.
fn read_at(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(file, buf, at);
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(file, buf, at);
        match read {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::AsyncReadExt;

    use super::*;

    async fn piece(pieces: &mut Pieces, most: u64) -> Bytes {
        std::future::poll_fn(|cx| pieces.poll_piece(most, cx)).await.unwrap()
    }

    #[tokio::test]
    async fn all_of_a_file_comes_in_pieces_from_any_place() {
        let content: Vec<u8> = (0..3 * PIECE + 7).map(|at| (at / 251) as u8).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&content).unwrap();
        let opened = Arc::new(file.reopen().unwrap());
        for from in [0, 1, PIECE, content.len()] {
            let (mut pieces, mut kept) = (Pieces::new(opened.clone(), from as u64), Vec::new());
            loop {
                // The memory of those that are kept is not read into.
                match piece(&mut pieces, u64::MAX).await {
                    last if last.is_empty() => break,
                    next => kept.push(next),
                }
            }
            assert!(kept.iter().all(|piece| piece.len() <= PIECE));
            assert!(kept.concat() == content[from..], "from {from}");
            let mut all = Vec::new();
            Pieces::new(opened.clone(), from as u64).read_to_end(&mut all).await.unwrap();
            assert!(all == content[from..], "from {from}");
        }
        let mut pieces = Pieces::new(opened, 5);
        assert_eq!(piece(&mut pieces, 10).await, content[5..15]);
        // It grows and shrinks as it is asked to, in the memory of the one before.
        assert_eq!(piece(&mut pieces, 1000).await, content[15..1015]);
        assert_eq!(piece(&mut pieces, 1).await, content[1015..1016]);
    }

    /// A read that is given up loses nothing.
    #[tokio::test]
    async fn what_a_thread_has_read_is_given_later() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abcdef").unwrap();
        let mut pieces = Pieces::new(Arc::new(file.reopen().unwrap()), 0);
        pieces.wait_for(BytesMut::zeroed(6));
        let mut little = [0; 2];
        pieces.read_exact(&mut little).await.unwrap();
        assert_eq!(&little, b"ab");
        assert_eq!(piece(&mut pieces, 3).await, "cde");
        pieces.wait_for(BytesMut::zeroed(6));
        assert_eq!(piece(&mut pieces, 6).await, "f");
        assert_eq!(piece(&mut pieces, 6).await, "");
    }
}
