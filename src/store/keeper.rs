//! One feed on disk. With its chunks, in the same write, goes how far each publication that may be continued has come, and
//! the place of its source.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{FutureExt, future::BoxFuture};
use h3cast_store::{Note, StoredFeed};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;

use super::{StoreError, health::Health, lock};
use crate::{
    chunk::{Cursor, Epoch},
    feed::{
        FeedError, Filler, Keeper, KeeperError, NewChunk, Past, Progress, PublishError, PublishedAll, Receipt, Stored,
    },
};

/// How long it is stored how far a publication has come, after its last chunk: as long as keys are remembered.
const KEEP: Duration = Duration::from_secs(3600);
/// Of how many publications of one feed that is stored. Those that began last stay.
const MOST: usize = 4096;
/// What the keys of notes begin with.
const KEYS: &[u8] = b"key/";
const PLACE: &[u8] = b"place";

/// A feed on disk, and what looks after it.
pub(super) struct Watched {
    pub(super) feed: StoredFeed,
    filler: OnceLock<Filler>,
    stalled: AtomicBool,
    health: Health,
    /// Of each publication that is being stored.
    turns: Mutex<HashMap<Bytes, Arc<tokio::sync::Mutex<()>>>>,
    /// The publications of which it is stored how far they have come, the one that began first at the front.
    known: Mutex<VecDeque<Bytes>>,
}

/// Keeps a feed on disk.
pub(super) struct Keeping(Arc<Watched>);

impl Watched {
    pub(super) fn bytes(&self) -> u64 {
        self.feed.stored().map_or(0, |stored| stored.bytes)
    }

    pub(super) fn stall(&self, stalled: bool) {
        if self.stalled.swap(stalled, Ordering::Relaxed) != stalled
            && let Some(filler) = self.filler.get()
        {
            filler.stall(stalled);
        }
    }

    fn told(&self, published: PublishedAll) -> PublishedAll {
        match &published.error {
            Some(error @ (PublishError::Full(_) | PublishError::Keeper(_))) => {
                self.health.fails(error);
                self.stall(true);
            }
            _ if !published.receipts.is_empty() && self.stalled.load(Ordering::Relaxed) => self.stall(false),
            _ => {}
        }
        published
    }

    fn progress(&self, key: &Bytes) -> Option<Progress> {
        let note = self.feed.notes(key).into_iter().find(|note| note.key == *key)?;
        read(note.value?, self.feed.epoch())
    }

    /// Waits until nothing of that publication is on its way.
    async fn turn(&self, key: &Bytes) -> OwnedMutexGuard<()> {
        let turn = lock(&self.turns).entry(key.clone()).or_default().clone();
        turn.lock_owned().await
    }

    /// Forgets turns that nobody waits for.
    fn turned(&self, turn: OwnedMutexGuard<()>) {
        drop(turn);
        lock(&self.turns).retain(|_, turn| Arc::strong_count(turn) > 1);
    }

    /// Notes a publication; which one is to be forgotten for it.
    fn remember(&self, key: &Bytes) -> Option<Bytes> {
        let mut known = lock(&self.known);
        if !known.contains(key) {
            known.push_back(key.clone());
        }
        (known.len() > MOST).then(|| known.pop_front()).flatten()
    }

    async fn store(
        &self,
        chunks: Vec<NewChunk>,
        noting: impl FnOnce(&[Receipt]) -> Vec<Note> + Send + 'static,
    ) -> PublishedAll {
        let chunks = chunks.into_iter().map(|chunk| NewChunk { id: None, ..chunk }).collect();
        self.told(self.feed.publish_noted(chunks, noting).await)
    }

    /// Stores chunks of one publication, the first of which begins at the byte `offset`.
    async fn store_keyed(self: Arc<Self>, key: Bytes, offset: u64, chunks: Vec<NewChunk>) -> PublishedAll {
        let turn = self.turn(&key).await;
        let earlier = self.progress(&key).unwrap_or_default();
        if offset < earlier.bytes
            && let Some(cursor) = earlier.last
        {
            // It was stored, and nobody was told.
            let size = usize::try_from(earlier.bytes - offset).unwrap_or(usize::MAX);
            return PublishedAll { receipts: vec![Receipt { cursor, size }], error: None };
        }
        let mut progress = Progress { bytes: offset, ..earlier };
        let (of_key, watched) = (key.clone(), self.clone());
        let noting = move |receipts: &[Receipt]| {
            for receipt in receipts {
                progress.first.get_or_insert(receipt.cursor);
                progress.last = Some(receipt.cursor);
                progress.chunks += 1;
                progress.bytes += receipt.size as u64;
            }
            let forgotten = watched.remember(&of_key).map(|key| Note { key, value: None, expires: None });
            let expires = SystemTime::now().checked_add(KEEP);
            let note = Note { key: of_key, value: Some(written(&progress)), expires };
            std::iter::once(note).chain(forgotten).collect()
        };
        let watched = self.clone();
        let mut storing = Box::pin(async move {
            let published = watched.store(chunks, noting).await;
            watched.turned(turn);
            published
        });
        if let Some(published) = storing.as_mut().now_or_never() {
            return published;
        }
        // To its end, whatever becomes of the request: the next one of this publication waits for it.
        match tokio::spawn(storing).await {
            Ok(published) => published,
            Err(_) => {
                let error = KeeperError::new(StoreError::Closed);
                PublishedAll { receipts: Vec::new(), error: Some(PublishError::Keeper(error)) }
            }
        }
    }
}

impl Keeping {
    pub(super) fn new(feed: StoredFeed, health: &Health) -> Arc<Self> {
        let mut known = feed.notes(KEYS);
        known.sort_by_key(|note| note.expires);
        let known = known.into_iter().map(|note| note.key).collect();
        Arc::new(Self(Arc::new(Watched {
            feed,
            filler: OnceLock::new(),
            stalled: AtomicBool::new(false),
            health: health.clone(),
            turns: Mutex::default(),
            known: Mutex::new(known),
        })))
    }

    pub(super) fn watched(&self) -> Weak<Watched> {
        Arc::downgrade(&self.0)
    }

    /// Where the feed continues.
    pub(super) fn begins(&self) -> (Epoch, u64) {
        (self.0.feed.epoch(), self.0.feed.next())
    }

    pub(super) fn fill(&self, filler: Filler) {
        self.0.feed.fill(filler.clone());
        let _ = self.0.filler.set(filler);
    }
}

impl Keeper for Keeping {
    fn is_writable(&self) -> bool {
        true
    }

    fn is_sparse(&self) -> bool {
        false
    }

    fn publish(&self, bytes: Bytes, id: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(async move {
            let PublishedAll { receipts, error } = self.publish_all(vec![NewChunk { bytes, id }]).await;
            receipts
                .first()
                .copied()
                .ok_or_else(|| error.unwrap_or_else(|| PublishError::Keeper(KeeperError::new(StoreError::Closed))))
        })
    }

    fn publish_all(&self, mut chunks: Vec<NewChunk>) -> BoxFuture<'_, PublishedAll> {
        let Some((key, offset)) = chunks.first().and_then(|chunk| publication(chunk.id.as_deref()?)) else {
            return Box::pin(self.0.store(chunks, |_| Vec::new()));
        };
        // Those of one publication, without a gap.
        let (mut next, mut together) = (offset, 0);
        for chunk in &chunks {
            if chunk.id.as_deref().and_then(publication) != Some((key.clone(), next)) {
                break;
            }
            (next, together) = (next + chunk.bytes.len() as u64, together + 1);
        }
        chunks.truncate(together);
        Box::pin(self.0.clone().store_keyed(key, offset, chunks))
    }

    fn publish_from(&self, chunks: Vec<NewChunk>, place: Bytes) -> BoxFuture<'_, PublishedAll> {
        let all = chunks.len();
        Box::pin(self.0.store(chunks, move |receipts| match receipts.len() == all {
            true => vec![Note { key: PLACE.into(), value: Some(place), expires: None }],
            // It is after a chunk that is left for later.
            false => Vec::new(),
        }))
    }

    fn place(&self) -> Option<Bytes> {
        self.0.feed.notes(PLACE).into_iter().find(|note| note.key == PLACE)?.value
    }

    fn progress<'a>(&'a self, publication: &'a str) -> BoxFuture<'a, Option<Progress>> {
        let key = key_of(publication);
        Box::pin(async move {
            let turn = self.0.turn(&key).await;
            let progress = self.0.progress(&key);
            self.0.turned(turn);
            progress
        })
    }

    fn read(self: Arc<Self>, epoch: Epoch, next: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
        Arc::new(self.0.feed.clone()).read(epoch, next)
    }

    fn stored(&self) -> Option<Stored> {
        self.0.feed.stored()
    }
}

/// The publication of a chunk with that id, and how many bytes of it are before the chunk.
fn publication(id: &str) -> Option<(Bytes, u64)> {
    let (name, offset) = id.rsplit_once('/')?;
    Some((key_of(name), offset.parse().ok()?))
}

/// Names are long, and clients choose them.
fn key_of(publication: &str) -> Bytes {
    let hash = Sha256::digest(publication);
    [KEYS, &hash[..16]].concat().into()
}

fn written(progress: &Progress) -> Bytes {
    let seq = |cursor: Option<Cursor>| cursor.map_or(u64::MAX, |cursor| cursor.seq);
    let mut value = BytesMut::with_capacity(32);
    for number in [seq(progress.first), seq(progress.last), progress.chunks, progress.bytes] {
        value.put_u64_le(number);
    }
    value.freeze()
}

fn read(mut value: Bytes, epoch: Epoch) -> Option<Progress> {
    let mut number = || value.try_get_u64_le().ok();
    let (first, last, chunks, bytes) = (number()?, number()?, number()?, number()?);
    let cursor = |seq| (seq != u64::MAX).then_some(Cursor { epoch, seq });
    Some(Progress { first: cursor(first), last: cursor(last), chunks, bytes })
}
