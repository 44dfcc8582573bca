//! Reading a file that grows, and that may begin again.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::MetadataExt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::ReadBuf,
    task::{JoinHandle, spawn_blocking},
};

use super::{
    checkpoint::{Change, Checkpoint, LAST},
    pieces::at_once,
};
use crate::source::chunker::MAX_CHUNK;

/// A file that is read at places, by threads that may wait for the disk where it has to be waited for.
pub(super) struct Growing {
    file: Arc<File>,
    /// Handed to the thread that reads, and back.
    buf: Vec<u8>,
    /// Where in it is what has been read and not given.
    unread: Range<usize>,
    /// Kept when whoever waits for it goes away.
    job: Option<JoinHandle<Job>>,
    /// It is to be read from its start.
    pub(super) begins: Option<Change>,
    /// It had no name any more when it was last read to its end.
    pub(super) is_deleted: bool,
    /// It is text: NULs at its start are no part of it.
    is_text: bool,
    /// Nothing but NULs has been read.
    nuls: bool,
    /// How many of them.
    left_out: u64,
}

/// What a thread has read.
struct Job {
    buf: Vec<u8>,
    /// From where, which may be after a hole.
    place: Checkpoint,
    read: io::Result<Result<Range<usize>, Change>>,
    is_deleted: bool,
}

impl Growing {
    pub(super) fn new(file: File, is_text: bool) -> Self {
        Self {
            file: Arc::new(file),
            buf: Vec::new(),
            unread: 0..0,
            job: None,
            begins: None,
            is_deleted: false,
            is_text,
            nuls: false,
            left_out: 0,
        }
    }

    pub(super) fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Reads the file from its start.
    pub(super) fn begin(&mut self) {
        (self.begins, self.nuls, self.left_out) = (None, false, 0);
    }

    /// Reads what follows `place`; nothing, at the end or when the file begins again.
    pub(super) fn poll_read(
        &mut self,
        place: &mut Checkpoint,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.unread.is_empty() {
                let size = self.unread.len().min(buf.remaining());
                buf.put_slice(&self.buf[self.unread.start..][..size]);
                self.unread.start += size;
                return Poll::Ready(Ok(()));
            }
            if self.begins.is_some() {
                return Poll::Ready(Ok(()));
            }
            self.nuls |= self.is_text && place.at == 0;
            if self.job.is_none()
                && !self.nuls
                && let Some(read) = self.read_at_once(place)
            {
                place.advance(&self.buf[read.clone()]);
                self.unread = read;
                continue;
            }
            let job = self.job.get_or_insert_with(|| {
                let (file, place, buf, nuls) =
                    (self.file.clone(), place.clone(), std::mem::take(&mut self.buf), self.nuls);
                spawn_blocking(move || read(&file, place, buf, nuls))
            });
            let done = ready!(std::pin::Pin::new(job).poll(cx));
            self.job = None;
            let done = done.map_err(io::Error::other)?;
            (self.buf, self.is_deleted) = (done.buf, done.is_deleted);
            match done.read {
                Ok(Ok(read)) => {
                    // A hole.
                    self.left_out += done.place.at - place.at;
                    *place = done.place;
                    place.advance(&self.buf[read.clone()]);
                    if read.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    self.unread = read;
                }
                Ok(Err(change)) => self.begins = Some(change),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.nuls {
                let read = &self.buf[self.unread.clone()];
                let nuls = read.iter().take_while(|byte| **byte == 0).count();
                self.nuls = nuls == read.len();
                self.left_out += nuls as u64;
                self.unread.start += nuls;
            }
        }
    }

    /// Reads what the system has in memory. Anything but more of the same file, such as its end, takes a thread.
    fn read_at_once(&mut self, place: &Checkpoint) -> Option<Range<usize>> {
        self.buf.resize(LAST + MAX_CHUNK, 0);
        let read = place.read_by(&mut self.buf, |buf, at| match at_once(&self.file, buf, at) {
            // A part of what is to be compared would not show a change.
            Some(size) if size == buf.len() || buf.len() > LAST => Ok(size),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        });
        read.ok()?.ok().filter(|read| !read.is_empty())
    }

    /// How much was read of the file and has not been given, in bytes.
    pub(super) fn unread(&self) -> usize {
        self.unread.len()
    }

    /// How many NULs were left out before other bytes came, since this was asked.
    pub(super) fn left_out(&mut self) -> Option<u64> {
        let count = if self.nuls { 0 } else { std::mem::take(&mut self.left_out) };
        (count > 0).then_some(count)
    }
}

/// The place behind a hole of a sparse file, which can be of any length.
#[cfg(target_os = "linux")]
fn past_hole(file: &File, mut place: Checkpoint) -> Checkpoint {
    use rustix::{fs::SeekFrom, io::Errno};
    match rustix::fs::seek(file, SeekFrom::Data(place.at)) {
        Ok(data) => place.skip_to(data),
        // To the end of the file, if it is one.
        Err(Errno::NXIO) => {
            let end = file.metadata().map_or(0, |metadata| metadata.len());
            place.skip_to(end.max(place.at));
        }
        // It cannot be found: it is read.
        Err(_) => {}
    }
    place
}

/// Reads on a thread that may wait.
fn read(file: &File, place: Checkpoint, mut buf: Vec<u8>, nuls: bool) -> Job {
    buf.resize(LAST + MAX_CHUNK, 0);
    #[cfg(target_os = "linux")]
    let place = if nuls { past_hole(file, place) } else { place };
    #[cfg(not(target_os = "linux"))]
    let _ = nuls;
    let read = place.read(file, &mut buf);
    let is_end = matches!(&read, Ok(Ok(read)) if read.is_empty());
    let is_deleted = is_end && file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
    Job { buf, place, read, is_deleted }
}
