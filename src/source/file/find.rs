//! Which file is at a path, now and later.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{
    checkpoint::Checkpoint,
    claim::Claim,
    gather::{self, Gathered},
    known::Shared,
    last,
    open::{FileId, OpenedFile, What, identity, open},
    places::Places,
    rotated::{folder, rotated},
    watch::{self, Followed},
};
use crate::units::many;

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
    /// It may be a copy of one that is read.
    pub(super) is_doubtful: bool,
}

impl Found {
    pub(super) fn new(opened: OpenedFile, place: Checkpoint, held: Arc<Claim>) -> Self {
        let identity = identity(&opened.metadata);
        Self { opened, identity, place, held, is_doubtful: false }
    }
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
        (What::File, None, Some(back)) if places.are_new => {
            let end = opened.file.seek(SeekFrom::End(0))?;
            let at = last::lines(&mut opened.file, end, back.lines, back.bytes)?;
            Checkpoint::in_file(&mut opened.file, at)?
        }
        _ => Checkpoint::default(),
    };
    Ok(Now::Found(Box::new(Found::new(opened, place, Arc::new(claim)))))
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
    /// Files that are not to be read.
    pub(super) known: Shared,
    /// When the folder had changed that was looked at last.
    folder: Option<SystemTime>,
    /// The system notifies no one.
    polls: bool,
}

/// What is missing of files that were followed before and are gone, of which so many bytes had been read, and of those
/// that were compressed since then.
fn lost(read: Option<u64>, packed: &[String]) -> Option<String> {
    let names = packed.join(", ");
    Some(match (read, packed) {
        (None, []) => return None,
        (Some(_), []) => {
            "the file that was followed before is gone: what was appended to it since then is not known".to_owned()
        }
        (None, [_]) => {
            format!("the file was rotated while nothing followed it, and {names} is compressed: its lines are missing")
        }
        (None, _) => format!(
            "the file was rotated while nothing followed it, and {names} are compressed: their lines are missing"
        ),
        (Some(read), [_]) => format!(
            "the file that was followed before is gone, and {names} is compressed: what came after the first {} was not read",
            many(read, "byte")
        ),
        (Some(read), _) => format!(
            "the file that was followed before is gone, and {names} are compressed: they were not read, nor what came after its first {}",
            many(read, "byte")
        ),
    })
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
            known: Shared::default(),
            folder: None,
            polls: false,
        }
    }

    /// The file that is there when the feed starts, if one is, after those that an earlier process followed and that
    /// have another name now.
    ///
    /// # Errors
    ///
    /// When it is nothing that could be followed.
    pub(super) async fn first(&mut self) -> io::Result<Vec<Found>> {
        // Before it is looked at, so that no change is missed.
        self.watch().await;
        #[cfg(unix)]
        if tokio::fs::metadata(&self.path).await.is_ok_and(|found| is_pipe(&found)) {
            // Opened once the feed is served: its writer would die if that does not come to be.
            self.back = None;
            self.follower.another.notify_one();
            return Ok(self.gather(None).await);
        }
        // It is opened once and first: when it is renamed from now on, it is still the one that is read.
        let seen = self.see(self.path.clone()).await;
        // Those were others, before.
        self.follower.renamed();
        let here = match seen {
            Ok(Now::Found(now)) => {
                (self.current, self.back) = (Some(now.identity), None);
                Some(*now)
            }
            Ok(Now::Again(_)) => None,
            // It will not become another by waiting.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    // What comes later is new from its beginning.
                    self.back = None;
                }
                self.tell(error.to_string());
                None
            }
        };
        Ok(self.gather(here).await)
    }

    /// The files that an earlier process followed and those that were rotated since then, the oldest first, with the one
    /// that is `here`.
    async fn gather(&mut self, here: Option<Found>) -> Vec<Found> {
        let (path, places) = (self.path.clone(), self.places.clone());
        let gathered = blocking(move || {
            Ok(match places.are_new {
                true => {
                    let known = gather::known(&path, here.as_ref().map(|found| found.identity));
                    Gathered { files: here.into_iter().collect(), known, ..Gathered::default() }
                }
                false => gather::gather(&path, here, &places),
            })
        });
        let Ok(gathered) = gathered.await else { return Vec::new() };
        let (feed, path) = (&self.feed, self.path.display());
        let packed: Vec<_> = gathered.packed.iter().map(|packed| packed.display().to_string()).collect();
        if let Some(why) = lost(gathered.lost, &packed) {
            warn!(feed, %path, "{why}");
        }
        if let Some((unread, error)) = gathered.unread {
            let unread = unread.display();
            warn!(
                feed, %path,
                "the file was rotated while nothing followed it, and {unread} cannot be read: {error}; its lines are missing"
            );
        }
        if gathered.is_unsure {
            warn!(
                feed, %path,
                "the names of the rotated files do not tell which are new, and in which order: lines may be repeated or out of order"
            );
        }
        *self.known.lock() = gathered.known;
        self.hold(&gathered.files);
        gathered.files
    }

    fn hold(&mut self, files: &[Found]) {
        self.held.extend(files.iter().map(|found| (found.identity, Arc::downgrade(&found.held))));
    }

    /// Gives each other file that comes to be at the path, for as long as it is polled.
    pub(super) async fn run(mut self, found: mpsc::Sender<Now>) {
        let follower = self.follower.clone();
        loop {
            let pause = if self.polls { POLL } else { LOOK };
            // Whichever comes first: what matters is what is found.
            let _ = tokio::time::timeout(pause, follower.another.notified()).await;
            let names = follower.renamed();
            let seen = self.see(self.path.clone()).await;
            let there = seen.as_ref().ok().map(|now| match now {
                Now::Found(found) => found.identity,
                Now::Again(identity) => *identity,
            });
            let is_new = there.is_some_and(|there| self.current != Some(there)) || matches!(seen, Ok(Now::Found(_)));
            let mut newer = Vec::new();
            if is_new || !names.is_empty() {
                // Files that were there so shortly that they were never seen.
                let older;
                (older, newer) = self.missed(names, there).await;
                for missed in older {
                    if found.send(Now::Found(Box::new(missed))).await.is_err() {
                        return;
                    }
                }
            }
            match seen {
                Ok(now) => {
                    if let Some(Missing { told: Some(_), .. }) = self.missing.take() {
                        info!(feed = self.feed, path = %self.path.display(), "the file is back");
                    }
                    self.current = there;
                    if is_new {
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
            for missed in newer {
                if found.send(Now::Found(Box::new(missed))).await.is_err() {
                    return;
                }
            }
            // For where no one else says so.
            follower.more.notify_one();
        }
    }

    /// The files that are called so now and were at the path, and those that were rotated since the current one was there:
    /// those that are older than what is `there` now, and those that are newer.
    async fn missed(&mut self, names: Vec<PathBuf>, there: Option<FileId>) -> (Vec<Found>, Vec<Found>) {
        let mut missed = Vec::new();
        for name in names {
            if rotated(&self.path, &name).is_none()
                && let Ok(Now::Found(found)) = self.see(name).await
            {
                missed.push(*found);
            }
        }
        let (path, files, held) = (self.path.clone(), (self.current, there), self.held());
        let known = self.known.lock().clone();
        let between = blocking(move || Ok(gather::between(&path, files, &held, &known)));
        let (older, newer) = between.await.unwrap_or_default();
        [&older, &newer].into_iter().for_each(|files| self.hold(files));
        missed.extend(older);
        (missed, newer)
    }

    fn held(&mut self) -> Vec<FileId> {
        self.held.retain(|(_, held)| held.strong_count() > 0);
        self.held.iter().map(|(identity, _)| *identity).collect()
    }

    async fn see(&mut self, path: PathBuf) -> io::Result<Now> {
        let (held, back, places) = (self.held(), self.back, self.places.clone());
        let known = self.known.lock().clone();
        let (current, before) = (self.current.filter(|_| path == self.path), self.folder);
        let seen = blocking(move || {
            let folder = std::fs::metadata(folder(&path)).and_then(|folder| folder.modified()).ok();
            let now = see(&path, &held, back, &places)?;
            Ok(match &now {
                Now::Again(there) if folder != before && Some(*there) == current => {
                    let copies = gather::copies(&path, *there, &held, &known);
                    (now, folder, copies)
                }
                _ => (now, before, Vec::new()),
            })
        });
        let (now, folder, copies) = seen.await?;
        self.folder = folder;
        copies.into_iter().for_each(|copy| self.known.lock().add(copy));
        if let Now::Found(found) = &now {
            self.held.push((found.identity, Arc::downgrade(&found.held)));
        }
        Ok(now)
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
