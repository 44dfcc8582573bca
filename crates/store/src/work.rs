//! The store's thread: has what was written reach the disk, reserves numbers, begins and removes files.

use std::{
    collections::HashMap,
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tracing::{error, info};

use crate::{
    Fsync, StoreError,
    error::At,
    files,
    segment::{self, Known},
    shared::{Shared, State, Waiting},
    store::{Common, Passage},
};

/// How often files are looked at that have had their time.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often numbers are reserved ahead where nothing is synced by time.
const RESERVE: Duration = Duration::from_millis(100);
/// With more feeds than that, their file system is synced as a whole, which takes less time.
const MANY: usize = 128;
/// A file that was not written for so long is closed where many are open.
const IDLE: Duration = Duration::from_secs(5);
const OPEN: usize = 256;

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Work {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// The thread has panicked: nothing would reach the disk any more.
    lost: AtomicBool,
}

/// Notices a panic of the thread.
struct Running<'a>(&'a Work);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!("the thread that writes feeds to the disk has panicked: publishing is refused until a restart");
            self.0.lost.store(true, Ordering::SeqCst);
            // Of those who wait, and did not see that.
            let dirty = std::mem::take(&mut self.0.lock().dirty);
            dirty.iter().for_each(|feed| feed.lock().waiting.clear());
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    dirty: Vec<Arc<Shared>>,
    /// When the first of them was written.
    since: Option<Instant>,
    /// Feeds that are to be removed.
    going: Vec<u64>,
    /// Folders of feeds that were removed.
    removed: Vec<PathBuf>,
    /// Publishers wait, or too many files are open.
    urgent: bool,
    stop: bool,
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody does it any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Nobody does it: the thread could not be started.
    pub(crate) fn lose(&self, error: &io::Error) {
        error!(%error, "the thread that writes feeds to the disk cannot be started: publishing is refused until a restart");
        self.lost.store(true, Ordering::SeqCst);
    }

    /// Something was written.
    pub(crate) fn dirty(&self, feed: Arc<Shared>) {
        let mut queue = self.lock();
        queue.dirty.push(feed);
        if queue.dirty.len() == 1 {
            queue.since = Some(Instant::now());
            self.wake.notify_one();
        }
    }

    /// It must not wait for its time.
    pub(crate) fn urge(&self) {
        self.lock().urgent = true;
        self.wake.notify_one();
    }

    /// Removes feeds, soon.
    pub(crate) fn remove_feeds(&self, ids: Vec<u64>) {
        self.lock().going.extend(ids);
    }

    /// Removes a folder, soon.
    pub(crate) fn remove(&self, dir: PathBuf) {
        self.lock().removed.push(dir);
    }

    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    /// What is to be synced now. Empty if it is time for other things.
    fn next(&self, fsync: Fsync, until: Instant) -> Option<Vec<Arc<Shared>>> {
        let mut queue = self.lock();
        loop {
            if queue.stop {
                return None;
            }
            let now = Instant::now();
            let due = match fsync {
                _ if queue.dirty.is_empty() => until,
                _ if queue.urgent => now,
                Fsync::Always | Fsync::Never => queue.since.unwrap_or(now) + RESERVE,
                Fsync::Every(interval) => queue.since.unwrap_or(now) + interval,
            };
            if due <= now {
                queue.urgent = false;
                return Some(std::mem::take(&mut queue.dirty));
            }
            if until <= now {
                return Some(Vec::new());
            }
            queue = self.wake.wait_timeout(queue, due.min(until) - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Has the thread run, until it is stopped.
pub(crate) fn start(common: &Arc<Common>) -> io::Result<JoinHandle<()>> {
    common.work.lock().stop = false;
    let common = common.clone();
    std::thread::Builder::new().name("h3cast-store".into()).spawn(move || run(&common))
}

fn run(common: &Arc<Common>) {
    let _running = Running(&common.work);
    let mut tidied = Instant::now();
    while let Some(feeds) = common.work.next(common.options.fsync, tidied + HOUSEKEEPING) {
        sync(common, feeds);
        if tidied.elapsed() >= HOUSEKEEPING {
            tidied = Instant::now();
            keep_house(common);
        }
    }
    sync_dirty(common);
    common.remove_going();
}

/// Does what has time.
fn keep_house(common: &Arc<Common>) {
    if common.gate.passage() != Passage::Open || common.folder.still_there().is_err() {
        return;
    }
    common.settle();
    common.note_open_again();
    tidy(&common.open());
    common.remove_going();
    for dir in std::mem::take(&mut common.work.lock().removed) {
        // What is left is removed when the store is opened next.
        let _ = fs::remove_dir_all(dir);
    }
}

fn sync_dirty(common: &Arc<Common>) {
    let feeds = std::mem::take(&mut common.work.lock().dirty);
    sync(common, feeds);
}

impl Common {
    /// Removes the feeds that are to be. Blocks.
    fn remove_going(&self) {
        let going = std::mem::take(&mut self.work.lock().going);
        self.remove_all(going);
    }
}

/// Has what was written to these feeds reach the disk.
pub(crate) fn sync(common: &Arc<Common>, feeds: Vec<Arc<Shared>>) {
    if let Err(gone) = common.folder.still_there() {
        for feed in feeds {
            let written = feed.lock().take_written();
            feed.synced(written, Err(gone.clone()));
        }
        return;
    }
    let never = common.options.fsync == Fsync::Never;
    // Publishers may have used them up before all of it is on the disk.
    feeds.iter().for_each(|feed| feed.reserve_ahead(false));
    let again: Vec<_> = feeds.iter().map(|feed| feed.write_again()).collect();
    let written: Vec<_> = feeds.iter().map(|feed| feed.lock().take_written()).collect();
    let begun = Instant::now();
    let together = !never && feeds.len() > MANY && sync_all(&written);
    if together {
        common.count_sync(begun);
    }
    for ((feed, written), again) in feeds.iter().zip(written).zip(again) {
        let synced = again.and_then(|()| match never || together {
            true => Ok(()),
            false => {
                let begun = Instant::now();
                let synced = feed.sync(&written);
                common.count_sync(begun);
                synced
            }
        });
        feed.synced(written, synced);
    }
}

fn sync_all(written: &[Written]) -> bool {
    let file = written.iter().find_map(|written| written.files.last());
    file.is_some_and(|file| files::sync_file_system(file))
}

/// What was written since the last sync.
#[derive(Default)]
struct Written {
    files: Vec<Arc<std::fs::File>>,
    /// A file was begun.
    begun: bool,
    /// The feed was created.
    new: bool,
    next: u64,
    waiting: Vec<Waiting>,
    /// Files that are not needed any more once this is on the disk.
    doomed: Vec<PathBuf>,
}

impl State {
    fn take_written(&mut self) -> Written {
        let mut files = std::mem::take(&mut self.unsynced);
        let (begun, new) = (std::mem::take(&mut self.begun), std::mem::take(&mut self.new));
        files.extend(self.file.clone());
        self.dirty = false;
        let (waiting, doomed) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.doomed));
        Written { files, begun, new, next: self.next, waiting, doomed }
    }
}

impl Shared {
    /// Has what was written reach the disk, and leaves it to the thread to note that. Blocks, and holds no lock meanwhile.
    pub(crate) fn flush(self: &Arc<Self>) -> Result<(), StoreError> {
        let files: Vec<_> = {
            let state = self.lock();
            state.unsynced.iter().chain(&state.file).cloned().collect()
        };
        let begun = Instant::now();
        let synced = files.iter().try_for_each(|file| file.sync_data()).at(&self.dir);
        self.common.count_sync(begun);
        if let Err(error) = &synced {
            // The system reports that once: what is in doubt is written again, as after any sync that fails.
            self.synced(Written { begun: true, new: true, ..Written::default() }, Err(error.clone()));
        }
        synced
    }

    fn sync(&self, written: &Written) -> Result<(), StoreError> {
        for file in &written.files {
            file.sync_data().at(&self.dir)?;
        }
        if written.new {
            self.sync_new()?;
        }
        if written.begun { files::sync_folder(&self.dir) } else { Ok(()) }
    }

    /// Confirms what is on the disk, and prepares for what comes.
    fn synced(self: &Arc<Self>, written: Written, synced: Result<(), StoreError>) {
        let always = self.common.options.fsync == Fsync::Always;
        if synced.is_err() && !self.lock().removed {
            self.common.doubt();
        }
        let mut guard = self.lock();
        if guard.removed {
            // With its files: the disk has not failed. Those who wait are refused as their senders go.
            guard.waiting.clear();
            return;
        }
        let state = &mut *guard;
        if let Err(error) = synced {
            if state.failed.as_ref().is_none_or(|failed| failed.to_string() != error.to_string()) {
                error!(feed = self.name, %error, "flushing to the disk failed: publishers are refused until it works");
            }
            state.failed = Some(error.clone());
            state.unsynced.extend(written.files);
            state.begun |= written.begun;
            state.new |= written.new;
            state.doomed.extend(written.doomed);
            if always {
                // Nobody was given it: its numbers are free again.
                let waiting = written.waiting.into_iter().chain(std::mem::take(&mut state.waiting));
                waiting.for_each(|waiting| _ = waiting.done.send(Err(error.clone())));
                match error {
                    // There is nothing to take it back in, unless it returns.
                    StoreError::Gone(_) => state.owed = Some(state.visible),
                    _ => self.take_back_to(state, state.visible),
                }
            }
            drop(guard);
            return;
        }
        if state.failed.take().is_some() {
            info!(feed = self.name, "flushing to the disk works again, and so does publishing");
        }
        if self.common.options.fsync != Fsync::Never {
            state.synced = state.synced.max(written.next);
            state.mark.synced = state.mark.synced.max(written.next);
        }
        if always {
            state.visible = written.next;
            for Waiting { chunks, receipts, done } in written.waiting {
                if let Some(filler) = &state.filler {
                    filler.add_all(chunks);
                }
                let _ = done.send(Ok(receipts));
            }
        }
        let full = always && !state.dirty && state.segments.back().is_some_and(|last| state.is_full(last));
        // After a power loss, what is known to be on the disk is not read before the store serves.
        let known =
            written.begun && self.common.options.fsync != Fsync::Never && state.reserved.elapsed() >= HOUSEKEEPING;
        if full && let Err(error) = self.roll(state, false) {
            info!(feed = self.name, %error, "cannot create the next file of the feed yet: trying again");
        }
        drop(guard);
        // While others write on.
        self.reserve_ahead(known);
        self.remove(written.doomed);
        self.clear();
    }

    /// Reserves numbers if few are left, or what is on the disk is to be noted.
    fn reserve_ahead(&self, known: bool) {
        if let Err(error) = self.reserve_meanwhile(known) {
            info!(feed = self.name, %error, "cannot update the feed's mark.json yet: trying again");
        }
    }

    /// Has the sync of what was written fail.
    #[cfg(test)]
    pub(crate) fn fail_for_test(self: &Arc<Self>, error: StoreError) {
        let written = self.lock().take_written();
        self.synced(written, Err(error));
    }

    /// Has the feed end before the number `next` again.
    pub(crate) fn take_back_to(&self, state: &mut State, next: u64) {
        let taken_back = (|| {
            let Some(last) = state.segments.back_mut() else { return Ok(()) };
            let path = self.path(last.first);
            last.len = segment::end(&path, self.salt, next).at(&path)?;
            state.torn = true;
            self.take_back(state).at(&path)?;
            let found = segment::find(&self.dir, self.salt, Known::default())?;
            if !found.mends.is_empty() {
                return Err(StoreError::Full(path));
            }
            (state.next, state.total, state.notes) = (next, found.total, found.notes);
            state.newest = found.segments.last().map_or(0, |last| last.newest);
            state.segments = found.segments.into();
            state.mends.clear();
            // Those that are to go are among them again.
            state.doomed.clear();
            Ok::<_, StoreError>(())
        })();
        // Until that is done, nothing is published.
        state.owed = taken_back.is_err().then_some(next);
        if let Err(error) = taken_back {
            error!(feed = self.name, %error, "cannot remove chunks whose flush failed: publishers are refused until it works");
            state.failed = Some(error);
        }
        self.count(state);
    }
}

/// Removes what has been kept for its time, closes files that are not used, and tries again what failed.
fn tidy(feeds: &[Arc<Shared>]) {
    let mut open = 0;
    for feed in feeds {
        let mut guard = feed.lock();
        let state = &mut *guard;
        if state.closed {
            continue;
        }
        if state.failed.is_some() && !state.dirty {
            state.dirty = true;
            feed.common.work.dirty(feed.clone());
        }
        // Until then, nothing changes but what goes.
        let is_usable = feed.common.has_room().is_ok();
        state.notes.expire();
        if state.used.elapsed() > IDLE {
            state.buffer = Vec::new();
        }
        if is_usable
            && !state.dirty
            && feed.has_aged(state)
            && let Err(error) = feed.roll(state, true)
        {
            info!(feed = feed.name, %error, "cannot create the next file of the feed yet: trying again");
        }
        feed.retain(state);
        open += usize::from(state.file.is_some());
        if open > OPEN && !state.dirty && state.unsynced.is_empty() && state.used.elapsed() > IDLE {
            state.file = None;
        }
        drop(guard);
        if is_usable {
            feed.trim();
        }
        feed.clear();
        if is_usable {
            feed.note_full();
        }
    }
}

/// Feeds that are open, by name.
pub(crate) type Open = Mutex<HashMap<String, Weak<Shared>>>;

mod full;
#[cfg(test)]
mod tests;
