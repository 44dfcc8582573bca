//! Reading what is appended to files, each until no more comes.

#[cfg(unix)]
use std::task::Poll;
use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
#[cfg(unix)]
use tokio::time::sleep;
use tokio::{sync::mpsc, time::sleep_until};
use tracing::{info, warn};

use super::{
    checkpoint::Checkpoint,
    claim::Claim,
    find::{Finder, Found, LOOK, Now},
    known::{Mark, Shared},
    open::{FileId, What},
    places::Places,
    reading::{Reading, Standing},
    watch::Followed,
};
use crate::{
    feed::{End, FeedError, Publisher},
    source::{
        FeedEnded,
        chunker::{Chunker, Chunking},
        publish_stored,
    },
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
/// How many files that were truncated or rewritten are remembered, for when copies of them turn up.
const PAST: usize = 2;
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
    files: Vec<OpenFile>,
    /// The one that could not be read, and how far it was. The log has been told.
    broken: Option<(FileId, Checkpoint)>,
    /// How far files had been read that were truncated or rewritten, the latest last.
    past: VecDeque<Checkpoint>,
    /// Rotated files that need not be read.
    known: Shared,
}

/// A file that is read.
struct OpenFile {
    chunks: Chunker<Reading>,
    identity: FileId,
    what: What,
    mark: Mark,
    /// It may be a copy of another one.
    is_doubtful: bool,
    /// When it had something new, or was replaced.
    heard: Instant,
    /// Since when it has no name any more.
    deleted: Option<Instant>,
    /// It has been read to its end since it was replaced: what comes later comes along with the next one's.
    caught_up: bool,
    /// How far it has been published, and what was there.
    published: Checkpoint,
    #[cfg_attr(not(unix), allow(dead_code, reason = "it only has to live as long"))]
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
    /// `known` is the finder's.
    pub(super) fn new(feed: &str, path: PathBuf, chunking: Chunking, publisher: Publisher, known: Shared) -> Self {
        let (feed, files, past) = (feed.to_owned(), Vec::new(), VecDeque::new());
        Self { feed, path, chunking, publisher, files, broken: None, past, known }
    }

    /// Takes files that were there at first, and publishes what they `have`.
    pub(super) async fn begin(mut self, found: Vec<Found>, have: bool) -> Self {
        for found in found {
            self.take(Now::Found(Box::new(found))).await;
        }
        if self.publisher.is_stored() {
            // What is appended before the first chunk is not to be lost, of none of them. If that fails, so would the chunk.
            let _ = self.publisher.publish_from(Vec::new(), || self.places().to_bytes()).await;
        }
        let mut index = 0;
        while have && index < self.files.len() {
            let is_file = self.files[index].what == What::File;
            // If it begins again, or the feed has ended, that is seen later.
            let is_closed = is_file && matches!(self.read(index).await, Ok(Read::Closed));
            index += usize::from(!is_closed);
        }
        self
    }

    fn places(&self) -> Places {
        let files = self.files.iter().map(|open| (open.what, open.identity, &open.published));
        Places::of(files, self.past.iter(), self.known.lock().clone())
    }

    /// Follows what the finder finds, and ends the feed if there can be no more.
    pub(super) async fn run(mut self, finder: Finder) {
        // As many as can be read at once may be on their way.
        let (found_tx, mut found_rx) = mpsc::channel(MOST);
        let followed = finder.follower.clone();
        let end = tokio::select! {
            end = self.follow(&mut found_rx, &followed) => end,
            // It does not end before.
            () = finder.run(found_tx) => End::Failed(FeedError("no longer looking for the file".into())),
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
                if let Some((_, place)) = self.broken.as_ref().filter(|(identity, _)| *identity == found.identity) {
                    // The same one that could not be read for a while. If it has begun again, that is seen.
                    if io::Seek::seek(&mut found.opened.file, io::SeekFrom::Start(place.at)).is_ok() {
                        found.place = place.clone();
                    }
                } else if !self.files.is_empty() {
                    info!(feed = self.feed, path = %self.path.display(), "the file was replaced: reading the new one too");
                }
                match self.open(*found) {
                    Ok(open) => self.files.push(open),
                    Err(error) => self.tell(&error),
                }
                // The oldest one cannot be waited for any longer than it takes to read it.
                while self.files.len() > MOST {
                    match Box::pin(self.read(0)).await {
                        Ok(Read::More | Read::Closed) => {}
                        Ok(Read::Waiting) => self.close(0).await,
                        // The feed has ended, which is seen later.
                        Err(_) => return,
                    }
                }
            }
        }
    }

    fn open(&self, found: Found) -> io::Result<OpenFile> {
        let Found { opened, identity, place, held, is_doubtful } = found;
        let (what, mark, published) = (opened.what, Mark::of(&opened.metadata), place.clone());
        let reading = Reading::new(opened, place, self.chunking == Chunking::Lines)?;
        Ok(OpenFile {
            chunks: Chunker::new(reading, self.chunking),
            identity,
            what,
            mark,
            is_doubtful,
            heard: Instant::now(),
            deleted: None,
            caught_up: false,
            published,
            held,
        })
    }

    /// Publishes what a file has now, or a part of it.
    async fn read(&mut self, index: usize) -> Result<Read, End> {
        if self.files[index].is_doubtful && self.is_copy(index).await {
            self.close(index).await;
            return Ok(Read::Closed);
        }
        let before = self.files[index].chunks.reader().place().at;
        let mut turns = 0;
        let read = loop {
            match self.next_ones(index).await {
                Ok(chunks) if chunks.is_empty() => break Ok(Read::Closed),
                Ok(chunks) => {
                    turns += chunks.len();
                    // The feed has ended, then.
                    self.publish(index, chunks).await.map_err(|FeedEnded| End::Clean)?;
                    if turns >= TURN && self.files[index].caught_up {
                        break Ok(Read::More);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(Read::Waiting),
                Err(error) => break Err(error),
            }
        };
        let open = &mut self.files[index];
        let place = open.chunks.reader().place();
        if place.at > before {
            (open.heard, open.deleted, self.broken) = (Instant::now(), None, None);
        }
        if let Some(count) = open.chunks.reader_mut().left_out() {
            info!(
                feed = self.feed,
                path = %self.path.display(),
                "left out {count} NUL bytes at the start of the file: it was truncated, and its writer does not append (O_APPEND)"
            );
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
                let open = &self.files[index];
                self.broken = Some((open.identity, open.chunks.reader().place().clone()));
                self.close(index).await;
                Ok(Read::Closed)
            }
        }
    }

    /// Whether a file is a copy of one that is read. If that was truncated since, what was not read of it is read here.
    async fn is_copy(&mut self, index: usize) -> bool {
        self.files[index].is_doubtful = false;
        #[cfg(unix)]
        {
            use super::gather::{Copied, copied};
            let read = |open: &OpenFile| Some((open.chunks.reader().file()?, open.chunks.reader().place().clone()));
            let others = self.files.iter().enumerate().filter(|(other, _)| *other != index);
            let others: Vec<_> = others.filter_map(|(_, open)| read(open)).collect();
            let (Some((file, _)), past) = (read(&self.files[index]), self.past.clone()) else { return false };
            let copying = move || copied(&file, &others, past.into_iter());
            match tokio::task::spawn_blocking(copying).await {
                Ok(Ok(Copied::From(opened, place))) => {
                    let open = &self.files[index];
                    let found = Found { identity: open.identity, ..Found::new(*opened, place, open.held.clone()) };
                    if let Ok(open) = self.open(found) {
                        self.files[index] = open;
                    }
                }
                Ok(Ok(Copied::Whole)) => return true,
                _ => {}
            }
        }
        false
    }

    /// The next chunks of a file: one, or as many as there are where they are stored; none at its end.
    async fn next_ones(&mut self, index: usize) -> io::Result<Vec<Bytes>> {
        let chunks = &mut self.files[index].chunks;
        match self.publisher.is_stored() {
            true => chunks.next_ones().await,
            false => Ok(chunks.next().await?.into_iter().collect()),
        }
    }

    /// Publishes chunks of a file; where they are stored, with how far its files have been published.
    async fn publish(&mut self, index: usize, chunks: Vec<Bytes>) -> Result<(), FeedEnded> {
        if !self.publisher.is_stored() {
            for chunk in chunks {
                self.publisher.publish(chunk).await.map_err(|_| FeedEnded)?;
            }
            return Ok(());
        }
        let open = &mut self.files[index];
        chunks.iter().for_each(|chunk| open.published.advance(chunk));
        // What was left out, as NULs at its start, is passed too.
        let reading = open.chunks.reader();
        open.published.at = reading.place().at - (reading.unread() + open.chunks.held_back()) as u64;
        let places = self.places();
        publish_stored(&self.publisher, chunks, || places.to_bytes()).await
    }

    /// Looks at a file that has been read to its end: it may begin again, or be deleted.
    async fn check(&mut self, index: usize) -> Result<Read, End> {
        match self.files[index].chunks.reader().standing().await {
            Standing::Stays => Ok(Read::Waiting),
            Standing::Begins(change) => {
                info!(feed = self.feed, path = %self.path.display(), "the file was {change}: reading from its start");
                self.flush(index).await;
                let chunks = &mut self.files[index].chunks;
                self.past.push_back(chunks.reader().place().clone());
                self.past.drain(..self.past.len().saturating_sub(PAST));
                chunks.reader_mut().begin().await;
                chunks.begin();
                self.files[index].published = Checkpoint::default();
                Ok(Read::More)
            }
            Standing::Deleted => {
                let last = index + 1 == self.files.len();
                let deleted = self.files[index].deleted.get_or_insert_with(Instant::now);
                if !last || deleted.elapsed() < DELETED {
                    return Ok(Read::Waiting);
                }
                self.close(index).await;
                Ok(Read::Closed)
            }
        }
    }

    /// All who wrote to a pipe have gone: waits for others, if others can come.
    async fn next_writer(&mut self, index: usize) -> Result<Read, End> {
        #[cfg(unix)]
        {
            use super::open::{identity, is_anonymous, open};
            let OpenFile { chunks, what, identity: known, held, .. } = &self.files[index];
            let Some(pipe) = chunks.reader().pipe().filter(|_| *what == What::Pipe) else {
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
                    if let Ok(open) = self.open(Found::new(opened, Checkpoint::default(), held)) {
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
        self.known.lock().add(self.files[index].mark);
        self.files.remove(index);
    }

    /// Publishes a line that was begun, and of which no more comes.
    async fn flush(&mut self, index: usize) {
        self.files[index].chunks.reader_mut().finish();
        while let Ok(chunks) = self.next_ones(index).await {
            if chunks.is_empty() || self.publish(index, chunks).await.is_err() {
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

/// Waits until a pipe can be read.
async fn readable(files: &[OpenFile]) {
    #[cfg(unix)]
    std::future::poll_fn(|cx| {
        let mut pipes = files.iter().filter_map(|open| open.chunks.reader().pipe());
        if pipes.any(|pipe| pipe.poll_read_ready(cx).is_ready()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    #[cfg(not(unix))]
    {
        let _ = files;
        std::future::pending::<()>().await;
    }
}
