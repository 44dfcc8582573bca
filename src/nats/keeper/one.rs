//! Fills the ring of one feed, and notes why it cannot be served.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::{Message, message::Info as About};

use super::{chunk, fill::Fill};
use crate::{
    chunk::Epoch,
    feed::{Filler, Trouble},
    nats::stored::Stored,
};

/// See the module's text.
pub(super) struct One<'a> {
    filler: &'a Filler,
    why: Mutex<Why>,
}

/// In words.
#[derive(Default)]
struct Why {
    stalled: Option<String>,
    denied: Option<String>,
}

impl<'a> One<'a> {
    pub(super) fn of(filler: &'a Filler) -> Self {
        Self { filler, why: Mutex::default() }
    }

    /// Notes why it cannot be published to, if it cannot.
    pub(super) fn deny(&self, why: Option<String>) {
        let mut now = self.lock();
        now.denied = why;
        self.note(&now);
    }

    fn lock(&self) -> MutexGuard<'_, Why> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is denied to publishers is not why viewers get nothing.
    fn note(&self, now: &Why) {
        self.filler.set_trouble(now.stalled.as_ref().or(now.denied.as_ref()).cloned().map(Trouble::Other));
    }
}

impl Fill for One<'_> {
    fn epoch(&self) -> Epoch {
        self.filler.epoch()
    }

    fn next(&self) -> u64 {
        self.filler.next()
    }

    fn renew(&self, epoch: Epoch, next: u64, now: u64) {
        self.filler.renew(epoch, next, now);
    }

    fn skip_to(&self, next: u64) {
        self.filler.skip_to(next);
    }

    fn stall(&self, why: Option<String>) {
        let mut now = self.lock();
        let is_stalled = why.is_some();
        now.stalled = why;
        // First: viewers are told the reason that is noted when the stall reaches them.
        self.note(&now);
        self.filler.stall(is_stalled);
    }

    fn cause(&self) -> Option<String> {
        self.lock().stalled.clone()
    }

    fn add(&self, message: &Message, about: &About<'_>) {
        self.filler.add(chunk(message, about));
    }

    fn add_stored(&self, message: Stored) {
        self.filler.add(message.chunk());
    }
}
