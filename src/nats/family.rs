//! Feeds of all subjects that a pattern matches, each created when a client first asks for it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, interval};
use tracing::error;

use super::{
    NatsError, allowed,
    connection::Link,
    ensure::StreamInfo,
    error::KeepError,
    keeper::{Filled, JetStream, Many},
    leader::Leader,
    names::Names,
};
use crate::{
    feed::{Account, Exhausted, Family, Feed, FeedError, OpenError, Pattern, Share, Shares, Trouble, WrittenLimits},
    panics,
    source::{Feeding, Options},
};

/// How many feeds of a pattern there are at once.
pub(crate) const MAX_FEEDS: usize = 10_000;
/// How many of them have viewers and no chunk yet, if clients write them. There are no more than clients may create,
/// either.
const MAX_AWAITED: usize = 1000;
/// How long a feed without viewers is kept.
const KEEP: Duration = Duration::from_secs(60);
/// How often those are looked for.
const SWEEP: Duration = Duration::from_secs(10);

pub(super) fn start(
    name: &str,
    subject: String,
    connection: Link,
    stream: StreamInfo,
    options: &Options,
) -> (Arc<dyn Family>, Feeding) {
    begin(Names::read(name, subject), connection, stream, options, None)
}

/// Feeds that clients write, with names like `pattern`.
pub(super) fn start_writable(
    pattern: &Pattern,
    subject: String,
    connection: Link,
    stream: StreamInfo,
    options: &Options,
) -> (Arc<dyn Family>, Feeding) {
    let created = Shares::new(options.written.all.min(MAX_FEEDS), options.written.each);
    begin(Names::written(pattern, subject), connection, stream, options, Some(created))
}

fn begin(
    names: Names,
    connection: Link,
    stream: StreamInfo,
    options: &Options,
    created: Option<Shares>,
) -> (Arc<dyn Family>, Feeding) {
    let history = options.history;
    let feeds = Mutex::default();
    let leader = connection.leaders.of(&connection, &stream.name);
    let many = Many::of(JetStream::new(connection.clone(), stream, names.subject.clone(), created.is_some()));
    let most_awaited = options.written.all.min(MAX_AWAITED).into();
    let denied = Mutex::default();
    let family = Arc::new(Subjects { names, connection, leader, many, history, created, most_awaited, denied, feeds });
    let running = family.clone();
    let feeding = async move {
        // None of them ends by itself.
        tokio::select! {
            () = running.sweep() => {}
            () = running.many.fill() => {}
            () = running.watch() => {}
        }
    };
    (family, Box::pin(feeding))
}

struct Subjects {
    names: Names,
    connection: Link,
    leader: Arc<Leader>,
    many: Arc<Many>,
    history: usize,
    /// How many clients may have created, if they write them.
    created: Option<Shares>,
    /// How many may have viewers and no chunk yet.
    most_awaited: AtomicUsize,
    /// Why they cannot be written, if the user may not.
    denied: Mutex<Option<String>>,
    feeds: Mutex<BTreeMap<String, OpenFeed>>,
}

struct OpenFeed {
    feed: Feed,
    asked: Instant,
    /// Of those that clients may write.
    created: Option<Share>,
    /// It is viewed, and nobody has written it yet.
    awaited: bool,
    _filled: Filled,
}

impl OpenFeed {
    /// Whether it is viewed, or somebody may write it yet.
    fn is_in_use(&self) -> bool {
        let viewers = self.feed.attendance().now().map_or(0, |(viewers, _)| viewers);
        viewers > 0 || (self.feed.publisher().is_some() && self.feed.is_in_use())
    }
}

impl OpenFeed {
    /// The feed, for one who may have a share for it.
    fn given(&mut self, created: Option<Share>) -> Feed {
        self.created = self.created.take().or(created);
        self.awaited &= self.created.is_none();
        self.feed.clone()
    }
}

/// Makes room by dropping the one of these that nobody uses and that was asked for longest ago, if there is one. Its
/// newest viewers reconnect.
fn drop_oldest(feeds: &mut BTreeMap<String, OpenFeed>, of: impl Fn(&OpenFeed) -> bool) -> Option<()> {
    let unused = feeds.iter().filter(|(_, entry)| of(entry) && !entry.is_in_use());
    let oldest = unused.min_by_key(|(_, entry)| entry.asked).map(|(name, _)| name.clone())?;
    feeds.remove(&oldest)?.feed.stop();
    Some(())
}

impl Subjects {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, OpenFeed>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is there, and if it is to be written, counts for somebody.
    fn known(&self, name: &str, written: bool) -> Option<Feed> {
        let mut feeds = self.lock();
        let entry = feeds.get_mut(name).filter(|entry| !written || entry.created.is_some())?;
        entry.asked = Instant::now();
        Some(entry.feed.clone())
    }

    /// The feed of that name: for an account that may write it, or for one who only views it, who takes no share of
    /// those that clients may write. `None` if nothing is stored of it, and clients don't write such feeds.
    async fn make(&self, name: &str, subject: String, writer: Option<&Account>) -> Result<Option<Feed>, OpenError> {
        let writer = self.created.as_ref().zip(writer);
        if let Some(feed) = self.known(name, writer.is_some()) {
            return Ok(Some(feed));
        }
        let created = match writer {
            Some((created, account)) => Some(self.share(created, account).map_err(OpenError::Exhausted)?),
            None => None,
        };
        if let Some(entry) = self.lock().get_mut(name) {
            // It was only viewed so far.
            return Ok(Some(entry.given(created)));
        }
        let unavailable = |error: KeepError| OpenError::Unavailable(error.into());
        let mut info = self.many.look(&subject, created.is_none()).await.map_err(unavailable)?;
        // A viewer may wait for the first chunk of what clients write.
        let awaited = info.is_none() && self.created.is_some();
        if awaited {
            info = self.many.look(&subject, false).await.map_err(unavailable)?;
        }
        let Some(info) = info else { return Ok(None) };
        let mut feeds = self.lock();
        if !feeds.contains_key(name) {
            let full =
                |max| OpenError::Unavailable(NatsError::Full { pattern: self.names.pattern.clone(), max }.into());
            let most_awaited = self.most_awaited.load(Ordering::Relaxed);
            // Names that were made up leave room for what is stored.
            if awaited && feeds.values().filter(|entry| entry.awaited).count() >= most_awaited {
                drop_oldest(&mut feeds, |entry| entry.awaited).ok_or_else(|| full(most_awaited))?;
            }
            // Views of feeds that clients write leave some for them.
            let most = if self.created.is_some() && created.is_none() { MAX_FEEDS / 4 * 3 } else { MAX_FEEDS };
            if feeds.len() >= most {
                drop_oldest(&mut feeds, |_| true).ok_or_else(|| full(most))?;
            }
        }
        // Another task may have created it first; that one is everyone's.
        let entry = feeds.entry(name.to_owned()).or_insert_with(|| {
            let (feed, filled) = self.many.add(name, subject, self.history, &info);
            OpenFeed { feed, asked: Instant::now(), created: None, awaited, _filled: filled }
        });
        Ok(Some(entry.given(created)))
    }

    /// A share for a feed more, of one that is not used if there is no other.
    fn share(&self, created: &Shares, account: &Account) -> Result<Share, Exhausted> {
        created.take(account).or_else(|exhausted| {
            if let Exhausted::Account(_) = exhausted {
                return Err(exhausted);
            }
            // What is stored of it stays.
            drop_oldest(&mut self.lock(), |entry| entry.created.is_some()).ok_or(exhausted)?;
            created.take(account)
        })
    }

    /// Notes whether they may be written, for as long as it is polled.
    async fn watch(&self) {
        if self.created.is_none() {
            return std::future::pending().await;
        }
        let note = |denied: Option<&KeepError>| *self.denied() = denied.map(ToString::to_string);
        allowed::watch(&self.connection, &self.names.subject, note).await;
    }

    /// Whether the stream's leader has answered since the connection was lost: a server that was found again may have
    /// no quorum.
    fn is_checked(&self) -> bool {
        self.leader.has_answered_since(self.connection.losses())
    }

    fn denied(&self) -> MutexGuard<'_, Option<String>> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops feeds without viewers for as long as it is polled; then all of them.
    async fn sweep(&self) {
        struct Clear<'a>(&'a Subjects);
        impl Drop for Clear<'_> {
            fn drop(&mut self) {
                let feeds = std::mem::take(&mut *self.0.lock());
                feeds.values().for_each(|entry| entry.feed.stop());
            }
        }
        let _clear = Clear(self);
        let mut sweeps = interval(SWEEP);
        loop {
            sweeps.tick().await;
            if let Err(panic) = panics::caught(|| self.drop_unviewed()) {
                error!(pattern = self.names.pattern, "the task that drops feeds without viewers panicked: {panic}");
            }
        }
    }

    fn drop_unviewed(&self) {
        self.lock().retain(|_, entry| {
            entry.awaited = entry.awaited && entry.feed.status().chunks == 0;
            let stays = entry.is_in_use() || entry.asked.elapsed() < KEEP;
            if !stays {
                entry.feed.stop();
            }
            stays
        });
    }
}

impl Family for Subjects {
    fn pattern(&self) -> &str {
        &self.names.pattern
    }

    fn get(&self, name: &str) -> BoxFuture<'_, Option<Result<Feed, FeedError>>> {
        let Some(subject) = self.names.subject_of(name) else { return Box::pin(std::future::ready(None)) };
        let name = name.to_owned();
        Box::pin(async move {
            let made = self.make(&name, subject, None).await.transpose()?;
            Some(made.map_err(|error| match error {
                OpenError::Unavailable(error) => error,
                error => FeedError(error.to_string()),
            }))
        })
    }

    fn open<'a>(&'a self, name: &'a str, account: &'a Account) -> BoxFuture<'a, Option<Result<Feed, OpenError>>> {
        let Some(subject) = self.names.subject_of(name) else { return Box::pin(std::future::ready(None)) };
        Box::pin(async move { self.make(name, subject, Some(account)).await.transpose() })
    }

    fn set_limits(&self, limits: WrittenLimits) {
        if let Some(created) = &self.created {
            created.resize(limits.all.min(MAX_FEEDS), limits.each);
            self.most_awaited.store(limits.all.min(MAX_AWAITED), Ordering::Relaxed);
        }
    }

    fn is_ready(&self) -> bool {
        let is_filled = self.connection.is_connected() && !self.leader.is_silent() && !self.many.is_stalled();
        is_filled && self.is_checked() && self.denied().is_none()
    }

    fn trouble(&self) -> Option<Trouble> {
        let denied = self.denied().clone();
        let trouble = denied.or_else(|| match self.connection.is_connected() {
            false => Some(self.connection.unreachable()),
            true if self.leader.is_silent() => self.leader.silence().map(|silence| silence.to_string()),
            true if !self.is_checked() => Some(KeepError::Unchecked.to_string()),
            true => self.many.stalled_by(),
        });
        trouble.map(Trouble::Other)
    }

    fn has(&self, name: &str) -> bool {
        self.names.subject_of(name).is_some()
    }

    fn existing(&self, name: &str) -> Option<Feed> {
        self.lock().get(name).map(|entry| entry.feed.for_list())
    }

    fn some(&self, most: usize, wanted: &dyn Fn(&str) -> bool) -> Vec<Feed> {
        let feeds = self.lock();
        let wanted = feeds.iter().filter(|(name, _)| wanted(name));
        wanted.take(most).map(|(_, entry)| entry.feed.for_list()).collect()
    }

    fn is_ready_for(&self, name: &str) -> Option<bool> {
        self.names.subject_of(name)?;
        let is_stalled = self.lock().get(name).is_some_and(|entry| entry.feed.status().stalled);
        Some(self.is_ready() && !is_stalled)
    }

    fn feeds(&self) -> Vec<Feed> {
        self.lock().values().map(|entry| entry.feed.for_list()).collect()
    }
}
