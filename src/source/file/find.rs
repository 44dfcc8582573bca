//! Which file is at a path, now and later.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{
    checkpoint::Checkpoint,
    claim::Claim,
    last,
    open::{FileId, OpenedFile, What, identity, open},
    places::{Moved, Places},
    watch::{self, Followed},
};

/// How often a path is looked at though no one has said that it has changed: some file systems do not.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// The same where the system notifies no one.
const POLL: Duration = Duration::from_millis(200);

/// How much of what a file has already belongs to its feed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Back {
    /// So many lines at its end.
    pub(super) lines: u64,
    /// Which begin within so many bytes.
    pub(super) bytes: u64,
}

/// A file to read.
pub(super) struct Found {
    pub(super) opened: OpenedFile,
    pub(super) identity: FileId,
    /// Where to begin.
    pub(super) place: Checkpoint,
    /// Dropped when the file is closed.
    pub(super) held: Arc<Claim>,
}

/// What is to be read from now on.
pub(super) enum Now {
    /// Another file.
    Found(Box<Found>),
    /// One that is still open.
    Again(FileId),
}

/// Opens what can be followed.
///
/// # Errors
///
/// When there is no such thing, or it cannot be read.
fn open_followed(path: &Path) -> io::Result<OpenedFile> {
    let mut opened = open(path, &[What::File, What::Pipe, What::Device])?;
    if opened.metadata.is_file() && opened.metadata.len() == 0 {
        // Files of /proc have no length, and no end that one could wait at.
        let made = opened.file.read(&mut [0]).is_ok_and(|read| read > 0) && opened.file.metadata()?.len() == 0;
        if made {
            let text =
                "the system generates it on every read, so it cannot be followed (file: reads it for each viewer)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        opened.file.seek(SeekFrom::Start(0))?;
    }
    Ok(opened)
}

/// What is at the path, unless it is one of those that are held.
fn see(path: &Path, held: &[FileId], back: Option<Back>, places: &Places) -> io::Result<Now> {
    let metadata = std::fs::metadata(path)?;
    let there = identity(&metadata);
    if held.contains(&there) {
        return Ok(Now::Again(there));
    }
    let mut claim = Claim::of(&metadata)?;
    let mut opened = open_followed(path)?;
    // It may have become another one since.
    if !claim.is_of(&opened.metadata) {
        claim = Claim::of(&opened.metadata)?;
    }
    let place = match (opened.what, places.find(identity(&opened.metadata)), back) {
        (What::File, Some(place), _) => resumed(&mut opened.file, place)?,
        (What::File, None, Some(back)) if places.is_empty() => {
            let end = opened.file.seek(SeekFrom::End(0))?;
            let at = last::lines(&mut opened.file, end, back.lines, back.bytes)?;
            Checkpoint::in_file(&mut opened.file, at)?
        }
        _ => Checkpoint::default(),
    };
    let identity = identity(&opened.metadata);
    Ok(Now::Found(Box::new(Found { opened, identity, place, held: Arc::new(claim) })))
}

/// The place where an earlier process was in a file. Whether it is still the same file is seen when it is read.
fn resumed(file: &mut File, place: Checkpoint) -> io::Result<Checkpoint> {
    file.seek(SeekFrom::Start(place.at))?;
    Ok(place)
}

#[cfg(unix)]
fn is_pipe(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// For how long there has been nothing to read.
struct Missing {
    since: Instant,
    /// Why, as the log has it.
    told: Option<String>,
}

/// Finds the files at a path, one after the other.
pub(super) struct Finder {
    feed: String,
    path: PathBuf,
    pub(super) follower: Arc<Followed>,
    /// The file that is at the path.
    current: Option<FileId>,
    /// Files that are being read.
    held: Vec<(FileId, Weak<Claim>)>,
    missing: Option<Missing>,
    /// How much of the next file is its feed's already, if it was there before.
    back: Option<Back>,
    /// Where an earlier process was.
    places: Arc<Places>,
    /// The system notifies no one.
    polls: bool,
}

impl Finder {
    pub(super) fn new(feed: &str, path: PathBuf, back: Back, places: Places) -> Self {
        Self {
            feed: feed.to_owned(),
            path,
            follower: Arc::default(),
            current: None,
            held: Vec::new(),
            missing: None,
            back: Some(back),
            places: Arc::new(places),
            polls: false,
        }
    }

    /// The file that is there when the feed starts, if one is, after those that an earlier process followed and that
    /// have another name now.
    ///
    /// # Errors
    ///
    /// When it is nothing that could be followed.
    pub(super) async fn first(&mut self) -> io::Result<Vec<Box<Found>>> {
        let mut found = self.moved().await;
        // Before it is looked at, so that no change is missed.
        self.watch().await;
        #[cfg(unix)]
        if tokio::fs::metadata(&self.path).await.is_ok_and(|found| is_pipe(&found)) {
            // Opened once the feed is served: its writer would die if that does not come to be.
            self.back = None;
            self.follower.another.notify_one();
            return Ok(found);
        }
        let seen = self.see(self.path.clone()).await;
        // Those were others, before.
        self.follower.renamed();
        match seen {
            Ok(Now::Found(now)) => {
                (self.current, self.back) = (Some(now.identity), None);
                found.push(now);
                Ok(found)
            }
            Ok(Now::Again(_)) => Ok(found),
            // It will not become another by waiting.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(error),
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    // What comes later is new from its beginning.
                    self.back = None;
                }
                self.tell(error.to_string());
                Ok(found)
            }
        }
    }

    /// The files that an earlier process followed and that have another name now, and those that were rotated since then,
    /// the oldest first.
    async fn moved(&mut self) -> Vec<Box<Found>> {
        if self.places.is_empty() {
            return Vec::new();
        }
        let (path, places) = (self.path.clone(), self.places.clone());
        let looked = blocking(move || {
            let places = places.recognized(&path);
            let Moved { files, is_lost, packed } = places.moved(&path);
            let moved = files.into_iter().filter_map(|(mut opened, place)| {
                let identity = identity(&opened.metadata);
                let place = resumed(&mut opened.file, place).ok()?;
                let held = Arc::new(Claim::of(&opened.metadata).ok()?);
                Some(Box::new(Found { opened, identity, place, held }))
            });
            Ok((moved.collect::<Vec<_>>(), is_lost, packed, places))
        });
        let Ok((moved, is_lost, packed, places)) = looked.await else { return Vec::new() };
        self.places = Arc::new(places);
        if is_lost {
            warn!(
                feed = self.feed,
                path = %self.path.display(),
                "the file that was followed before is gone: what was appended to it since then is not known"
            );
        }
        if let Some(packed) = packed {
            warn!(
                feed = self.feed,
                path = %self.path.display(),
                "the file was rotated while nothing followed it, and {} is compressed: its lines are missing",
                packed.display()
            );
        }
        self.held.extend(moved.iter().map(|found| (found.identity, Arc::downgrade(&found.held))));
        moved
    }

    /// Gives each other file that comes to be at the path, for as long as it is polled.
    pub(super) async fn run(mut self, found: mpsc::Sender<Now>) {
        let follower = self.follower.clone();
        loop {
            let pause = if self.polls { POLL } else { LOOK };
            // Whichever comes first: what matters is what is found.
            let _ = tokio::time::timeout(pause, follower.another.notified()).await;
            // Files that were there so shortly that they were never seen.
            for name in follower.renamed() {
                if let Ok(Now::Found(missed)) = self.see(name).await
                    && found.send(Now::Found(missed)).await.is_err()
                {
                    return;
                }
            }
            match self.see(self.path.clone()).await {
                Ok(now) => {
                    if let Some(Missing { told: Some(_), .. }) = self.missing.take() {
                        info!(feed = self.feed, path = %self.path.display(), "the file is back");
                    }
                    let there = match &now {
                        Now::Found(found) => found.identity,
                        Now::Again(identity) => *identity,
                    };
                    if self.current.replace(there) != Some(there) || matches!(now, Now::Found(_)) {
                        self.back = None;
                        // Its folder may be another one as well.
                        self.watch().await;
                        if found.send(now).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    self.missing(&error);
                    self.watch().await;
                }
            }
            // For where no one else says so.
            follower.more.notify_one();
        }
    }

    async fn see(&mut self, path: PathBuf) -> io::Result<Now> {
        self.held.retain(|(_, held)| held.strong_count() > 0);
        let held: Vec<_> = self.held.iter().map(|(identity, _)| *identity).collect();
        let (back, places) = (self.back, self.places.clone());
        let seen = blocking(move || see(&path, &held, back, &places)).await;
        if let Ok(Now::Found(found)) = &seen {
            self.held.push((found.identity, Arc::downgrade(&found.held)));
        }
        seen
    }

    async fn watch(&mut self) {
        let (path, follower) = (self.path.clone(), self.follower.clone());
        let watched = blocking(move || {
            watch::watch(&path, &follower).map_err(|error| {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                // That is told as the file's.
                match folder.is_some_and(|folder| !folder.is_dir()) {
                    true => io::ErrorKind::NotFound.into(),
                    false => error,
                }
            })
        })
        .await;
        let polled = std::mem::replace(&mut self.polls, watched.is_err());
        if let Err(error) = watched
            && error.kind() != io::ErrorKind::NotFound
            && !polled
        {
            info!(feed = self.feed, %error, "no notifications of file changes: checking every {POLL:?} instead");
        }
    }

    /// There is nothing to read.
    fn missing(&mut self, error: &io::Error) {
        match &self.missing {
            // Between the two steps of a rotation there is no file.
            None => self.missing = Some(Missing { since: Instant::now(), told: None }),
            Some(missing) if missing.since.elapsed() < LOOK => {}
            Some(_) => self.tell(error.to_string()),
        }
    }

    fn tell(&mut self, why: String) {
        let missing = self.missing.get_or_insert_with(|| Missing { since: Instant::now(), told: None });
        if missing.told.as_ref() != Some(&why) {
            warn!(feed = self.feed, path = %self.path.display(), "cannot read the file now: {why}; waiting for it");
            missing.told = Some(why);
        }
    }
}
