//! Fills the rings of many feeds of one stream from one consumer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use async_nats::jetstream::{Message, message::Info as About, stream::Info};
use serde_json::json;
use tokio::sync::watch;

use super::{JetStream, chunk, epoch, fill::Fill, seq};
use crate::{
    chunk::Epoch,
    feed::{Feed, Filler, Trouble},
    nats::{
        error::KeepError,
        stored::{Stored, stored},
    },
};

/// The feeds of a family that are there now.
pub(in crate::nats) struct Many {
    /// Of the family's subject, with wildcards.
    keeper: Arc<JetStream>,
    filled: Mutex<Rings>,
    /// How many there are.
    count: watch::Sender<usize>,
}

struct Rings {
    /// By their subjects.
    fillers: HashMap<String, Filler>,
    /// What the consumer has brought so far, of whatever feed: all before this number.
    next: u64,
    epoch: Epoch,
    /// They are being filled, or are about to be: the consumer continues at `next`, also for feeds that are added.
    running: bool,
    /// Why they get nothing new, in words, if they do not.
    stalled: Option<String>,
}

impl Rings {
    fn none() -> Self {
        Self { fillers: HashMap::new(), next: 0, epoch: Epoch(0), running: false, stalled: None }
    }

    /// What a feed that is added now begins with, if its stream was of that epoch and ended there when it was looked
    /// at, which may be a while ago: the epoch and the number of its ring, and the one of what is published next.
    fn begin(&mut self, latest: Epoch, now: u64) -> (Epoch, u64, u64) {
        if self.fillers.is_empty() && !self.running {
            (self.epoch, self.next) = (latest, now);
        }
        // If it was recreated, all its feeds are about to start over.
        let now = if self.epoch == latest { now.max(self.next) } else { self.next };
        (self.epoch, self.next, now)
    }
}

/// One of the feeds, which is filled until this is dropped.
pub(in crate::nats) struct Filled {
    many: Arc<Many>,
    subject: String,
}

impl Drop for Filled {
    fn drop(&mut self) {
        let mut rings = self.many.lock();
        let gone = rings.fillers.remove(&self.subject);
        self.many.count.send_replace(rings.fillers.len());
        drop(rings);
        // What that ends may wake viewers: not under the lock.
        drop(gone);
    }
}

impl Many {
    pub(in crate::nats) fn of(keeper: Arc<JetStream>) -> Arc<Self> {
        let rings = Rings::none();
        Arc::new(Self { keeper, filled: Mutex::new(rings), count: watch::Sender::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.filled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream's state, as a feed needs it to begin; `None` if `only_known` and nothing is stored of the subject.
    pub(in crate::nats) async fn look(&self, subject: &str, only_known: bool) -> Result<Option<Info>, KeepError> {
        let keeper = &self.keeper;
        // Whoever makes names up does not keep the stream's leader busy, nor those waiting who read what is old.
        let _place = keeper.connection.looks.acquire().await.map_err(KeepError::nats)?;
        // Nor is each of them waited for where there is no answer.
        if !keeper.connection.is_connected() {
            return Err(KeepError::Disconnected);
        }
        if let Some(silence) = keeper.leader.silence() {
            return Err(silence);
        }
        if only_known {
            let asked = json!({ "last_by_subj": subject });
            if stored(&keeper.connection.now().jetstream, &keeper.stream.name, asked).await?.is_none() {
                return Ok(None);
            }
        }
        keeper.info().await.map(Some)
    }

    /// A feed that is filled from now on, and is not there yet.
    pub(in crate::nats) fn add(
        self: &Arc<Self>,
        name: &str,
        subject: String,
        history: usize,
        info: &Info,
    ) -> (Feed, Filled) {
        let keeper = self.keeper.member(name, subject.clone());
        let mut rings = self.lock();
        let (epoch, next, now) = rings.begin(epoch(info), info.state.last_sequence);
        if !rings.running {
            // Otherwise what fills them sets it.
            self.keeper.epoch.store(epoch.0, Ordering::Relaxed);
        }
        let (feed, filler) = Feed::kept(name, keeper, history, epoch, next, now);
        let link = &self.keeper.connection;
        link.presence.add(link, &subject, feed.attendance());
        stall(&filler, rings.stalled.as_ref());
        rings.fillers.insert(subject.clone(), filler);
        self.count.send_replace(rings.fillers.len());
        drop(rings);
        (feed, Filled { many: self.clone(), subject })
    }

    /// Fills them, with a consumer as long as there are any, for as long as it is polled.
    pub(in crate::nats) async fn fill(self: &Arc<Self>) {
        let mut count = self.count.subscribe();
        loop {
            while !self.run() {
                // An error would mean that it is gone, which `self` is not.
                let _ = count.wait_for(|count| *count > 0).await;
            }
            tokio::select! {
                () = self.keeper.fill(&**self) => {}
                () = self.keeper.forget(|epoch, first| self.forget_before(epoch, first)) => {}
                _ = count.wait_for(|count| *count == 0) => {}
            }
        }
    }

    /// Notes whether there is something to fill. A feed that was added since the last one went begins where that
    /// consumer came to, and so does the next consumer.
    fn run(&self) -> bool {
        let mut rings = self.lock();
        rings.running = !rings.fillers.is_empty();
        if !rings.running {
            // There is none that could not be filled.
            rings.stalled = None;
            self.keeper.leader.fills(true);
        }
        rings.running
    }

    /// See [`Filler::forget_before`].
    fn forget_before(&self, epoch: Epoch, first: u64) -> bool {
        let rings = self.lock();
        rings.fillers.values().for_each(|filler| _ = filler.forget_before(epoch, first));
        rings.epoch != epoch || rings.next >= first
    }

    /// Whether its feeds get nothing new at the moment.
    pub(in crate::nats) fn is_stalled(&self) -> bool {
        self.lock().stalled.is_some()
    }

    /// Why, in words.
    pub(in crate::nats) fn stalled_by(&self) -> Option<String> {
        self.lock().stalled.clone()
    }
}

/// Notes why a feed gets nothing new, or that it does, and then tells its viewers.
fn stall(filler: &Filler, why: Option<&String>) {
    filler.set_trouble(why.cloned().map(Trouble::Other));
    filler.stall(why.is_some());
}

impl Fill for Many {
    fn epoch(&self) -> Epoch {
        self.lock().epoch
    }

    fn next(&self) -> u64 {
        self.lock().next
    }

    fn renew(&self, epoch: Epoch, next: u64, now: u64) {
        let mut rings = self.lock();
        (rings.epoch, rings.next) = (epoch, next);
        rings.fillers.values().for_each(|filler| filler.renew(epoch, next, now));
    }

    fn skip_to(&self, next: u64) {
        let mut rings = self.lock();
        if next > rings.next {
            rings.next = next;
            rings.fillers.values().for_each(|filler| filler.skip_to(next));
        }
    }

    fn stall(&self, why: Option<String>) {
        let mut rings = self.lock();
        rings.fillers.values().for_each(|filler| stall(filler, why.as_ref()));
        rings.stalled = why;
    }

    fn cause(&self) -> Option<String> {
        self.stalled_by()
    }

    fn add(&self, message: &Message, about: &About<'_>) {
        // Under the lock: a feed that is added has all from `next` on.
        let mut rings = self.lock();
        if let Some(filler) = rings.fillers.get(message.subject.as_str()) {
            filler.add(chunk(message, about));
        }
        rings.next = rings.next.max(seq(about.stream_sequence) + 1);
    }

    fn add_stored(&self, message: Stored) {
        let mut rings = self.lock();
        rings.next = rings.next.max(message.sequence);
        if let Some(filler) = rings.fillers.get(&message.subject) {
            filler.add(message.chunk());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last feed goes and another one comes before the task that fills them has seen it: its consumer continues
    /// where it was, so what the new feed's ring would have before that would never come.
    #[test]
    fn a_ring_does_not_begin_before_the_consumer_that_fills_it() {
        let mut rings = Rings::none();
        assert_eq!(rings.begin(Epoch(1), 5), (Epoch(1), 5, 5));
        (rings.running, rings.next) = (true, 9);
        // It was looked at a while ago.
        assert_eq!(rings.begin(Epoch(1), 7), (Epoch(1), 9, 9));
        // It was looked at just now.
        assert_eq!(rings.begin(Epoch(1), 12), (Epoch(1), 9, 12));
        // What is left of the old stream's messages must not come into a ring of the new one.
        assert_eq!(rings.begin(Epoch(2), 3), (Epoch(1), 9, 9));
        rings.running = false;
        assert_eq!(rings.begin(Epoch(2), 3), (Epoch(2), 3, 3));
    }
}
