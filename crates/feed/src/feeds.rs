//! The feeds of a program, by name.

use std::{collections::BTreeMap, fmt, sync::Arc};

use futures_util::future::BoxFuture;

use crate::{Account, Exhausted, Feed, FeedError, Hold, Provenance, Trouble, WrittenLimits};

/// The name of the feed that is meant when none is named.
pub const DEFAULT: &str = "default";

/// Feeds that are created when they are first asked for.
pub trait Family: Send + Sync + 'static {
    /// The pattern of its feeds' names, for people: `logs.*`.
    fn pattern(&self) -> &str;

    /// The feed of that name; `None` if it does not belong to this family.
    fn get(&self, name: &str) -> BoxFuture<'_, Option<Result<Feed, FeedError>>>;

    /// The feed of that name, for one who only views it; `None` if it does not belong to this family. It takes nothing
    /// from those who write: no place, and no other feed. By default what [`get`](Self::get) gives.
    fn view<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Result<Feed, OpenError>>> {
        Box::pin(async move { Some(self.get(name).await?.map_err(OpenError::Unavailable)) })
    }

    /// The feed of that name, for one who may write it: `account`, which it is counted for if it is created now; `None`
    /// if it does not belong to this family. By default what [`get`](Self::get) gives.
    fn open<'a>(&'a self, name: &'a str, account: &'a Account) -> BoxFuture<'a, Option<Result<Feed, OpenError>>> {
        let _ = account;
        Box::pin(async move { Some(self.get(name).await?.map_err(OpenError::Unavailable)) })
    }

    /// The feeds that exist now, to be listed: [`Feed::for_list`] gives clones that do not make them in use.
    fn feeds(&self) -> Vec<Feed>;

    /// Whether a feed of that name is one of this family, whether it exists or not. Every request may ask for it, so it
    /// should not list feeds. By default [`pattern`](Self::pattern) decides: `*` is one part of a name between dots, `>`
    /// at the end one or more.
    fn has(&self, name: &str) -> bool {
        is_like(name, self.pattern())
    }

    /// The feed of that name, if it exists now and [`feeds`](Self::feeds) lists it, as it is listed. By default it is
    /// looked for in the whole list.
    fn existing(&self, name: &str) -> Option<Feed> {
        self.feeds().into_iter().find(|feed| feed.name() == name)
    }

    /// Up to `most` of the feeds that [`feeds`](Self::feeds) lists: the first ones whose name is `wanted`, which must not
    /// call the family. By default they are taken from the whole list.
    fn some(&self, most: usize, wanted: &dyn Fn(&str) -> bool) -> Vec<Feed> {
        self.feeds().into_iter().filter(|feed| wanted(feed.name())).take(most).collect()
    }

    /// What publishers of its feeds in memory may do, also of those that are created from now on. By default nothing
    /// changes.
    fn hold(&self, hold: Hold) {
        let _ = hold;
    }

    /// The feed of that name, to continue one of another process (see [`Feeds::adopt`]); `None` if it does not belong to
    /// this family. By default what [`open`](Self::open) gives.
    fn adopt<'a>(
        &'a self,
        name: &'a str,
        provenance: &'a Provenance,
    ) -> BoxFuture<'a, Option<Result<Feed, OpenError>>> {
        self.open(name, &provenance.account)
    }

    /// Where a feed comes from that was created for a client. By default `None`.
    fn provenance(&self, name: &str) -> Option<Provenance> {
        let _ = name;
        None
    }

    /// Whether what stores them can be reached.
    fn is_ready(&self) -> bool;

    /// Whether the feed of that name can be served now, also if it is yet to be created; `None` if it does not belong to
    /// this family. It creates none. By default the family must be ready, and the feed too if it exists.
    fn is_ready_for(&self, name: &str) -> Option<bool> {
        let is_ready = || self.is_ready() && self.existing(name).is_none_or(|feed| feed.is_ready());
        self.has(name).then(is_ready)
    }

    /// Why they cannot be served, if that is known. By default it is not.
    fn trouble(&self) -> Option<Trouble> {
        None
    }

    /// Changes what the feeds that clients create may come to. Those that exist stay until room is needed. A family
    /// that clients do not write takes no notice.
    fn set_limits(&self, limits: WrittenLimits) {
        let _ = limits;
    }

    /// How many feeds have been removed with their history so far to make room for others.
    fn evicted(&self) -> u64 {
        0
    }
}

/// Whether a name is like the pattern of a family.
fn is_like(name: &str, pattern: &str) -> bool {
    let mut parts = name.split('.');
    let fits = pattern.split('.').all(|wanted| match (wanted, parts.next()) {
        (_, None | Some("")) => false,
        ("*", _) => true,
        (">", _) => parts.by_ref().all(|part| !part.is_empty()),
        (wanted, Some(part)) => wanted == part,
    });
    fits && parts.next().is_none()
}

/// Why a feed of a family is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The family cannot tell now.
    #[error(transparent)]
    Unavailable(FeedError),
    /// There are as many feeds as there may be, and it is not one of them.
    #[error("no more feeds: {0}")]
    Exhausted(#[source] Exhausted),
}

/// Feeds by name, and families of feeds.
///
/// ```
/// use h3cast_feed::{Feed, Feeds, Lag};
///
/// let feeds: Feeds = ["news", "log"].map(|name| Feed::writable(name, 1_000_000, Lag::Skip)).into_iter().collect();
/// assert_eq!(feeds.names().count(), 2);
/// ```
#[derive(Clone, Default)]
pub struct Feeds {
    named: BTreeMap<String, Feed>,
    families: Vec<Arc<dyn Family>>,
}

impl fmt::Debug for Feeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let families: Vec<_> = self.families.iter().map(|family| family.pattern()).collect();
        f.debug_struct("Feeds").field("named", &self.named).field("families", &families).finish()
    }
}

impl Feeds {
    /// Adds feeds that are created when they are first asked for.
    pub fn add_family(&mut self, family: Arc<dyn Family>) {
        self.families.push(family);
    }

    /// The feed of that name.
    ///
    /// # Errors
    ///
    /// If a family may have such a feed and cannot tell now.
    pub async fn get(&self, name: &str) -> Result<Option<Feed>, FeedError> {
        if let Some(feed) = self.named.get(name) {
            return Ok(Some(feed.clone()));
        }
        for family in &self.families {
            if let Some(feed) = family.get(name).await {
                return feed.map(Some);
            }
        }
        Ok(None)
    }

    /// The feed of that name, for one who only views it.
    ///
    /// # Errors
    ///
    /// If a family may have such a feed and cannot tell now, or takes no more views of feeds that are not there.
    pub async fn view(&self, name: &str) -> Result<Option<Feed>, OpenError> {
        if let Some(feed) = self.named.get(name) {
            return Ok(Some(feed.clone()));
        }
        for family in &self.families {
            if let Some(feed) = family.view(name).await {
                return feed.map(Some);
            }
        }
        Ok(None)
    }

    /// How many feeds families have removed with their history so far to make room for others.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.families.iter().map(|family| family.evicted()).sum()
    }

    /// The feed of that name, for one who may write it: `account`, which it is counted for if a family creates it now.
    ///
    /// # Errors
    ///
    /// If a family may have such a feed and cannot tell now, or has no room for it.
    pub async fn open(&self, name: &str, account: &Account) -> Result<Option<Feed>, OpenError> {
        if let Some(feed) = self.named.get(name) {
            return Ok(Some(feed.clone()));
        }
        for family in &self.families {
            if let Some(feed) = family.open(name, account).await {
                return feed.map(Some);
            }
        }
        Ok(None)
    }

    /// Those that are of no family.
    pub(crate) fn each_named(&self) -> impl Iterator<Item = &Feed> {
        self.named.values()
    }

    pub(crate) fn each_family(&self) -> impl Iterator<Item = &Arc<dyn Family>> {
        self.families.iter()
    }

    /// The feed that has that name, if it is of no family.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Feed> {
        self.named.get(name)
    }

    /// The feeds that exist now: the named ones in the order of their names, then those of families.
    #[must_use]
    pub fn all(&self) -> Vec<Feed> {
        let families = self.families.iter().flat_map(|family| family.feeds());
        self.named.values().cloned().chain(families).collect()
    }

    /// The feeds and patterns that cannot be served now. The feeds of families don't count: a client may
    /// have made their names up.
    #[must_use]
    pub fn unready(&self) -> Vec<&str> {
        let stalled = self.named.values().filter(|feed| !feed.is_ready()).map(Feed::name);
        let families = self.families.iter().filter(|family| !family.is_ready()).map(|family| family.pattern());
        stalled.chain(families).collect()
    }

    /// Whether the feed of that name can be served now, or those of the family that has that pattern; `None` if there is
    /// none, and no family may have it. It creates none.
    #[must_use]
    pub fn is_ready(&self, name: &str) -> Option<bool> {
        if let Some(feed) = self.named.get(name) {
            return Some(feed.is_ready());
        }
        let mut families = self.families.iter();
        match families.clone().find(|family| family.pattern() == name) {
            Some(family) => Some(family.is_ready()),
            None => families.find_map(|family| family.is_ready_for(name)),
        }
    }

    /// The pattern of the family that a feed of that name would belong to, whether there is one or not; `None` if none
    /// has such names.
    #[must_use]
    pub fn pattern_of(&self, name: &str) -> Option<&str> {
        self.families.iter().find(|family| family.has(name)).map(|family| family.pattern())
    }

    /// The family that a feed of that name belongs to, or that has that pattern.
    fn family_of(&self, name: &str) -> Option<&Arc<dyn Family>> {
        let mut families = self.families.iter();
        families.clone().find(|family| family.pattern() == name).or_else(|| families.find(|family| family.has(name)))
    }

    /// The feed of that name, if it exists now and is listed. It creates none.
    #[must_use]
    pub fn existing(&self, name: &str) -> Option<Feed> {
        self.named.get(name).cloned().or_else(|| self.families.iter().find_map(|family| family.existing(name)))
    }

    /// Up to `most` feeds of the family that a feed of that name would belong to, or that has that pattern: those that
    /// exist now, are listed, and have a name that is `wanted`. The others are not looked at.
    #[must_use]
    pub fn alike(&self, name: &str, most: usize, wanted: impl Fn(&str) -> bool) -> Vec<Feed> {
        self.family_of(name).map(|family| family.some(most, &wanted)).unwrap_or_default()
    }

    /// Why the feed of that name, or those of that pattern, cannot be served, if that is known.
    #[must_use]
    pub fn trouble(&self, name: &str) -> Option<Trouble> {
        if let Some(feed) = self.named.get(name) {
            return feed.trouble();
        }
        let family = self.family_of(name)?;
        family.trouble().or_else(|| family.existing(name)?.trouble())
    }

    /// The same of a feed that is at hand. Without families it is not looked for by its name.
    #[must_use]
    pub fn trouble_of(&self, feed: &Feed) -> Option<Trouble> {
        if self.families.is_empty() { feed.trouble() } else { self.trouble(feed.name()) }
    }

    /// What can be asked for: the names of feeds, and the patterns of families.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str).chain(self.families.iter().map(|family| family.pattern()))
    }
}

impl FromIterator<Feed> for Feeds {
    fn from_iter<T: IntoIterator<Item = Feed>>(feeds: T) -> Self {
        let named = feeds.into_iter().map(|feed| (feed.name().to_owned(), feed)).collect();
        Self { named, families: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn names_are_like_patterns() {
        for (pattern, alike, others) in [
            ("logs.*", &["logs.a", "logs.none"][..], &["logs", "logs.", "logs.a.b", "log.a", ""][..]),
            ("logs.>", &["logs.a", "logs.a.b"], &["logs", "logs.", "logs.a.", "logs.a..b"]),
            ("*.*", &["a.b"], &["a", "a.", ".b", "a.b.c"]),
            ("one", &["one"], &["two", "one.a"]),
        ] {
            assert!(alike.iter().all(|name| is_like(name, pattern)), "{pattern}");
            assert!(!others.iter().any(|name| is_like(name, pattern)), "{pattern}");
        }
    }
}
