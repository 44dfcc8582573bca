//! Publications by their keys, within quotas. Each operation takes time that grows with the logarithm of their
//! number, and none looks at all of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    chunk::{Cursor, Epoch},
    feed::Account,
};

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

/// A key of a feed, of one owner or of all who have no name. All of them may be long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct KeyId([u8; 16]);

impl KeyId {
    pub(super) fn of(feed: &str, owner: Option<&Owner>, key: &str) -> Self {
        // A key has no zero byte, and neither has a feed's name.
        let hash = Sha256::new().chain_update(feed).chain_update([0]).chain_update(key).chain_update([0]);
        let hash = match owner {
            Some(Owner(owner)) => hash.chain_update(owner),
            None => hash,
        };
        Self(first_half(hash))
    }
}

fn first_half(hash: Sha256) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

/// The client whose keys they are: the one that a token names, the same at every server that takes it. Clients that
/// no token names share theirs, since the address of one that comes back may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner([u8; 16]);

impl Owner {
    /// The one of this name, by this kind of token.
    pub(super) fn new(token: &str, name: &str) -> Self {
        Self(first_half(Sha256::new().chain_update(token).chain_update([0]).chain_update(name)))
    }

    /// What its chunks are known by where the feed is stored. No client without a name has the same: that of a feed,
    /// with which theirs begins, has no slash.
    pub(super) fn prefix(self) -> String {
        let digits = self.0.iter().fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"));
        format!("/{digits}/")
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

/// A number for a feed that no client finds another one for: the same in every process.
fn number_of(feed: &str) -> u64 {
    first_half(Sha256::new().chain_update(feed)).iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
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
mod tests {
    use super::*;

    fn account(number: usize) -> Account {
        Account::new(format!("192.0.2.{number}"))
    }

    fn key(number: usize) -> KeyId {
        KeyId::of("feed", None, &number.to_string())
    }

    /// One request of a key from its beginning to its end.
    fn publish(keys: &mut Keys, account: &Account, feed: &str, number: usize) -> Result<(), NoRoom> {
        let id = KeyId::of(feed, None, &number.to_string());
        keys.run(id, account, feed, Extent::default(), Run::default())?;
        keys.finish(id, Extent { bytes: number as u64 + 1, ..Extent::default() });
        Ok(())
    }

    /// Whether what is known of them agrees.
    fn check(keys: &Keys) {
        let finished: usize = keys.held.values().map(|held| held.finished.len()).sum();
        let running: usize = keys.held.values().flat_map(|held| held.feeds.values()).map(|of| of.running).sum();
        assert_eq!(finished + running, keys.records.len());
        assert_eq!(finished, keys.finished.len());
        assert!(keys.records.len() <= keys.limits.all);
        let sizes: BTreeSet<_> = keys
            .held
            .iter()
            .map(|(account, held)| (held.finished.len(), account.clone()))
            .filter(|of| of.0 > 0)
            .collect();
        assert_eq!(sizes, keys.sizes);
    }

    #[tokio::test]
    async fn a_client_forgets_its_own_oldest_key_of_that_feed() {
        let mut keys = Keys::new(KeyLimits { all: 100, each: 10 });
        publish(&mut keys, &account(2), "feed", 1000).unwrap();
        publish(&mut keys, &account(1), "other", 0).unwrap();
        for number in 0..50 {
            publish(&mut keys, &account(1), "feed", number).unwrap();
            check(&keys);
        }
        let known: Vec<_> = (0..50).filter(|number| keys.progress(key(*number)).is_some()).collect();
        assert_eq!(known, (40..50).collect::<Vec<_>>());
        assert!(keys.progress(key(1000)).is_some(), "another's");
        assert!(keys.progress(KeyId::of("other", None, "0")).is_some(), "of another feed");
        // One that is used again is the newest.
        publish(&mut keys, &account(1), "feed", 40).unwrap();
        publish(&mut keys, &account(1), "feed", 50).unwrap();
        assert!(keys.progress(key(40)).is_some() && keys.progress(key(41)).is_none());
    }

    #[tokio::test]
    async fn when_there_are_too_many_the_client_with_most_gives_way() {
        let mut keys = Keys::new(KeyLimits { all: 100, each: 80 });
        for number in 0..5 {
            publish(&mut keys, &account(1), "feed", number).unwrap();
        }
        // Many feeds make no difference.
        for number in 0..500 {
            publish(&mut keys, &account(2), &format!("feed{}", number % 50), number).unwrap();
            check(&keys);
        }
        assert_eq!(keys.len(), 100);
        assert!((0..5).all(|number| keys.progress(key(number)).is_some()));
        for number in 10..20 {
            publish(&mut keys, &account(3), "feed", number).unwrap();
        }
        assert!((0..5).chain(10..20).all(|number| keys.progress(key(number)).is_some()));
        check(&keys);
    }

    #[tokio::test]
    async fn what_runs_is_never_forgotten() {
        let mut keys = Keys::new(KeyLimits { all: 4, each: 3 });
        for number in 0..3 {
            keys.run(key(number), &account(1), "feed", Extent::default(), Run::default()).unwrap();
        }
        assert_eq!(publish(&mut keys, &account(1), "feed", 3), Err(NoRoom));
        publish(&mut keys, &account(2), "feed", 4).unwrap();
        publish(&mut keys, &account(2), "feed", 5).unwrap();
        assert!(keys.running(key(0)).is_some() && keys.progress(key(4)).is_none());
        keys.run(key(5), &account(2), "feed", Extent::default(), Run::default()).unwrap();
        assert_eq!(publish(&mut keys, &account(2), "feed", 6), Err(NoRoom));
        check(&keys);
        keys.finish(key(5), Extent { bytes: 6, ..Extent::default() });
        // Nor what is refused.
        assert_eq!(publish(&mut keys, &account(1), "feed", 5), Err(NoRoom));
        assert_eq!(keys.progress(key(5)).unwrap().bytes, 6);
        publish(&mut keys, &account(3), "feed", 6).unwrap();
        check(&keys);
    }

    #[test]
    fn a_key_is_its_owners() {
        let owners = [None, Some(Owner::new("static token", "a")), Some(Owner::new("JSON web token", "a"))];
        let ids = owners.map(|owner| KeyId::of("feed", owner.as_ref(), "1"));
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        assert_eq!(ids[1], KeyId::of("feed", Some(&Owner::new("static token", "a")), "1"));
        let prefix = Owner::new("static token", "a").prefix();
        assert!(prefix.starts_with('/') && prefix.len() == 34, "{prefix}");
    }

    /// A client that comes back from another address keeps its publication, and pays for it there.
    #[tokio::test]
    async fn a_key_moves_with_its_client() {
        let mut keys = Keys::new(KeyLimits { all: 100, each: 10 });
        publish(&mut keys, &account(1), "feed", 7).unwrap();
        let progress = keys.progress(key(7)).unwrap();
        assert_eq!(progress.bytes, 8);
        keys.run(key(7), &account(2), "feed", progress, Run::default()).unwrap();
        keys.finish(key(7), progress);
        check(&keys);
        assert!(!keys.held.contains_key(&account(1)));
    }

    #[tokio::test]
    async fn another_process_continues_what_is_known() {
        let limits = KeyLimits { all: 100, each: 10 };
        let mut old = Keys::new(limits);
        publish(&mut old, &account(1), "feed", 1).unwrap();
        publish(&mut old, &Account::unknown(), "feed", 2).unwrap();
        let run = Run::at(Extent { bytes: 5, ..Extent::default() });
        old.run(key(3), &account(1), "feed", Extent::default(), run.clone()).unwrap();
        // How far it has come by now.
        run.progress().bytes = 9;
        run.progress().last = Some(Cursor { epoch: Epoch(7), seq: 4 });
        let told = serde_json::to_string(&old.known()).unwrap();
        let mut new = Keys::new(limits);
        new.restore(serde_json::from_str(&told).unwrap());
        check(&new);
        assert_eq!(new.progress(key(1)).unwrap().bytes, 2);
        assert_eq!(new.progress(key(2)).unwrap().bytes, 3);
        let Extent { last, bytes, .. } = new.progress(key(3)).unwrap();
        assert_eq!((last, bytes), (Some(Cursor { epoch: Epoch(7), seq: 4 }), 9));
        assert!(new.running(key(3)).is_none());
        // They count for the same clients and feeds.
        for number in 10..20 {
            publish(&mut new, &account(1), "feed", number).unwrap();
        }
        assert!(new.progress(key(1)).is_none() && new.progress(key(2)).is_some());
        // Fewer, where there is less room: the latest.
        let mut small = Keys::new(KeyLimits { all: 1, each: 1 });
        small.restore(serde_json::from_str(&told).unwrap());
        check(&small);
        assert!(small.progress(key(3)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn keys_expire() {
        let mut keys = Keys::new(KeyLimits { all: 100, each: 100 });
        for number in 0..20 {
            publish(&mut keys, &account(number), "feed", number).unwrap();
        }
        keys.run(key(50), &account(1), "feed", Extent::default(), Run::default()).unwrap();
        tokio::time::advance(KEEP + Duration::from_secs(1)).await;
        assert!(keys.progress(key(0)).is_none() && keys.progress(key(19)).is_some());
        for number in 60..64 {
            publish(&mut keys, &account(number), "feed", number).unwrap();
        }
        check(&keys);
        assert_eq!(keys.len(), 5, "the one that runs, and the new ones");
    }
}
