//! Live feeds on disk: a later process continues them, with the same cursors.
//!
//! A [`Disk`] is a folder with feeds: see [`Options::store`](crate::source::Options::store). What stores them is the
//! crate `h3cast-store`.

mod family;
mod health;
mod keeper;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::task::spawn_blocking;

use self::{
    family::OfPattern,
    health::Health,
    keeper::{Keeping, Watched},
};
use crate::{
    App,
    feed::{Feed, FeedError, Pattern, Publisher, WrittenFeeds, WrittenLimits},
};
pub use h3cast_store::{Fsync, Retain, Store, StoreError, StoreOptions};

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
    health: Health,
    /// Those that are open, by name, each with the name of its source.
    open: Mutex<BTreeMap<String, (String, Weak<Watched>)>>,
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

/// A stored feed that is open, before it is one of sources or of clients.
struct Opened {
    keeper: Arc<Keeping>,
    /// The size of all chunks that there have been, in bytes, and how long ago the latest was published.
    earlier: Option<(u64, Duration)>,
}

impl Opened {
    fn begin(self, feed: Feed, filler: crate::feed::Filler) -> Feed {
        if let Some((bytes, ago)) = self.earlier {
            feed.count_earlier(bytes, ago);
        }
        self.keeper.fill(filler);
        feed
    }
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
        Ok(Self(Arc::new(Inner {
            health: Health::new(store.dir()),
            store,
            sources: sources.iter().map(|(name, _)| name.clone()).collect(),
            retained: Mutex::new(sources.into_iter().collect()),
            open: Mutex::default(),
        })))
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.0.store.dir()
    }

    /// Keeps so much of the feeds of each source from now on.
    pub fn set_retain(&self, sources: Vec<(String, Retain)>) {
        let retained: Retained = sources.into_iter().collect();
        for (source, open) in lock(&self.0.open).values() {
            if let (Some(open), Some(retain)) = (open.upgrade(), retained.get(source)) {
                open.feed.set_retain(*retain);
            }
        }
        *lock(&self.0.retained) = retained;
    }

    /// Closes the store, so that another process can open it. What is published from now on is refused: end its feeds
    /// before.
    ///
    /// # Errors
    ///
    /// If what was written does not reach the disk.
    pub async fn close(&self) -> Result<(), StoreError> {
        let disk = self.clone();
        blocking(move || disk.0.store.close()).await
    }

    /// Shows in the app's `/metrics` how it is.
    #[must_use]
    pub fn install(&self, app: App) -> App {
        let disk = self.clone();
        let bytes = move || {
            let open: Vec<_> = lock(&disk.0.open).values().filter_map(|(_, open)| open.upgrade()).collect();
            open.iter().map(|open| open.bytes()).sum::<u64>() as f64
        };
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
            let disk = self.clone();
            self.0.health.recovered(move || !disk.0.store.is_failing()).await;
            let open: Vec<_> = lock(&self.0.open).values().filter_map(|(_, open)| open.upgrade()).collect();
            open.iter().for_each(|open| open.stall(false));
        }
    }

    /// A feed with a source of its own, and what writes it.
    pub(crate) async fn of_source(&self, name: &str, history: usize) -> Result<(Feed, Publisher), StoreError> {
        let opened = self.opened(name, name).await?;
        let (epoch, next) = opened.keeper.begins();
        let (feed, filler, publisher) = Feed::stored(name, opened.keeper.clone(), history, epoch, next);
        Ok((opened.begin(feed, filler), publisher))
    }

    /// A feed that clients write, of the source `source`.
    pub(crate) async fn written(&self, source: &str, name: &str, history: usize) -> Result<Feed, StoreError> {
        let opened = self.opened(source, name).await?;
        let (epoch, next) = opened.keeper.begins();
        let (feed, filler) = Feed::stored_writable(name, opened.keeper.clone(), history, epoch, next);
        Ok(opened.begin(feed, filler))
    }

    /// The feeds that clients create whose names `pattern` matches, with those that are stored.
    pub(crate) async fn family(
        &self,
        pattern: &str,
        history: usize,
        limits: WrittenLimits,
    ) -> Result<Arc<WrittenFeeds>, StoreError> {
        let of_pattern = Arc::new(OfPattern::new(self.clone(), pattern, history));
        let matching = pattern.parse::<Pattern>().ok();
        let is_ours = |name: &str| {
            matching.as_ref().is_some_and(|pattern| pattern.matches(name))
                && !self.0.sources.contains(name)
                && !lock(&self.0.open).contains_key(name)
        };
        let mut feeds = Vec::new();
        for info in self.0.store.feeds().into_iter().filter(|info| is_ours(&info.name)) {
            feeds.push(of_pattern.restored(&info).await?);
        }
        // It is one: the source's name was read as such.
        Ok(WrittenFeeds::stored(pattern, limits, of_pattern, feeds).expect("its name is a pattern"))
    }

    async fn opened(&self, source: &str, name: &str) -> Result<Opened, StoreError> {
        let (disk, of_source, of_name) = (self.clone(), source.to_owned(), name.to_owned());
        let opened = blocking(move || {
            let feed = disk.0.store.feed(&of_name)?;
            if let Some(retain) = lock(&disk.0.retained).get(&of_source) {
                feed.set_retain(*retain);
            }
            let newest = feed.newest().map(|newest| newest.elapsed().unwrap_or_default());
            let earlier = newest.map(|ago| (feed.total_bytes(), ago));
            Ok((feed, earlier))
        });
        let (feed, earlier) = opened.await?;
        let keeper = Keeping::new(feed, &self.0.health);
        let mut open = lock(&self.0.open);
        open.retain(|_, (_, open)| open.strong_count() > 0);
        open.insert(name.to_owned(), (source.to_owned(), keeper.watched()));
        drop(open);
        Ok(Opened { keeper, earlier })
    }
}

fn failed(error: &StoreError) -> FeedError {
    FeedError(error.to_string())
}
