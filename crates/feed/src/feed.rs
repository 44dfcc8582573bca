//! A feed, and who views it.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};

use crate::{
    Chunk, Cursor, End, EndCursor, Epoch, FeedError, Filler, Gap, Keeper, Publisher, Rate, Viewer, kept::Kept, log,
    panics, rate::Tally, ring::Ring, viewer::Source,
};

/// The name of the feed at `/stream`.
pub const DEFAULT: &str = "default";

/// How many bytes of a live feed are kept for those who come late or again.
pub const DEFAULT_HISTORY: usize = 8 << 20;

/// Where a viewer begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum From {
    /// At the oldest chunk that there still is.
    Start,
    /// At the next chunk that is published; a feed that starts afresh for each viewer is viewed
    /// from its start.
    #[default]
    Now,
    /// At the last chunks of a live feed, so many of them as there are.
    Last(u64),
    /// After that chunk.
    After(Cursor),
    /// After the end of that run, of which there was no chunk.
    End(Epoch),
}

/// A text that does not name where to begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read the place `{0}`: it is start, now, -N for the last N chunks, or a cursor EPOCH-SEQ as the feed itself gives it"
)]
pub struct BadStart(String);

impl From {
    /// Reads the value of `from=` in a query.
    pub fn at(place: &str) -> Result<Self, BadStart> {
        if let Some(number) = place.strip_prefix('-')
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            // More than can be counted is all that there is.
            return Ok(Self::Last(number.parse().unwrap_or(u64::MAX)));
        }
        match place {
            "start" => Ok(Self::Start),
            "now" => Ok(Self::Now),
            cursor => match cursor.parse() {
                Ok(EndCursor { epoch, last }) => {
                    Ok(last.map_or(Self::End(epoch), |seq| Self::After(Cursor { epoch, seq })))
                }
                Err(_) => cursor.parse().map(Self::After).map_err(|_| BadStart(cursor.to_owned())),
            },
        }
    }
}

/// What a viewer gets.
#[derive(Debug, Clone)]
pub enum Event {
    /// The next chunk.
    Chunk(Arc<Chunk>),
    /// Some are missing before the next.
    Gap(Gap),
    /// Nothing can come now from where the feed is kept, or it can again. What is published meanwhile
    /// is not lost.
    Stalled(bool),
    /// There is no more. Nothing follows.
    End(End),
}

/// What becomes of a viewer that is behind all that a live feed keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lag {
    /// It goes on with the oldest chunk kept, and is told of the gap.
    #[default]
    Skip,
    /// It is told of the gap and cut off.
    Disconnect,
    /// It does not come to that: the producer waits when half of what is kept is before the slowest
    /// viewer. The other half stays for one who was cut off and comes again.
    Block,
}

type Open = dyn Fn(u64) -> BoxStream<'static, Result<Bytes, End>> + Send + Sync;

#[derive(Clone)]
pub(crate) enum Kind {
    Live {
        ring: Arc<Ring>,
        /// Of a feed that clients write.
        publisher: Option<Publisher>,
    },
    /// Kept elsewhere.
    Kept {
        kept: Kept,
        /// When clients may write it.
        publisher: Option<Publisher>,
    },
    OnDemand {
        open: Arc<Open>,
        /// Every run has the same chunks, so that a viewer can go on in another one.
        same: bool,
    },
}

/// A named sequence of chunks.
#[derive(Clone)]
pub struct Feed {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    file: Option<Arc<Path>>,
    pub(crate) counters: Arc<Counters>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) viewers: AtomicU64,
    /// For how long publishers were held up, in milliseconds.
    blocked: AtomicU64,
    tally: Mutex<Tally>,
    pub(crate) failures: log::Failures,
}

impl Counters {
    pub(crate) fn blocked(&self, time: Duration) {
        self.blocked.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A chunk went by, of so many bytes.
    pub(crate) fn count(&self, bytes: usize) {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).count(bytes);
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("name", &self.name).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

impl Feed {
    /// A live feed, and the one that publishes to it. It keeps up to `history` bytes. It ends with
    /// [`Publisher::end`]; when the last clone of its publisher is dropped before, it has failed.
    #[must_use]
    pub fn live(name: &str, history: usize, lag: Lag) -> (Self, Publisher) {
        let name: Arc<str> = name.into();
        let ring = Arc::new(Ring::new(Epoch::now(), history, lag));
        let counters = Arc::<Counters>::default();
        let publisher = Publisher::new(name.clone(), ring.clone(), counters.clone());
        (Self { name, kind: Kind::Live { ring, publisher: None }, file: None, counters }, publisher)
    }

    /// A live feed that clients write: it is its own publisher. It ends with [`Publisher::end`], or
    /// [`stop`](Self::stop) when its server does.
    #[must_use]
    pub fn writable(name: &str, history: usize, lag: Lag) -> Self {
        let (mut feed, written_by) = Self::live(name, history, lag);
        if let Kind::Live { publisher, .. } = &mut feed.kind {
            *publisher = Some(written_by);
        }
        feed
    }

    /// A feed that is kept elsewhere, and what fills its ring. The ring begins at the number `next` of
    /// the run `epoch`, and keeps up to `history` bytes; who wants more reads what `keeper` has. What
    /// comes before the number `now` is there already.
    #[must_use]
    pub fn kept(
        name: &str,
        keeper: Arc<dyn Keeper>,
        history: usize,
        epoch: Epoch,
        next: u64,
        now: u64,
    ) -> (Self, Filler) {
        let counters = Arc::<Counters>::default();
        let name: Arc<str> = name.into();
        let kept = Kept::new(keeper, history, epoch, next, now);
        let publisher = kept.keeper.is_writable().then(|| Publisher::kept(kept.clone()));
        let filler = Filler::new(name.clone(), kept.clone(), counters.clone());
        (Self { name, kind: Kind::Kept { kept, publisher }, file: None, counters }, filler)
    }

    /// Publishes to it, if clients may.
    #[must_use]
    pub fn publisher(&self) -> Option<&Publisher> {
        match &self.kind {
            Kind::Live { publisher, .. } | Kind::Kept { publisher, .. } => publisher.as_ref(),
            Kind::OnDemand { .. } => None,
        }
    }

    /// The ring of a live feed.
    fn ring(&self) -> Option<Arc<Ring>> {
        match &self.kind {
            Kind::Live { ring, .. } => Some(ring.clone()),
            Kind::Kept { kept, .. } => Some(kept.ring()),
            Kind::OnDemand { .. } => None,
        }
    }

    /// Ends a live feed because its server stops.
    pub fn stop(&self) {
        if let Some(ring) = self.ring() {
            ring.end(End::Stopped);
        }
    }

    /// Says that its bytes, from the start, are those of this file: any part of them can be had
    /// there.
    #[must_use]
    pub fn of_file(mut self, path: PathBuf) -> Self {
        self.file = Some(path.into());
        self
    }

    /// The file that has its bytes.
    #[must_use]
    pub fn file(&self) -> Option<&Arc<Path>> {
        self.file.as_ref()
    }

    /// A feed that starts afresh for each viewer, as `open` makes it. Dropping the stream that
    /// `open` returned ends its source.
    pub fn on_demand<S>(name: &str, open: impl Fn() -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes, FeedError>> + Send + 'static,
    {
        Self::on_demand_with_end(name, move || open().map(|chunk| chunk.map_err(End::Failed)))
    }

    /// The same for a source that may end in any way, which is the error of its stream.
    pub fn on_demand_with_end<S>(name: &str, open: impl Fn() -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes, End>> + Send + 'static,
    {
        let open = Arc::new(move |_| open().boxed());
        Self { name: name.into(), kind: Kind::OnDemand { open, same: false }, file: None, counters: Arc::default() }
    }

    /// A feed that has the same chunks for each viewer; `open` makes them from that number on, so
    /// that a viewer who comes again goes on where it was.
    pub fn replayable<S>(name: &str, open: impl Fn(u64) -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes, FeedError>> + Send + 'static,
    {
        let open = Arc::new(move |start| open(start).map(|chunk| chunk.map_err(End::Failed)).boxed());
        Self { name: name.into(), kind: Kind::OnDemand { open, same: true }, file: None, counters: Arc::default() }
    }

    /// Logs that it failed for one who reads its bytes elsewhere, in its file.
    pub fn report_failure(&self, error: &FeedError) {
        self.counters.failures.count(&self.name, error);
    }

    /// Counts one who reads the feed's bytes elsewhere, in its file, as a viewer.
    #[must_use]
    pub fn count_viewer(&self) -> Counted {
        self.counters.viewers.fetch_add(1, Ordering::Relaxed);
        Counted(self.counters.clone())
    }

    /// Its name, which is also the last segment of its URL.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it starts, in the words of `/info`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Live { .. } | Kind::Kept { .. } => "live",
            Kind::OnDemand { .. } => "on-demand",
        }
    }

    /// What can be said of it now.
    #[must_use]
    pub fn status(&self) -> Status {
        let ring = self.ring();
        let tally = self.counters.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let mut status = Status {
            viewers: self.counters.viewers.load(Ordering::Relaxed),
            chunks: tally.chunks,
            bytes: tally.bytes,
            rate: tally.rate(),
            blocked: Duration::from_millis(self.counters.blocked.load(Ordering::Relaxed)),
            epoch: ring.as_ref().map(|ring| ring.epoch()),
            kept_bytes: 0,
            oldest: None,
            skipped: 0,
            stalled: false,
            end: None,
        };
        drop(tally);
        if let Some(ring) = ring {
            let ring = ring.status();
            status.chunks = ring.chunks;
            status.kept_bytes = ring.kept_bytes;
            status.oldest = ring.oldest;
            status.skipped = ring.skipped;
            status.stalled = ring.stalled;
            status.end = ring.end;
        }
        status
    }

    /// Whether there is nothing for a viewer that has had this end of the feed: the feed has ended or
    /// failed since, and not been continued. One that starts over for each viewer has no more for one that
    /// has had all of it.
    #[must_use]
    pub fn is_over(&self, had: EndCursor) -> bool {
        match &self.kind {
            Kind::Live { ring, .. } => ring.is_over(had),
            Kind::Kept { kept, .. } => kept.ring().is_over(had),
            Kind::OnDemand { same, .. } => !same || had.epoch == Epoch(0),
        }
    }

    /// Starts to view the feed; after `limit` chunks it ends cleanly.
    #[must_use]
    pub fn view(&self, from: From, limit: Option<u64>) -> Viewer {
        self.counters.viewers.fetch_add(1, Ordering::Relaxed);
        let (source, epoch) = match &self.kind {
            Kind::Live { ring, .. } => (Source::Live(ring.view(from)), ring.epoch()),
            Kind::Kept { kept, .. } => {
                let viewer = kept.view(from);
                let epoch = viewer.epoch();
                (Source::Kept(viewer), epoch)
            }
            Kind::OnDemand { open, same } => {
                let epoch = if *same { Epoch(0) } else { Epoch::now() };
                let (start, restarted) = match from {
                    From::After(cursor) if *same && cursor.epoch == epoch => (cursor.seq.saturating_add(1), false),
                    From::End(of) if *same && of == epoch => (0, false),
                    From::After(_) | From::End(_) => (0, true),
                    // What comes is new to everyone.
                    From::Start | From::Now | From::Last(_) => (0, false),
                };
                let stream = panics::caught(|| open(start)).unwrap_or_else(|panic| {
                    stream::once(std::future::ready(Err(End::Failed(panicked(&self.name, &panic))))).boxed()
                });
                (Source::OnDemand { stream, next: start, restarted, counters: self.counters.clone() }, epoch)
            }
        };
        Viewer::new(self, source, epoch, limit)
    }
}

/// A source panicked: the log gets why, viewers only that.
pub(crate) fn panicked(feed: &str, why: &str) -> FeedError {
    tracing::error!(feed, "the feed's source panicked: {why}");
    FeedError("the feed's source panicked".into())
}

/// A viewer that reads a feed's bytes elsewhere; one less when dropped.
#[derive(Debug)]
pub struct Counted(Arc<Counters>);

impl Counted {
    /// It got a piece of so many bytes.
    pub fn count(&self, bytes: usize) {
        self.0.count(bytes);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What can be said of a feed at a moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// Who views it now.
    pub viewers: u64,
    /// Chunks published (live), or given to viewers (on demand).
    pub chunks: u64,
    /// The bytes of those chunks.
    pub bytes: u64,
    /// How fast they came lately.
    pub rate: Rate,
    /// For how long publishers were held up by viewers ([`Lag::Block`]).
    pub blocked: Duration,
    /// The run of a live feed's numbers.
    pub epoch: Option<Epoch>,
    /// What a live feed keeps, in bytes with what each chunk costs beside its own.
    pub kept_bytes: usize,
    /// The oldest chunk that a live feed keeps.
    pub oldest: Option<Cursor>,
    /// Chunks that viewers missed, being too far behind.
    pub skipped: u64,
    /// Nothing can come from where the feed is kept.
    pub stalled: bool,
    /// How a live feed ended, if it has.
    pub end: Option<End>,
}

/// Feeds that are there when somebody asks for them.
pub trait Family: Send + Sync + 'static {
    /// How its feeds are named, for people: `logs.*`.
    fn pattern(&self) -> &str;

    /// The feed of that name; `None` when it is not of this family.
    fn get(&self, name: &str) -> BoxFuture<'_, Option<Result<Feed, FeedError>>>;

    /// Those that are there now.
    fn feeds(&self) -> Vec<Feed>;

    /// Whether what keeps them can be reached.
    fn is_ready(&self) -> bool;
}

/// The feeds of a server, by name.
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
    /// Adds feeds that are there when somebody asks for them.
    pub fn add_family(&mut self, family: Arc<dyn Family>) {
        self.families.push(family);
    }

    /// The feed of that name.
    ///
    /// # Errors
    ///
    /// When there may be such a feed, and it cannot be said now.
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

    /// Those that are there now: first those that always are, in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<Feed> {
        let families = self.families.iter().flat_map(|family| family.feeds());
        self.named.values().cloned().chain(families).collect()
    }

    /// The feeds and patterns that cannot be served now. What is asked for by pattern does not count: a
    /// client may have made it up.
    #[must_use]
    pub fn unready(&self) -> Vec<&str> {
        let stalled = self.named.values().filter(|feed| feed.status().stalled).map(Feed::name);
        let families = self.families.iter().filter(|family| !family.is_ready()).map(|family| family.pattern());
        stalled.chain(families).collect()
    }

    /// What there is to ask for: names, and the patterns of families.
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
