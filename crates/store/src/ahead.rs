//! Reserving numbers ahead, on the disk, so that none is given twice after a power loss.

use std::{
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    Fsync, StoreError,
    files::{self, Mark, NUMBERS},
    shared::{MOST_AHEAD, Shared, State},
};

/// Numbers that are used up faster than that are reserved in larger numbers.
const OFTEN: Duration = Duration::from_secs(10);

impl Shared {
    /// Writes down that viewers may see more numbers, for `many` chunks at least. Blocks.
    pub(crate) fn reserve(&self, state: &mut State, many: u64) -> Result<(), StoreError> {
        let mark = state.mark_ahead(many);
        self.write_mark(&mark)?;
        (state.mark, state.reserved) = (mark, Instant::now());
        Ok(())
    }

    /// The same while others use the feed, by the store's thread: if few numbers are left, or if what is `known` to be on
    /// the disk is to be written down. Blocks.
    pub(crate) fn reserve_meanwhile(&self, known: bool) -> Result<(), StoreError> {
        let mark = {
            let mut state = self.lock();
            let always = self.common.options.fsync == Fsync::Always;
            let short = !always
                && state.mark.reserved < NUMBERS
                && state.mark.reserved.saturating_sub(state.next) < state.ahead / 2;
            // Nobody gets a number before the store is open, and each start would leave out those of the one before.
            if self.common.is_unopened() || !state.created || state.closed || !(short || known) {
                return Ok(());
            }
            // Where that comes often, it comes seldom.
            if short && state.reserved.elapsed() < OFTEN {
                state.ahead = (2 * state.ahead).min(MOST_AHEAD);
            }
            state.marking = true;
            state.mark_ahead(0)
        };
        let written = self.write_mark(&mark);
        let mut state = self.lock();
        state.marking = false;
        self.marked.notify_all();
        written?;
        (state.mark.reserved, state.reserved) = (mark.reserved, Instant::now());
        Ok(())
    }

    /// Has the folder say so. Blocks.
    pub(crate) fn write_mark(&self, mark: &Mark) -> Result<(), StoreError> {
        files::replace(&self.dir.join("mark.json"), mark)
    }

    /// Waits until nobody writes down which numbers are reserved. Blocks.
    pub(crate) fn until_marked<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.marked.wait_while(state, |state| state.marking).unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether there are numbers for so many more chunks.
    ///
    /// # Errors
    ///
    /// If there are not.
    pub(crate) fn has_numbers(&self, many: u64) -> Result<(), StoreError> {
        match many > 0 && self.next.saturating_add(many) > NUMBERS {
            true => Err(StoreError::UsedUp(self.meta.name.clone())),
            false => Ok(()),
        }
    }

    /// The mark that reserves numbers ahead, for `many` chunks at least, and takes none back.
    fn mark_ahead(&self, many: u64) -> Mark {
        let reserved = self.next.saturating_add(self.ahead + many).min(NUMBERS).max(self.mark.reserved);
        Mark { reserved, synced: self.mark.synced }
    }
}
