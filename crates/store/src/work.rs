//! The store's thread: has what was written reach the disk, reserves numbers, begins and removes files.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::{error, info};

use crate::{
    Fsync, StoreError,
    error::At,
    files, segment,
    shared::{MOST_AHEAD, Shared, State, Waiting},
    store::Common,
};

/// How often files are looked at that have had their time.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often numbers are reserved ahead where nothing is synced by time.
const RESERVE: Duration = Duration::from_millis(100);
/// Numbers that are used up faster than that are reserved in larger numbers.
const OFTEN: Duration = Duration::from_secs(10);
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

/// What the thread does, until it is stopped.
pub(crate) fn run(common: &Arc<Common>) {
    let _running = Running(&common.work);
    let mut tidied = Instant::now();
    while let Some(feeds) = common.work.next(common.options.fsync, tidied + HOUSEKEEPING) {
        sync(common, feeds);
        if tidied.elapsed() >= HOUSEKEEPING {
            tidied = Instant::now();
            tidy(&common.open());
            for dir in std::mem::take(&mut common.work.lock().removed) {
                // What is left is removed when the store is opened next.
                let _ = fs::remove_dir_all(dir);
            }
        }
    }
    let feeds = std::mem::take(&mut common.work.lock().dirty);
    sync(common, feeds);
}

/// Has what was written to these feeds reach the disk.
pub(crate) fn sync(common: &Arc<Common>, feeds: Vec<Arc<Shared>>) {
    let never = common.options.fsync == Fsync::Never;
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
        if synced.is_err() {
            self.common.doubt();
        }
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Err(error) = synced {
            if state.failed.as_ref().is_none_or(|failed| failed.to_string() != error.to_string()) {
                error!(feed = self.name, %error, "what was written did not reach the disk: publishing is refused until it does");
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
                self.take_back_to(state, state.visible);
            }
            drop(guard);
            return;
        }
        if state.failed.take().is_some() {
            info!(feed = self.name, "what was written is on the disk: publishing is possible again");
        }
        state.synced = state.synced.max(written.next);
        if self.common.options.fsync != Fsync::Never {
            state.mark.synced = state.mark.synced.max(written.next);
        }
        if always {
            state.visible = written.next;
            for Waiting { chunks, receipts, done } in written.waiting {
                if let Some(filler) = &state.filler {
                    chunks.into_iter().for_each(|chunk| filler.add(chunk));
                }
                let _ = done.send(Ok(receipts));
            }
        }
        let full = always && !state.dirty && state.segments.back().is_some_and(|last| state.is_full(last));
        let short = !always && state.mark.reserved.saturating_sub(state.next) < state.ahead / 2;
        // After a power loss, what is known to be on the disk is not read before the store serves.
        let known =
            written.begun && self.common.options.fsync != Fsync::Never && state.reserved.elapsed() >= HOUSEKEEPING;
        if state.created && !state.closed && (short || known) {
            // Publishers that come meanwhile wait, without blocking a worker. So where that comes often, it comes seldom.
            if short && state.reserved.elapsed() < OFTEN {
                state.ahead = (2 * state.ahead).min(MOST_AHEAD);
            }
            if let Err(error) = self.reserve(state, 0) {
                info!(feed = self.name, %error, "numbers cannot be reserved yet");
            }
        }
        if full && let Err(error) = self.roll(state, false) {
            info!(feed = self.name, %error, "a new file cannot be begun yet");
        }
        drop(guard);
        // While others write on.
        self.remove(written.doomed);
        self.clear();
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
            let found = segment::find(&self.dir, self.salt, 0, false)?;
            (state.next, state.total, state.notes) = (next, found.total, found.notes);
            state.newest = found.segments.last().map_or(0, |last| last.newest);
            state.segments = found.segments.into();
            // Those that are to go are among them again.
            state.doomed.clear();
            Ok::<_, StoreError>(())
        })();
        // Until that is done, nothing is published.
        state.owed = taken_back.is_err().then_some(next);
        if let Err(error) = taken_back {
            error!(feed = self.name, %error, "what did not reach the disk could not be taken back");
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
        state.notes.expire();
        if state.used.elapsed() > IDLE {
            state.buffer = Vec::new();
        }
        if !state.dirty
            && state.has_aged()
            && let Err(error) = feed.roll(state, true)
        {
            info!(feed = feed.name, %error, "a new file cannot be begun yet");
        }
        feed.retain(state);
        open += usize::from(state.file.is_some());
        if open > OPEN && !state.dirty && state.unsynced.is_empty() && state.used.elapsed() > IDLE {
            state.file = None;
        }
        drop(guard);
        feed.clear();
    }
}

/// Feeds that are open, by name.
pub(crate) type Open = Mutex<HashMap<String, Weak<Shared>>>;

#[cfg(test)]
mod tests;
