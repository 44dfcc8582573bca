//! Whether a feed can be served as it should be.

use std::fmt;

use super::Feed;

/// Why a feed cannot be served as it should be, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// What stores it on this machine cannot be written. The words name neither feeds nor folders: anyone may read them.
    Disk(&'static str),
    /// Something else. The words may name feeds, servers and users.
    Other(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(words) => f.write_str(words),
            Self::Other(words) => f.write_str(words),
        }
    }
}

impl Feed {
    /// Why the feed cannot be served as it should be, if that was [noted](Self::set_trouble).
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.counters.trouble()
    }

    /// Notes why the feed cannot be served as it should be, or that it can: until then it is not
    /// [ready](crate::Feeds::is_ready). When the feed stalls, its viewers are told the reason that is noted
    /// then: note it first.
    pub fn set_trouble(&self, why: Option<Trouble>) {
        self.counters.set_trouble(why);
    }

    /// Whether it can be served now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.status().stalled && self.trouble().is_none()
    }
}
