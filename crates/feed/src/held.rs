//! Feeds that clients write, held while another process takes them over.

use std::{sync::Arc, time::Duration};

use crate::{Account, Chunk, Epoch, Feed, Feeds, OpenError, Publisher, feed::Backing, ring::Ring};

/// What publishers of feeds may do: see [`Family::hold`](crate::Family::hold).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hold {
    /// Publish.
    #[default]
    No,
    /// Wait.
    Publishers,
    /// Nothing more: the feeds have ended with their server.
    Stopped,
}

/// What another process needs to continue a live feed: its viewers' cursors stay valid there.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct History {
    /// The run that it is.
    pub epoch: Epoch,
    /// The number of the next chunk.
    pub next: u64,
    /// Its latest chunks, without a gap: the last one is the one before `next`.
    pub chunks: Vec<Arc<Chunk>>,
    /// The bytes of all chunks up to `next`, also of those that are not in `chunks`, for
    /// [`Status::bytes`](crate::Status::bytes).
    pub bytes: u64,
    /// Where the feed comes from, if a family created it for a client.
    pub provenance: Option<Provenance>,
}

/// Where a feed comes from that a [family](crate::Family) created for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provenance {
    /// Whom it counts for.
    pub account: Account,
    /// For how long it has been neither viewed nor written.
    pub unused: Duration,
}

impl Provenance {
    /// A feed that counts for `account`, and has not been used for that long.
    #[must_use]
    pub fn new(account: Account, unused: Duration) -> Self {
        Self { account, unused }
    }
}

impl History {
    /// The history of a feed, to be [continued](Feed::restore). Its [`bytes`](Self::bytes) are those of `chunks`, until
    /// they are set.
    #[must_use]
    pub fn new(epoch: Epoch, next: u64, chunks: Vec<Arc<Chunk>>) -> Self {
        let bytes = chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum();
        Self { epoch, next, chunks, bytes, provenance: None }
    }
}

/// Why a feed cannot continue another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The feed has chunks already, has ended, or is not a live feed in memory.
    #[error("only a live feed in memory that has no chunks yet continues another")]
    NotNew,
    /// The chunks are not those before `next`.
    #[error("the chunks of a history follow one another up to its next one")]
    Gap,
}

/// Feeds whose publishers wait. Dropped, they publish on, and nothing has happened.
///
/// ```
/// use h3cast_feed::{Feed, Feeds, Lag, Start};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let old = Feed::writable("news", 1 << 20, Lag::Skip);
/// let cursor = old.publisher().expect("clients may write it").publish("hello".into()).await?;
/// let held = Feeds::from_iter([old]).hold();
///
/// let new = Feed::writable("news", 1 << 20, Lag::Skip);
/// for (name, history) in held.histories() {
///     assert_eq!(name, "news");
///     new.restore(history)?;
/// }
/// held.stop();
/// let next = new.publisher().expect("clients may write it").publish("again".into()).await?;
/// assert_eq!((next.epoch, next.seq), (cursor.epoch, cursor.seq + 1));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped, the feeds are not held any more"]
pub struct HeldFeeds {
    feeds: Feeds,
    stopped: bool,
}

impl Feeds {
    /// Has the publishers of all feeds that clients write only here wait, also of those that are created meanwhile.
    /// Viewers get what is there. Sources of feeds that are [stored for this process](Feed::stored) wait, too. Chunks of
    /// feeds with a source of their own in memory, and of feeds stored externally, are published on.
    pub fn hold(&self) -> HeldFeeds {
        let held = HeldFeeds { feeds: self.clone(), stopped: false };
        held.set(Hold::Publishers);
        held
    }

    /// The feed of that name, to continue one of another process: if a family creates it, for the client and with the
    /// age of its `provenance`. Limits do not hold for it, as it exists already: as with
    /// [`set_limits`](crate::Family::set_limits), it stays until room is needed.
    ///
    /// # Errors
    ///
    /// If a family may have such a feed and cannot tell now.
    pub async fn adopt(&self, name: &str, provenance: Option<&Provenance>) -> Result<Option<Feed>, OpenError> {
        if let Some(feed) = self.named(name) {
            return Ok(Some(feed.clone()));
        }
        let unknown = Provenance::new(Account::unknown(), Duration::ZERO);
        for family in self.each_family() {
            if let Some(feed) = family.adopt(name, provenance.unwrap_or(&unknown)).await {
                return feed.map(Some);
            }
        }
        Ok(None)
    }
}

impl HeldFeeds {
    fn set(&self, hold: Hold) {
        self.feeds.each_named().for_each(|feed| feed.hold(hold));
        self.feeds.each_family().for_each(|family| family.hold(hold));
    }

    /// The feeds, by name, as they will be continued. One that has ended is none of them.
    #[must_use]
    pub fn histories(&self) -> Vec<(String, History)> {
        let feeds = self.feeds.all();
        let history = |feed: &Feed| {
            let bytes = feed.counters.bytes();
            let is_named = self.feeds.named(feed.name()).is_some();
            let provenance =
                self.feeds.each_family().filter(|_| !is_named).find_map(|family| family.provenance(feed.name()));
            Some(History { bytes, provenance, ..written(feed)?.history()? })
        };
        feeds.iter().filter_map(|feed| Some((feed.name().to_owned(), history(feed)?))).collect()
    }

    /// Ends the feeds, as those of a server that stops: their viewers get what is there, and resume at another server.
    pub fn stop(mut self) {
        self.stopped = true;
        self.set(Hold::Stopped);
    }
}

impl Drop for HeldFeeds {
    fn drop(&mut self) {
        if !self.stopped {
            self.set(Hold::No);
        }
    }
}

/// The ring of a feed in memory that clients write.
fn written(feed: &Feed) -> Option<&Arc<Ring>> {
    match &feed.backing {
        Backing::Live { ring, publisher: Some(_) } => Some(ring),
        _ => None,
    }
}

impl Feed {
    /// Whether it can [continue](Self::restore) a feed that clients write: it is one in memory that they write too, and
    /// has no chunks yet.
    #[must_use]
    pub fn can_restore(&self) -> bool {
        written(self).is_some_and(|ring| ring.history().is_some_and(|history| history.next == 0))
    }

    /// What its publishers may do, if clients write it, and only here, or it is stored for this process.
    pub(crate) fn hold(&self, hold: Hold) {
        // Another process takes over what is stored, whoever writes it.
        let is_stored = matches!(&self.backing, Backing::Kept { kept, .. } if kept.keeper.stored().is_some());
        let is_written = self.publisher().is_some_and(Publisher::ends_it);
        let Some(ring) = self.ring().filter(|_| is_stored || is_written) else { return };
        match hold {
            Hold::No => ring.hold(false),
            Hold::Publishers => ring.hold(true),
            Hold::Stopped => self.stop(),
        }
    }

    /// Continues another feed, before it is viewed or written. It drops what its own history has no room for.
    ///
    /// # Errors
    ///
    /// If it is not a new live feed, or the history has a gap. Nothing has changed then.
    pub fn restore(&self, history: History) -> Result<(), RestoreError> {
        match &self.backing {
            Backing::Live { ring, .. } => {
                let (bytes, is_written) = (history.bytes, history.next > 0);
                let written = history.chunks.last().map(|chunk| chunk.time.elapsed().unwrap_or_default());
                ring.restore(history)?;
                if is_written {
                    self.counters.restore(bytes, written.unwrap_or_default());
                }
                Ok(())
            }
            Backing::Kept { .. } | Backing::OnDemand { .. } => Err(RestoreError::NotNew),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cursor, End, Event, Exhausted, Lag, PublishError, Start, WrittenFeeds, WrittenLimits};
    use futures_util::{FutureExt, StreamExt};
    use std::time::Duration;

    async fn publish(feed: &Feed, text: &'static str) -> Cursor {
        feed.publisher().unwrap().publish(text.into()).await.unwrap()
    }

    fn continued(from: &HeldFeeds, lag: Lag) -> Feed {
        let feed = Feed::writable("a", 1 << 20, lag);
        let [(_, history)] = from.histories().try_into().unwrap();
        feed.restore(history).unwrap();
        feed
    }

    #[tokio::test]
    async fn publishers_wait_and_nothing_else_does() {
        for lag in [Lag::Skip, Lag::Block] {
            let feed = Feed::writable("a", 1 << 20, lag);
            let first = publish(&feed, "1").await;
            let mut viewer = feed.view(Start::Start, None);
            let held = Feeds::from_iter([feed.clone()]).hold();
            let publisher = feed.publisher().unwrap();
            let mut waits = Box::pin(publisher.publish("2".into()));
            assert!(waits.as_mut().now_or_never().is_none());
            assert!(matches!(viewer.next().await, Some(Event::Chunk(_))));
            // Another process did not take it over.
            drop(held);
            assert_eq!(waits.await.unwrap().seq, first.seq + 1);

            let held = Feeds::from_iter([feed.clone()]).hold();
            let mut waits = Box::pin(publisher.publish("3".into()));
            assert!(waits.as_mut().now_or_never().is_none());
            let new = continued(&held, lag);
            held.stop();
            assert_eq!(waits.await, Err(PublishError::Ended));
            assert!(matches!(viewer.next().await, Some(Event::Chunk(_))));
            assert!(matches!(viewer.next().await, Some(Event::End(End::Stopped))));
            let third = publish(&new, "3").await;
            assert_eq!((third.epoch, third.seq), (first.epoch, first.seq + 2));
            let mut resumed = new.view(Start::After(first), None);
            for text in ["2", "3"] {
                let Some(Event::Chunk(chunk)) = resumed.next().await else { panic!("no chunk") };
                assert_eq!(chunk.bytes, text);
            }
        }
    }

    /// No viewer is to blame for that.
    #[tokio::test(start_paused = true)]
    async fn a_hold_does_not_count_as_held_up_by_viewers() {
        for lag in [Lag::Skip, Lag::Block] {
            let feed = Feed::writable("a", 1 << 20, lag);
            let held = Feeds::from_iter([feed.clone()]).hold();
            let publisher = feed.publisher().unwrap();
            let mut waits = Box::pin(publisher.publish("1".into()));
            assert!(tokio::time::timeout(Duration::from_secs(25), waits.as_mut()).await.is_err());
            drop(held);
            waits.await.unwrap();
            assert_eq!(feed.status().blocked, Duration::ZERO);
        }
    }

    #[tokio::test]
    async fn what_was_counted_before_is_counted_on() {
        // The history has room for some of it.
        let old = Feed::writable("a", 600, Lag::Skip);
        for _ in 0..100 {
            publish(&old, "12345").await;
        }
        let new = continued(&Feeds::from_iter([old.clone()]).hold(), Lag::Skip);
        assert_eq!((new.status().chunks, new.status().bytes), (100, 500));
        assert!(new.counters.last().is_some_and(|at| at.elapsed() < Duration::from_secs(10)));
        // When it was written last is known of a feed that is silent as well.
        let time = std::time::SystemTime::now() - Duration::from_secs(100);
        let silent = Feed::writable("a", 1 << 20, Lag::Skip);
        silent.restore(History::new(Epoch(1), 1, vec![Arc::new(Chunk::published_at(0, time, "x".into()))])).unwrap();
        // A system that has just started may not know a time before that.
        if let Some(past) = tokio::time::Instant::now().checked_sub(Duration::from_secs(99)) {
            assert!(silent.counters.last().unwrap() <= past);
        }
        let empty = Feed::writable("a", 1 << 20, Lag::Skip);
        empty.restore(History::new(Epoch(1), 0, Vec::new())).unwrap();
        assert_eq!(empty.counters.last(), None);
    }

    #[tokio::test]
    async fn a_feed_that_begins_meanwhile_is_held_too() {
        let family = WrittenFeeds::new("chat.*", 1 << 20, Lag::Skip).unwrap();
        let mut feeds = Feeds::default();
        feeds.add_family(family);
        let account = Account::new("192.0.2.1");
        let open = async |name: &str| feeds.open(name, &account).await.unwrap().unwrap();
        let early = open("chat.early").await;
        publish(&early, "1").await;
        let held = feeds.hold();
        let late = open("chat.late").await;
        let (one, two) = (early.publisher().unwrap(), late.publisher().unwrap());
        assert!(one.publish("2".into()).now_or_never().is_none());
        assert!(two.publish("2".into()).now_or_never().is_none());
        assert_eq!(held.histories().len(), 1);
        held.stop();
        assert_eq!(two.publish("2".into()).await, Err(PublishError::Ended));
        let later = open("chat.later").await;
        assert_eq!(later.publisher().unwrap().publish("2".into()).await, Err(PublishError::Ended));
    }

    /// Otherwise each client could create as many again with each change of processes.
    #[tokio::test(start_paused = true)]
    async fn a_created_feed_counts_on_for_its_client_and_keeps_its_age() {
        let limits = |each, idle| {
            let mut limits = WrittenLimits::default();
            (limits.each, limits.idle) = (each, Duration::from_secs(idle));
            limits
        };
        let family = |each| {
            let mut feeds = Feeds::default();
            feeds.add_family(WrittenFeeds::within("chat.*", 1 << 20, Lag::Skip, limits(each, 100)).unwrap());
            feeds
        };
        let (ann, ben) = (Account::new("192.0.2.1"), Account::new("192.0.2.2"));
        let old = family(2);
        for (name, account) in [("chat.a", &ann), ("chat.b", &ann), ("chat.c", &ben)] {
            publish(&old.open(name, account).await.unwrap().unwrap(), "1").await;
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        publish(&old.open("chat.c", &ann).await.unwrap().unwrap(), "2").await;
        let held = old.hold();
        // Fewer are allowed there: those that exist stay.
        let new = family(1);
        for (name, mut history) in held.histories() {
            if history.chunks.len() == 1 {
                // The clock of the system does not stand still in tests.
                let time = std::time::SystemTime::now() - Duration::from_secs(60);
                history.chunks = vec![Arc::new(Chunk::published_at(0, time, "1".into()))];
            }
            let feed = new.adopt(&name, history.provenance.as_ref()).await.unwrap().unwrap();
            assert!(feed.can_restore());
            feed.restore(history).unwrap();
            assert!(!feed.can_restore());
        }
        held.stop();
        assert_eq!(new.all().len(), 3);
        for account in [&ann, &ben] {
            assert_eq!(new.open("chat.d", account).await.unwrap_err(), OpenError::Exhausted(Exhausted::Account(1)));
        }
        // They go when they would have gone.
        tokio::time::advance(Duration::from_secs(50)).await;
        new.open("chat.d", &ann).await.unwrap().unwrap();
        let names: Vec<_> = new.all().iter().map(|feed| feed.name().to_owned()).collect();
        assert_eq!(names, ["chat.c"]);
    }

    #[tokio::test]
    async fn only_a_feed_that_clients_write_can_continue_another() {
        let (live, _publisher) = Feed::live("a", 1 << 20, Lag::Skip);
        assert!(!live.can_restore());
        assert!(Feed::writable("a", 1 << 20, Lag::Skip).can_restore());
        assert!(Feeds::default().adopt("a", None).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn only_a_new_feed_continues_another() {
        let feed = Feed::writable("a", 1 << 20, Lag::Skip);
        let history = |next, seqs: &[u64]| {
            let chunks = seqs.iter().map(|seq| Arc::new(Chunk::new(*seq, "x".into()))).collect();
            History::new(Epoch(7), next, chunks)
        };
        assert_eq!(feed.restore(history(3, &[0, 2])), Err(RestoreError::Gap));
        assert_eq!(feed.restore(history(3, &[0, 1])), Err(RestoreError::Gap));
        assert_eq!(feed.restore(history(0, &[u64::MAX])), Err(RestoreError::Gap));
        assert_ne!(feed.status().epoch, Some(Epoch(7)));
        feed.restore(history(3, &[1, 2])).unwrap();
        assert_eq!(feed.restore(history(3, &[1, 2])), Err(RestoreError::NotNew));
        assert_eq!(publish(&feed, "y").await, Cursor { epoch: Epoch(7), seq: 3 });
        // What was before that is a gap, as in the process that had it.
        let mut viewer = feed.view(Start::After(Cursor { epoch: Epoch(7), seq: 9 }), None);
        assert!(viewer.next().now_or_never().is_none());
        // One whose history is smaller keeps what it has room for.
        let small = Feed::writable("a", 600, Lag::Skip);
        small.restore(history(100, &(0..100).collect::<Vec<_>>())).unwrap();
        assert_eq!(small.status().chunks, 100);
        assert!(small.status().oldest.unwrap().seq > 90);
    }
}
