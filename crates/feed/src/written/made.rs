//! The feeds that there are of a pattern.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{FeedStore, WrittenLimits};
use crate::{Account, Exhausted, Feed, Hold, Provenance};

/// For how long a feed must not have been written to give way although it has viewers.
const SILENT: Duration = Duration::from_secs(60);
/// So many feeds may wait to be written before those without viewers are looked for.
const WAITING: usize = 64;
/// So many give way to one that is created, at most.
const MOST_EVICTED: usize = 4;

#[derive(Default)]
pub(super) struct Made {
    /// Those that were written, or may be yet by those who asked for them.
    pub(super) by_name: BTreeMap<String, OneFeed>,
    /// How many of them each account has created, if any.
    pub(super) by_account: HashMap<Account, usize>,
    /// Those that are only viewed, and were never written.
    pub(super) waiting: BTreeMap<String, Feed>,
    /// How many of those there were when they were looked at last.
    looked: usize,
    /// What their publishers may do.
    pub(super) hold: Hold,
    /// Where they are stored, if they are.
    pub(super) store: Option<Arc<dyn FeedStore>>,
}

pub(super) struct OneFeed {
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

    /// Whether it may give way to another although it has viewers: since when nobody has written it.
    fn silent_since(&self, now: Instant) -> Option<Instant> {
        let written = self.feed.counters.last()?;
        (!self.feed.is_held() && now.duration_since(written) >= SILENT).then_some(written)
    }
}

impl Made {
    pub(super) fn get(&self, name: &str) -> Option<Feed> {
        let one = self.by_name.get(name).map(|one| &one.feed);
        one.or_else(|| self.waiting.get(name)).cloned()
    }

    /// Those that were written, as they are listed.
    pub(super) fn written(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = Feed> {
        let written = self.by_name.iter().filter(move |(name, one)| wanted(name) && !one.is_empty());
        written.map(|(_, one)| one.feed.for_list())
    }

    /// One of them.
    pub(super) fn one_written(&self, name: &str) -> Option<Feed> {
        self.by_name.get(name).filter(|one| !one.is_empty()).map(|one| one.feed.for_list())
    }

    /// What publishers of all may do.
    pub(super) fn hold(&mut self, hold: Hold) {
        self.hold = hold;
        self.by_name.values().map(|one| &one.feed).chain(self.waiting.values()).for_each(|feed| feed.hold(hold));
    }

    /// Ends all.
    pub(super) fn stop(self) {
        self.by_name.values().map(|one| &one.feed).chain(self.waiting.values()).for_each(Feed::stop);
    }

    /// A feed that was written, or may be yet, for one who uses it.
    pub(super) fn reopen(&mut self, name: &str) -> Option<Feed> {
        let one = self.by_name.get_mut(name)?;
        one.used = Instant::now();
        Some(one.feed.clone())
    }

    /// A feed that exists, for one who only views it.
    pub(super) fn look_up(&mut self, name: &str) -> Option<Feed> {
        self.reopen(name).or_else(|| self.waiting.get(name).cloned())
    }

    /// A feed for one who only views it. It takes no place.
    pub(super) fn view(&mut self, name: &str, new: impl FnOnce() -> Feed) -> Feed {
        if let Some(feed) = self.look_up(name) {
            return feed;
        }
        // Each time that there are twice as many: there are never many more than have viewers.
        if self.waiting.len() >= WAITING.max(2 * self.looked) {
            self.forget_unviewed();
        }
        self.waiting.entry(name.to_owned()).or_insert_with(new).clone()
    }

    /// A feed for one who may write it, with the names of others that gave way to it: several, while there are more than
    /// may be since the limits have changed.
    pub(super) fn open(
        &mut self,
        name: &str,
        account: &Account,
        limits: &WrittenLimits,
        new: impl FnOnce() -> Feed,
    ) -> Result<(Feed, Vec<String>), Exhausted> {
        if let Some(feed) = self.reopen(name) {
            return Ok((feed, Vec::new()));
        }
        let WrittenLimits { all, each, idle } = *limits;
        let is_full = |made: &Self| account.is_known() && made.by_account.get(account).is_some_and(|own| *own >= each);
        let mut evicted = Vec::new();
        if is_full(self) {
            self.sweep(idle, Some(account));
        }
        while is_full(self) && evicted.len() < MOST_EVICTED {
            match self.make_room_of(account, idle) {
                Some(name) => evicted.push(name),
                None if evicted.is_empty() => return Err(Exhausted::Account(each)),
                None => break,
            }
        }
        if self.by_name.len() >= all {
            self.sweep(idle, None);
        }
        while self.by_name.len() >= all && evicted.len() < MOST_EVICTED {
            match self.make_room() {
                Some(name) => evicted.push(name),
                None if evicted.is_empty() => return Err(Exhausted::All(all)),
                None => break,
            }
        }
        let feed = self.insert(name, account, Instant::now(), new);
        if let Some(store) = &self.store {
            store.created(name, account);
        }
        Ok((feed, evicted))
    }

    fn insert(&mut self, name: &str, account: &Account, used: Instant, new: impl FnOnce() -> Feed) -> Feed {
        // Those who wait for it see what is written.
        let feed = self.waiting.remove(name).unwrap_or_else(new);
        *self.by_account.entry(account.clone()).or_default() += 1;
        let one = OneFeed { feed: feed.clone(), account: account.clone(), used };
        self.by_name.insert(name.to_owned(), one);
        feed
    }

    /// A feed that another process has created.
    pub(super) fn adopt(&mut self, name: &str, provenance: &Provenance, new: impl FnOnce() -> Feed) -> Feed {
        if let Some(one) = self.by_name.get(name) {
            return one.feed.clone();
        }
        let now = Instant::now();
        // A system that has just started may not know a time before that.
        self.insert(name, &provenance.account, now.checked_sub(provenance.unused).unwrap_or(now), new)
    }

    /// Whom a feed counts for, and since when it has not been used.
    pub(super) fn provenance(&mut self, name: &str) -> Option<Provenance> {
        let (now, one) = (Instant::now(), self.by_name.get_mut(name)?);
        one.look(now);
        Some(Provenance::new(one.account.clone(), now.saturating_duration_since(one.used)))
    }

    /// Takes one from its place.
    fn take(&mut self, name: &str) -> Option<Feed> {
        let gone = self.by_name.remove(name)?;
        if let Some(count) = self.by_account.get_mut(&gone.account) {
            *count -= 1;
            if *count == 0 {
                self.by_account.remove(&gone.account);
            }
        }
        Some(gone.feed)
    }

    fn remove(&mut self, name: &str) {
        if let Some(feed) = self.take(name) {
            feed.stop();
            if let Some(store) = &self.store {
                store.remove(name);
            }
        }
    }

    fn forget_unviewed(&mut self) {
        self.waiting.retain(|_, feed| {
            let stays = feed.is_in_use();
            if !stays {
                // Nothing has failed.
                feed.stop();
            }
            stays
        });
        self.looked = self.waiting.len();
    }

    /// Removes what is not used and was not for that long, or was never written; of one account or all. What is viewed
    /// and was never written gives its place back. What is stored only leaves memory.
    pub(super) fn sweep(&mut self, idle: Duration, of: Option<&Account>) {
        let now = Instant::now();
        let (mut gone, mut waiting) = (Vec::new(), Vec::new());
        for (name, one) in &mut self.by_name {
            if of.is_some_and(|account| one.account != *account) {
                continue;
            }
            one.look(now);
            let is_empty = one.is_empty();
            if !one.feed.is_in_use() && (is_empty || now.duration_since(one.used) >= idle) {
                gone.push(name.clone());
            } else if is_empty && !one.feed.is_held() {
                waiting.push(name.clone());
            }
        }
        for name in gone {
            match self.by_name.get(&name).filter(|one| self.stays(&one.feed)) {
                Some(one) => one.feed.forget(),
                None => self.remove(&name),
            }
        }
        for name in waiting {
            if let Some(feed) = self.take(&name) {
                self.waiting.insert(name, feed);
            }
        }
        if of.is_none() {
            self.forget_unviewed();
        }
    }

    /// Removes the feed of an account that has not been used for longest, and not for `idle`: a stored one, since others
    /// are removed when they have been idle for that long.
    fn make_room_of(&mut self, account: &Account, idle: Duration) -> Option<String> {
        let now = Instant::now();
        let unused = self.by_name.iter().filter(|(_, one)| {
            one.account == *account && !one.feed.is_in_use() && now.duration_since(one.used) >= idle
        });
        let name = unused.min_by_key(|(_, one)| one.used).map(|(name, _)| name.clone())?;
        self.remove(&name);
        Some(name)
    }

    /// Removes the feed that has not been used for longest, of the accounts that have created most; or, if all are
    /// used, one that is only viewed.
    fn make_room(&mut self) -> Option<String> {
        let now = Instant::now();
        let created = |one: &OneFeed| self.by_account.get(&one.account).copied().unwrap_or_default();
        let unused = self.by_name.iter().filter(|(_, one)| !one.feed.is_in_use());
        let oldest = unused.max_by_key(|(_, one)| (created(one), Reverse(one.used))).map(|(name, _)| name);
        let name = oldest.or_else(|| {
            let silent = self.by_name.iter().filter_map(|(name, one)| Some((name, one, one.silent_since(now)?)));
            silent.max_by_key(|(_, one, since)| (created(one), Reverse(*since))).map(|(name, ..)| name)
        });
        let name = name?.clone();
        self.remove(&name);
        Some(name)
    }
}
