//! Reading what is appended to files, each until no more comes.

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

#[cfg(unix)]
use tokio::net::unix::pipe::Receiver;
use tokio::{
    io::{AsyncRead, AsyncSeekExt, ReadBuf},
    sync::mpsc,
    time::{sleep, sleep_until},
};
use tracing::{info, warn};

use super::{
    claim::Claim,
    find::{Finder, Found, LOOK, Now},
    open::{Identity, What},
    watch::Followed,
};
use crate::{
    feed::{End, FeedError, Publisher},
    source::chunker::{Chunker, Chunking},
};

/// For how long a file that another one has replaced must be silent before it is closed: programs reopen
/// their log when they come to it.
const SILENT: Duration = Duration::from_secs(5);
/// For how long one that has no name any more, and that none has replaced. It takes up space.
const DELETED: Duration = Duration::from_secs(60);
/// How often such files are read: no one says when they change.
const LATE: Duration = Duration::from_millis(200);
/// How many of them are read at once.
const MOST: usize = 16;
/// How many chunks of one file come before it is the next one's turn.
const TURN: usize = 256;
/// How long a pipe without a writer is left alone, if one writer follows the other.
#[cfg(unix)]
const PAUSE: Duration = Duration::from_millis(10);

/// Follows the files that a finder finds, to the end of the feed.
pub(super) struct Follower {
    pub(super) feed: String,
    pub(super) path: PathBuf,
    pub(super) chunking: Chunking,
    pub(super) publisher: Publisher,
    /// Those that are read, the newest one last.
    files: Vec<Open>,
    /// The one that could not be read, and how far it was. The log has been told.
    broken: Option<(Identity, u64)>,
}

/// A file that is read.
struct Open {
    chunks: Chunker<Reading>,
    identity: Identity,
    what: What,
    /// When it had something new, or was replaced.
    heard: Instant,
    /// Since when it has no name any more.
    deleted: Option<Instant>,
    /// It has been read to its end since it was replaced: what comes later comes along with the next one's.
    caught_up: bool,
    held: Arc<Claim>,
}

/// How far reading has come.
enum Read {
    /// There may be more.
    More,
    /// There is no more now.
    Waiting,
    /// It is not read any more.
    Closed,
}

impl Follower {
    pub(super) fn new(feed: &str, path: PathBuf, chunking: Chunking, publisher: Publisher) -> Self {
        Self { feed: feed.to_owned(), path, chunking, publisher, files: Vec::new(), broken: None }
    }

    /// Takes the file that was there at first, and publishes what it has.
    pub(super) async fn begin(&mut self, found: Found) {
        let is_file = found.opened.what == What::File;
        self.take(Now::Found(found)).await;
        if is_file {
            // An end of the feed is noticed later, too.
            while matches!(self.read(0).await, Ok(Read::More)) {}
        }
    }

    /// Follows what the finder finds, and ends the feed if there can be no more.
    pub(super) async fn run(mut self, finder: Finder) {
        // As many as can be read at once may be on their way.
        let (found_tx, mut found_rx) = mpsc::channel(MOST);
        let followed = finder.follower.clone();
        let end = tokio::select! {
            end = self.follow(&mut found_rx, &followed) => end,
            // It does not end before.
            () = finder.run(found_tx) => End::Failed(FeedError("the file is not looked for any more".into())),
        };
        self.publisher.end(end);
    }

    async fn follow(&mut self, found: &mut mpsc::Receiver<Now>, followed: &Followed) -> End {
        loop {
            while let Ok(now) = found.try_recv() {
                self.take(now).await;
            }
            let (mut index, mut more) = (0, false);
            while index < self.files.len() {
                match self.read(index).await {
                    Ok(Read::Closed) => {}
                    Ok(read) => {
                        more |= matches!(read, Read::More);
                        index += 1;
                    }
                    Err(end) => return end,
                }
            }
            self.close_silent().await;
            if more {
                continue;
            }
            let look = tokio::time::Instant::now() + if self.files.len() > 1 { LATE } else { LOOK };
            let due = self.files.iter().filter_map(|open| open.chunks.due()).fold(look, Ord::min);
            let now = tokio::select! {
                () = followed.more.notified() => None,
                now = found.recv() => now,
                () = readable(&self.files) => None,
                () = sleep_until(due) => None,
            };
            if let Some(now) = now {
                self.take(now).await;
            }
        }
    }

    /// Reads another file from now on, too.
    async fn take(&mut self, now: Now) {
        if let Some(last) = self.files.last_mut() {
            // What it has by now is older than all of the next one.
            (last.heard, last.caught_up) = (Instant::now(), false);
        }
        match now {
            Now::Again(identity) => {
                if let Some(at) = self.files.iter().position(|open| open.identity == identity) {
                    let open = self.files.remove(at);
                    self.files.push(open);
                }
            }
            Now::Found(mut found) => {
                let broken = self.broken.filter(|(identity, _)| *identity == found.identity);
                if let Some((_, at)) = broken.filter(|(_, at)| found.opened.metadata.len() >= *at) {
                    // The same one that could not be read for a while.
                    let sought = io::Seek::seek(&mut found.opened.file, io::SeekFrom::Start(at));
                    found.at = if sought.is_ok() { at } else { 0 };
                } else if !self.files.is_empty() {
                    info!(feed = self.feed, path = %self.path.display(), "the file was replaced: reading the new one too");
                }
                match self.open(found) {
                    Ok(open) => self.files.push(open),
                    Err(error) => self.tell(&error),
                }
                // The oldest one cannot be waited for any longer.
                if self.files.len() > MOST {
                    self.close(0).await;
                }
            }
        }
    }

    fn open(&self, found: Found) -> io::Result<Open> {
        let Found { opened, identity, at, held } = found;
        let reading = Reading { input: Input::new(opened.file, opened.what)?, at, finished: false };
        Ok(Open {
            chunks: Chunker::new(reading, self.chunking),
            identity,
            what: opened.what,
            heard: Instant::now(),
            deleted: None,
            caught_up: false,
            held,
        })
    }

    /// Publishes what a file has now, or a part of it.
    async fn read(&mut self, index: usize) -> Result<Read, End> {
        let open = &mut self.files[index];
        let before = open.chunks.reader().at;
        let mut turns = 0;
        let read = loop {
            match open.chunks.next().await {
                Ok(Some(chunk)) => {
                    // The feed has ended, then.
                    self.publisher.publish(chunk).await.map_err(|_| End::Clean)?;
                    turns += 1;
                    if turns >= TURN && open.caught_up {
                        break Ok(Read::More);
                    }
                }
                Ok(None) => break Ok(Read::Closed),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(Read::Waiting),
                Err(error) => break Err(error),
            }
        };
        let at = open.chunks.reader().at;
        if at > before {
            (open.heard, open.deleted, self.broken) = (Instant::now(), None, None);
        }
        match read {
            Ok(Read::Waiting) => {
                open.caught_up = true;
                if open.what == What::File { self.check(index).await } else { Ok(Read::Waiting) }
            }
            Ok(Read::Closed) => self.next_writer(index).await,
            Ok(Read::More) => Ok(Read::More),
            Err(error) => {
                self.tell(&error);
                self.broken = Some((self.files[index].identity, at));
                self.close(index).await;
                Ok(Read::Closed)
            }
        }
    }

    /// Looks at a file that has been read to its end: it may have been cut, or deleted.
    async fn check(&mut self, index: usize) -> Result<Read, End> {
        let last = index + 1 == self.files.len();
        let open = &mut self.files[index];
        let reading = open.chunks.reader();
        let Input::File(file) = &reading.input else { return Ok(Read::Waiting) };
        let Ok(metadata) = file.metadata().await else { return Ok(Read::Waiting) };
        if metadata.len() < reading.at {
            info!(feed = self.feed, path = %self.path.display(), "the file was truncated: reading from its start");
            self.flush(index).await;
            let open = &mut self.files[index];
            let reading = open.chunks.reader_mut();
            if let Input::File(file) = &mut reading.input {
                // Where it cannot be sought, it ends later.
                let _ = file.rewind().await;
            }
            (reading.at, reading.finished) = (0, false);
            open.chunks.begin();
            return Ok(Read::More);
        }
        if last && is_deleted(&metadata) && open.deleted.get_or_insert_with(Instant::now).elapsed() >= DELETED {
            self.close(index).await;
            return Ok(Read::Closed);
        }
        Ok(Read::Waiting)
    }

    /// All who wrote to a pipe have gone: waits for others, if others can come.
    async fn next_writer(&mut self, index: usize) -> Result<Read, End> {
        #[cfg(unix)]
        {
            use super::open::{identity, is_anonymous, open};
            let Open { chunks, what, identity: known, held, .. } = &self.files[index];
            let Some(Input::Pipe(pipe)) = (*what == What::Pipe).then(|| &chunks.reader().input) else {
                // The end of what was typed, or a line that has been hung up: the finder opens it again.
                self.files.remove(index);
                return Ok(Read::Closed);
            };
            let (pipe, path, known, held) = (pipe.clone(), self.path.clone(), *known, held.clone());
            // Opened again before it is closed: whoever has begun to write meanwhile still has a reader.
            let again = tokio::task::spawn_blocking(move || {
                if is_anonymous(&*pipe, &path) {
                    return Ok(None);
                }
                open(&path, &[What::Pipe]).map(Some)
            });
            match again.await.map_err(io::Error::other) {
                Ok(Ok(Some(opened))) if identity(&opened.metadata) == known => {
                    if let Ok(open) = self.open(Found { opened, identity: known, at: 0, held }) {
                        self.files[index] = open;
                        sleep(PAUSE).await;
                        return Ok(Read::Waiting);
                    }
                }
                Ok(Ok(None)) if self.files.len() == 1 => return Err(End::Clean),
                _ => {}
            }
        }
        self.files.remove(index);
        Ok(Read::Closed)
    }

    /// Closes what others have replaced, and has been silent since.
    async fn close_silent(&mut self) {
        let mut index = 0;
        while index + 1 < self.files.len() {
            let open = &self.files[index];
            // Who writes to a pipe would be killed by that.
            match open.what != What::Pipe && open.heard.elapsed() >= SILENT {
                true => self.close(index).await,
                false => index += 1,
            }
        }
    }

    async fn close(&mut self, index: usize) {
        self.flush(index).await;
        self.files.remove(index);
    }

    /// Publishes a line that was begun, and of which no more comes.
    async fn flush(&mut self, index: usize) {
        let open = &mut self.files[index];
        open.chunks.reader_mut().finished = true;
        while let Ok(Some(chunk)) = open.chunks.next().await {
            if self.publisher.publish(chunk).await.is_err() {
                return;
            }
        }
    }

    fn tell(&self, error: &io::Error) {
        if self.broken.is_none() {
            warn!(feed = self.feed, path = %self.path.display(), "cannot read the file now: {error}; waiting for it");
        }
    }
}

fn is_deleted(metadata: &std::fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        std::os::unix::fs::MetadataExt::nlink(metadata) == 0
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        false
    }
}

/// Waits until a pipe can be read.
async fn readable(files: &[Open]) {
    #[cfg(unix)]
    std::future::poll_fn(|cx| {
        let ready = files.iter().any(|open| match &open.chunks.reader().input {
            Input::Pipe(pipe) => pipe.poll_read_ready(cx).is_ready(),
            Input::File(_) => false,
        });
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    #[cfg(not(unix))]
    {
        let _ = files;
        std::future::pending::<()>().await;
    }
}

/// Where bytes come from.
enum Input {
    /// Read by threads that may wait for the disk.
    File(tokio::fs::File),
    /// Read when there is something to read.
    #[cfg(unix)]
    Pipe(Arc<Receiver>),
}

impl Input {
    fn new(file: std::fs::File, what: What) -> io::Result<Self> {
        #[cfg(unix)]
        if what != What::File {
            // It was opened so that reading does not wait; whether it can say when there is something, we see.
            match Receiver::from_file_unchecked(file.try_clone()?) {
                Ok(pipe) => return Ok(Self::Pipe(Arc::new(pipe))),
                // A device that is always ready, as /dev/null is.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && what == What::Device => {}
                Err(error) => return Err(error),
            }
        }
        let _ = what;
        Ok(Self::File(tokio::fs::File::from_std(file)))
    }
}

/// Reads what is there, and fails with `WouldBlock` where there is no more now.
struct Reading {
    input: Input,
    /// How much has been read.
    at: u64,
    /// There will be no more.
    finished: bool,
}

impl AsyncRead for Reading {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let nothing = || Poll::Ready(Err(io::ErrorKind::WouldBlock.into()));
        match &mut self.input {
            Input::File(file) => {
                std::task::ready!(Pin::new(file).poll_read(cx, buf))?;
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
        self.at += (buf.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}
