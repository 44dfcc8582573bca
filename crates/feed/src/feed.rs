//! A feed: what publishes it, what is kept of it, who views it.

mod on_demand;
mod trouble;

use std::{
    convert::Infallible,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};

use self::on_demand::{OpenSource, Opened, failing};
pub use self::trouble::Trouble;
use crate::{
    Account, Budget, Charge, Counted, End, EndCursor, Epoch, Exhausted, FeedError, Filler, Input, Keeper, Lag,
    Publisher, Start, Status, Viewer,
    budget::Charged,
    kept::Kept,
    panics,
    ring::Ring,
    status::FeedCounters,
    viewer::{Interaction, Upstream},
};

/// A history for lines of text, in bytes: 8 MiB.
pub const DEFAULT_HISTORY: usize = 8 << 20;

type MakeVariant = dyn Fn(&str) -> Result<Option<Feed>, BadVariant> + Send + Sync;

pub(crate) struct Variants {
    settings: &'static [&'static str],
    make: Box<MakeVariant>,
}

/// A viewer's settings that a feed does not allow, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadVariant(pub String);

#[derive(Clone)]
pub(crate) enum Backing {
    Live {
        ring: Arc<Ring>,
        /// If clients write the feed.
        publisher: Option<Publisher>,
    },
    /// Stored, externally or here.
    Kept {
        kept: Kept,
        /// If clients may write the feed.
        publisher: Option<Publisher>,
    },
    OnDemand {
        open: Arc<OpenSource>,
        /// Every run has the same chunks and this epoch, so a viewer can continue in another one.
        same: Option<Epoch>,
        /// A run costs more than its viewer does: there may be only so many.
        costly: bool,
        /// A run takes what its viewer sends.
        interactive: bool,
        /// What a viewer may set.
        variants: Option<Arc<Variants>>,
    },
}

/// A named sequence of chunks. Clones are the same feed.
///
/// ```
/// use h3cast_feed::{Feed, Lag, Start};
///
/// let (feed, publisher) = Feed::live("news", 1_000_000, Lag::Skip);
/// let late = feed.view(Start::Last(1), None);
/// # drop((publisher, late));
/// ```
#[derive(Clone)]
pub struct Feed {
    pub(crate) name: Arc<str>,
    pub(crate) backing: Backing,
    file: Option<Arc<Path>>,
    pub(crate) counters: Arc<FeedCounters>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("name", &self.name).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

impl Feed {
    /// A live feed and its publisher. It keeps up to `history` bytes: the latest chunks, each with about 200 bytes
    /// of overhead, and up to an eighth for their encodings, which viewers share. A chunk that is a part of a
    /// larger buffer keeps all of that buffer, which is not counted: publish a copy. It ends with [`Publisher::end`]; if the
    /// last clone of its publisher is dropped before that, it has failed.
    #[must_use]
    pub fn live(name: &str, history: usize, lag: Lag) -> (Self, Publisher) {
        let name: Arc<str> = name.into();
        let ring = Arc::new(Ring::new(Epoch::now(), history, lag));
        let counters = Arc::<FeedCounters>::default();
        let publisher = Publisher::new(name.clone(), ring.clone(), counters.clone());
        (Self { name, backing: Backing::Live { ring, publisher: None }, file: None, counters }, publisher)
    }

    /// A live feed that clients write, and that holds its own [`publisher`](Self::publisher). It ends with
    /// [`Publisher::end`], or [`stop`](Self::stop) when its server does.
    #[must_use]
    pub fn writable(name: &str, history: usize, lag: Lag) -> Self {
        let (mut feed, written_by) = Self::live(name, history, lag);
        if let Backing::Live { publisher, .. } = &mut feed.backing {
            *publisher = Some(written_by);
        }
        feed
    }

    /// A feed that `keeper` stores, and what fills its ring with what is published there. The ring begins at
    /// the number `next` of the run `epoch` and keeps up to `history` bytes; older chunks are read from
    /// `keeper`. Chunks before the number `now` are not new.
    #[must_use]
    pub fn kept(
        name: &str,
        keeper: Arc<dyn Keeper>,
        history: usize,
        epoch: Epoch,
        next: u64,
        now: u64,
    ) -> (Self, Filler) {
        let counters = Arc::<FeedCounters>::default();
        let name: Arc<str> = name.into();
        let kept = Kept::new(keeper, history, epoch, next, now);
        let publisher = kept.keeper.is_writable().then(|| Publisher::kept(kept.clone()));
        let filler = Filler::new(name.clone(), &kept, counters.clone());
        (Self { name, backing: Backing::Kept { kept, publisher }, file: None, counters }, filler)
    }

    /// A live feed that `keeper` stores for this process alone, what fills its ring, and its publisher. It continues
    /// the run `epoch` at the number `next`: viewers of what was published before, by this process or an earlier one,
    /// read it from `keeper`, and so do those that fall behind the latest `history` bytes. What is published goes to
    /// `keeper`, which numbers it, stores it, and then adds it to the filler.
    ///
    /// It ends as a [live](Self::live) feed does: with [`Publisher::end`], or, as failed, if the last clone of its
    /// publisher is dropped before that. What is stored stays: another such feed may continue it.
    #[must_use]
    pub fn stored(
        name: &str,
        keeper: Arc<dyn Keeper>,
        history: usize,
        epoch: Epoch,
        next: u64,
    ) -> (Self, Filler, Publisher) {
        let counters = Arc::<FeedCounters>::default();
        let name: Arc<str> = name.into();
        let kept = Kept::stored(keeper, history, epoch, next);
        let filler = Filler::new(name.clone(), &kept, counters.clone());
        let publisher = Publisher::stored(name.clone(), kept.clone());
        (Self { name, backing: Backing::Kept { kept, publisher: None }, file: None, counters }, filler, publisher)
    }

    /// A [stored](Self::stored) feed that clients write, and that holds its own [`publisher`](Self::publisher).
    #[must_use]
    pub fn stored_writable(
        name: &str,
        keeper: Arc<dyn Keeper>,
        history: usize,
        epoch: Epoch,
        next: u64,
    ) -> (Self, Filler) {
        let (mut feed, filler, written_by) = Self::stored(name, keeper, history, epoch, next);
        if let Backing::Kept { publisher, .. } = &mut feed.backing {
            *publisher = Some(written_by);
        }
        (feed, filler)
    }

    /// Counts what was published before, elsewhere or by an earlier process: that many bytes, the last of them that
    /// long ago.
    pub fn count_earlier(&self, bytes: u64, ago: Duration) {
        self.counters.restore(bytes, ago);
    }

    /// Drops the chunks of a stored feed from memory. They are read from where they are stored.
    pub(crate) fn forget(&self) {
        if let Backing::Kept { kept, .. } = &self.backing {
            kept.ring().forget();
        }
    }

    /// Lets each viewer of a feed that starts over for each one have it in its own way: `make` returns another such
    /// feed for the query of a request, or `None` if the query has none of the `settings`. Does nothing for live feeds.
    ///
    /// ```
    /// use futures_util::stream;
    /// use h3cast_feed::{Epoch, Feed};
    ///
    /// let letters = |text: &'static str| move |first| stream::iter(text.bytes().skip(first as usize).map(|b| Ok(vec![b].into())));
    /// let feed = Feed::replayable("letters", letters("abc")).with_variants(&["upper"], move |query| {
    ///     Ok(query.contains("upper").then(|| Feed::replayable_as("letters", Epoch(1), letters("ABC"))))
    /// });
    /// assert!(feed.variant("from=now").unwrap().is_none());
    /// assert!(feed.variant("upper").unwrap().is_some());
    /// ```
    #[must_use]
    pub fn with_variants(
        mut self,
        settings: &'static [&'static str],
        make: impl Fn(&str) -> Result<Option<Self>, BadVariant> + Send + Sync + 'static,
    ) -> Self {
        if let Backing::OnDemand { variants, .. } = &mut self.backing {
            *variants = Some(Arc::new(Variants { settings, make: Box::new(make) }));
        }
        self
    }

    /// What a viewer may set in its query.
    #[must_use]
    pub fn settings(&self) -> &'static [&'static str] {
        match &self.backing {
            Backing::OnDemand { variants: Some(variants), .. } => variants.settings,
            _ => &[],
        }
    }

    /// The feed as this query asks for it, counted and charged as this one; `None` if it asks for nothing special.
    ///
    /// # Errors
    ///
    /// If the feed does not allow the settings.
    pub fn variant(&self, query: &str) -> Result<Option<Self>, BadVariant> {
        let Backing::OnDemand { variants: Some(variants), .. } = &self.backing else { return Ok(None) };
        let made = (variants.make)(query)?;
        Ok(made.map(|made| Self { name: self.name.clone(), counters: self.counters.clone(), ..made }))
    }

    /// Declares that its bytes, from the start, are those of this file, so that parts of them can be read
    /// there.
    #[must_use]
    pub fn of_file(mut self, path: PathBuf) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Charges its history to a budget, which may cut its viewers; the first budget counts. Viewers that are there
    /// already are not known to it.
    #[must_use]
    pub fn budget(self, budget: &Budget) -> Self {
        self.charge_to(budget);
        self
    }

    /// Like [`budget`](Self::budget), for a feed that is in use. Does nothing if it has one.
    pub fn charge_to(&self, budget: &Budget) {
        if self.counters.budget.get().is_some() || self.counters.budget.set(budget.clone()).is_err() {
            return;
        }
        match &self.backing {
            Backing::Live { ring, .. } => budget.add(Charged::Live(Arc::downgrade(ring))),
            Backing::Kept { kept, .. } => {
                budget.add(kept.charged());
                kept.keeper.charge_to(budget);
            }
            Backing::OnDemand { .. } => {}
        }
    }

    /// Its name, which is also the last segment of its URL.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it starts: `live` or `on-demand`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.backing {
            Backing::Live { .. } | Backing::Kept { .. } => "live",
            Backing::OnDemand { .. } => "on-demand",
        }
    }

    /// The file that has its bytes, if one has.
    #[must_use]
    pub fn file(&self) -> Option<&Arc<Path>> {
        self.file.as_ref()
    }

    /// Its publisher, if clients may write it.
    #[must_use]
    pub fn publisher(&self) -> Option<&Publisher> {
        match &self.backing {
            Backing::Live { publisher, .. } | Backing::Kept { publisher, .. } => publisher.as_ref(),
            Backing::OnDemand { .. } => None,
        }
    }

    /// Whether there may be only so many views at once, since each starts a source that costs more than a viewer
    /// does: see [`on_demand_for`](Self::on_demand_for).
    #[must_use]
    pub fn is_costly(&self) -> bool {
        matches!(self.backing, Backing::OnDemand { costly: true, .. })
    }

    /// Whether its source takes what its viewer sends: see [`interactive_for`](Self::interactive_for).
    #[must_use]
    pub fn takes_input(&self) -> bool {
        matches!(self.backing, Backing::OnDemand { interactive: true, .. })
    }

    /// Whether a feed that clients may write has viewers, or clones besides its family's: those of requests that may
    /// write it yet. Clones [for lists](Self::for_list) do not count.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.counters.attendance().0 > 0 || self.is_held()
    }

    /// Whether there are clones besides its family's, as those of requests that may write it yet.
    pub(crate) fn is_held(&self) -> bool {
        self.publisher().is_some_and(Publisher::is_shared_here)
    }

    /// A clone that is to be listed, and does not make the feed [in use](Self::is_in_use): what
    /// [`Family::feeds`](crate::Family::feeds) gives of feeds that clients create. Otherwise whoever asks for lists all
    /// the time could keep all of them.
    ///
    /// ```
    /// use h3cast_feed::{Feed, Lag};
    ///
    /// let feed = Feed::writable("chat.rust", 1 << 20, Lag::Skip);
    /// let listed = feed.for_list();
    /// assert!(listed.publisher().is_some() && !feed.is_in_use());
    /// let writing = feed.clone();
    /// assert!(feed.is_in_use());
    /// # drop(writing);
    /// ```
    #[must_use]
    pub fn for_list(&self) -> Self {
        let mut listed = self.clone();
        if let Backing::Live { publisher, .. } | Backing::Kept { publisher, .. } = &mut listed.backing {
            *publisher = publisher.as_ref().map(Publisher::for_list);
        }
        listed
    }

    /// The ring of a live feed.
    pub(crate) fn ring(&self) -> Option<Arc<Ring>> {
        match &self.backing {
            Backing::Live { ring, .. } => Some(ring.clone()),
            Backing::Kept { kept, .. } => Some(kept.ring()),
            Backing::OnDemand { .. } => None,
        }
    }

    /// Ends a live feed because its server stops.
    pub fn stop(&self) {
        if let Some(ring) = self.ring() {
            ring.end(End::Stopped);
        }
    }

    /// Its state now.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.counters.status();
        match &self.backing {
            Backing::Live { ring, .. } => ring.report(&mut status),
            Backing::Kept { kept, .. } => {
                kept.report(&mut status);
                status.elsewhere = kept.keeper.elsewhere();
            }
            Backing::OnDemand { .. } => {}
        }
        status
    }

    /// Whether there is nothing left for a viewer that has received this end: the feed has not continued
    /// since. One that starts over for each viewer has nothing left for a viewer that has received all of it.
    #[must_use]
    pub fn is_over(&self, had: EndCursor) -> bool {
        match &self.backing {
            Backing::Live { ring, .. } => ring.is_over(had),
            Backing::Kept { kept, .. } => kept.ring().is_over(had),
            Backing::OnDemand { same, .. } => same.is_none_or(|epoch| had.epoch == epoch),
        }
    }

    /// Starts to view the feed. After `limit` chunks the viewer gets a clean end. If there may be only so many views
    /// and there are, the feed fails for it.
    #[must_use]
    pub fn view(&self, start: Start, limit: Option<u64>) -> Viewer {
        self.view_by(start, limit, |open, first| {
            let failed = |exhausted: Exhausted| (failing(FeedError(exhausted.to_string())), None);
            Ok::<_, Infallible>(open(first, &Account::unknown()).unwrap_or_else(failed))
        })
        .unwrap_or_else(|never| match never {})
    }

    /// Starts to view the feed, which is counted for `account`. After `limit` chunks the viewer gets a clean end.
    ///
    /// # Errors
    ///
    /// If there may be only so many views ([`on_demand_for`](Self::on_demand_for)), and there are.
    pub fn view_as(&self, account: &Account, start: Start, limit: Option<u64>) -> Result<Viewer, Exhausted> {
        self.view_by(start, limit, |open, first| open(first, account))
    }

    fn view_by<E>(
        &self,
        start: Start,
        limit: Option<u64>,
        opened: impl FnOnce(&OpenSource, u64) -> Result<Opened, E>,
    ) -> Result<Viewer, E> {
        let (upstream, epoch) = match &self.backing {
            Backing::Live { ring, .. } => (Upstream::Live(ring.view(start)), ring.epoch()),
            Backing::Kept { kept, .. } => {
                let viewer = kept.view(start);
                let epoch = viewer.epoch();
                (Upstream::Kept(viewer), epoch)
            }
            Backing::OnDemand { open, same, .. } => {
                let epoch = same.unwrap_or_else(Epoch::now);
                let (first, restarted) = match start {
                    Start::After(cursor) if same.is_some() && cursor.epoch == epoch => {
                        (cursor.seq.saturating_add(1), false)
                    }
                    Start::End(of) if same.is_some() && of == epoch => (0, false),
                    Start::After(_) | Start::End(_) => (0, true),
                    // All of it is new to every viewer.
                    Start::Start | Start::Now | Start::Last(_) => (0, false),
                };
                let (stream, input) = match limit {
                    // Nothing would be read of it.
                    Some(0) => (stream::empty().boxed(), None),
                    _ => panics::caught(|| opened(&**open, first))
                        .unwrap_or_else(|panic| Ok((failing(panicked(&self.name, &panic)), None)))?,
                };
                let (input, held) = input.map(Input::new).unzip();
                let counters = self.counters.clone();
                let interaction = Interaction { input, _held: held };
                (Upstream::OnDemand { stream, next: first, restarted, counters, interaction }, epoch)
            }
        };
        self.counters.joined();
        if matches!(start, Start::After(_) | Start::End(_)) {
            self.counters.resumed();
        }
        Ok(Viewer::new(self, upstream, epoch, limit))
    }

    /// Counts something that reads the feed's bytes from its file as a viewer.
    #[must_use]
    pub fn count_viewer(&self) -> Counted {
        Counted::new(self.counters.clone())
    }

    /// Charges its [`Budget`] for a viewer that is about to come, if a source is read for each: as much as
    /// [`view`](Self::view) and [`count_viewer`](Self::count_viewer) charge then. To be kept until they are called, so
    /// that many who ask at once are not all admitted. `None` for other feeds, and without a budget.
    ///
    /// ```
    /// use futures_util::stream;
    /// use h3cast_feed::{Budget, Feed};
    ///
    /// let budget = Budget::new(100_000_000);
    /// let feed = Feed::on_demand("a", || stream::iter([Ok("chunk".into())])).budget(&budget);
    /// let reserved = feed.reserve();
    /// assert!(budget.charged() > 0);
    /// drop(reserved);
    /// assert_eq!(budget.charged(), 0);
    /// ```
    #[must_use]
    pub fn reserve(&self) -> Option<Charge> {
        let budget = self.counters.budget.get()?;
        matches!(self.backing, Backing::OnDemand { .. }).then(|| budget.reserve())
    }

    /// Logs that reading its file failed for a viewer, at most once in 10 s.
    pub fn report_failure(&self, error: &FeedError) {
        self.counters.failures.count(&self.name, error);
    }
}

/// Logs why a source panicked; viewers only learn that it did.
pub(crate) fn panicked(feed: &str, why: &str) -> FeedError {
    tracing::error!(feed, "the feed's source panicked: {why}");
    FeedError("the feed's source panicked".into())
}
