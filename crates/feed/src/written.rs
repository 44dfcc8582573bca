//! Feeds that clients create by writing them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, interval};

use crate::{Account, BadPattern, Exhausted, Family, Feed, FeedError, Lag, OpenError, Pattern};

/// How often feeds that are not used are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Feeds in memory that exist from when a client first writes them: one for each name that a pattern matches.
///
/// A feed can be viewed before it is written: the view waits for its first chunk. Until then the feed is not listed,
/// and it goes with its last viewer. A feed that was written is kept while it has viewers or is being written, and for
/// a while after that; the one that has not been used for longest goes earlier when there are too many. When it is
/// written again, it is a new run with another epoch.
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
    limits: WrittenLimits,
    feeds: Mutex<Made>,
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

#[derive(Default)]
struct Made {
    by_name: BTreeMap<String, OneFeed>,
    /// How many each account has created, if any.
    by_account: HashMap<Account, usize>,
}

struct OneFeed {
    feed: Feed,
    /// Created by.
    account: Account,
    /// When it was viewed, written or asked for last, as far as was looked.
    used: Instant,
}

impl OneFeed {
    /// Renews it if it has viewers, or was written since. A request that may write it, and does not, only keeps it from
    /// being removed right now.
    fn look(&mut self, now: Instant) {
        let written = self.feed.counters.last();
        self.used =
            if self.feed.status().viewers > 0 { now } else { written.map_or(self.used, |at| at.max(self.used)) };
    }

    /// Nothing has been written.
    fn is_empty(&self) -> bool {
        self.feed.status().chunks == 0
    }
}

impl Made {
    fn remove(&mut self, name: &str) {
        let Some(gone) = self.by_name.remove(name) else { return };
        gone.feed.stop();
        if let Some(count) = self.by_account.get_mut(&gone.account) {
            *count -= 1;
            if *count == 0 {
                self.by_account.remove(&gone.account);
            }
        }
    }

    /// Removes what is not used and was not for that long, or was never written; of one account or all.
    fn sweep(&mut self, idle: Duration, of: Option<&Account>) {
        let now = Instant::now();
        let mut gone = Vec::new();
        for (name, one) in &mut self.by_name {
            if of.is_some_and(|account| one.account != *account) {
                continue;
            }
            one.look(now);
            if !one.feed.is_in_use() && (one.is_empty() || now.duration_since(one.used) >= idle) {
                gone.push(name.clone());
            }
        }
        gone.iter().for_each(|name| self.remove(name));
    }

    /// Removes the feed that has not been used for longest, of the accounts that have created most.
    fn make_room(&mut self) -> bool {
        let created = |account: &Account| self.by_account.get(account).copied().unwrap_or_default();
        let unused = self.by_name.iter().filter(|(_, one)| !one.feed.is_in_use());
        let oldest = unused.max_by_key(|(_, one)| (created(&one.account), std::cmp::Reverse(one.used)));
        let Some(name) = oldest.map(|(name, _)| name.clone()) else { return false };
        self.remove(&name);
        true
    }
}

impl fmt::Debug for WrittenFeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrittenFeeds")
            .field("pattern", &self.pattern)
            .field("limits", &self.limits)
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
        let pattern = pattern.parse()?;
        Ok(Arc::new_cyclic(|own| Self { pattern, history, lag, limits, feeds: Mutex::default(), own: own.clone() }))
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
                    let feeds = std::mem::take(&mut *feeds.lock());
                    feeds.by_name.values().for_each(|one| one.feed.stop());
                }
            }
        }
        let clear = Clear(self.own.clone());
        async move {
            let mut sweeps = interval(SWEEP);
            loop {
                sweeps.tick().await;
                let Some(feeds) = clear.0.upgrade() else { return };
                feeds.lock().sweep(feeds.limits.idle, None);
            }
        }
    }

    fn open_now(&self, name: &str, account: &Account) -> Result<Feed, Exhausted> {
        let mut made = self.lock();
        if let Some(one) = made.by_name.get_mut(name) {
            one.used = Instant::now();
            return Ok(one.feed.clone());
        }
        let WrittenLimits { all, each, idle } = self.limits;
        let is_full = |made: &Made| account.is_known() && made.by_account.get(account).is_some_and(|own| *own >= each);
        if is_full(&made) {
            made.sweep(idle, Some(account));
            if is_full(&made) {
                return Err(Exhausted::Account(each));
            }
        }
        if made.by_name.len() >= all {
            made.sweep(idle, None);
            if made.by_name.len() >= all && !made.make_room() {
                return Err(Exhausted::All(all));
            }
        }
        let feed = Feed::writable(name, self.history, self.lag);
        *made.by_account.entry(account.clone()).or_default() += 1;
        let one = OneFeed { feed: feed.clone(), account: account.clone(), used: Instant::now() };
        made.by_name.insert(name.to_owned(), one);
        Ok(feed)
    }
}

impl Family for WrittenFeeds {
    fn pattern(&self) -> &str {
        self.pattern.as_str()
    }

    /// A feed that exists.
    fn get(&self, name: &str) -> BoxFuture<'_, Option<Result<Feed, FeedError>>> {
        let found = self.lock().by_name.get(name).map(|one| Ok(one.feed.clone()));
        Box::pin(std::future::ready(found))
    }

    fn open<'a>(&'a self, name: &'a str, account: &'a Account) -> BoxFuture<'a, Option<Result<Feed, OpenError>>> {
        let opened = self.pattern.matches(name).then(|| self.open_now(name, account).map_err(OpenError::Exhausted));
        Box::pin(std::future::ready(opened))
    }

    /// Those that were written.
    fn feeds(&self) -> Vec<Feed> {
        self.lock().by_name.values().filter(|one| !one.is_empty()).map(|one| one.feed.for_list()).collect()
    }

    fn is_ready(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cursor, Start};

    fn family(all: usize, each: usize) -> Arc<WrittenFeeds> {
        let limits = WrittenLimits { all, each, idle: Duration::from_secs(100) };
        WrittenFeeds::within("chat.*", 1 << 16, Lag::Skip, limits).unwrap()
    }

    fn account(number: usize) -> Account {
        Account::new(format!("192.0.2.{number}"))
    }

    async fn write(family: &WrittenFeeds, account: &Account, name: &str) -> Result<Cursor, Exhausted> {
        let feed = family.open_now(name, account)?;
        Ok(feed.publisher().unwrap().publish("hello".into()).await.unwrap())
    }

    fn names(family: &WrittenFeeds) -> Vec<String> {
        family.lock().by_name.keys().cloned().collect()
    }

    #[tokio::test]
    async fn an_account_creates_so_many_and_stops_no_other() {
        let family = family(100, 3);
        for name in ["chat.a", "chat.b", "chat.c"] {
            write(&family, &account(1), name).await.unwrap();
        }
        assert_eq!(write(&family, &account(1), "chat.d").await, Err(Exhausted::Account(3)));
        // Those that exist are everyone's.
        write(&family, &account(2), "chat.a").await.unwrap();
        write(&family, &account(1), "chat.c").await.unwrap();
        write(&family, &account(2), "chat.d").await.unwrap();
    }

    #[tokio::test]
    async fn a_view_of_what_is_not_written_waits_and_leaves_nothing() {
        let family = family(2, 1);
        let feed = family.open_now("chat.a", &account(1)).unwrap();
        let mut viewer = feed.view(Start::Now, None);
        drop(feed);
        assert!(family.feeds().is_empty(), "it is not listed");
        assert_eq!(family.open_now("chat.b", &account(1)).unwrap_err(), Exhausted::Account(1));
        write(&family, &account(2), "chat.a").await.unwrap();
        let event = futures_util::StreamExt::next(&mut viewer).await;
        assert!(matches!(event, Some(crate::Event::Chunk(chunk)) if chunk.bytes == "hello"));
        assert_eq!(family.feeds().len(), 1);
        drop(viewer);
        drop(family.open_now("chat.b", &account(2)).unwrap().view(Start::Now, None));
        drop(family.open_now("chat.c", &account(2)).unwrap().view(Start::Now, None));
        assert_eq!(names(&family), ["chat.a", "chat.c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_was_not_used_for_longest_gives_way() {
        let family = family(4, 3);
        for name in ["chat.a", "chat.b", "chat.c"] {
            write(&family, &account(1), name).await.unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        write(&family, &account(2), "chat.z").await.unwrap();
        let viewer = family.open_now("chat.a", &account(1)).unwrap().view(Start::Now, None);
        let writing = family.open_now("chat.b", &account(1)).unwrap();
        // Not the only one of another client, however old.
        write(&family, &account(3), "chat.d").await.unwrap();
        assert_eq!(names(&family), ["chat.a", "chat.b", "chat.d", "chat.z"]);
        let all = [&family.open_now("chat.d", &account(3)).unwrap(), &family.open_now("chat.z", &account(2)).unwrap()];
        assert_eq!(write(&family, &account(4), "chat.e").await, Err(Exhausted::All(4)));
        drop((viewer, writing));
        let _ = all;
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_written_first_gives_way_whenever_it_is_looked_for() {
        let family = family(3, 3);
        for name in ["chat.b", "chat.a", "chat.c"] {
            tokio::time::advance(Duration::from_secs(1)).await;
            write(&family, &account(1), name).await.unwrap();
        }
        let feed = family.get("chat.b").await.unwrap().unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        feed.publisher().unwrap().publish("again".into()).await.unwrap();
        drop(feed);
        write(&family, &account(2), "chat.d").await.unwrap();
        assert_eq!(names(&family), ["chat.b", "chat.c", "chat.d"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_of_feeds_keeps_none() {
        let family = family(2, 2);
        let sweeping = tokio::spawn(family.sweep());
        write(&family, &account(1), "chat.a").await.unwrap();
        tokio::time::sleep(SWEEP + Duration::from_secs(1)).await;
        write(&family, &account(1), "chat.b").await.unwrap();
        let listed = family.feeds();
        assert!(listed.len() == 2 && listed[0].publisher().is_some());
        // A listing in progress does not keep new feeds out.
        write(&family, &account(2), "chat.c").await.unwrap();
        assert_eq!(names(&family), ["chat.b", "chat.c"]);
        // And whoever lists them all the time does not keep them.
        for _ in 0..12 {
            let listed = family.feeds();
            tokio::time::sleep(SWEEP).await;
            drop(listed);
        }
        assert!(names(&family).is_empty());
        drop(sweeping);
    }

    #[tokio::test(start_paused = true)]
    async fn only_viewers_and_chunks_renew_a_feed() {
        let family = family(10, 10);
        let _sweeping = tokio::spawn(family.sweep());
        write(&family, &account(1), "chat.a").await.unwrap();
        // One that may write it, and does so every now and then.
        let writing = family.get("chat.a").await.unwrap().unwrap();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            writing.publisher().unwrap().publish("hello".into()).await.unwrap();
        }
        tokio::time::sleep(SWEEP).await;
        drop(writing);
        tokio::time::sleep(Duration::from_secs(80)).await;
        assert_eq!(names(&family), ["chat.a"]);
        // And one that is silent: the feed is not taken from it, and goes after it.
        let silent = family.get("chat.a").await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(names(&family), ["chat.a"]);
        drop(silent);
        tokio::time::sleep(2 * SWEEP).await;
        assert!(names(&family).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_used_goes_and_is_another_run_when_it_is_written_again() {
        let family = family(10, 10);
        let sweeping = tokio::spawn(family.sweep());
        let first = write(&family, &account(1), "chat.a").await.unwrap();
        write(&family, &account(1), "chat.b").await.unwrap();
        let viewer = family.open_now("chat.b", &account(1)).unwrap().view(Start::Now, None);
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(names(&family), ["chat.a", "chat.b"]);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(names(&family), ["chat.b"]);
        drop(viewer);
        tokio::time::sleep(Duration::from_secs(130)).await;
        assert!(names(&family).is_empty() && family.lock().by_account.is_empty());
        std::thread::sleep(Duration::from_millis(2));
        let second = write(&family, &account(1), "chat.a").await.unwrap();
        assert!(second.seq == 0 && second.epoch != first.epoch);
        let feed = family.open_now("chat.a", &account(1)).unwrap();
        sweeping.abort();
        let _ = sweeping.await;
        assert_eq!(feed.publisher().unwrap().publish("late".into()).await, Err(crate::PublishError::Ended));
    }
}
