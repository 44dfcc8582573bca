//! What has been published under which key, so that a publication that is sent again continues where it was.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::{
    Problem,
    keys::{Extent, KeyId, KeyLimits, Keys, Known, NoRoom, Owner, Run},
};
use crate::{
    chunk::{Cursor, Epoch},
    feed::{Account, Publisher},
    units::were,
};

/// Publications by their keys.
#[derive(Debug)]
pub(super) struct Ledger(Mutex<Keys>);

/// The request that a publication's request replaces, or how far the publication has come.
enum Begun {
    After(CancellationToken),
    At(Extent, Run),
}

/// One request of a publication. Dropping it, as when the client goes away, notes how far it came.
#[derive(Debug)]
pub(super) struct PublicationRequest {
    known: Arc<Ledger>,
    key: Option<Key>,
    skip: u64,
    run: Run,
    /// A chunk was sent to where the feed is stored, and it is not known whether it is stored.
    in_doubt: AtomicBool,
}

#[derive(Debug)]
struct Key {
    id: KeyId,
    /// What its chunks are known by where the feed is stored.
    name: String,
}

/// What a request says of its publication.
pub(super) struct Said<'a> {
    pub(super) feed: &'a str,
    /// The feed's run of numbers.
    pub(super) epoch: Option<Epoch>,
    /// Whom the key counts for.
    pub(super) account: &'a Account,
    /// Whose key it is.
    pub(super) owner: Option<Owner>,
    pub(super) key: Option<String>,
    /// Where in its publication the body begins.
    pub(super) offset: Option<u64>,
    /// What writes the feed.
    pub(super) publisher: &'a Publisher,
}

impl Ledger {
    pub(super) fn new(limits: KeyLimits) -> Self {
        Self(Mutex::new(Keys::new(limits)))
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_limits(&self, limits: KeyLimits) {
        self.lock().set_limits(limits);
    }

    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    /// What another process is told of them.
    pub(super) fn known(&self) -> Vec<Known> {
        self.lock().known()
    }

    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    /// Continues those that another process knew.
    pub(super) fn restore(&self, known: Vec<Known>) {
        self.lock().restore(known);
    }

    /// How many keys it knows.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Begins a request of a publication. One that runs already gives way: its client has most likely gone without
    /// a word.
    pub(super) async fn begin(self: &Arc<Self>, said: Said<'_>) -> Result<PublicationRequest, Problem> {
        let offset = said.offset.unwrap_or_default();
        let Some(key) = &said.key else {
            return Ok(PublicationRequest {
                known: self.clone(),
                key: None,
                skip: 0,
                run: Run::default(),
                in_doubt: AtomicBool::default(),
            });
        };
        let id = KeyId::of(said.feed, said.owner.as_ref(), key);
        let prefix = said.owner.map(Owner::prefix).unwrap_or_default();
        let name = format!("{prefix}{}/{key}", said.feed);
        loop {
            // Also of a request to a server that ran here before, and of one that broke off while it was being stored.
            let stored = said.publisher.progress(&name).await.map(Extent::from);
            match self.try_begin(id, offset, stored, &said)? {
                Begun::After(ended) => ended.cancelled().await,
                Begun::At(progress, run) => {
                    let key = Key { id, name };
                    let skip = progress.bytes - offset;
                    return Ok(PublicationRequest {
                        known: self.clone(),
                        key: Some(key),
                        skip,
                        run,
                        in_doubt: AtomicBool::default(),
                    });
                }
            }
        }
    }

    fn try_begin(&self, id: KeyId, offset: u64, stored: Option<Extent>, said: &Said<'_>) -> Result<Begun, Problem> {
        let mut keys = self.lock();
        if let Some(running) = keys.running(id) {
            running.replaced.cancel();
            return Ok(Begun::After(running.ended.clone()));
        }
        // What was published to an earlier run of the feed is gone with it.
        let is_there = |known: &Extent| {
            [known.first, known.last].into_iter().flatten().all(|written| Some(written.epoch) == said.epoch)
        };
        let known = keys.progress(id).filter(is_there).into_iter().chain(stored);
        let mut progress = known.max_by_key(|progress| progress.bytes).unwrap_or_default();
        // Of a key that has only been asked for, no more is known than of a new one: what came before was published to
        // a server that did not end as this one began.
        if offset > progress.bytes && (said.publisher.is_shared() || progress.bytes == 0) {
            progress.bytes = offset;
        }
        if offset > progress.bytes {
            let text = format!(
                "the body begins at byte {offset}, but {} so far under this Idempotency-Key",
                were(progress.bytes, "published")
            );
            return Err(Problem::new(StatusCode::CONFLICT, text));
        }
        let run = Run::at(progress);
        keys.run(id, said.account, said.feed, progress, run.clone()).map_err(|NoRoom| {
            let text = "all Idempotency-Keys that are remembered are in use: try again when one of the publications has \
                        ended, or publish without one";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, text.into())
        })?;
        Ok(Begun::At(progress, run))
    }
}

impl PublicationRequest {
    /// How many bytes of the body have been published before.
    pub(super) fn skip(&self) -> u64 {
        self.skip
    }

    /// Cancelled when another request continues the publication.
    pub(super) fn replaced(&self) -> CancellationToken {
        self.run.replaced.clone()
    }

    /// Whether it may be continued, by its key.
    pub(super) fn is_known(&self) -> bool {
        self.key.is_some()
    }

    /// By what the chunk that many bytes ahead is known when the publication is sent again, here or to another server:
    /// where it begins. The body may be cut otherwise then.
    pub(super) fn id(&self, ahead: usize) -> Option<String> {
        Some(format!("{}/{}", self.key.as_ref()?.name, self.progress().bytes + ahead as u64))
    }

    pub(super) fn progress(&self) -> Extent {
        *self.run.progress()
    }

    /// Whether more may be published than its progress says.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Relaxed)
    }

    pub(super) fn set_in_doubt(&self, in_doubt: bool) {
        self.in_doubt.store(in_doubt, Ordering::Relaxed);
    }

    pub(super) fn add(&self, cursor: Cursor, bytes: usize) {
        let mut progress = self.run.progress();
        progress.first.get_or_insert(cursor);
        progress.last = Some(cursor);
        progress.chunks += 1;
        progress.bytes += bytes as u64;
    }
}

impl Drop for PublicationRequest {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            let progress = self.progress();
            self.known.lock().finish(key.id, progress);
            self.run.ended.cancel();
        }
    }
}
