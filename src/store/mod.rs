//! Live feeds on disk: a later process continues them, with the same cursors.
//!
//! A [`Disk`] is a folder with feeds: see [`Options::store`](crate::source::Options::store). What stores them is the
//! crate `h3cast-store`.

mod family;
mod health;
mod keeper;
mod known;
mod origin;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::spawn_blocking;
use tracing::warn;

pub(crate) use self::origin::{OpenError, Origin};
use self::{
    family::OfPattern,
    health::Health,
    keeper::{Keeping, Watched},
};
use crate::{
    App,
    chunk::Epoch,
    feed::{
        Feed, FeedError, Filler, Keeper, Pattern, Provenance, PublishError, Publisher, WrittenFeeds, WrittenLimits,
    },
};
pub use h3cast_store::{Checked, Fsync, Retain, Store, StoreError, StoreOptions};

/// How much of the feeds of each source is kept, by the source's name, which may be a pattern.
type Retained = BTreeMap<String, Retain>;

/// Feeds on disk. Clones are the same ones.
#[derive(Clone)]
pub struct Disk(Arc<Inner>);

struct Inner {
    store: Store,
    /// Sources have these names: no pattern has feeds of them.
    sources: BTreeSet<String>,
    retained: Mutex<Retained>,
    /// Held while that is applied to feeds, which may block.
    retaining: Mutex<()>,
    health: Health,
    held: AtomicBool,
    /// Those that are open, by name, each with the name of its source.
    open: Mutex<BTreeMap<String, (String, Weak<Watched>)>>,
}

impl Inner {
    /// The feeds that are open, and their sources.
    fn feeds(&self) -> Vec<(String, Arc<Watched>)> {
        let open = lock(&self.open);
        open.values().filter_map(|(source, feed)| Some((source.clone(), feed.upgrade()?))).collect()
    }

    /// Something could not be stored: no feed can be written then.
    fn fails(&self, error: &PublishError) {
        if self.health.fails(error) {
            self.stall();
        }
    }

    /// Has all feeds know whether they can be written now.
    fn stall(&self) {
        self.feeds().iter().for_each(|(_, feed)| feed.stall(|| self.health.cause()));
    }

    /// A feed was opened. Blocks.
    fn opened(&self, source: &str, name: &str, feed: &Arc<Watched>) {
        let mut open = lock(&self.open);
        open.retain(|_, (_, open)| open.strong_count() > 0);
        open.insert(name.to_owned(), (source.to_owned(), Arc::downgrade(feed)));
        drop(open);
        // What a crash left of it may be what there is no room for.
        if let Err(error) = self.has_room()
            && self.health.cannot(&error.into())
        {
            self.stall();
        }
        self.create(source, feed);
        self.retain([(source.to_owned(), feed.clone())]);
        // What changes that from now on finds the feed.
        feed.stall(|| self.health.cause());
    }

    /// Has a feed with a source of its own be stored from the start: viewers that wait for its first chunk resume by its
    /// epoch. Those whose names clients make up are stored with their first chunk. Blocks.
    fn create(&self, source: &str, feed: &Watched) {
        if source == feed.feed.name()
            && let Err(error) = feed.feed.create()
        {
            warn!(feed = source, %error, "cannot create the feed on disk before its first chunk: until then, a restart gives it another epoch");
        }
    }

    /// The same for all that are open. Blocks.
    fn create_all(&self) {
        self.feeds().iter().for_each(|(source, feed)| self.create(source, feed));
    }

    /// Fails as long as there is no room for what the store does first. Blocks.
    fn has_room(&self) -> Result<(), StoreError> {
        if self.store.is_full() { Err(StoreError::Full(self.store.dir().into())) } else { Ok(()) }
    }

    /// Keeps as much of these feeds as is to be kept now. Blocks.
    fn retain(&self, feeds: impl IntoIterator<Item = (String, Arc<Watched>)>) {
        let _one = lock(&self.retaining);
        for (source, feed) in feeds {
            let retain = lock(&self.retained).get(&source).copied();
            if let Some(retain) = retain {
                feed.feed.set_retain(retain);
            }
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("dir", &self.0.store.dir()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work).await.unwrap_or(Err(StoreError::Closed))
}

impl Disk {
    /// Opens the store in a folder, or begins one where nothing is. Sources with these names and patterns use it, and keep
    /// so much of each of their feeds.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub async fn open(dir: PathBuf, options: StoreOptions, sources: Vec<(String, Retain)>) -> Result<Self, StoreError> {
        let store = blocking(move || Store::open(dir, options)).await?;
        let health = Health::new(store.dir());
        if store.is_full() {
            health.cannot(&StoreError::Full(store.dir().into()).into());
        }
        Ok(Self(Arc::new(Inner {
            health,
            store,
            sources: sources.iter().map(|(name, _)| name.clone()).collect(),
            retained: Mutex::new(sources.into_iter().collect()),
            retaining: Mutex::default(),
            held: AtomicBool::new(false),
            open: Mutex::default(),
        })))
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.0.store.dir()
    }

    /// Keeps so much of the feeds of each source from now on. Feeds that are open follow soon, since that may have to wait
    /// for a disk.
    ///
    /// # Panics
    ///
    /// If there is no Tokio runtime.
    pub fn set_retain(&self, sources: Vec<(String, Retain)>) {
        *lock(&self.0.retained) = sources.into_iter().collect();
        let disk = self.clone();
        // Whichever of several runs last, all apply what was set last.
        drop(spawn_blocking(move || disk.0.retain(disk.0.feeds())));
    }

    /// Closes the store, so that another process can open it. What is published from now on is refused: end its feeds
    /// before.
    ///
    /// # Errors
    ///
    /// If what was written does not reach the disk.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.0.feeds().iter().for_each(|(_, feed)| feed.goes());
        let disk = self.clone();
        blocking(move || disk.0.store.close()).await
    }

    /// Has writes wait, as [`Store::hold`]: what is published, and what sources have.
    pub fn hold(&self) {
        self.0.store.hold();
        self.0.held.store(true, Ordering::Relaxed);
    }

    /// Has writes continue that [wait](Self::hold).
    ///
    /// # Panics
    ///
    /// If there is no Tokio runtime.
    pub fn resume(&self) {
        self.0.store.resume();
        if self.0.held.swap(false, Ordering::Relaxed) {
            let disk = self.clone();
            // Those that are new.
            drop(spawn_blocking(move || disk.0.create_all()));
        }
    }

    /// Whether writes [wait](Self::hold).
    pub(crate) fn is_held(&self) -> bool {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Has most of what was written be on the disk, as [`Store::flush`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let disk = self.clone();
        blocking(move || disk.0.store.flush()).await
    }

    /// Gives the store up to another process, as [`Store::release`]. [Close](Self::close) it when that one has it for good.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn release(&self) -> Result<(), StoreError> {
        let disk = self.clone();
        blocking(move || disk.0.store.release()).await
    }

    /// Takes the store back that was [released](Self::release), as [`Store::reclaim`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn reclaim(&self) -> Result<(), StoreError> {
        let disk = self.clone();
        blocking(move || disk.0.store.reclaim()).await
    }

    /// The feeds that are stored and that no source has opened: those of earlier sources, by name.
    pub(crate) async fn unserved(&self) -> Vec<String> {
        let disk = self.clone();
        let stored = spawn_blocking(move || disk.0.store.feeds()).await.unwrap_or_default();
        let open = lock(&self.0.open);
        stored.into_iter().map(|info| info.name).filter(|name| !open.contains_key(name)).collect()
    }

    /// The open feeds whose stored chunks are of another kind than what their sources would add, each with both kinds:
    /// what was opened while writes were held.
    pub(crate) fn mixed(&self) -> Vec<(String, Origin, Origin)> {
        let mixed = |feed: &Watched| {
            let stored = Origin::noted(&feed.feed).filter(|stored| stored.mixes(feed.origin))?;
            Some((feed.feed.name().to_owned(), stored, feed.origin))
        };
        self.0.feeds().iter().filter_map(|(_, feed)| mixed(feed)).collect()
    }

    /// Shows in the app's `/metrics` how it is.
    #[must_use]
    pub fn install(&self, app: App) -> App {
        let disk = self.clone();
        let bytes = move || disk.0.feeds().iter().map(|(_, feed)| feed.bytes()).sum::<u64>() as f64;
        let app = app.gauge("h3cast_store_bytes", "Size on disk of the stored feeds that are served.", bytes);
        let (syncs, time) = (self.clone(), self.clone());
        let help = "How often chunks were flushed to the disk.";
        let app = app.counter("h3cast_store_syncs_total", help, move || syncs.0.store.syncs().0 as f64);
        let help = "Time that flushing chunks to the disk took.";
        let app = app.counter("h3cast_store_sync_seconds_total", help, move || time.0.store.syncs().1.as_secs_f64());
        self.0.health.install(app)
    }

    /// Watches for as long as it is polled whether the store can be written again when it could not.
    pub(crate) async fn watch(&self) {
        loop {
            let (there, disk) = (self.clone(), self.clone());
            let can_be_written = move || there.0.store.still_there().and_then(|()| there.0.has_room());
            self.0.health.changed(can_be_written, move || !disk.0.store.is_failing()).await;
            self.0.stall();
            if self.0.health.is_good() {
                let disk = self.clone();
                // Those for which there was no room.
                let _ = spawn_blocking(move || disk.0.create_all()).await;
            }
        }
    }

    /// A feed with a source of its own, and what writes it.
    pub(crate) async fn of_source(
        &self,
        name: &str,
        origin: Origin,
        history: usize,
    ) -> Result<(Feed, Publisher), OpenError> {
        let of_name = name.to_owned();
        let begin = move |keeper, epoch, next| Feed::stored(&of_name, keeper, history, epoch, next);
        self.opened(name, (name, origin), begin).await
    }

    /// A feed that clients write, of the source `source`.
    pub(crate) async fn written(&self, source: &str, name: &str, history: usize) -> Result<Feed, OpenError> {
        let of_name = name.to_owned();
        let begin = move |keeper, epoch, next| {
            let (feed, filler) = Feed::stored_writable(&of_name, keeper, history, epoch, next);
            (feed, filler, ())
        };
        Ok(self.opened(source, (name, Origin::Publish), begin).await?.0)
    }

    /// The feeds that clients create whose names `pattern` matches, with those that are stored.
    pub(crate) async fn family(
        &self,
        pattern: &str,
        history: usize,
        limits: WrittenLimits,
    ) -> Result<Arc<WrittenFeeds>, OpenError> {
        let of_pattern = Arc::new(OfPattern::new(self.clone(), pattern, history));
        let matching = pattern.parse::<Pattern>().ok();
        let is_ours = |name: &str| {
            matching.as_ref().is_some_and(|pattern| pattern.matches(name))
                && !self.0.sources.contains(name)
                && !lock(&self.0.open).contains_key(name)
        };
        let mut feeds = Restored::default();
        let disk = self.clone();
        let stored = blocking(move || Ok(disk.0.store.feeds())).await?;
        for info in stored.into_iter().filter(|info| is_ours(&info.name)) {
            feeds.0.push(of_pattern.restored(&info).await?);
        }
        // It is one: the source's name was read as such.
        Ok(WrittenFeeds::stored(pattern, limits, of_pattern, std::mem::take(&mut feeds.0))
            .expect("its name is a pattern"))
    }

    /// Opens a feed, or begins it, and has `begin` make it one of sources or of clients. What clients wrote is not
    /// continued by a source of the server, nor the other way around. While writes are held, the
    /// take-over sees to that: see [`mixed`](Self::mixed).
    async fn opened<T: Send + 'static>(
        &self,
        source: &str,
        (name, origin): (&str, Origin),
        begin: impl FnOnce(Arc<dyn Keeper>, Epoch, u64) -> (Feed, Filler, T) + Send + 'static,
    ) -> Result<(Feed, T), OpenError> {
        let (disk, source, name) = (self.clone(), source.to_owned(), name.to_owned());
        let opened = spawn_blocking(move || {
            let stored = disk.0.store.feed(&name)?;
            let before = Origin::noted(&stored);
            if let Some(before) = before.filter(|before| before.mixes(origin) && !disk.is_held()) {
                return Err(OpenError::Mixed { feed: name, stored: before, here: origin });
            }
            let earlier = stored.newest().map(|newest| (stored.total_bytes(), newest.elapsed().unwrap_or_default()));
            let keeper = Arc::new(Keeping::new(stored, (before, origin), Arc::downgrade(&disk.0)));
            let (epoch, next) = keeper.begins();
            let (feed, filler, publisher) = begin(keeper.clone(), epoch, next);
            if let Some((bytes, ago)) = earlier {
                feed.count_earlier(bytes, ago);
            }
            keeper.fill(filler);
            disk.0.opened(&source, &name, keeper.watched());
            Ok((feed, publisher))
        });
        opened.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }
}

/// Feeds of a pattern that are not served yet: if it does not come to that, they have not failed.
#[derive(Default)]
struct Restored(Vec<(Feed, Provenance)>);

impl Drop for Restored {
    fn drop(&mut self) {
        self.0.iter().for_each(|(feed, _)| feed.stop());
    }
}

fn failed(error: &OpenError) -> FeedError {
    FeedError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{FeedStore, KeeperError};

    /// Its publishers may not know yet that it is gone. That is no fault of the disk.
    #[tokio::test]
    async fn what_a_removed_or_closed_feed_refuses_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path().into(), StoreOptions::default(), Vec::new()).await.unwrap();
        let pattern = OfPattern::new(disk.clone(), "chat.*", 1 << 20);
        let open = async || pattern.open("chat.a").await.unwrap();
        let refuses = async |feed: &Feed| {
            let refused = feed.publisher().unwrap().publish("late".into()).await.unwrap_err();
            assert!(matches!(refused, PublishError::Keeper(_)), "{refused}");
            assert!(disk.0.health.is_good());
        };
        let removed = open().await;
        removed.publisher().unwrap().publish("x".into()).await.unwrap();
        pattern.remove("chat.a");
        // It waits until that is done.
        let closed = open().await;
        refuses(&removed).await;
        closed.publisher().unwrap().publish("x".into()).await.unwrap();
        disk.close().await.unwrap();
        refuses(&closed).await;
    }

    #[tokio::test]
    async fn all_feeds_stall_while_the_store_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path().into(), StoreOptions::default(), Vec::new()).await.unwrap();
        let open = async |name: &str| disk.written(name, name, 1 << 20).await.unwrap();
        let early = open("early").await;
        let full = KeeperError::new(StoreError::Full(folder.path().into()));
        disk.0.fails(&PublishError::Full(full));
        let late = open("late").await;
        assert!(early.status().stalled && late.status().stalled);
        let watched = disk.watch();
        let recovered = async {
            while early.status().stalled || late.status().stalled {
                tokio::task::yield_now().await
            }
        };
        tokio::select! {
            () = watched => {}
            () = recovered => {}
        }
        assert!(disk.0.health.is_good());
    }

    /// Whoever created it is known in the next process, and nothing waits for the disk to note that.
    #[tokio::test]
    async fn who_created_a_feed_is_stored_with_its_first_chunk() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path().into(), StoreOptions::default(), Vec::new()).await.unwrap();
        let pattern = OfPattern::new(disk.clone(), "chat.*", 1 << 20);
        let feed = pattern.open("chat.a").await.unwrap();
        pattern.created("chat.a", &crate::feed::Account::new("192.0.2.1"));
        feed.publisher().unwrap().publish("x".into()).await.unwrap();
        let stored = disk.0.store.feeds();
        assert_eq!(stored[0].created_by.as_deref(), Some("192.0.2.1"));
    }
}
