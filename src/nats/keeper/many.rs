//! Fills the rings of many feeds of one stream from one consumer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use async_nats::jetstream::{
    Message,
    stream::{Info, LastRawMessageErrorKind},
};
use tokio::sync::watch;

use super::{JetStream, chunk, epoch, fill::Fill, seq};
use crate::{
    chunk::Epoch,
    feed::{Feed, Filler},
    nats::error::KeepError,
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
    stalled: bool,
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
        let rings = Rings { fillers: HashMap::new(), next: 0, epoch: Epoch(0), stalled: false };
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
        if keeper.leader.is_silent() {
            return Err(KeepError::Leaderless);
        }
        if only_known {
            match keeper.handle().await?.get_last_raw_message_by_subject(subject).await {
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
                known => known.map_err(KeepError::nats)?,
            };
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
        let (latest, mut now) = (epoch(info), info.state.last_sequence);
        let mut rings = self.lock();
        if rings.fillers.is_empty() {
            (rings.epoch, rings.next) = (latest, now);
            self.keeper.epoch.store(latest.0, Ordering::Relaxed);
        }
        if rings.epoch != latest {
            // It was recreated, and all its feeds are about to start over.
            now = rings.next;
        }
        let (feed, filler) = Feed::kept(name, keeper, history, rings.epoch, rings.next, now.max(rings.next));
        let link = &self.keeper.connection;
        link.presence.add(&link.jetstream, &subject, feed.attendance());
        filler.stall(rings.stalled);
        rings.fillers.insert(subject.clone(), filler);
        self.count.send_replace(rings.fillers.len());
        drop(rings);
        (feed, Filled { many: self.clone(), subject })
    }

    /// Fills them, with a consumer as long as there are any, for as long as it is polled.
    pub(in crate::nats) async fn fill(self: &Arc<Self>) {
        let mut count = self.count.subscribe();
        loop {
            // An error would mean that it is gone, which `self` is not.
            let _ = count.wait_for(|count| *count > 0).await;
            tokio::select! {
                () = self.keeper.fill(&**self) => {}
                _ = count.wait_for(|count| *count == 0) => {}
            }
        }
    }
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

    fn stall(&self, stalled: bool) {
        let mut rings = self.lock();
        rings.stalled = stalled;
        rings.fillers.values().for_each(|filler| filler.stall(stalled));
    }

    fn add(&self, message: &Message) -> Result<(), async_nats::Error> {
        let at = seq(message.info()?.stream_sequence);
        // Under the lock: a feed that is added has all from `next` on.
        let mut rings = self.lock();
        if let Some(filler) = rings.fillers.get(message.subject.as_str()) {
            filler.add(chunk(message)?);
        }
        rings.next = rings.next.max(at + 1);
        Ok(())
    }
}
