//! Full files reach the disk, and that is noted, also where nothing is synced by time: after a power loss, only what was
//! written since is in doubt, read before the store serves, and moved aside if it is damaged.

use std::{
    io::ErrorKind,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::Written;
use crate::{Fsync, StoreError, error::At, regular, shared::Shared};

/// How often at most. The system has mostly written by itself by then what is older.
const OFTEN: Duration = Duration::from_secs(10);

impl Shared {
    /// Does so with [`Fsync::Never`], if a file was begun since. Blocks, but holds no lock while it syncs.
    pub(super) fn note_full(self: &Arc<Self>) {
        let (files, next) = {
            let mut state = self.lock();
            let begun = state.segments.back().is_some_and(|last| last.first > state.mark.synced);
            let can = state.created && !state.closed && state.failed.is_none();
            if self.common.options.fsync != Fsync::Never || !begun || !can || state.marked.elapsed() < OFTEN {
                return;
            }
            state.marked = Instant::now();
            let files = state.segments.iter().filter(|segment| segment.next > state.mark.synced);
            (files.map(|segment| self.path(segment.first)).collect::<Vec<_>>(), state.next)
        };
        let begun = Instant::now();
        let synced = files.iter().try_for_each(|file| sync(file)).and_then(|()| self.sync_new());
        self.common.count_sync(begun);
        if let Err(error) = synced {
            // What is in doubt is written again, as after any sync that fails.
            return self.synced(Written { begun: true, new: true, ..Written::default() }, Err(error));
        }
        let mut state = self.lock();
        state.synced = state.synced.max(next);
        state.mark.synced = state.mark.synced.max(next);
        drop(state);
        self.reserve_ahead(true);
    }
}

/// Has a file reach the disk, unless it was removed meanwhile.
fn sync(file: &Path) -> Result<(), StoreError> {
    match regular::append(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        opened => opened.and_then(|opened| opened.sync_data()).at(file),
    }
}
