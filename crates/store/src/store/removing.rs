//! Feeds that are removed: at once, or when the store is this process's again.

use std::{fs, io::ErrorKind, sync::Weak};

use tracing::warn;

use super::{Common, Inside, Passage, Store};
use crate::{StoreError, error::At};

impl Store {
    /// Removes a feed: its handles refuse chunks from then on, and the next feed of that name is a new one. Where writes
    /// [wait](Self::hold), its folder is removed when they continue; it stays if the store is closed instead.
    ///
    /// # Errors
    ///
    /// If its folder cannot be renamed; if the store was closed. Nothing has changed then.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let mut inside = self.lock();
        let common = inside.common.clone().ok_or(StoreError::Closed)?;
        if common.gate.passage() == Passage::Open {
            common.folder.still_there()?;
        }
        let open = common.open_lock().get(name).and_then(Weak::upgrade);
        let mut state = open.as_ref().map(|shared| shared.lock());
        let stored = common.stored_lock().get(name).map(|(id, _)| *id);
        let Some(id) = open.as_ref().map(|shared| shared.id).or(stored) else { return Ok(()) };
        match common.gate.passage() {
            Passage::Open => common.remove(id)?,
            _ => inside.going.push(id),
        }
        if let Some(state) = &mut state {
            (state.closed, state.removed, state.filler) = (true, true, None);
        }
        common.open_lock().remove(name);
        common.stored_lock().remove(name);
        Ok(())
    }
}

impl Inside {
    /// Removes what was to go meanwhile.
    pub(super) fn remove_going(&mut self, common: &Common) {
        common.remove_all(std::mem::take(&mut self.going));
    }
}

impl Common {
    /// Removes the folder of a feed, if it has one. Blocks.
    fn remove(&self, id: u64) -> Result<(), StoreError> {
        let (dir, removed) = (self.folder.feed(id), self.folder.removed(id));
        match fs::rename(&dir, &removed) {
            Ok(()) => self.work.remove(removed),
            // It has nothing yet.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).at(&dir),
        }
        Ok(())
    }

    /// Does so with several. Blocks.
    pub(crate) fn remove_all(&self, ids: Vec<u64>) {
        for id in ids {
            if let Err(error) = self.remove(id) {
                warn!(%error, "cannot remove a feed from the store");
            }
        }
    }
}
