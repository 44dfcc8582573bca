//! Whom something is counted for, and how much of it each may have at once.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Whom a view, a publication or a new feed is counted for: a client's address, its network, the identity of its
/// token. Two that read the same are the same.
///
/// ```
/// use h3cast_feed::Account;
///
/// let account = Account::new("2001:db8::/64");
/// assert!(account == Account::new("2001:db8::/64") && account.is_known());
/// assert!(!Account::unknown().is_known());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account(Option<Arc<str>>);

impl Account {
    /// An account by its name, which logs may show.
    #[must_use]
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(Some(name.as_ref().into()))
    }

    /// The account of clients of which nothing is known. As they cannot be told apart, the share of one account does
    /// not hold for them, only what holds for all together.
    #[must_use]
    pub fn unknown() -> Self {
        Self(None)
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Whether it is one client's, or one network's.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("unknown"))
    }
}

/// How many there may be at once, in all and for each account. Clones share it.
///
/// ```
/// use h3cast_feed::{Account, Exhausted, Shares};
///
/// let shares = Shares::new(3, 2);
/// let (ann, ben) = (Account::new("192.0.2.1"), Account::new("192.0.2.2"));
/// let taken = [shares.take(&ann)?, shares.take(&ann)?];
/// assert_eq!(shares.take(&ann).unwrap_err(), Exhausted::Account(2));
/// let third = shares.take(&ben)?;
/// assert_eq!(shares.take(&ben).unwrap_err(), Exhausted::All(3));
/// drop(taken);
/// assert_eq!(shares.taken(), 1);
/// # drop(third);
/// # Ok::<(), Exhausted>(())
/// ```
#[derive(Debug, Clone)]
pub struct Shares(Arc<Pool>);

#[derive(Debug)]
struct Pool(Mutex<Taken>);

#[derive(Debug)]
struct Taken {
    /// How many there may be, in all and for each account.
    most: (usize, usize),
    all: usize,
    /// Those of accounts that have any.
    by_account: HashMap<Account, usize>,
}

/// The share that was asked for cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// All are taken: so many.
    #[error("all {0} are taken")]
    All(usize),
    /// The account has all that one may have: so many.
    #[error("this client already has {0}, the most that one may have")]
    Account(usize),
}

impl Shares {
    /// So many in all, and of those so many for one account.
    #[must_use]
    pub fn new(all: usize, each: usize) -> Self {
        Self(Arc::new(Pool(Mutex::new(Taken { most: (all, each), all: 0, by_account: HashMap::new() }))))
    }

    /// Changes how many there may be, in all and for one account. Those that are taken stay, also where they are more.
    pub fn resize(&self, all: usize, each: usize) {
        self.0.lock().most = (all, each);
    }

    /// Takes one, until the [`Share`] is dropped.
    ///
    /// # Errors
    ///
    /// If the account has all that it may have, or all are taken.
    pub fn take(&self, account: &Account) -> Result<Share, Exhausted> {
        let mut taken = self.0.lock();
        let (all, each) = taken.most;
        let own = taken.by_account.get(account).copied().unwrap_or_default();
        if account.is_known() && own >= each {
            return Err(Exhausted::Account(each));
        }
        if taken.all >= all {
            return Err(Exhausted::All(all));
        }
        taken.all += 1;
        taken.by_account.insert(account.clone(), own + 1);
        Ok(Share { pool: self.0.clone(), account: account.clone() })
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.lock().all
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of [`Shares`], given back when dropped.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    account: Account,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.pool.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_account.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                taken.by_account.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_leaves_nothing_behind() {
        let shares = Shares::new(10, 10);
        let taken: Vec<_> = (0..5).map(|n| shares.take(&Account::new(format!("192.0.2.{n}"))).unwrap()).collect();
        drop(taken);
        assert_eq!(shares.taken(), 0);
        assert!(shares.0.lock().by_account.is_empty());
    }

    #[test]
    fn the_unknown_share_one_limit() {
        let shares = Shares::new(3, 1);
        let taken: Vec<_> = (0..3).map(|_| shares.take(&Account::unknown()).unwrap()).collect();
        assert_eq!(shares.take(&Account::unknown()).unwrap_err(), Exhausted::All(3));
        drop(taken);
    }
}
