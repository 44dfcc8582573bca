//! A feed that is open: what its handle, its readers and the store's thread share.

use std::{
    collections::VecDeque,
    fs::{self, File},
    hash::{BuildHasher, Hasher, RandomState},
    io::{ErrorKind, Write},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use h3cast_feed::{Chunk, Epoch, Filler, Receipt};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::{
    Retain, StoreError, clock,
    error::At,
    files::{self, AHEAD, Mark, Meta},
    left_out::LeftOut,
    notes::{self, Notes},
    record, regular,
    segment::{self, Known, Mends, Segment},
    store::{Common, Passage},
};

/// How many numbers are reserved ahead at most.
pub(crate) const MOST_AHEAD: u64 = 1 << 22;
/// The largest file, in bytes; it may be longer by one record.
const LARGEST: u64 = 16 << 20;
const SMALLEST: u64 = 16 << 10;
/// What is to be kept is in this many files at least, so that the oldest of them can go.
const PARTS: u64 = 16;
/// So many files of a feed that are full are open at most, and a few more until they are synced.
pub(crate) const UNSYNCED: usize = 16;

/// Whether what was written last may be gone, as after a power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    None,
    /// Nobody has seen what may be gone.
    Unseen,
    Seen,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) epoch: Epoch,
    pub(crate) salt: u32,
    pub(crate) common: Arc<Common>,
    pub(crate) left_out: LeftOut,
    state: Mutex<State>,
    /// Notifies of the end of `marking`.
    pub(crate) marked: Condvar,
    /// For those who must not wait for `state`.
    pub(crate) bytes: AtomicU64,
    pub(crate) first: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) meta: Meta,
    pub(crate) retain: Retain,
    /// Less may be to be kept than before.
    pub(crate) trims: bool,
    /// Its folder is there.
    pub(crate) created: bool,
    /// And may not be on the disk yet.
    pub(crate) new: bool,
    /// It was removed, or its store closed.
    pub(crate) closed: bool,
    /// It was removed.
    pub(crate) removed: bool,
    /// The last one is written.
    pub(crate) segments: VecDeque<Segment>,
    /// Files that are not needed any more.
    pub(crate) doomed: Vec<PathBuf>,
    pub(crate) file: Option<Arc<File>>,
    /// Earlier files that may not be on the disk yet.
    pub(crate) unsynced: Vec<Arc<File>>,
    /// A file was begun, and its folder may not be on the disk yet.
    pub(crate) begun: bool,
    /// Something was written, and will be synced.
    pub(crate) dirty: bool,
    /// A write that broke off could not be taken back.
    pub(crate) torn: bool,
    /// There was no room to mend the files. Until that is done, nothing is written, and they are read as far as they are
    /// whole.
    pub(crate) mends: Mends,
    /// What is before this number was synced, or found.
    pub(crate) synced: u64,
    /// It could not be taken back to this number yet, which has to be done before anything else.
    pub(crate) owed: Option<u64>,
    /// It could not be read when the store was reclaimed, and has to be before anything is written.
    pub(crate) unseen: bool,
    /// Why the last sync failed.
    pub(crate) failed: Option<StoreError>,
    pub(crate) next: u64,
    /// Viewers may have what is before.
    pub(crate) visible: u64,
    /// The size of all chunks that there have been, in bytes.
    pub(crate) total: u64,
    /// When the latest chunk was published, in microseconds since 1970.
    pub(crate) newest: u64,
    /// That of the latest one that was found.
    pub(crate) found: u64,
    pub(crate) mark: Mark,
    /// The store's thread writes it, while others use the feed.
    pub(crate) marking: bool,
    /// How many numbers are reserved ahead.
    pub(crate) ahead: u64,
    /// When that was done last.
    pub(crate) reserved: Instant,
    /// When it was noted last what is on the disk, where nothing is synced by time.
    pub(crate) marked: Instant,
    pub(crate) notes: Notes,
    pub(crate) filler: Option<Filler>,
    /// Publishers that wait for the disk.
    pub(crate) waiting: Vec<Waiting>,
    /// Where readers are: the next number, the file, and where in it.
    pub(crate) readers: VecDeque<(u64, u64, u64)>,
    pub(crate) used: Instant,
    pub(crate) buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) done: oneshot::Sender<Result<Vec<Receipt>, StoreError>>,
}

impl Shared {
    /// A feed that has nothing yet, not even a folder.
    pub(crate) fn new(common: &Arc<Common>, id: u64, name: &str) -> Self {
        let salt = RandomState::new().build_hasher().finish() as u32;
        let meta = Meta::new(name, Epoch::now().0, salt);
        Self::with(common, id, meta, false, segment::Found::default(), Mark::default())
    }

    /// One that is in its folder. What viewers have seen may be gone: after a power loss, or by other means.
    pub(crate) fn open(common: &Arc<Common>, id: u64, meta: Meta, doubt: Doubt) -> Result<Self, StoreError> {
        let dir = common.folder.feed(id);
        let mark = files::mark(&dir)?;
        let known = Known { synced: mark.synced, torn: doubt != Doubt::None, copied: common.copied };
        let mut found = segment::find(&dir, meta.salt, known)?;
        let seen = match doubt {
            Doubt::None => found.cut,
            Doubt::Unseen => false,
            Doubt::Seen => true,
        };
        if seen || found.next < mark.synced {
            let next = found.next.max(mark.reserved).max(mark.synced);
            if next > found.next {
                warn!(
                    feed = meta.name,
                    last = found.next.checked_sub(1),
                    continues = next,
                    "the last chunks may be lost: the feed continues after all numbers that viewers may have seen",
                );
            }
            found.notes.left_out.add(found.next, next);
            found.next = next;
        }
        // A process that was killed may not have synced what it wrote to earlier files. The last one is synced with what
        // comes.
        let is_known = mark.synced >= found.next;
        let last = found.segments.len().saturating_sub(1);
        for segment in found.segments.iter().take(last).filter(|segment| segment.next > mark.synced) {
            let path = segment::path(&dir, segment.first);
            regular::append(&path).and_then(|file| file.sync_data()).at(&path)?;
        }
        let shared = Self::with(common, id, meta, true, found, mark);
        shared.lock().begun = !is_known;
        Ok(shared)
    }

    fn with(common: &Arc<Common>, id: u64, meta: Meta, created: bool, found: segment::Found, mark: Mark) -> Self {
        let newest = found.segments.last().map_or(0, |last| last.newest);
        let shared = Self {
            dir: common.folder.feed(id),
            id,
            name: meta.name.clone(),
            epoch: Epoch(meta.epoch),
            salt: meta.salt,
            common: common.clone(),
            left_out: found.notes.left_out.clone(),
            state: Mutex::new(State {
                meta,
                retain: Retain::default(),
                trims: false,
                created,
                new: false,
                closed: false,
                removed: false,
                segments: found.segments.into(),
                doomed: Vec::new(),
                file: None,
                unsynced: Vec::new(),
                begun: false,
                dirty: false,
                torn: false,
                mends: found.mends,
                synced: found.next,
                owed: None,
                unseen: false,
                failed: None,
                next: found.next,
                visible: found.next,
                total: found.total,
                newest,
                found: newest,
                mark,
                marking: false,
                ahead: AHEAD,
                reserved: Instant::now(),
                marked: Instant::now(),
                notes: found.notes,
                filler: None,
                waiting: Vec::new(),
                readers: VecDeque::new(),
                used: Instant::now(),
                buffer: Vec::new(),
            }),
            marked: Condvar::new(),
            bytes: AtomicU64::new(0),
            first: AtomicU64::new(0),
        };
        shared.count(&shared.lock());
        shared
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// If nobody has it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Notes what is stored, for those who do not wait.
    pub(crate) fn count(&self, state: &State) {
        self.bytes.store(state.segments.iter().map(|segment| segment.len).sum(), Ordering::Relaxed);
        self.first.store(state.first(), Ordering::Relaxed);
    }

    pub(crate) fn path(&self, first: u64) -> PathBuf {
        segment::path(&self.dir, first)
    }

    /// Creates its folder, if it has none. Blocks.
    pub(crate) fn create(&self, state: &mut State) -> Result<(), StoreError> {
        if state.created {
            return Ok(());
        }
        match fs::create_dir(&self.dir) {
            // An attempt broke off.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            created => created.at(&self.dir)?,
        }
        // With that it is there. A feed that does not survive a power loss begins with another epoch.
        files::create(&self.meta(), &state.meta)?;
        (state.created, state.new) = (true, true);
        self.common.stored_lock().insert(self.name.clone(), (self.id, state.meta.clone()));
        Ok(())
    }

    /// Creates its folder, if it has none and that may be, and has it be on the disk. Blocks.
    pub(crate) fn create_now(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.created || state.closed || self.common.gate.passage() != Passage::Open {
            return Ok(());
        }
        self.common.has_room()?;
        self.create(&mut state)?;
        self.sync_new()?;
        state.new = false;
        Ok(())
    }

    pub(crate) fn meta(&self) -> PathBuf {
        self.dir.join("meta.json")
    }

    /// Has its folder be on the disk. Blocks.
    pub(crate) fn sync_new(&self) -> Result<(), StoreError> {
        let meta = self.meta();
        regular::read(&meta).and_then(|file| file.sync_all()).at(&meta)?;
        files::sync_folder(&self.dir)?;
        files::sync_folder(self.dir.parent().unwrap_or(&self.dir))
    }

    /// Begins a new file, if the last one is full or there is none. Blocks.
    pub(crate) fn roll(self: &Arc<Self>, state: &mut State, force: bool) -> Result<(), StoreError> {
        let Some(last) = state.segments.back() else { return self.begin(state) };
        let is_empty = last.next == last.first;
        match last.next != state.next
            || (!is_empty && (force || state.is_full(last)))
            || (is_empty && last.len >= LARGEST)
        {
            true => self.begin(state),
            false => self.reopen(state),
        }
    }

    fn begin(self: &Arc<Self>, state: &mut State) -> Result<(), StoreError> {
        if state.torn {
            // Only the end of the last file is looked at.
            self.reopen(state)?;
        }
        let path = self.path(state.next);
        let temporary = files::temporary(&path);
        let mut bytes = Vec::new();
        let mut notes = state.notes.all();
        notes.extend(notes::of_left_out(&self.left_out));
        record::write(&mut bytes, self.salt, (state.next, state.total, state.newest), &[], &notes);
        let mut file = regular::create(&temporary).at(&temporary)?;
        if let Err(error) = file.write_all(&bytes) {
            let _ = fs::remove_file(&temporary);
            return Err(error).at(&path);
        }
        // It takes the place of one that has nothing but notes.
        let replaces = state.segments.back().is_some_and(|last| last.first == state.next);
        if replaces {
            file.sync_all().at(&path)?;
        }
        fs::rename(&temporary, &path).at(&path)?;
        if replaces {
            state.segments.pop_back();
        }
        drop(file);
        if let Some(last) = state.file.take() {
            state.unsynced.push(last);
            if state.unsynced.len() >= UNSYNCED {
                self.common.work.urge();
            }
        }
        let (first, len) = (state.next, bytes.len() as u64);
        let newest = state.newest.min(record::micros(SystemTime::now()));
        state.segments.push_back(Segment { first, next: first, len, head: len, newest, ..Segment::default() });
        (state.torn, state.begun) = (false, true);
        self.dirty(state);
        self.reopen(state)?;
        self.retain(state);
        Ok(())
    }

    /// Has what was written be synced.
    pub(crate) fn dirty(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.dirty, true) {
            self.common.work.dirty(self.clone());
        }
    }

    /// Opens the last file, if it is not open. Blocks.
    fn reopen(&self, state: &mut State) -> Result<(), StoreError> {
        if state.file.is_none() {
            let Some(last) = state.segments.back() else { return Ok(()) };
            let path = self.path(last.first);
            state.file = Some(Arc::new(regular::append(&path).at(&path)?));
        }
        if state.torn {
            self.take_back(state).at(&self.dir)?;
        }
        Ok(())
    }

    /// Cuts off what a write left that broke off.
    pub(crate) fn take_back(&self, state: &mut State) -> std::io::Result<()> {
        state.torn = true;
        if let (Some(file), Some(last)) = (&state.file, state.segments.back()) {
            file.set_len(last.len)?;
        }
        state.torn = false;
        Ok(())
    }

    /// Gives up the oldest files beyond what is to be kept. They are removed later.
    pub(crate) fn retain(&self, state: &mut State) {
        let bytes = state.retain.bytes;
        let limit = self.oldest(state);
        let mut kept: u64 = state.segments.iter().map(Segment::body).sum();
        while state.segments.len() > 1
            && let Some(first) = state.segments.front()
            && (bytes.is_some_and(|bytes| is_beyond(bytes, kept, first.body(), state.trims)) || state.is_older(limit))
        {
            kept -= first.body();
            let path = self.path(first.first);
            state.doomed.push(path);
            state.segments.pop_front();
        }
        self.count(state);
    }

    /// What was published before that time is too old, and the time now.
    fn oldest(&self, state: &State) -> Option<(Duration, Duration)> {
        let age = state.retain.age?;
        let (now, begun) = self.common.clock.now(age);
        let now = Duration::from_micros(record::micros(now));
        let believed = match begun {
            Some(begun) => now.min(Duration::from_micros(state.found) + begun),
            None => now,
        };
        Some((believed.saturating_sub(age), now))
    }

    /// Whether all chunks of the last file have been kept for their time.
    pub(crate) fn has_aged(&self, state: &State) -> bool {
        let Some((oldest, now)) = self.oldest(state) else { return false };
        state.segments.back().is_some_and(|last| {
            let newest = Duration::from_micros(last.newest);
            let aged =
                newest < oldest || (clock::is_ahead(newest, now) && state.retain.age < Some(state.used.elapsed()));
            last.next > last.first && aged
        })
    }

    /// Removes files that are not needed any more. Blocks.
    pub(crate) fn clear(&self) {
        let doomed = {
            let mut state = self.lock();
            match state.dirty || state.failed.is_some() {
                // What replaces them may not be on the disk yet.
                true => return,
                false => std::mem::take(&mut state.doomed),
            }
        };
        self.remove(doomed);
    }

    /// Removes files; those that cannot be removed now, later. Blocks.
    pub(crate) fn remove(&self, files: Vec<PathBuf>) {
        for path in files {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != ErrorKind::NotFound
            {
                info!(file = %path.display(), %error, "cannot remove a file that is no longer needed: trying again");
                self.lock().doomed.push(path);
            }
        }
    }
}

/// Whether the oldest of the files can go. Where less is to be kept than before, one that is larger than usual is trimmed
/// first.
fn is_beyond(bytes: u64, kept: u64, oldest: u64, trims: bool) -> bool {
    let least = if trims { 0 } else { (2 * SMALLEST).min(bytes) };
    kept > bytes && kept - oldest >= bytes - (bytes / (PARTS / 2)).max(least)
}

impl State {
    /// The oldest number that is stored; that of the next chunk, if none is.
    pub(crate) fn first(&self) -> u64 {
        let with_chunks = self.segments.iter().find(|segment| segment.next > segment.first);
        with_chunks.map_or(self.next, |segment| segment.first)
    }

    /// Whether so many more numbers are reserved.
    pub(crate) fn has_room(&self, many: u64) -> bool {
        self.next.saturating_add(many) <= self.mark.reserved
    }

    /// Whether the oldest file is too old. If it was written by a clock that was ahead, the next one tells.
    fn is_older(&self, limit: Option<(Duration, Duration)>) -> bool {
        let Some((oldest, now)) = limit else { return false };
        let mut newest = self.segments.iter().map(|segment| Duration::from_micros(segment.newest));
        newest.find(|newest| !clock::is_ahead(*newest, now)).is_some_and(|newest| newest < oldest)
    }

    /// Whether the last file has had its time.
    pub(crate) fn is_full(&self, last: &Segment) -> bool {
        let Retain { bytes, age } = self.retain;
        // One begins with all notes: so it has as much else, at least.
        let largest = bytes.map_or(LARGEST, |bytes| (bytes / PARTS).clamp(SMALLEST, LARGEST)).max(last.head);
        let began = Duration::from_micros(last.oldest.unwrap_or(u64::MAX));
        let now = Duration::from_micros(record::micros(SystemTime::now()));
        last.body() >= largest || age.is_some_and(|age| now.abs_diff(began) > age / PARTS as u32)
    }
}
