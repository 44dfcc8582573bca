//! Feeds that clients create by writing them.

mod made;
mod stored;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::interval;

pub use self::stored::FeedStore;
use self::{made::Made, stored::Storage};
use crate::{
    Account, BadPattern, Exhausted, Family, Feed, FeedError, Hold, Lag, OpenError, Pattern, Provenance, Trouble,
    log::Evictions,
};

/// How often feeds that are not used are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Feeds that exist from when a client first writes them: one for each name that a pattern matches.
///
/// A feed can be viewed before it is written: the view waits for its first chunk. Until then the feed is not listed,
/// takes no place of those that are written, counts for no one, and goes with its last viewer: whoever admits viewers
/// bounds it. A feed that was written is kept while it has viewers or is being written, and for a while after that.
/// When a writer needs a place and there is none, a feed goes earlier: the one that has not been used for longest, or
/// else one that is only viewed and has not been written for a minute, so that readers cannot keep writers out.
/// Readers never remove a feed. When it is written again, it is a new run with another epoch.
///
/// The feeds are in memory, or [stored](Self::stored): then one that is not used only leaves memory, and is removed from
/// where it is stored when a writer needs its place, or nothing of it is left there.
///
/// ```
/// use h3cast_feed::{Account, Feeds, Lag, WrittenFeeds};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut feeds = Feeds::default();
/// feeds.add_family(WrittenFeeds::new("chat.*", 1 << 20, Lag::Skip)?);
/// let feed = feeds.open("chat.rust", &Account::new("192.0.2.1")).await?.expect("it matches");
/// feed.publisher().expect("clients may write it").publish("hello".into()).await?;
/// assert_eq!(feeds.all().len(), 1);
/// assert!(feeds.get("chat.rust.async").await?.is_none(), "`*` is one part of a name");
/// # Ok(()) }
/// ```
pub struct WrittenFeeds {
    pattern: Pattern,
    history: usize,
    lag: Lag,
    limits: RwLock<WrittenLimits>,
    feeds: Mutex<Made>,
    evictions: Evictions,
    /// Where the feeds are stored, if they are.
    storage: Option<Storage>,
    own: Weak<Self>,
}

/// What the feeds of [`WrittenFeeds`] may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrittenLimits {
    /// How many there may be. Default 1,000.
    pub all: usize,
    /// How many of them one account may have created. Default 64.
    pub each: usize,
    /// How long a feed is kept that is neither viewed nor written. Default an hour.
    pub idle: Duration,
}

impl Default for WrittenLimits {
    fn default() -> Self {
        Self { all: 1000, each: 64, idle: Duration::from_secs(3600) }
    }
}

impl fmt::Debug for WrittenFeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrittenFeeds")
            .field("pattern", &self.pattern)
            .field("limits", &self.limits())
            .finish_non_exhaustive()
    }
}

impl WrittenFeeds {
    /// Feeds with names like `pattern` that each keep up to `history` bytes.
    ///
    /// # Errors
    ///
    /// If `pattern` is not one.
    pub fn new(pattern: &str, history: usize, lag: Lag) -> Result<Arc<Self>, BadPattern> {
        Self::within(pattern, history, lag, WrittenLimits::default())
    }

    /// The same within other limits.
    ///
    /// # Errors
    ///
    /// If `pattern` is not one.
    pub fn within(pattern: &str, history: usize, lag: Lag, limits: WrittenLimits) -> Result<Arc<Self>, BadPattern> {
        Ok(Self::with(pattern.parse()?, (history, lag), limits, Made::default(), None))
    }

    fn with(
        pattern: Pattern,
        (history, lag): (usize, Lag),
        limits: WrittenLimits,
        made: Made,
        storage: Option<Storage>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            pattern,
            history,
            lag,
            limits: RwLock::new(limits),
            feeds: Mutex::new(made),
            evictions: Evictions::default(),
            storage,
            own: own.clone(),
        })
    }

    fn limits(&self) -> WrittenLimits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Made> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes feeds that are not used any more, for as long as it is polled. Without it they go when their room is
    /// needed. When it is dropped, as when its server stops, all feeds end.
    pub fn sweep(&self) -> impl Future<Output = ()> + Send + use<> {
        /// Ends the feeds.
        struct Clear(Weak<WrittenFeeds>);
        impl Drop for Clear {
            fn drop(&mut self) {
                if let Some(feeds) = self.0.upgrade() {
                    std::mem::take(&mut *feeds.lock()).stop();
                }
            }
        }
        let clear = Clear(self.own.clone());
        async move {
            let mut sweeps = interval(SWEEP);
            loop {
                sweeps.tick().await;
                let Some(feeds) = clear.0.upgrade() else { return };
                let _one = feeds.alone().await;
                feeds.lock().sweep(feeds.limits().idle, None);
            }
        }
    }

    /// For one who may write it.
    fn open_now(&self, name: &str, account: &Account) -> Result<Feed, Exhausted> {
        self.open_with(name, account, |hold| self.new_feed(name, hold))
    }

    fn open_with(&self, name: &str, account: &Account, new: impl FnOnce(Hold) -> Feed) -> Result<Feed, Exhausted> {
        let mut made = self.lock();
        let hold = made.hold;
        let opened = made.open(name, account, &self.limits(), || new(hold));
        drop(made);
        let (feed, evicted) = opened?;
        for name in evicted {
            self.evictions.count(&name, self.pattern.as_str());
        }
        Ok(feed)
    }

    /// For one who only views it.
    fn view_now(&self, name: &str) -> Feed {
        let mut made = self.lock();
        let hold = made.hold;
        made.view(name, || self.new_feed(name, hold))
    }

    fn new_feed(&self, name: &str, hold: Hold) -> Feed {
        let feed = Feed::writable(name, self.history, self.lag);
        feed.hold(hold);
        feed
    }
}

impl Drop for WrittenFeeds {
    /// Ends the feeds: no source of theirs has failed.
    fn drop(&mut self) {
        std::mem::take(&mut *self.lock()).stop();
    }
}

impl Family for WrittenFeeds {
    fn pattern(&self) -> &str {
        self.pattern.as_str()
    }

    /// A feed that exists.
    fn get(&self, name: &str) -> BoxFuture<'_, Option<Result<Feed, FeedError>>> {
        let found = self.lock().get(name).map(Ok);
        Box::pin(std::future::ready(found))
    }

    fn view<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Result<Feed, OpenError>>> {
        let matches = self.pattern.matches(name);
        if let Some(storage) = self.storage.as_ref().filter(|_| matches) {
            return Box::pin(async move { Some(self.view_stored(storage, name).await) });
        }
        Box::pin(std::future::ready(matches.then(|| Ok(self.view_now(name)))))
    }

    fn open<'a>(&'a self, name: &'a str, account: &'a Account) -> BoxFuture<'a, Option<Result<Feed, OpenError>>> {
        let matches = self.pattern.matches(name);
        if let Some(storage) = self.storage.as_ref().filter(|_| matches) {
            return Box::pin(async move { Some(self.open_stored(storage, name, account).await) });
        }
        let opened = matches.then(|| self.open_now(name, account).map_err(OpenError::Exhausted));
        Box::pin(std::future::ready(opened))
    }

    fn adopt<'a>(
        &'a self,
        name: &'a str,
        provenance: &'a Provenance,
    ) -> BoxFuture<'a, Option<Result<Feed, OpenError>>> {
        if self.storage.is_some() {
            // Another process takes over what is stored.
            return self.view(name);
        }
        let adopt = || {
            let mut made = self.lock();
            let hold = made.hold;
            made.adopt(name, provenance, || self.new_feed(name, hold))
        };
        Box::pin(std::future::ready(self.pattern.matches(name).then(|| Ok(adopt()))))
    }

    fn provenance(&self, name: &str) -> Option<Provenance> {
        self.lock().provenance(name)
    }

    /// Those that were written.
    fn feeds(&self) -> Vec<Feed> {
        self.lock().written(|_| true).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.pattern.matches(name)
    }

    fn existing(&self, name: &str) -> Option<Feed> {
        self.lock().one_written(name)
    }

    fn some(&self, most: usize, wanted: &dyn Fn(&str) -> bool) -> Vec<Feed> {
        self.lock().written(wanted).take(most).collect()
    }

    fn hold(&self, hold: Hold) {
        self.lock().hold(hold);
    }

    fn is_ready(&self) -> bool {
        self.storage.as_ref().is_none_or(|storage| storage.store.is_ready())
    }

    fn trouble(&self) -> Option<Trouble> {
        self.storage.as_ref()?.store.trouble()
    }

    fn set_limits(&self, limits: WrittenLimits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn evicted(&self) -> u64 {
        self.evictions.counted()
    }
}

#[cfg(test)]
mod tests;
