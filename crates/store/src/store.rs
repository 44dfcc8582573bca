//! A store: a folder with feeds.

mod moving;
mod removing;
mod settling;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use h3cast_feed::Epoch;
use tokio::sync::Semaphore;
use tracing::{info, warn};

pub(crate) use self::moving::{Gate, Passage};
use self::settling::Unsettled;
use crate::{
    StoreError, StoredFeed,
    clock::Clock,
    files::{self, State},
    folder::Folder,
    look::{Feeds, Found, StoredByName},
    shared::{Doubt, Shared},
    work::{Open, Work},
};

/// How many pieces of the past are read at once.
const READS: usize = 16;

/// How often to look whether the folder is still there while much is written, in microseconds.
const LOOK: u64 = 10_000;

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// When what is written is on the disk, and not only given to the operating system. A crash of this process loses
/// nothing in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before it is confirmed to its publisher, and given to viewers.
    Always,
    /// At most so long after it was written: a power loss loses no more than that.
    Every(Duration),
    /// Whenever the operating system writes it; besides, once a file is full, at most every 10 s.
    Never,
}

impl Default for Fsync {
    /// Every 100 ms.
    fn default() -> Self {
        Self::Every(Duration::from_millis(100))
    }
}

/// Settings of a [`Store`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StoreOptions {
    /// When what is written is on the disk.
    pub fsync: Fsync,
}

/// How much of a feed is kept; by default all of it. Files are removed as a whole, so that up to an eighth less may be
/// kept than `bytes`, and chunks up to a sixteenth longer than `age`; up to an eighth after the store was opened, or the
/// system's clock set forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retain {
    /// At most so many bytes on the disk, or 32 KiB if that is more; besides, as long as too little came after it, one
    /// file that is larger than usual because of a large chunk, or of many that were published together. Where more was
    /// kept before, the rest goes within seconds.
    pub bytes: Option<u64>,
    /// Chunks are removed when they are older than that.
    pub age: Option<Duration>,
}

/// A feed that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedInfo {
    /// Its name.
    pub name: String,
    /// Its run of numbers.
    pub epoch: Epoch,
    /// Who created it, as [`StoredFeed::set_created_by`] has noted.
    pub created_by: Option<String>,
}

/// What all feeds of a store share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) folder: Folder,
    pub(crate) gate: Gate,
    pub(crate) options: StoreOptions,
    pub(crate) work: Work,
    pub(crate) open: Open,
    stored: Mutex<StoredByName>,
    pub(crate) reads: Arc<Semaphore>,
    pub(crate) clock: Clock,
    /// It is a copy of another store, and is opened for the first time.
    pub(crate) copied: bool,
    /// A sync has failed.
    pub(crate) doubtful: AtomicBool,
    /// When the folder was last looked for, in microseconds since `begun`.
    looked: AtomicU64,
    begun: Instant,
    /// It could not be noted yet that the store is open again, after a release that failed: the note of before says so still.
    unnoted: AtomicBool,
    /// The disk was full when the store was opened: what is stored is read, and nothing is published before it is noted
    /// that the store is open. The note is the only one of what is in doubt: it stays until that is settled.
    unopened: AtomicBool,
    /// Something is unsettled: nothing is published.
    unsettling: AtomicBool,
    unsettled: Mutex<Unsettled>,
    /// How often something was synced, and how long that took in all, in microseconds.
    pub(crate) syncs: Arc<[AtomicU64; 2]>,
}

/// A folder with feeds, which this process alone has open. Dropping it closes it.
///
/// All of its methods may block for a disk: call them where that may be.
#[derive(Debug)]
pub struct Store {
    inside: Mutex<Inside>,
    dir: PathBuf,
    syncs: Arc<[AtomicU64; 2]>,
}

#[derive(Debug)]
struct Inside {
    /// `None` once it is closed.
    common: Option<Arc<Common>>,
    thread: Option<JoinHandle<()>>,
    next: u64,
    /// Feeds that were removed while writes waited.
    going: Vec<u64>,
}

impl Store {
    /// Opens the store in a folder, or begins one where nothing is.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written, has other files, or was written by a newer version, and if another process has
    /// it open. If a feed is damaged after a power loss, other than where something was being written. Nothing that was
    /// stored is changed then. Where only the disk is full, a store that is not new is opened [to be read](Self::is_full).
    pub fn open(dir: impl AsRef<Path>, options: StoreOptions) -> Result<Self, StoreError> {
        let dir = dir.as_ref();
        let (folder, Found { state: last, mut feeds }) = Folder::open(dir)?;
        feeds.tidy(dir)?;
        let Feeds { stored, next, .. } = feeds;
        let place = folder.place();
        // The files of a copy may be of different times.
        let copied = last.as_ref().is_some_and(|last| last.place.is_some() && last.place != place);
        let crashed = last.filter(|last| !last.closed);
        let is_crashed = crashed.is_some();
        let torn = crashed.filter(State::is_torn);
        let syncs = Arc::<[AtomicU64; 2]>::default();
        let common = Arc::new(Common {
            folder,
            gate: Gate::default(),
            options,
            work: Work::default(),
            open: Open::default(),
            stored: Mutex::default(),
            reads: Arc::new(Semaphore::new(READS)),
            clock: Clock::default(),
            copied,
            doubtful: AtomicBool::new(false),
            looked: AtomicU64::new(0),
            begun: Instant::now(),
            unnoted: AtomicBool::new(false),
            unopened: AtomicBool::new(false),
            unsettling: AtomicBool::new(false),
            unsettled: Mutex::default(),
            syncs: syncs.clone(),
        });
        if copied || torn.is_some() {
            let doubt = torn.map_or(Doubt::None, |last| if last.always { Doubt::Unseen } else { Doubt::Seen });
            match doubt {
                Doubt::None => {
                    info!(dir = %dir.display(), "this folder is a copy: checking all feeds, since chunks written during the copy may be missing")
                }
                _ => {
                    warn!(dir = %dir.display(), "the store was not closed, and the last chunks may not have reached the disk: checking all feeds")
                }
            }
            for (name, (id, meta)) in &stored {
                let shared = Arc::new(Shared::open(&common, *id, meta.clone(), doubt)?);
                match shared.settle() {
                    // It can be read, and stays open until there is room.
                    Err(StoreError::Full(_)) => common.settle_later(&shared),
                    settled => settled?,
                }
                // It stays open no longer than it takes to sync what that has written.
                common.open_lock().insert(name.clone(), Arc::downgrade(&shared));
            }
        }
        if is_crashed || copied {
            // What the earlier process wrote is shown to viewers now, and may not be on the disk.
            common.sync_all()?;
        }
        *common.stored_lock() = stored;
        let inside = Inside { common: Some(common.clone()), thread: None, next, going: Vec::new() };
        let opened = Self { inside: Mutex::new(inside), dir: dir.into(), syncs };
        if common.is_unsettled() {
            warn!(dir = %dir.display(), "the disk is too full to repair what the last run left: what can be read is served, and publishers are refused until there is room");
        }
        opened.lock().begin(&common)?;
        Ok(opened)
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How often what was written was flushed to the disk, and how long that took in all. This does not block.
    #[must_use]
    pub fn syncs(&self) -> (u64, Duration) {
        let [count, micros] = [0, 1].map(|at| self.syncs[at].load(Ordering::Relaxed));
        (count, Duration::from_micros(micros))
    }

    /// Whether the disk was too full to repair what a crash or a power loss left, or to note that the store is open. It can
    /// be read, and all of its feeds refuse chunks with [`PublishError::Full`](h3cast_feed::PublishError::Full). That is
    /// tried again each second, unless writes are [held](Self::hold).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.lock().common.as_ref().is_some_and(|common| common.has_room().is_err())
    }

    /// Whether the folder is still where it was: not removed or moved, also if there is another one there now. Nothing of
    /// the caller's should be written into it otherwise. Blocks.
    ///
    /// # Errors
    ///
    /// [`StoreError::Gone`] if it is not, and [`StoreError::Closed`] if the store is closed.
    pub fn still_there(&self) -> Result<(), StoreError> {
        let common = self.lock().common.clone();
        common.ok_or(StoreError::Closed)?.folder.still_there()
    }

    /// Whether a flush has failed, and what was in doubt then has not reached the disk yet: those feeds refuse chunks. Or
    /// whether nothing is flushed any more, the folder is gone, or the store [is full](Self::is_full): all do.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        let common = self.lock().common.clone();
        let fails = |common: &Arc<Common>| {
            common.has_room().is_err() || common.work.is_lost() || common.folder.still_there().is_err()
        };
        if common.as_ref().is_some_and(fails) {
            return true;
        }
        let open: Vec<_> =
            common.iter().flat_map(|common| common.open_lock().values().cloned().collect::<Vec<_>>()).collect();
        open.iter().filter_map(Weak::upgrade).any(|shared| shared.lock().failed.is_some())
    }

    /// The feeds that are stored, by name.
    #[must_use]
    pub fn feeds(&self) -> Vec<FeedInfo> {
        let common = self.lock().common.clone();
        let stored = common.map(|common| common.stored_lock().clone()).unwrap_or_default();
        stored
            .iter()
            .map(|(name, (_, meta))| {
                let (epoch, created_by) = (Epoch(meta.epoch), meta.created_by.clone());
                FeedInfo { name: name.clone(), epoch, created_by }
            })
            .collect()
    }

    /// The feed of that name: as it is stored, or a new one, of which nothing is stored before its first chunk or note.
    /// While another handle of it is there, this is one of the same feed.
    ///
    /// # Errors
    ///
    /// If it is damaged, other than where something was being written; if it cannot be read; if the store was closed.
    pub fn feed(&self, name: &str) -> Result<StoredFeed, StoreError> {
        let mut inside = self.lock();
        let common = inside.common.clone().ok_or(StoreError::Closed)?;
        if let Some(shared) = common.open_lock().get(name).and_then(Weak::upgrade) {
            return Ok(StoredFeed(shared));
        }
        let known = common.stored_lock().get(name).cloned();
        if known.is_some() && common.gate.is_released() {
            return Err(StoreError::Moved);
        }
        common.folder.still_there()?;
        let shared = match known {
            Some((id, meta)) => Shared::open(&common, id, meta, Doubt::None)?,
            None => {
                let id = inside.next;
                inside.next += 1;
                Shared::new(&common, id, name)
            }
        };
        let shared = Arc::new(shared);
        if !shared.lock().mends.is_empty() {
            common.settle_later(&shared);
        }
        common.open_lock().insert(name.into(), Arc::downgrade(&shared));
        Ok(StoredFeed(shared))
    }

    /// Closes the store: what was written reaches the disk, its feeds refuse chunks, and another process can open it.
    /// Does nothing if it is closed. End or stop its feeds before.
    ///
    /// # Errors
    ///
    /// If what was written does not reach the disk. It is closed all the same.
    pub fn close(&self) -> Result<(), StoreError> {
        let (common, thread) = {
            let mut inside = self.lock();
            (inside.common.take(), inside.thread.take())
        };
        let Some(common) = common else { return Ok(()) };
        let open: Vec<_> = common.open_lock().drain().filter_map(|(_, shared)| shared.upgrade()).collect();
        open.iter().for_each(|shared| shared.lock().closed = true);
        if common.gate.is_released() {
            common.gate.set(Passage::Moved);
            common.forget_unsettled();
            return Ok(());
        }
        // They learn that it is closed.
        common.gate.set(Passage::Open);
        let closed = common.come_to_rest(thread, &open, Shared::close);
        common.folder.unlock();
        // They have the store, too. Its thread has ended: nobody takes them for settled.
        common.forget_unsettled();
        closed
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            warn!(%error, "cannot close the store: the next start checks it");
        }
    }
}

impl Common {
    /// Notes that what was written last may not be on the disk, so that it is looked at when the store is opened next, as
    /// after a power loss. Blocks.
    pub(crate) fn doubt(&self) {
        if self.is_unopened() {
            // The folder says already that something is in doubt, and will once the store is open.
            self.doubtful.store(true, Ordering::Relaxed);
        } else if self.folder.still_there().is_ok() && !self.doubtful.swap(true, Ordering::Relaxed) {
            let (always, place) = (self.options.fsync == Fsync::Always, self.folder.place());
            let state = State { closed: false, always, boot: None, place };
            if let Err(error) = files::replace(&self.folder.state(), &state) {
                warn!(%error, "cannot note in state.json that the next start has to check the last chunks");
                self.doubtful.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Whether the folder was there a moment ago.
    pub(crate) fn is_seen(&self) -> bool {
        micros(self.begun).saturating_sub(self.looked.load(Ordering::Relaxed)) < LOOK
    }

    /// Looks for the folder. It takes a microsecond, but blocks where a disk does not answer.
    ///
    /// # Errors
    ///
    /// If it is not there any more.
    pub(crate) fn see(&self) -> Result<(), StoreError> {
        let now = micros(self.begun);
        self.folder.still_there()?;
        self.looked.store(now, Ordering::Relaxed);
        Ok(())
    }

    /// Why something was not written: the folder may be gone since it was looked for. Blocks.
    pub(crate) fn why(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Closed | StoreError::Moved => error,
            _ => self.folder.still_there().err().unwrap_or(error),
        }
    }

    pub(crate) fn stored_lock(&self) -> MutexGuard<'_, StoredByName> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsettled_lock(&self) -> MutexGuard<'_, Unsettled> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open_lock(&self) -> MutexGuard<'_, HashMap<String, Weak<Shared>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Common {
    /// Has all that is stored reach the disk. Blocks.
    fn sync_all(&self) -> Result<(), StoreError> {
        let begun = Instant::now();
        files::sync_all(&self.folder.all_feeds())?;
        self.count_sync(begun);
        Ok(())
    }

    /// Counts a sync.
    pub(crate) fn count_sync(&self, begun: Instant) {
        self.syncs[0].fetch_add(1, Ordering::Relaxed);
        self.syncs[1].fetch_add(micros(begun), Ordering::Relaxed);
    }

    /// The feeds that are open. Forgets those that are not any more.
    pub(crate) fn open(&self) -> Vec<Arc<Shared>> {
        let mut open = self.open_lock();
        let feeds: Vec<_> = open.values().filter_map(Weak::upgrade).collect();
        open.retain(|_, shared| shared.strong_count() > 0);
        let least = 2 * open.len() + 64;
        open.shrink_to(least);
        feeds
    }
}
