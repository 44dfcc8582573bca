//! Bringing a feed's files to a state that the next start can rely on: once it is open, and when it is closed.
//!
//! If the disk is too full for that at the start, the store can be read, and refuses chunks. Its thread alone settles what
//! is in doubt, and then notes that the store is open. A start before that finds the same doubt.

use std::sync::{Arc, atomic::Ordering};

use tracing::{debug, error, info, warn};

use super::Common;
use crate::{
    StoreError,
    error::At,
    files::{self, Mark},
    segment,
    shared::{Shared, State},
};

/// What could not be settled, since the disk was full.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// They stay open until they are.
    feeds: Vec<Arc<Shared>>,
    /// What they have written since may not be on the disk.
    unsynced: bool,
    /// It is not: the system takes it for written.
    lost: bool,
}

impl Common {
    /// Whether it is not noted yet that the store is open.
    #[inline]
    pub(crate) fn is_unopened(&self) -> bool {
        self.unopened.load(Ordering::Relaxed)
    }

    /// Fails as long as something has to be done first for which there was no room.
    #[inline]
    pub(crate) fn has_room(&self) -> Result<(), StoreError> {
        match self.is_unopened() || self.unsettling.load(Ordering::Relaxed) {
            true => Err(StoreError::Full(self.folder.dir().into())),
            false => Ok(()),
        }
    }

    pub(super) fn is_unsettled(&self) -> bool {
        !self.unsettled_lock().feeds.is_empty()
    }

    /// There was no room to settle a feed. The caller has no feed's lock.
    pub(super) fn settle_later(&self, feed: &Arc<Shared>) {
        let mut unsettled = self.unsettled_lock();
        if !unsettled.feeds.iter().any(|other| Arc::ptr_eq(other, feed)) {
            unsettled.feeds.push(feed.clone());
        }
        unsettled.unsynced = true;
        self.unsettling.store(true, Ordering::Relaxed);
    }

    /// Only while the store's thread does not run, which would take them for settled.
    pub(super) fn forget_unsettled(&self) {
        self.unsettled_lock().feeds.clear();
    }

    /// Does what there was no room for, by the store's thread. Blocks.
    pub(crate) fn settle(&self) {
        if self.has_room().is_err() {
            match self.settle_all(&mut self.unsettled_lock()) {
                Ok(()) => info!("there is room on the disk: the store is written again"),
                Err(error @ StoreError::Full(_)) => debug!(%error, "the store cannot be written yet"),
                Err(error) => warn!(%error, "cannot repair the store: publishers are refused"),
            }
        }
    }

    fn settle_all(&self, unsettled: &mut Unsettled) -> Result<(), StoreError> {
        if unsettled.lost {
            return self.has_room();
        }
        while let Some(feed) = unsettled.feeds.last() {
            feed.settle()?;
            unsettled.feeds.pop();
        }
        if self.is_unopened() {
            if unsettled.unsynced {
                let lost = |error: &_| error!(%error, "cannot flush what was repaired after a crash: publishers are refused until a restart");
                self.sync_all().inspect_err(lost).inspect_err(|_| unsettled.lost = true)?;
                unsettled.unsynced = false;
            }
            self.note_open()?;
            self.unopened.store(false, Ordering::Relaxed);
        }
        self.unsettling.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl Shared {
    /// Writes down where it continues, so that what was in doubt is not any more: before the store's thread runs, or by it,
    /// which alone writes `mark.json` while nothing is published. Blocks.
    pub(super) fn settle(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.removed {
            return Ok(());
        }
        segment::mend(&self.dir, &mut state.mends)?;
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let next = state.next;
        let mark = Mark { reserved: state.mark.reserved.max(next), synced: state.mark.synced.min(next) };
        self.roll(&mut state, false)?;
        self.write_mark(&mark)?;
        state.mark = mark;
        Ok(())
    }

    /// Notes that all of it is on the disk. Blocks.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.closed = true;
        self.finish(&mut state)?;
        state.filler = None;
        Ok(())
    }

    /// Has what was written be on the disk. Blocks.
    pub(super) fn finish(&self, state: &mut State) -> Result<(), StoreError> {
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        // What is not mended was not written. It is looked at when the feed is opened next.
        if state.created && state.mends.is_empty() {
            let synced = self.sync_rest(state);
            // What a sync has failed for is in doubt from then on.
            state.failed = synced.as_ref().err().cloned();
            synced?;
            (state.file, state.new, state.begun) = (None, false, false);
            state.unsynced.clear();
            let mark = Mark { reserved: state.mark.reserved.max(state.next), synced: state.next };
            self.write_mark(&mark)?;
            state.mark = mark;
        }
        Ok(())
    }

    fn sync_rest(&self, state: &State) -> Result<(), StoreError> {
        for file in state.unsynced.iter().chain(&state.file) {
            file.sync_data().at(&self.dir)?;
        }
        match state.new {
            true => self.sync_new(),
            false => files::sync_folder(&self.dir),
        }
    }
}
