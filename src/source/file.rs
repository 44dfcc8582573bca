//! Files: from their beginning for each viewer, or followed as they grow.

use std::{
    collections::BTreeMap,
    fs::{File, Metadata},
    io::{self, Seek, SeekFrom},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream;
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::Notify,
};
use tracing::info;

use super::{
    SourceError,
    chunker::{Chunker, Chunking},
    pump,
};
use crate::feed::{Feed, FeedError, Publisher};

fn open(name: &str, path: &Path) -> Result<File, SourceError> {
    let unreadable = |error| SourceError::new(name, "cannot read", path.display().to_string(), error);
    let file = File::open(path).map_err(unreadable)?;
    match file.metadata().map_err(unreadable)?.is_dir() {
        true => Err(unreadable(io::ErrorKind::IsADirectory.into())),
        false => Ok(file),
    }
}

/// A file from its beginning, for each viewer.
pub(super) fn on_demand(name: &str, path: PathBuf, chunking: Chunking) -> Result<Feed, SourceError> {
    let metadata = open(name, &path)?.metadata();
    let of_file = path.clone();
    let feed = Feed::on_demand(name, move || {
        let path = path.clone();
        stream::unfold(None, move |chunks| {
            let path = path.clone();
            async move {
                let mut chunks = match chunks {
                    Some(chunks) => chunks,
                    None => match tokio::fs::File::open(&path).await {
                        Ok(file) => Chunker::new(file, chunking),
                        Err(error) => return Some((Err(failed(&path, &error)), None)),
                    },
                };
                match chunks.next().await {
                    Ok(chunk) => Some((Ok(chunk?), Some(chunks))),
                    Err(error) => Some((Err(failed(&path, &error)), Some(chunks))),
                }
            }
        })
    });
    // A pipe, a device, a file of /proc: its length does not say what can be read.
    let plain = metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0);
    Ok(if plain { feed.of_file(of_file) } else { feed })
}

fn failed(path: &Path, error: &io::Error) -> FeedError {
    FeedError(format!("cannot read {}: {error}", path.display()))
}

/// How often a file is looked at though nobody said that it has changed: some file systems do not.
const LOOK: Duration = Duration::from_secs(1);

/// Who is to be told when a file changes, by its absolute path.
static FOLLOWED: Mutex<BTreeMap<PathBuf, Vec<Weak<Notify>>>> = Mutex::new(BTreeMap::new());
/// One for all files: a user may have few of them (128 of Linux's inotify, by default), and each has a thread.
static WATCHER: Mutex<Option<RecommendedWatcher>> = Mutex::new(None);

/// Has `changed` told when something happens to the file at `path`, whichever file that is then.
fn watch(path: &Path, changed: &Arc<Notify>) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    // The folder, since a rotated file is another one of the same name.
    let folder = path.parent().unwrap_or(&path).to_owned();
    {
        let mut followed = FOLLOWED.lock().unwrap_or_else(PoisonError::into_inner);
        let followers = followed.entry(path).or_default();
        followers.retain(|follower| follower.strong_count() > 0);
        followers.push(Arc::downgrade(changed));
    }
    // Not under the lock above, which the watcher's own thread takes too.
    let mut watcher = WATCHER.lock().unwrap_or_else(PoisonError::into_inner);
    let watcher = match &mut *watcher {
        Some(watcher) => watcher,
        none => none.insert(notify::recommended_watcher(tell).map_err(io::Error::other)?),
    };
    watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(io::Error::other)
}

const CLOSED: AccessKind = AccessKind::Close(AccessMode::Write);

fn tell(event: notify::Result<notify::Event>) {
    let followed = FOLLOWED.lock().unwrap_or_else(PoisonError::into_inner);
    let all = || followed.values().flatten();
    match event {
        // To look at a file is no change of it, and we look at it ourselves.
        Ok(event) if matches!(event.kind, EventKind::Access(kind) if kind != CLOSED) => {}
        Ok(event) if !event.need_rescan() => {
            event.paths.iter().filter_map(|path| followed.get(path)).flatten().for_each(notice)
        }
        // Some may have been missed.
        _ => all().for_each(notice),
    }
}

fn notice(follower: &Weak<Notify>) {
    if let Some(changed) = follower.upgrade() {
        changed.notify_one();
    }
}

/// What is appended to a file from now on.
pub(super) fn follow(
    name: &str,
    path: PathBuf,
    chunking: Chunking,
    publisher: Publisher,
) -> Result<impl Future<Output = ()> + Send + use<>, SourceError> {
    let unreadable = |error| SourceError::new(name, "cannot follow", path.display().to_string(), error);
    let mut file = open(name, &path)?;
    // Now, and not when the first viewer comes: what is appended from here on belongs to the feed. A
    // file that cannot be sought has no end to begin at.
    let at = file.seek(SeekFrom::End(0)).unwrap_or_default();
    let changed = Arc::new(Notify::new());
    watch(&path, &changed).map_err(unreadable)?;
    let identity = identity(&file.metadata().map_err(unreadable)?);
    Ok(async move {
        let file = tokio::fs::File::from_std(file);
        let growing = Growing { path, file, at, identity, changed, waiting: None, next: None };
        pump(growing, chunking, publisher).await;
    })
}

/// What tells a file from another one of the same name.
fn identity(metadata: &Metadata) -> (u64, u64) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev(), metadata.ino())
    }
    #[cfg(not(unix))]
    {
        let created = metadata.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        (0, created.unwrap_or_default().as_nanos() as u64)
    }
}

/// A file whose end is not the end: reading there waits for more.
struct Growing {
    path: PathBuf,
    file: tokio::fs::File,
    /// How much of it has been read.
    at: u64,
    identity: (u64, u64),
    changed: Arc<Notify>,
    waiting: Option<Pin<Box<dyn Future<Output = Looked> + Send>>>,
    /// The file to go on with when this one has been read to its end.
    next: Option<Found>,
}

/// A file, and what tells it from another one.
type Found = (tokio::fs::File, (u64, u64));
/// The file to go on with, if it is another one or begins again.
type Looked = io::Result<Option<Found>>;

impl Growing {
    fn begin(&mut self, (file, identity): Found) {
        info!(path = %self.path.display(), "the file begins again");
        (self.file, self.identity, self.at) = (file, identity, 0);
    }

    /// Waits for a change; gives the file to go on with when it is another one, or the same from
    /// its beginning.
    fn wait(&self) -> impl Future<Output = Looked> + Send + use<> {
        let (path, changed, at, before) = (self.path.clone(), self.changed.clone(), self.at, self.identity);
        async move {
            // Whichever comes first: what matters is what is found.
            let _ = tokio::time::timeout(LOOK, changed.notified()).await;
            // Between the two steps of a rotation there is no file.
            let Ok(file) = tokio::fs::File::open(&path).await else { return Ok(None) };
            let metadata = file.metadata().await?;
            let now = identity(&metadata);
            Ok((now != before || metadata.len() < at).then_some((file, now)))
        }
    }
}

impl AsyncRead for Growing {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if let Some(waiting) = &mut this.waiting {
                let found = std::task::ready!(waiting.as_mut().poll(cx));
                this.waiting = None;
                match found? {
                    // Truncated: the same file from its beginning.
                    Some(next) if next.1 == this.identity => this.begin(next),
                    // Replaced: what was appended to the old one since its end was seen comes first.
                    next => this.next = next,
                }
            }
            let before = buf.filled().len();
            std::task::ready!(Pin::new(&mut this.file).poll_read(cx, buf))?;
            let read = buf.filled().len() - before;
            if read > 0 {
                this.at += read as u64;
                return Poll::Ready(Ok(()));
            }
            match this.next.take() {
                Some(next) => this.begin(next),
                None => this.waiting = Some(Box::pin(this.wait())),
            }
        }
    }
}
