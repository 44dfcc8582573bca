//! How many view and write a feed.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use crate::{Feed, status::FeedCounters};

/// How many view and write a feed at servers other than this one, as far as is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elsewhere {
    /// Viewers.
    pub viewers: u64,
    /// Publications in progress.
    pub publishers: u64,
    /// Servers that have viewers of it.
    pub servers: u64,
}

impl Elsewhere {
    /// Adds what one server has, as far as it can be counted: another server may claim any number.
    pub fn add(&mut self, viewers: u64, publishers: u64) {
        self.viewers = self.viewers.saturating_add(viewers);
        self.publishers = self.publishers.saturating_add(publishers);
        self.servers = self.servers.saturating_add(u64::from(viewers > 0));
    }
}

/// Counts the viewers and the publications of a feed, without keeping it.
#[derive(Clone)]
pub struct Attendance(Weak<FeedCounters>);

impl fmt::Debug for Attendance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attendance").field(&self.now()).finish()
    }
}

impl Attendance {
    /// How many view the feed at this server, and how many publications are in progress; `None` once it is gone.
    #[must_use]
    pub fn now(&self) -> Option<(u64, u64)> {
        self.0.upgrade().map(|counters| counters.attendance())
    }
}

/// A publication to a feed that is counted in [`Status::publishers`](crate::Status::publishers) until it is dropped.
#[must_use = "it is counted until it is dropped"]
#[derive(Debug)]
pub struct Publishing(Arc<FeedCounters>);

impl Drop for Publishing {
    fn drop(&mut self) {
        self.0.published();
    }
}

impl Feed {
    /// Counts a publication.
    pub fn publishing(&self) -> Publishing {
        self.counters.publishes();
        Publishing(self.counters.clone())
    }

    /// Its viewers and publications, to be counted while it exists.
    #[must_use]
    pub fn attendance(&self) -> Attendance {
        Attendance(Arc::downgrade(&self.counters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_claims_does_not_overflow() {
        let mut all = Elsewhere::default();
        all.add(u64::MAX, 1);
        all.add(2, u64::MAX);
        assert_eq!((all.viewers, all.publishers, all.servers), (u64::MAX, u64::MAX, 2));
    }
}
