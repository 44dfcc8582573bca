//! Reading one file, pipe or device that is open, as far as it goes now.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

#[cfg(unix)]
use std::sync::Arc;
#[cfg(unix)]
use tokio::net::unix::pipe::Receiver;
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncSeekExt, ReadBuf},
};

#[cfg(unix)]
use super::growing::Growing;
use super::{
    checkpoint::{Change, Checkpoint},
    open::{OpenedFile, What},
};

/// Where bytes come from.
enum Input {
    /// A file that is compared with what was read of it before.
    #[cfg(unix)]
    Growing(Growing),
    /// Read in one go: a device, or a file where none can be read at a place.
    Stream(File),
    /// Read when there is something to read.
    #[cfg(unix)]
    Pipe(Arc<Receiver>),
}

impl Input {
    fn new(file: std::fs::File, what: What, is_text: bool) -> io::Result<Self> {
        #[cfg(unix)]
        match what {
            What::File => return Ok(Self::Growing(Growing::new(file, is_text))),
            // It was opened so that reading does not wait; whether it can say when there is something, we see.
            _ => match Receiver::from_file_unchecked(file.try_clone()?) {
                Ok(pipe) => return Ok(Self::Pipe(Arc::new(pipe))),
                // A device that is always ready, as /dev/null is.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && what == What::Device => {}
                Err(error) => return Err(error),
            },
        }
        #[cfg(not(unix))]
        let _ = (what, is_text);
        Ok(Self::Stream(File::from_std(file)))
    }
}

/// What has become of a file that has been read to its end.
pub(super) enum Standing {
    /// It may grow.
    Stays,
    /// It has no name any more.
    #[cfg_attr(not(unix), allow(dead_code, reason = "nothing shows it there"))]
    Deleted,
    /// It is to be read from its start.
    Begins(Change),
}

/// Reads what is there, and fails with `WouldBlock` where there is no more now, or the file begins again.
pub(super) struct Reading {
    input: Input,
    place: Checkpoint,
    /// There will be no more.
    finished: bool,
}

impl Reading {
    /// Reads from `place`, to where the file has been sought. If it is text, the NULs that it begins with
    /// are left out.
    pub(super) fn new(opened: OpenedFile, place: Checkpoint, is_text: bool) -> io::Result<Self> {
        Ok(Self { input: Input::new(opened.file, opened.what, is_text)?, place, finished: false })
    }

    /// How far it has been read.
    pub(super) fn place(&self) -> &Checkpoint {
        &self.place
    }

    /// How much of that has not been given, in bytes.
    pub(super) fn unread(&self) -> usize {
        match &self.input {
            #[cfg(unix)]
            Input::Growing(file) => file.unread(),
            #[cfg(unix)]
            Input::Pipe(_) => 0,
            Input::Stream(_) => 0,
        }
    }

    /// The file, if it is one that can be read at any place.
    #[cfg(unix)]
    pub(super) fn file(&self) -> Option<Arc<std::fs::File>> {
        if let Input::Growing(file) = &self.input { Some(file.file()) } else { None }
    }

    /// The pipe, if it is one.
    #[cfg(unix)]
    pub(super) fn pipe(&self) -> Option<&Arc<Receiver>> {
        if let Input::Pipe(pipe) = &self.input { Some(pipe) } else { None }
    }

    /// From now on it ends where it has been read to.
    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// What has become of a file that has been read to its end.
    pub(super) async fn standing(&self) -> Standing {
        match &self.input {
            #[cfg(unix)]
            Input::Growing(file) => match file.begins {
                Some(change) => Standing::Begins(change),
                None if file.is_deleted => Standing::Deleted,
                None => Standing::Stays,
            },
            Input::Stream(file) => match file.metadata().await {
                Ok(metadata) if metadata.len() < self.place.at => Standing::Begins(Change::Truncated),
                _ => Standing::Stays,
            },
            #[cfg(unix)]
            Input::Pipe(_) => Standing::Stays,
        }
    }

    /// Reads the file from its start.
    pub(super) async fn begin(&mut self) {
        match &mut self.input {
            #[cfg(unix)]
            Input::Growing(file) => file.begin(),
            // Where it cannot be sought, it ends later.
            Input::Stream(file) => drop(file.rewind().await),
            #[cfg(unix)]
            Input::Pipe(_) => {}
        }
        (self.place, self.finished) = (Checkpoint::default(), false);
    }

    /// How many NULs at the start of the file were left out, once.
    pub(super) fn left_out(&mut self) -> Option<u64> {
        #[cfg(unix)]
        if let Input::Growing(file) = &mut self.input {
            return file.left_out();
        }
        None
    }
}

impl AsyncRead for Reading {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { input, place, finished } = self.get_mut();
        if *finished {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let nothing = || Poll::Ready(Err(io::ErrorKind::WouldBlock.into()));
        match input {
            #[cfg(unix)]
            Input::Growing(file) => {
                ready!(file.poll_read(place, cx, buf))?;
                return if buf.filled().len() == before { nothing() } else { Poll::Ready(Ok(())) };
            }
            Input::Stream(file) => {
                ready!(Pin::new(file).poll_read(cx, buf))?;
                if buf.filled().len() == before {
                    return nothing();
                }
            }
            #[cfg(unix)]
            Input::Pipe(pipe) => loop {
                let Poll::Ready(ready) = pipe.poll_read_ready(cx) else { return nothing() };
                ready?;
                match pipe.try_read(buf.initialize_unfilled()) {
                    Ok(read) => {
                        buf.advance(read);
                        break;
                    }
                    // Not ready after all: polled once more, it wakes us.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            },
        }
        place.advance(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::{
        super::{checkpoint::Checkpoint, open::open},
        *,
    };

    /// A thread reads more at once than a chunker takes.
    #[tokio::test]
    async fn what_is_not_given_is_known() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (given, left) = (64 << 10, 64);
        std::fs::write(file.path(), vec![b'x'; given + left]).unwrap();
        let opened = open(file.path(), &[What::File]).unwrap();
        let mut reading = Reading::new(opened, Checkpoint::default(), true).unwrap();
        reading.read_exact(&mut vec![0; given]).await.unwrap();
        assert_eq!((reading.place().at, reading.unread()), ((given + left) as u64, left));
        reading.read_exact(&mut vec![0; left]).await.unwrap();
        assert_eq!(reading.unread(), 0);
    }
}
