//! A store: a folder with feeds.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
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
use tracing::warn;

use crate::{
    StoreError, StoredFeed,
    error::At,
    files::{self, Mark, Meta, State},
    folder::Folder,
    shared::{Doubt, Shared},
    work::{self, Open, Work},
};

/// How many pieces of the past are read at once.
const READS: usize = 16;

/// When what is written is on the disk, and not only given to the operating system. A crash of this process loses
/// nothing in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before it is confirmed to its publisher, and given to viewers.
    Always,
    /// At most so long after it was written: a power loss loses no more than that.
    Every(Duration),
    /// Whenever the operating system writes it.
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
/// kept than `bytes`, and chunks up to a sixteenth longer than `age`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retain {
    /// At most so many bytes on the disk, or 32 KiB if that is more; besides, as long as too little came after it, one
    /// file that is larger than usual: because of a large chunk, or since more was to be kept before.
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
    pub(crate) options: StoreOptions,
    pub(crate) work: Work,
    pub(crate) open: Open,
    /// Feeds that are there, by name.
    stored: Mutex<BTreeMap<String, (u64, Meta)>>,
    pub(crate) reads: Arc<Semaphore>,
    /// A sync has failed.
    pub(crate) doubtful: AtomicBool,
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
    /// Feeds that were looked at because their numbers may be in doubt: kept, so that they are looked at once.
    kept: HashMap<String, Arc<Shared>>,
}

impl Store {
    /// Opens the store in a folder, or begins one where nothing is.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written, has other files, or was written by a newer version, and if another process has
    /// it open. If a feed is damaged after a power loss, other than where something was being written. Nothing that was
    /// stored is changed then.
    pub fn open(dir: impl AsRef<Path>, options: StoreOptions) -> Result<Self, StoreError> {
        let dir = dir.as_ref();
        let folder = Folder::open(dir)?;
        let path = folder.state();
        let last: Option<State> = files::read(&path)?;
        let boot = files::boot();
        // What another run of the system was given may not be on the disk.
        let crashed = last.filter(|last| !last.closed);
        let is_crashed = crashed.is_some();
        let torn = crashed.filter(|last| last.boot.is_none() || last.boot != boot);
        let mut stored = BTreeMap::new();
        let (ids, next) = folder.feeds()?;
        for id in ids {
            let (dir, path) = (folder.feed(id), folder.feed(id).join("meta.json"));
            match files::read::<Meta>(&path).and_then(|meta| meta.ok_or(StoreError::Damaged { file: path, at: 0 })) {
                Ok(meta) => _ = stored.insert(meta.name.clone(), (id, meta)),
                // It was created shortly before the system stopped.
                Err(StoreError::Damaged { .. }) if torn.is_some() => {
                    let to = folder.lost(id);
                    warn!(dir = %to.display(), "a feed that had just been created was not on the disk yet: its folder was moved aside");
                    fs::rename(&dir, &to).at(&dir)?;
                }
                Err(error) => return Err(error),
            }
        }
        let syncs = Arc::<[AtomicU64; 2]>::default();
        let common = Arc::new(Common {
            folder,
            options,
            work: Work::default(),
            open: Open::default(),
            stored: Mutex::default(),
            reads: Arc::new(Semaphore::new(READS)),
            doubtful: AtomicBool::new(false),
            syncs: syncs.clone(),
        });
        let mut kept = HashMap::new();
        if let Some(last) = torn {
            let doubt = if last.always { Doubt::Unseen } else { Doubt::Seen };
            warn!(dir = %dir.display(), "the store was not closed, and what was written last may not be on the disk: it is looked at");
            for (name, (id, meta)) in &stored {
                let shared = Arc::new(Shared::open(&common, *id, meta.clone(), doubt)?);
                shared.settle()?;
                kept.insert(name.clone(), shared);
            }
        }
        if is_crashed {
            // What the earlier process wrote is shown to viewers now, and may not be on the disk.
            common.sync_all()?;
        }
        let always = common.options.fsync == Fsync::Always;
        files::replace(&path, &State { closed: false, always, boot })?;
        *common.stored_lock() = stored;
        common.open_lock().extend(kept.iter().map(|(name, shared)| (name.clone(), Arc::downgrade(shared))));
        let thread = {
            let common = common.clone();
            let thread = std::thread::Builder::new().name("h3cast-store".into());
            thread.spawn(move || work::run(&common)).at(dir)?
        };
        let inside = Inside { common: Some(common), thread: Some(thread), next, kept };
        Ok(Self { inside: Mutex::new(inside), dir: dir.into(), syncs })
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

    /// Whether a flush has failed, and what was in doubt then has not reached the disk yet: those feeds refuse chunks.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        let common = self.lock().common.clone();
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
            inside.kept.remove(name);
            return Ok(StoredFeed(shared));
        }
        let known = common.stored_lock().get(name).cloned();
        let shared = match known {
            Some((id, meta)) => Shared::open(&common, id, meta, Doubt::None)?,
            None => {
                let id = inside.next;
                inside.next += 1;
                Shared::new(&common, id, name)
            }
        };
        let shared = Arc::new(shared);
        common.open_lock().insert(name.into(), Arc::downgrade(&shared));
        Ok(StoredFeed(shared))
    }

    /// Removes a feed: its handles refuse chunks from then on, and the next feed of that name is a new one.
    ///
    /// # Errors
    ///
    /// If its folder cannot be renamed; if the store was closed.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let mut inside = self.lock();
        let common = inside.common.clone().ok_or(StoreError::Closed)?;
        let open = common.open_lock().remove(name).and_then(|shared| shared.upgrade());
        let kept = inside.kept.remove(name);
        let mut state = open.as_ref().map(|shared| shared.lock());
        if let Some(state) = &mut state {
            (state.closed, state.filler) = (true, None);
        }
        let stored = common.stored_lock().remove(name).map(|(id, _)| id);
        let Some(id) = open.as_ref().map(|shared| shared.id).or(stored) else { return Ok(()) };
        let (dir, removed) = (common.folder.feed(id), common.folder.removed(id));
        match fs::rename(&dir, &removed) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.at(&dir)?,
        }
        drop(state);
        drop(kept);
        common.work.remove(removed);
        Ok(())
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
            inside.kept.clear();
            (inside.common.take(), inside.thread.take())
        };
        let Some(common) = common else { return Ok(()) };
        let open: Vec<_> = common.open_lock().drain().filter_map(|(_, shared)| shared.upgrade()).collect();
        open.iter().for_each(|shared| shared.lock().closed = true);
        common.work.stop();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        let mut closed = match common.options.fsync {
            // Also what was written to feeds that are not open any more.
            Fsync::Never => common.sync_all(),
            _ => Ok(()),
        };
        let is_written = closed.is_ok();
        for shared in open.iter().filter(|_| is_written) {
            closed = closed.and(shared.close());
        }
        match closed {
            Ok(()) => {
                let state = State { closed: true, always: false, boot: files::boot() };
                closed = files::replace(&common.folder.state(), &state);
            }
            Err(_) => common.doubt(),
        }
        common.folder.unlock();
        closed
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            warn!(%error, "the store could not be closed");
        }
    }
}

impl Common {
    /// Notes that what was written last may not be on the disk, so that it is looked at when the store is opened next, as
    /// after a power loss. Blocks.
    pub(crate) fn doubt(&self) {
        if !self.doubtful.swap(true, Ordering::Relaxed) {
            let state = State { closed: false, always: self.options.fsync == Fsync::Always, boot: None };
            if let Err(error) = files::replace(&self.folder.state(), &state) {
                warn!(%error, "it cannot be noted that what was written last may not be on the disk");
                self.doubtful.store(false, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn stored_lock(&self) -> MutexGuard<'_, BTreeMap<String, (u64, Meta)>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
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
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.syncs[0].fetch_add(1, Ordering::Relaxed);
        self.syncs[1].fetch_add(micros, Ordering::Relaxed);
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

impl Shared {
    /// Writes down where it continues, so that what was in doubt is not any more. Blocks.
    fn settle(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut state = self.lock();
        let next = state.next;
        let mark = Mark { reserved: state.mark.reserved.max(next), synced: state.mark.synced.min(next) };
        self.roll(&mut state, false)?;
        files::replace(&self.dir.join("mark.json"), &mark)?;
        state.mark = mark;
        Ok(())
    }

    /// Notes that all of it is on the disk. Blocks.
    fn close(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.closed = true;
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        if state.created {
            let mut files = std::mem::take(&mut state.unsynced);
            files.extend(state.file.take());
            for file in files {
                file.sync_data().at(&self.dir)?;
            }
            match std::mem::take(&mut state.new) {
                true => self.sync_new()?,
                false => files::sync_folder(&self.dir)?,
            }
            let mark = Mark { reserved: state.mark.reserved.max(state.next), synced: state.next };
            files::replace(&self.dir.join("mark.json"), &mark)?;
        }
        (state.file, state.filler) = (None, None);
        Ok(())
    }
}
