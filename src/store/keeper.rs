//! One feed on disk. With its chunks, in the same write, goes how far each publication that may be continued has come, and
//! the place of its source.

use std::{
    collections::HashMap,
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
use tokio::{sync::OwnedMutexGuard, task::spawn_blocking};

use super::{
    Inner, Origin, StoreError,
    known::{Known, Noted},
    lock,
};
use crate::{
    chunk::{Cursor, Epoch},
    feed::{
        FeedError, Filler, Keeper, KeeperError, NewChunk, Past, Progress, PublishError, PublishedAll, Receipt, Stored,
        Trouble,
    },
};

/// How long it is stored how far a publication has come, after its last chunk: as long as keys are remembered.
const KEEP: Duration = Duration::from_secs(3600);
/// What the keys of notes begin with.
const KEYS: &[u8] = b"key/";
const PLACE: &[u8] = b"place";

/// A feed on disk, and what looks after it. What is asked for on a worker is in memory: the store's thread may have the
/// feed to itself while it waits for the disk.
pub(super) struct Watched {
    pub(super) feed: StoredFeed,
    filler: OnceLock<Filler>,
    /// Why it cannot be written now.
    stalled: Mutex<Option<&'static str>>,
    /// It was removed, or its store closed: what it refuses is no fault.
    gone: AtomicBool,
    disk: Weak<Inner>,
    /// Of each publication that is being stored.
    turns: Mutex<HashMap<Bytes, Arc<tokio::sync::Mutex<()>>>>,
    known: Mutex<Known>,
    /// The place of its source that was stored last.
    place: Mutex<Option<Bytes>>,
    /// The kind of source that writes it, and whether that is still to be noted with chunks of it.
    pub(super) origin: Origin,
    unnoted_origin: AtomicBool,
    /// Who created it, and whether that has to be noted before its first chunk is stored.
    created_by: Mutex<Option<String>>,
    unnoted: AtomicBool,
}

/// Keeps a feed on disk.
pub(super) struct Keeping(Arc<Watched>);

impl Watched {
    pub(super) fn bytes(&self) -> u64 {
        self.feed.stored().map_or(0, |stored| stored.bytes)
    }

    /// Has it know why it cannot be written `now`, if so.
    pub(super) fn stall(&self, now: impl FnOnce() -> Option<&'static str>) {
        // Whoever comes last has what is known last.
        let mut stalled = lock(&self.stalled);
        let why = now();
        if std::mem::replace(&mut *stalled, why) != why
            && let Some(filler) = self.filler.get()
        {
            filler.set_trouble(why.map(Trouble::Disk));
            filler.stall(why.is_some());
        }
    }

    /// From now on, what it refuses is no fault of the store.
    pub(super) fn goes(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Notes who created it, before the next chunk is stored.
    pub(super) fn set_created_by(&self, who: &str) {
        *lock(&self.created_by) = Some(who.to_owned());
        self.unnoted.store(true, Ordering::Release);
    }

    /// Has the feed know who created it. All that publish meanwhile wait for that.
    async fn note_creator(self: &Arc<Self>) {
        let watched = self.clone();
        let noting = spawn_blocking(move || {
            let created_by = lock(&watched.created_by).clone();
            if let Some(created_by) = created_by {
                watched.feed.set_created_by(&created_by);
            }
            watched.unnoted.store(false, Ordering::Release);
        });
        // It fails only where the runtime ends.
        let _ = noting.await;
    }

    fn told(&self, published: PublishedAll) -> PublishedAll {
        if let Some(error @ (PublishError::Full(_) | PublishError::Keeper(_))) = &published.error
            && !self.gone.load(Ordering::Relaxed)
            && let Some(disk) = self.disk.upgrade()
        {
            disk.fails(error);
        }
        published
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

    /// What is to be stored of a publication that has come so far.
    fn note(&self, key: &Bytes, progress: Progress) -> Noted {
        let now = SystemTime::now();
        let turns = lock(&self.turns);
        lock(&self.known).note(key, progress, now.checked_add(KEEP).unwrap_or(now), |other| turns.contains_key(other))
    }

    async fn store(
        self: &Arc<Self>,
        chunks: Vec<NewChunk>,
        noting: impl FnOnce(&[Receipt]) -> Vec<Note> + Send + 'static,
    ) -> PublishedAll {
        if self.unnoted.load(Ordering::Acquire) {
            self.note_creator().await;
        }
        let chunks = chunks.into_iter().map(|chunk| NewChunk { id: None, ..chunk }).collect();
        let watched = self.clone();
        let noting = move |receipts: &[Receipt]| {
            let mut notes = noting(receipts);
            if !receipts.is_empty() && watched.unnoted_origin.load(Ordering::Relaxed) {
                notes.push(watched.origin.note());
            }
            notes
        };
        let published = self.told(self.feed.publish_noted(chunks, noting).await);
        if published.error.is_none() && !published.receipts.is_empty() {
            self.unnoted_origin.store(false, Ordering::Relaxed);
        }
        published
    }

    /// Stores chunks of one publication, the first of which begins at the byte `offset`.
    async fn store_keyed(self: Arc<Self>, key: Bytes, offset: u64, chunks: Vec<NewChunk>) -> PublishedAll {
        let turn = self.turn(&key).await;
        let earlier = lock(&self.known).progress(&key).unwrap_or_default();
        if offset < earlier.bytes
            && let Some(cursor) = earlier.last
        {
            // It was stored, and nobody was told.
            self.turned(turn);
            let size = usize::try_from(earlier.bytes - offset).unwrap_or(usize::MAX);
            return PublishedAll { receipts: vec![Receipt { cursor, size }], error: None };
        }
        let mut progress = Progress { bytes: offset, ..earlier };
        let (watched, noted) = (self.clone(), Arc::new(OnceLock::new()));
        let to_note = noted.clone();
        let noting = move |receipts: &[Receipt]| {
            for receipt in receipts {
                progress.first.get_or_insert(receipt.cursor);
                progress.last = Some(receipt.cursor);
                progress.chunks += 1;
                progress.bytes += receipt.size as u64;
            }
            let noted = watched.note(&key, progress);
            let forgotten = noted.forgotten().map(|key| Note { key, value: None, expires: None });
            let notes = std::iter::once(Note { key, value: Some(written(&progress)), expires: Some(noted.expires) })
                .chain(forgotten)
                .collect();
            let _ = to_note.set(noted);
            notes
        };
        let watched = self.clone();
        let mut storing = Box::pin(async move {
            let published = watched.store(chunks, noting).await;
            if published.error.is_none()
                && let Some(noted) = Arc::into_inner(noted).and_then(OnceLock::into_inner)
            {
                lock(&watched.known).was_stored(noted);
            }
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

    /// Stores chunks, and with the last of them the place of the source after it.
    async fn store_from(self: Arc<Self>, chunks: Vec<NewChunk>, place: Bytes) -> PublishedAll {
        let (all, of_last) = (chunks.len(), place.clone());
        let noting = move |receipts: &[Receipt]| match receipts.len() == all {
            true => vec![Note { key: PLACE.into(), value: Some(of_last), expires: None }],
            // It is after a chunk that is left for later.
            false => Vec::new(),
        };
        let published = self.store(chunks, noting).await;
        if published.error.is_none() && published.receipts.len() == all {
            *lock(&self.place) = Some(place);
        }
        published
    }
}

impl Keeping {
    /// A feed of the kind of source that is noted, if one is, which one of another kind may continue. Blocks, as all that
    /// follows it up to `fill`.
    pub(super) fn new(feed: StoredFeed, (noted, origin): (Option<Origin>, Origin), disk: Weak<Inner>) -> Self {
        let mut notes = feed.notes(KEYS);
        // As they were written.
        notes.sort_by_key(|note| note.expires);
        let mut known = Known::default();
        for note in notes {
            let progress = note.value.and_then(|value| read(value, feed.epoch()));
            if let (Some(progress), Some(expires)) = (progress, note.expires) {
                let noted = known.note(&note.key, progress, expires, |_| false);
                known.was_stored(noted);
            }
        }
        let place = feed.notes(PLACE).into_iter().find(|note| note.key == PLACE).and_then(|note| note.value);
        Self(Arc::new(Watched {
            feed,
            filler: OnceLock::new(),
            stalled: Mutex::default(),
            gone: AtomicBool::new(false),
            disk,
            turns: Mutex::default(),
            known: Mutex::new(known),
            place: Mutex::new(place),
            origin,
            unnoted_origin: AtomicBool::new(noted != Some(origin)),
            created_by: Mutex::default(),
            unnoted: AtomicBool::new(false),
        }))
    }

    pub(super) fn watched(&self) -> &Arc<Watched> {
        &self.0
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
        Box::pin(self.0.clone().store_from(chunks, place))
    }

    fn place(&self) -> Option<Bytes> {
        lock(&self.0.place).clone()
    }

    fn progress<'a>(&'a self, publication: &'a str) -> BoxFuture<'a, Option<Progress>> {
        let key = key_of(publication);
        Box::pin(async move {
            let turn = self.0.turn(&key).await;
            let progress = lock(&self.0.known).progress(&key);
            self.0.turned(turn);
            progress
        })
    }

    fn read(self: Arc<Self>, epoch: Epoch, next: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
        Arc::new(self.0.feed.clone()).read(epoch, next)
    }

    fn last_before(&self, before: u64, many: u64) -> u64 {
        self.0.feed.last_before(before, many)
    }

    fn left_out(&self) -> u64 {
        self.0.feed.left_out()
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
