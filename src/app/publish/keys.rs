//! Publications by their keys, within quotas. Each operation takes time that grows with the logarithm of their
//! number, and none looks at all of them.

mod id;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    chunk::{Cursor, Epoch},
    feed::{Account, Progress},
};
use id::number_of;
pub(super) use id::{KeyId, Owner};

/// How long a key is remembered after its last request, unless its client needs the room for others.
pub(super) const KEEP: Duration = Duration::from_secs(3600);
/// How many expired keys go with each operation: more than come with one.
const EXPIRED_AT_ONCE: usize = 4;

/// What a publication has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::app) struct Extent {
    /// Its first chunk.
    pub(in crate::app) first: Option<Cursor>,
    /// Its last one; those of other publishers may stand between.
    pub(in crate::app) last: Option<Cursor>,
    pub(in crate::app) chunks: u64,
    /// Bytes, from the beginning of the publication.
    pub(in crate::app) bytes: u64,
}

impl From<Progress> for Extent {
    fn from(Progress { first, last, chunks, bytes }: Progress) -> Self {
        Self { first, last, chunks, bytes }
    }
}

/// A request of a publication that runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    /// How far it has come.
    progress: Arc<Mutex<Extent>>,
    /// Tells it to give way to the next one.
    pub(super) replaced: CancellationToken,
    /// Tells the next one that it has.
    pub(super) ended: CancellationToken,
}

impl Run {
    /// One that continues there.
    pub(super) fn at(progress: Extent) -> Self {
        Self { progress: Arc::new(Mutex::new(progress)), ..Self::default() }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Extent> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) progress: Extent,
    account: Account,
    /// A hash of the feed's name.
    feed: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Running(Run),
    /// Since then; the number gives the order.
    Finished(Instant, u64),
}

/// What an account has finished, the oldest first, by numbers.
#[derive(Debug, Default)]
struct Held {
    finished: BTreeSet<u64>,
    /// The same by feed.
    feeds: HashMap<u64, OfFeed>,
}

#[derive(Debug, Default)]
struct OfFeed {
    finished: BTreeSet<u64>,
    running: usize,
}

/// How many keys are remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyLimits {
    /// In all.
    pub(super) all: usize,
    /// Of one account for one feed.
    pub(super) each: usize,
}

/// No key can be forgotten for a new one: all belong to publications that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

#[derive(Debug)]
pub(super) struct Keys {
    limits: KeyLimits,
    records: HashMap<KeyId, Record>,
    /// Finished ones, the oldest first: the order in which they expire.
    finished: BTreeMap<u64, KeyId>,
    held: HashMap<Account, Held>,
    /// How many each account has finished, if any: the largest is last.
    sizes: BTreeSet<(usize, Account)>,
    next: u64,
}

/// A key as another process is told of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::app) struct Known {
    id: KeyId,
    account: Option<String>,
    feed: u64,
    /// By numbers of the run and in it.
    first: Option<(u64, u64)>,
    last: Option<(u64, u64)>,
    chunks: u64,
    bytes: u64,
}

impl Known {
    fn new(id: KeyId, record: &Record) -> Self {
        let Extent { first, last, chunks, bytes } = match &record.state {
            State::Running(run) => *run.progress(),
            State::Finished(..) => record.progress,
        };
        let numbers = |cursor: Cursor| (cursor.epoch.0, cursor.seq);
        let account = record.account.name().map(String::from);
        Self { id, account, feed: record.feed, first: first.map(numbers), last: last.map(numbers), chunks, bytes }
    }

    fn extent(&self) -> Extent {
        let cursor = |(epoch, seq)| Cursor { epoch: Epoch(epoch), seq };
        Extent { first: self.first.map(cursor), last: self.last.map(cursor), chunks: self.chunks, bytes: self.bytes }
    }
}

impl Keys {
    pub(super) fn new(limits: KeyLimits) -> Self {
        Self {
            limits,
            records: HashMap::new(),
            finished: BTreeMap::new(),
            held: HashMap::new(),
            sizes: BTreeSet::new(),
            next: 0,
        }
    }

    pub(super) fn set_limits(&mut self, limits: KeyLimits) {
        self.limits = limits;
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// The request that runs under a key.
    pub(super) fn running(&self, id: KeyId) -> Option<&Run> {
        match &self.records.get(&id)?.state {
            State::Running(run) => Some(run),
            State::Finished(..) => None,
        }
    }

    /// How far the publication of a key has come.
    pub(super) fn progress(&mut self, id: KeyId) -> Option<Extent> {
        self.expire();
        Some(self.records.get(&id)?.progress)
    }

    /// Notes that a request of `account` runs under a key. The oldest finished key of the same account and feed is
    /// forgotten when it has too many; when there are too many in all, the oldest one of the account that has most.
    pub(super) fn run(
        &mut self,
        id: KeyId,
        account: &Account,
        feed: &str,
        progress: Extent,
        run: Run,
    ) -> Result<(), NoRoom> {
        self.run_of(id, account, number_of(feed), progress, run)
    }

    fn run_of(&mut self, id: KeyId, account: &Account, feed: u64, progress: Extent, run: Run) -> Result<(), NoRoom> {
        let known = self.records.get(&id);
        if !known.is_some_and(|record| record.account == *account && record.feed == feed) {
            let (is_new, of_feed) = (known.is_none(), self.held.get(account).and_then(|held| held.feeds.get(&feed)));
            if account.is_known()
                && let Some(of_feed) = of_feed
                && of_feed.finished.len() + of_feed.running >= self.limits.each
            {
                let oldest = of_feed.finished.first().and_then(|number| self.finished.get(number)).copied();
                self.forget(oldest.ok_or(NoRoom)?);
            }
            // More than one while there are too many since the limits have changed.
            for _ in 0..EXPIRED_AT_ONCE {
                if !is_new || self.records.len() < self.limits.all {
                    break;
                }
                let (_, largest) = self.sizes.last().ok_or(NoRoom)?;
                let oldest = self.held.get(largest).and_then(|held| held.finished.first());
                let oldest = oldest.and_then(|number| self.finished.get(number)).copied();
                self.forget(oldest.ok_or(NoRoom)?);
            }
        }
        self.forget(id);
        self.held.entry(account.clone()).or_default().feeds.entry(feed).or_default().running += 1;
        let state = State::Running(run);
        self.records.insert(id, Record { progress, account: account.clone(), feed, state });
        Ok(())
    }

    /// Notes that the request that ran under a key has ended.
    pub(super) fn finish(&mut self, id: KeyId, progress: Extent) {
        let number = self.next;
        let Some(record) = self.records.get_mut(&id) else { return };
        if let State::Finished(..) = record.state {
            return;
        }
        self.next += 1;
        record.progress = progress;
        record.state = State::Finished(Instant::now(), number);
        let (account, feed) = (record.account.clone(), record.feed);
        self.finished.insert(number, id);
        let held = self.held.entry(account.clone()).or_default();
        self.sizes.remove(&(held.finished.len(), account.clone()));
        held.finished.insert(number);
        self.sizes.insert((held.finished.len(), account));
        let of_feed = held.feeds.entry(feed).or_default();
        of_feed.running = of_feed.running.saturating_sub(1);
        of_feed.finished.insert(number);
        self.expire();
    }

    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    /// All of them, the oldest first.
    pub(super) fn known(&self) -> Vec<Known> {
        let finished = self.finished.values().filter_map(|id| Some((*id, self.records.get(id)?)));
        let running = self.records.iter().filter(|(_, record)| matches!(record.state, State::Running(_)));
        finished.chain(running.map(|(id, record)| (*id, record))).map(|(id, record)| Known::new(id, record)).collect()
    }

    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    /// Adds those that another process knew, as far as there is room for them.
    pub(super) fn restore(&mut self, known: Vec<Known>) {
        for known in known {
            let account = known.account.as_deref().map_or_else(Account::unknown, Account::new);
            let extent = known.extent();
            if self.run_of(known.id, &account, known.feed, extent, Run::default()).is_ok() {
                self.finish(known.id, extent);
            }
        }
    }

    /// Forgets a key.
    fn forget(&mut self, id: KeyId) {
        let Some(Record { account, feed, state, .. }) = self.records.remove(&id) else { return };
        let Some(held) = self.held.get_mut(&account) else { return };
        let of_feed = held.feeds.entry(feed).or_default();
        match state {
            State::Running(_) => of_feed.running = of_feed.running.saturating_sub(1),
            State::Finished(_, number) => {
                self.finished.remove(&number);
                of_feed.finished.remove(&number);
                self.sizes.remove(&(held.finished.len(), account.clone()));
                held.finished.remove(&number);
                if !held.finished.is_empty() {
                    self.sizes.insert((held.finished.len(), account.clone()));
                }
            }
        }
        if of_feed.running == 0 && of_feed.finished.is_empty() {
            held.feeds.remove(&feed);
        }
        if held.feeds.is_empty() {
            self.held.remove(&account);
        }
    }

    fn expire(&mut self) {
        for _ in 0..EXPIRED_AT_ONCE {
            let Some(id) = self.finished.first_key_value().map(|(_, id)| *id) else { return };
            match self.records.get(&id).map(|record| &record.state) {
                Some(State::Finished(since, _)) if since.elapsed() < KEEP => return,
                _ => self.forget(id),
            }
        }
    }
}

#[cfg(test)]
mod tests;
