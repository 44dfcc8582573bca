//! A store that goes from one process to the next while both run: the one that has it releases it, the next opens it
//! held, and its writes begin once it is certain that the first does not reclaim it.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use tokio::sync::watch;
use tracing::{debug, error};

use super::{Common, Inside, Store};
use crate::{
    Fsync, StoreError,
    error::At,
    files::{self, State},
    look::Feeds,
    segment::{self, Known},
    shared::Shared,
    work,
};

/// Whether something may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    Open,
    /// Writes wait.
    Held,
    /// Writes wait, and another process may have the folder.
    Released,
    /// Another process has it for good.
    Moved,
}

/// Where writes wait.
#[derive(Debug)]
pub(crate) struct Gate(watch::Sender<Passage>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(Passage::Open))
    }
}

impl Gate {
    pub(crate) fn passage(&self) -> Passage {
        *self.0.borrow()
    }

    /// Whether the folder may be another process's.
    pub(crate) fn is_released(&self) -> bool {
        matches!(self.passage(), Passage::Released | Passage::Moved)
    }

    /// Waits until writes need not wait.
    pub(crate) async fn waited(&self) {
        let waits = |passage: &Passage| matches!(passage, Passage::Held | Passage::Released);
        // Its sender is here.
        let _ = self.0.subscribe().wait_for(|passage| !waits(passage)).await;
    }

    pub(super) fn set(&self, passage: Passage) {
        self.0.send_replace(passage);
    }
}

impl Store {
    /// Has writes wait, until it is [resumed](Self::resume) or closed. No feed is removed meanwhile, either: what another
    /// process has released stays as it is, and can be reclaimed there.
    pub fn hold(&self) {
        let inside = self.lock();
        if let Some(common) = inside.common.as_ref().filter(|common| common.gate.passage() == Passage::Open) {
            common.gate.set(Passage::Held);
        }
    }

    /// Has writes continue that [wait](Self::hold).
    pub fn resume(&self) {
        let mut inside = self.lock();
        if let Some(common) = inside.common.clone().filter(|common| common.gate.passage() == Passage::Held) {
            common.gate.set(Passage::Open);
            // This does not block.
            common.work.remove_feeds(std::mem::take(&mut inside.going));
        }
    }

    /// Has most of what was written be on the disk, while writes continue: [`release`](Self::release) takes less time after
    /// it.
    ///
    /// # Errors
    ///
    /// If it does not reach the disk, and if the store was closed or released.
    pub fn flush(&self) -> Result<(), StoreError> {
        let common = self.lock().common.clone().ok_or(StoreError::Closed)?;
        if common.gate.is_released() {
            return Err(StoreError::Moved);
        }
        match common.options.fsync {
            // Nobody was given what is not there.
            Fsync::Always => Ok(()),
            Fsync::Every(_) => common.open().iter().try_for_each(|shared| shared.flush()),
            Fsync::Never => common.sync_all().inspect_err(|_| common.doubt()),
        }
    }

    /// Gives the store up to another process, which can open it from then on: what was written is on the disk, and
    /// further writes wait. What is stored can still be read. [`reclaim`](Self::reclaim) takes it back;
    /// [`close`](Self::close) ends the writes that wait, as those of feeds that have ended.
    ///
    /// # Errors
    ///
    /// If what was written does not reach the disk, and if the store was closed or released; while it
    /// [is full](Self::is_full), [`StoreError::Full`]. It is not released then, and writes continue.
    pub fn release(&self) -> Result<(), StoreError> {
        let (common, thread, open) = {
            let mut inside = self.lock();
            let common = inside.common.clone().ok_or(StoreError::Closed)?;
            if common.gate.is_released() {
                return Err(StoreError::Moved);
            }
            common.folder.still_there()?;
            common.has_room()?;
            common.gate.set(Passage::Held);
            (common.clone(), inside.thread.take(), common.open())
        };
        // Writes that are not among those that wait end before.
        open.iter().for_each(|shared| drop(shared.lock()));
        let released = common.come_to_rest(thread, &open, |shared| shared.finish(&mut shared.lock()));
        let mut inside = self.lock();
        match released {
            Ok(()) => {
                common.folder.unlock();
                common.gate.set(Passage::Released);
            }
            // It is still this process's.
            Err(_) => {
                inside.remove_going(&common);
                inside.begin_anyway(&common);
                common.gate.set(Passage::Open);
            }
        }
        released
    }

    /// Takes back what was [released](Self::release), and has the writes that wait continue. Does nothing if it was not
    /// released.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open): as long as another process has the store, [`StoreError::Locked`]. It stays released then.
    pub fn reclaim(&self) -> Result<(), StoreError> {
        let mut inside = self.lock();
        let common = inside.common.clone().ok_or(StoreError::Closed)?;
        match common.gate.passage() {
            Passage::Open | Passage::Held => return Ok(()),
            Passage::Moved => return Err(StoreError::Moved),
            Passage::Released => {}
        }
        common.folder.lock_again()?;
        inside.remove_going(&common);
        if let Err(error) = inside.look_again(&common).and_then(|()| inside.begin(&common)) {
            common.folder.unlock();
            return Err(error);
        }
        common.gate.set(Passage::Open);
        Ok(())
    }
}

impl Inside {
    /// Finds what another process may have changed.
    fn look_again(&mut self, common: &Arc<Common>) -> Result<(), StoreError> {
        let mut feeds = Feeds::look(common.folder.dir(), false)?;
        feeds.tidy(common.folder.dir())?;
        let Feeds { stored, next, .. } = feeds;
        self.next = self.next.max(next);
        *common.stored_lock() = stored;
        // All of it is looked at again.
        common.forget_unsettled();
        for shared in common.open() {
            if let Err(error) = shared.look_again() {
                error!(feed = shared.name, %error, "cannot read a feed any more: its publishers are refused until that works");
                let mut state = shared.lock();
                (state.unseen, state.failed) = (true, Some(error));
            }
        }
        Ok(())
    }

    /// Notes that the store is open, and has its thread run.
    pub(super) fn begin(&mut self, common: &Arc<Common>) -> Result<(), StoreError> {
        // As long as something is in doubt, that is to be known of the next start, too.
        if common.is_unsettled() {
            common.unopened.store(true, Ordering::Relaxed);
        } else {
            match common.note_open() {
                // A server that was killed on a full disk can at least show what it has.
                Err(error @ StoreError::Full(_)) if common.folder.state().exists() => {
                    debug!(%error, "nothing can be written until there is room");
                    common.unopened.store(true, Ordering::Relaxed);
                }
                noted => noted?,
            }
        }
        self.thread = Some(work::start(common).at(common.folder.dir())?);
        Ok(())
    }

    /// The same where it was open before: the thread notes it once that is possible.
    fn begin_anyway(&mut self, common: &Arc<Common>) {
        let noted = common.note_open();
        common.unnoted.store(noted.is_err(), Ordering::Relaxed);
        match work::start(common) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => common.work.lose(&error),
        }
    }
}

impl Common {
    /// Notes that the store is open. Blocks.
    pub(super) fn note_open(&self) -> Result<(), StoreError> {
        let always = self.options.fsync == Fsync::Always;
        let boot = files::boot().filter(|_| !self.doubtful.load(Ordering::Relaxed));
        let place = self.folder.place();
        files::replace(&self.folder.state(), &State { closed: false, always, boot, place })
    }

    /// Notes that the store is open, where it was before and that could not be noted. Blocks.
    pub(crate) fn note_open_again(&self) {
        if self.unnoted.load(Ordering::Relaxed) && !self.is_unopened() && self.note_open().is_ok() {
            self.unnoted.store(false, Ordering::Relaxed);
        }
    }

    /// Ends the thread, has all that was written be on the disk, and notes that. What is open is brought to its end by
    /// `finish`. Blocks.
    pub(super) fn come_to_rest(
        &self,
        thread: Option<JoinHandle<()>>,
        open: &[Arc<Shared>],
        finish: impl Fn(&Shared) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.work.stop();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        self.folder.still_there()?;
        if self.is_unopened() {
            // Nothing was published. What was in doubt still is, as the folder says.
            return Ok(());
        }
        let mut rests = match self.options.fsync {
            // Also what was written to feeds that are not open any more.
            Fsync::Never => self.sync_all(),
            _ => Ok(()),
        };
        let is_written = rests.is_ok();
        for shared in open.iter().filter(|_| is_written) {
            rests = rests.and(finish(shared));
        }
        match rests {
            Ok(()) => {
                let place = self.folder.place();
                let state = State { closed: true, always: false, boot: files::boot(), place };
                rests = files::replace(&self.folder.state(), &state);
                self.doubtful.store(false, Ordering::Relaxed);
            }
            Err(_) => self.doubt(),
        }
        rests
    }
}

impl Shared {
    /// Finds what is stored of it. Blocks.
    pub(crate) fn look_again(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let meta = self.meta();
        // Another process may have written since to what was to be mended.
        state.mends.clear();
        if !state.created && !meta.try_exists().at(&meta)? {
            state.unseen = false;
            return Ok(());
        }
        let mark = files::mark(&self.dir)?;
        let found = segment::find(&self.dir, self.salt, Known { synced: mark.synced, ..Known::default() })?;
        // No number is given twice.
        let (before, next) = (state.next, found.next.max(state.next).max(mark.synced));
        state.newest = found.segments.last().map_or(state.newest, |last| last.newest);
        (state.created, state.mark, state.notes, state.total) = (true, mark, found.notes, found.total.max(state.total));
        (state.next, state.visible, state.synced) = (next, next, next);
        state.segments = found.segments.into();
        // They are among those that were found, or gone.
        state.doomed.clear();
        state.mends = found.mends;
        state.readers.clear();
        (state.file, state.torn, state.owed, state.unseen) = (None, false, None, false);
        if next > before
            && let Some(filler) = &state.filler
        {
            filler.skip_to(next);
        }
        self.retain(state);
        let is_torn = !state.mends.is_empty();
        drop(guard);
        if is_torn {
            self.common.settle_later(self);
        }
        Ok(())
    }
}
