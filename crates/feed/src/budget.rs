//! A bound on the memory of a process, and what gives way near it.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Instant,
};

mod heap;
mod holding;
mod meter;
mod seat;
mod turns;

use self::heap::Heap;
use crate::{Counted, ring::Ring};
pub(crate) use holding::Gathered;
use holding::{Holding, RESERVED};
use meter::Meter;
pub(crate) use seat::Seat;
pub use turns::Turn;
use turns::Turns;

/// How much a laggard is taken to hold, in bytes, to decide how many are cut at once: less than most hold, since
/// what is freed shows only later.
const OF_LAGGARD: u64 = 256 << 10;
/// What a viewer is taken to cost at least, in bytes, to compare how many there are with how many there were.
const OF_VIEWER: u64 = 16 << 10;
/// Up to this part of the limit, in percent, there is room again.
const LOW: u64 = 85;
/// How much of the limit histories may take, with what the process needs by itself, in percent: less than `LOW`, so
/// that there is room again while some clients stay.
const STATIC: u64 = 80;
/// For how long new viewers are refused before others are cut for them, in milliseconds.
const PATIENCE: u64 = 5000;
/// For how long a viewer must have taken nothing to be a laggard, in milliseconds: longer than the round trips and
/// retransmissions of those that are well.
const LAG: u64 = 2000;

/// What one process may hold in memory, for feeds and whatever else is charged. Clones are the same budget.
///
/// It decides nothing by itself about memory in use: [`observe`](Self::observe) is called every now and then, and
/// compares what is charged, or what the system reports if that is more, with the limit. Then, in this order:
///
/// 1. encodings that viewers share are bounded by each history anyway, and are dropped first;
/// 2. from 90 % on, viewers that share their chunks with no others are given 288 KiB ahead at most, and
///    [`pressure`](Self::pressure) is [`Pressure::High`]: whoever admits viewers refuses new ones;
/// 3. from 95 % on it is [`Pressure::Critical`]. Then, and when new viewers have been refused for 5 s, the viewers
///    that have taken nothing for the longest time are cut,
///    as many as it takes to come below 85 %. They hold what was sent to them, and can resume by cursor.
///
/// The chunks of a history stay: they were promised to viewers that return. Give histories that fit.
/// Both states end at 85 %, so that it does not flap: what never gives way, as histories do not, has to fit into
/// [`for_histories`](Self::for_histories). Allocators keep some memory after a surge. What the system reports counts
/// less, therefore, the fewer of the clients are left that were there at its peak, unless it grows beyond that; and
/// what has been too much for 5 s without any client is not held against those that come.
///
/// Between two observations it is kept by what [`counts`](Self::count) say, and, as these grow, by what it
/// [`measures`](Self::measure).
///
/// ```
/// use h3cast_feed::{Budget, Feed, Lag, Pressure};
///
/// let budget = Budget::new(100_000_000);
/// let (feed, publisher) = Feed::live("news", 1_000_000, Lag::Skip);
/// let feed = feed.budget(&budget);
/// // What the system reports, as in /proc/self/statm.
/// assert_eq!(budget.observe(92_000_000), Pressure::High);
/// assert_eq!(budget.observe(86_000_000), Pressure::High);
/// assert_eq!(budget.observe(84_000_000), Pressure::Low);
/// # drop((feed, publisher));
/// ```
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

/// What is charged whenever that is asked for, in bytes.
type Count = Box<dyn Fn() -> u64 + Send + Sync>;

struct Inner {
    limit: AtomicU64,
    began: Instant,
    /// When it was observed last, in milliseconds since it began; never 0.
    now: AtomicU64,
    /// Of what the system reported last, what is taken to be in use.
    in_use: AtomicU64,
    /// What histories were charged when they were looked at last, and what clients were then.
    histories: AtomicU64,
    looked: AtomicU64,
    /// By [`Charge`].
    charged: AtomicU64,
    counts: RwLock<Vec<Count>>,
    /// What they were.
    counted: AtomicU64,
    heap: Mutex<Heap>,
    meter: Meter,
    pressure: AtomicU8,
    /// Since when it has not been low, in milliseconds; 0 while it is.
    high_since: AtomicU64,
    cut: AtomicU64,
    rings: Mutex<Vec<Charged>>,
    seats: Mutex<Seats>,
    turns: Turns,
}

/// Rings that cost what they hold.
pub(crate) enum Charged {
    Live(Weak<Ring>),
    /// Replaced when the feed is recreated.
    Kept(Weak<Mutex<Arc<Ring>>>),
}

#[derive(Default)]
struct Seats {
    next: u64,
    taken: HashMap<u64, Arc<Seat>>,
}

/// How near to its limit a [`Budget`] is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is room.
    #[default]
    Low,
    /// Nothing new is to be begun.
    High,
    /// What can be given up is given up.
    Critical,
}

impl Pressure {
    /// What follows it when so much of the limit is used.
    fn next(self, used: u64, limit: u64) -> Self {
        match used {
            used if used >= part(limit, 95) => Self::Critical,
            used if used >= part(limit, 90) => self.max(Self::High),
            used if used > part(limit, LOW) => self,
            _ => Self::Low,
        }
    }

    fn of(number: u8) -> Self {
        match number {
            0 => Self::Low,
            1 => Self::High,
            _ => Self::Critical,
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (limit, used) = (self.limit(), self.used());
        f.debug_struct("Budget").field("limit", &limit).field("used", &used).finish_non_exhaustive()
    }
}

impl Budget {
    /// A budget of that many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(Inner {
            limit: AtomicU64::new(bytes.max(1)),
            began: Instant::now(),
            now: AtomicU64::new(1),
            in_use: AtomicU64::new(0),
            histories: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            charged: AtomicU64::new(0),
            counts: RwLock::default(),
            counted: AtomicU64::new(0),
            heap: Mutex::default(),
            meter: Meter::default(),
            pressure: AtomicU8::new(0),
            high_since: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            rings: Mutex::default(),
            seats: Mutex::default(),
            turns: Turns::default(),
        }))
    }

    /// Its limit, in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// Changes its limit, in bytes. What is to follow from that does so when it is [observed](Self::observe) next.
    pub fn set_limit(&self, bytes: u64) {
        self.0.limit.store(bytes.max(1), Ordering::Relaxed);
    }

    /// How much of a limit of `bytes` there is for what never gives way: the histories, and what the process needs
    /// without any client. 80 %.
    #[must_use]
    pub fn for_histories(bytes: u64) -> u64 {
        part(bytes, STATIC)
    }

    /// What the histories of its feeds hold, what is [charged](Self::charge), and what is [counted](Self::count), in
    /// bytes.
    #[must_use]
    pub fn charged(&self) -> u64 {
        self.histories() + self.clients()
    }

    fn histories(&self) -> u64 {
        let mut rings = lock(&self.0.rings);
        rings.retain(Charged::is_there);
        rings.iter().map(Charged::bytes).sum()
    }

    /// Looks at the histories, while clients are charged so much.
    fn look(&self, clients: u64) -> u64 {
        let histories = self.histories();
        self.0.histories.store(histories, Ordering::Relaxed);
        self.0.looked.store(clients, Ordering::Relaxed);
        histories
    }

    /// What is charged for everything else.
    fn clients(&self) -> u64 {
        self.0.charged.load(Ordering::Relaxed) + self.counts()
    }

    fn counts(&self) -> u64 {
        let counts = self.0.counts.read().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|count| count()).sum()
    }

    /// What is used of it, in bytes: what is charged, or what was [observed](Self::observe) last if that is more,
    /// without what an allocator is taken to keep.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.charged().max(self.0.in_use.load(Ordering::Relaxed))
    }

    /// How near to the limit it is: when it was [observed](Self::observe) last, or by what is [counted](Self::count)
    /// and [charged](Self::charge) since.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let observed = Pressure::of(self.0.pressure.load(Ordering::Relaxed));
        // Only an observation ends it.
        observed.max(observed.next(self.estimate(), self.limit()))
    }

    /// Whether so much is used now that the pressure would become [`Pressure::Critical`], which lasts longer than that.
    #[must_use]
    pub fn is_full(&self) -> bool {
        Pressure::Low.next(self.estimate(), self.limit()) == Pressure::Critical
    }

    /// What is used now, without asking the system.
    fn estimate(&self) -> u64 {
        let clients = self.clients();
        // To look at each history takes longer than to count clients: with each percent that these have grown.
        if clients.abs_diff(self.0.looked.load(Ordering::Relaxed)) >= part(self.limit(), 1) {
            self.look(clients);
        }
        let more = match clients.saturating_sub(self.0.counted.load(Ordering::Relaxed)) {
            more if more >= part(self.limit(), 1) && self.measured(clients) => 0,
            more => more,
        };
        let charged = self.0.histories.load(Ordering::Relaxed) + clients;
        charged.max(self.0.in_use.load(Ordering::Relaxed) + more)
    }

    /// How many viewers were cut.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.0.cut.load(Ordering::Relaxed)
    }

    /// Charges it for something else, until that is dropped.
    #[must_use]
    pub fn charge(&self, bytes: u64) -> Charge {
        self.0.charged.fetch_add(bytes, Ordering::Relaxed);
        Charge { budget: self.clone(), bytes }
    }

    /// Charges it for what `count` says, in bytes, whenever that is asked for: what there is of clients, say. It is
    /// asked for each [`pressure`](Self::pressure), so that a surge between two observations is noticed, and should
    /// take no longer than to read some counters.
    ///
    /// ```
    /// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
    /// use h3cast_feed::{Budget, Pressure};
    ///
    /// let (budget, clients) = (Budget::new(1_000_000), Arc::new(AtomicU64::new(0)));
    /// let counted = clients.clone();
    /// budget.count(move || counted.load(Ordering::Relaxed) * 50_000);
    /// budget.observe(0);
    /// clients.store(18, Ordering::Relaxed);
    /// assert_eq!(budget.pressure(), Pressure::High);
    /// ```
    pub fn count(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        self.0.counts.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(count));
    }

    /// Takes what the system reports of the process's memory, in bytes (0 if nothing), and does what
    /// [`Budget`] says. To be called once a second at least, and ten times a second near the limit. The time that
    /// viewers lag is as exact as that.
    pub fn observe(&self, resident: u64) -> Pressure {
        let now = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.observe_at(now, resident)
    }

    fn observe_at(&self, now: u64, resident: u64) -> Pressure {
        self.0.now.store(now, Ordering::Relaxed);
        let clients = self.clients();
        let histories = self.look(clients);
        let charged = histories + clients;
        let used = charged.max(self.reported(&mut lock(&self.0.heap), now, resident, (histories, clients)));
        let before = Pressure::of(self.0.pressure.load(Ordering::Relaxed));
        let pressure = before.next(used, self.limit());
        self.0.pressure.store(pressure as u8, Ordering::Relaxed);
        let since = match (pressure, self.0.high_since.load(Ordering::Relaxed)) {
            (Pressure::Low, _) => 0,
            (_, 0) => now,
            (_, since) => since,
        };
        self.0.high_since.store(since, Ordering::Relaxed);
        // Viewers that take nothing do not keep others out for long.
        if pressure == Pressure::Critical || pressure == Pressure::High && since + PATIENCE <= now {
            let excess = used.saturating_sub(part(self.limit(), LOW));
            self.cut_laggards(now, excess.div_ceil(OF_LAGGARD).max(1));
        }
        pressure
    }

    /// Takes what the system reports while histories and clients are charged so much; gives what of it is in use.
    fn reported(&self, heap: &mut Heap, now: u64, resident: u64, (histories, clients): (u64, u64)) -> u64 {
        // Viewers cost something of their own, whether or not someone charges for them.
        let viewers = lock(&self.0.seats).taken.len() as u64 * OF_VIEWER;
        let in_use = heap.in_use(now, resident, (histories, clients, viewers), self.limit());
        self.0.in_use.store(in_use, Ordering::Relaxed);
        self.0.counted.store(clients, Ordering::Relaxed);
        in_use
    }

    /// Cuts up to that many viewers that have taken nothing for some time, those first that wait longest.
    fn cut_laggards(&self, now: u64, many: u64) {
        let mut late: Vec<_> = lock(&self.0.seats)
            .taken
            .values()
            .filter(|seat| !seat.is_cut())
            .filter_map(|seat| Some((seat.waits_since().filter(|since| since + LAG <= now)?, seat.clone())))
            .collect();
        late.sort_unstable_by_key(|(since, _)| *since);
        late.truncate(usize::try_from(many).unwrap_or(usize::MAX));
        // Not under the lock: it calls what the transport gave.
        let cut = late.into_iter().filter(|(_, seat)| seat.cut()).count();
        if cut > 0 {
            self.0.cut.fetch_add(cut as u64, Ordering::Relaxed);
            tracing::warn!(
                viewers = cut,
                "memory is short: cut the viewers that have taken nothing for the longest time"
            );
        }
    }

    pub(crate) fn add(&self, ring: Charged) {
        lock(&self.0.rings).push(ring);
    }

    /// Charges it for a viewer for which a source is about to be read, or a client that is about to be sent a file: as
    /// much as a viewer of [`Feed::on_demand`](crate::Feed::on_demand) and [`reader`](Self::reader) charge then.
    #[must_use]
    pub fn reserve(&self) -> Charge {
        self.charge(RESERVED)
    }

    /// Counts a client that is sent a file of no feed, which is charged and cut as viewers are that share what they get
    /// with no others.
    #[must_use]
    pub fn reader(&self) -> Counted {
        Counted::of_budget(self)
    }

    /// Counts a client for which an answer of that many bytes is held, which is charged from now on and cut as viewers
    /// are.
    #[must_use]
    pub fn answer(&self, bytes: u64) -> Counted {
        Counted::of_answer(self, bytes)
    }

    /// A place for a viewer that gets chunks which others get too.
    pub(crate) fn seat(&self) -> Arc<Seat> {
        self.place(None)
    }

    /// The same for a viewer that gets some which no other gets.
    pub(crate) fn seat_of_some(&self) -> Arc<Seat> {
        self.place(Some(Holding::none_yet(self)))
    }

    /// The same for one for which a source is read: so much is charged for it from the start.
    pub(crate) fn seat_of_one(&self) -> Arc<Seat> {
        self.place_from_now(Holding::reserved(self))
    }

    /// The same for a client for which so many bytes are held already.
    pub(crate) fn seat_of_answer(&self, bytes: u64) -> Arc<Seat> {
        self.place_from_now(Holding::of(self, bytes))
    }

    /// What is charged from the start lags from the start: a transport that has no room for it never comes for it.
    fn place_from_now(&self, holding: Arc<Holding>) -> Arc<Seat> {
        let seat = self.place(Some(holding));
        seat.given();
        seat
    }

    fn place(&self, holding: Option<Arc<Holding>>) -> Arc<Seat> {
        let mut seats = lock(&self.0.seats);
        let number = seats.next;
        seats.next += 1;
        let seat = Arc::new(Seat::new(self.clone(), number, holding));
        seats.taken.insert(number, seat.clone());
        seat
    }

    pub(crate) fn leave(&self, seat: &Seat) {
        let left = lock(&self.0.seats).taken.remove(&seat.number());
        drop(left);
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }
}

impl Charged {
    fn ring(&self) -> Option<Arc<Ring>> {
        match self {
            Self::Live(ring) => ring.upgrade(),
            Self::Kept(ring) => Some(lock(&*ring.upgrade()?).clone()),
        }
    }

    fn is_there(&self) -> bool {
        match self {
            Self::Live(ring) => ring.strong_count() > 0,
            Self::Kept(ring) => ring.strong_count() > 0,
        }
    }

    fn bytes(&self) -> u64 {
        self.ring().map_or(0, |ring| ring.charged())
    }
}

/// What a [`Budget`] is charged for, until this is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: u64,
}

impl Charge {
    /// Charges that many bytes instead.
    pub fn set(&mut self, bytes: u64) {
        self.budget.0.charged.fetch_add(bytes, Ordering::Relaxed);
        self.budget.0.charged.fetch_sub(std::mem::replace(&mut self.bytes, bytes), Ordering::Relaxed);
    }

    /// Charges that many bytes less.
    pub(crate) fn lower(&mut self, bytes: u64) {
        self.set(self.bytes.saturating_sub(bytes));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.0.charged.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// That part of a limit, in percent.
fn part(limit: u64, percent: u64) -> u64 {
    limit / 100 * percent + limit % 100 * percent / 100
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
