//! Lines that strangers can cause, limited by rate: each kind of line has an allowance, and what is left
//! out is counted.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Metadata, Subscriber, error,
    field::{Field, Visit},
    info, warn,
};
use tracing_subscriber::layer::{Context, Layer};

/// Lines of one kind that may come at once, and how many each second after that.
const LINES: Allowance = Allowance { burst: 20.0, rate: 1.0 };
/// The same for what a command writes on its standard error, which nobody else should be able to cause
/// much of.
const COMMAND: Allowance = Allowance { burst: 5_000.0, rate: 500.0 };
const COMMANDS: &str = "h3cast::source::command";
/// How many kinds are told apart. A kind is a place in the code, for each feed.
const KINDS: usize = 256;
/// How long after the first line was left out the log says how many were.
const REPORT_AFTER: Duration = Duration::from_secs(5);
/// How much of such a line is kept, to say which they were.
const SHOWN: usize = 200;

#[derive(Debug, Clone, Copy)]
struct Allowance {
    burst: f64,
    rate: f64,
}

/// The layer that leaves lines out. Those at DEBUG and TRACE are wanted by whoever asks for them, and stay.
#[derive(Clone)]
pub(super) struct Limit(Arc<Budgets>);

struct Budgets {
    kinds: Mutex<HashMap<u64, Budget>>,
    /// How many lines were left out so far.
    left_out: AtomicU64,
    /// Says what was left out.
    reporter: Thread,
}

#[derive(Debug)]
struct Budget {
    allowance: Allowance,
    left: f64,
    since: Instant,
    left_out: Option<LeftOut>,
}

/// Lines of one kind that were left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftOut {
    lines: u64,
    level: Level,
    /// The first of them.
    like: String,
}

impl Budget {
    fn new(allowance: Allowance, now: Instant) -> Self {
        Self { allowance, left: allowance.burst, since: now, left_out: None }
    }

    /// Whether one more may come.
    fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }

    fn refill(&mut self, now: Instant) {
        let more = now.saturating_duration_since(self.since).as_secs_f64() * self.allowance.rate;
        self.left = (self.left + more).min(self.allowance.burst);
        self.since = now;
    }

    /// Whether it is as if it had never been.
    fn is_idle(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left_out.is_none() && self.left >= self.allowance.burst
    }
}

impl Limit {
    /// Starts the thread that reports, which ends with the process.
    pub(super) fn start() -> std::io::Result<Self> {
        let (limit, given) = std::sync::mpsc::sync_channel::<Self>(1);
        let reporter = thread::Builder::new().name("log limit".into()).spawn(move || {
            let Ok(limit): Result<Self, _> = given.recv() else { return };
            loop {
                thread::park();
                thread::sleep(REPORT_AFTER);
                limit.report();
            }
        })?;
        let shared =
            Budgets { kinds: Mutex::default(), left_out: AtomicU64::new(0), reporter: reporter.thread().clone() };
        let new = Self(Arc::new(shared));
        // It waits for it, and there is room.
        let _ = limit.send(new.clone());
        Ok(new)
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<u64, Budget>> {
        self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many lines were left out so far.
    pub(super) fn left_out(&self) -> u64 {
        self.0.left_out.load(Ordering::Relaxed)
    }

    /// Logs what was left out since the last time.
    pub(super) fn report(&self) {
        for LeftOut { lines, level, like } in self.take() {
            // These lines are ours alone, and few: as many as there are kinds.
            match level {
                Level::ERROR => error!(target: OURS, "{lines} more like this were left out: {like}"),
                Level::WARN => warn!(target: OURS, "{lines} more like this were left out: {like}"),
                _ => info!(target: OURS, "{lines} more like this were left out: {like}"),
            }
        }
    }

    fn take(&self) -> Vec<LeftOut> {
        self.kinds().values_mut().filter_map(|kind| kind.left_out.take()).collect()
    }

    /// Whether a line of that kind may come at that time.
    fn allows(
        &self,
        kind: u64,
        allowance: Allowance,
        now: Instant,
        level: Level,
        line: impl FnOnce() -> String,
    ) -> bool {
        let mut kinds = self.kinds();
        if kinds.len() >= KINDS && !kinds.contains_key(&kind) {
            kinds.retain(|_, kind| !kind.is_idle(now));
        }
        // Too many kinds are one: nobody may cause lines by making kinds up.
        let kind = if kinds.len() >= KINDS && !kinds.contains_key(&kind) { 0 } else { kind };
        let known = kinds.entry(kind).or_insert_with(|| Budget::new(allowance, now));
        if known.take(now) {
            return true;
        }
        self.0.left_out.fetch_add(1, Ordering::Relaxed);
        if let Some(left_out) = &mut known.left_out {
            left_out.lines += 1;
            return false;
        }
        // Not under the lock: a field's own code writes it.
        drop(kinds);
        let like = line();
        let mut kinds = self.kinds();
        let known = kinds.entry(kind).or_insert_with(|| Budget::new(allowance, now));
        known.left_out.get_or_insert(LeftOut { lines: 0, level, like }).lines += 1;
        drop(kinds);
        self.0.reporter.unpark();
        false
    }
}

/// Whether lines like this are about a command, or of one.
pub(super) fn is_of_command(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(COMMANDS)
}

/// The target of the lines about lines.
const OURS: &str = "h3cast::log";

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == OURS {
            return true;
        }
        let allowance = if is_of_command(metadata) { COMMAND } else { LINES };
        let mut kind = DefaultHasher::new();
        metadata.callsite().hash(&mut kind);
        event.record(&mut OfFeed(&mut kind));
        // 0 is the one of all that are too many.
        let kind = kind.finish().max(1);
        self.allows(kind, allowance, Instant::now(), *metadata.level(), || {
            let mut line = LineStart(String::new());
            event.record(&mut line);
            line.0
        })
    }
}

/// Each feed has lines of its own.
struct OfFeed<'a>(&'a mut DefaultHasher);

impl Visit for OfFeed<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "feed" {
            value.hash(self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// The beginning of a line, as it would have come.
struct LineStart(String);

impl Visit for LineStart {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let before = self.0.len();
        if before >= SHOWN {
            return;
        }
        let space = if before == 0 { "" } else { " " };
        // A string takes all.
        let _ = match field.name() {
            "message" => write!(self.0, "{space}{value:?}"),
            name => write!(self.0, "{space}{name}={value:?}"),
        };
        if let Some((end, _)) = self.0.char_indices().find(|(at, _)| *at >= SHOWN) {
            self.0.truncate(end);
            self.0.push('…');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> Limit {
        Limit(Arc::new(Budgets { kinds: Mutex::default(), left_out: AtomicU64::new(0), reporter: thread::current() }))
    }

    fn left_out(limit: &Limit) -> Vec<(u64, String)> {
        limit.take().into_iter().map(|left_out| (left_out.lines, left_out.like)).collect()
    }

    #[test]
    fn a_kind_has_a_burst_and_a_rate_and_what_is_left_out_is_counted() {
        let (limit, start) = (limit(), Instant::now());
        let at = |kind, millis: u64, line: &str| {
            limit.allows(kind, LINES, start + Duration::from_millis(millis), Level::INFO, || line.to_owned())
        };
        let came = (0..500).filter(|number| at(1, 0, &format!("line {number}"))).count();
        assert_eq!(came, LINES.burst as usize);
        // Others are not concerned.
        assert!(at(2, 0, "another"));
        assert_eq!(left_out(&limit), [(480, "line 20".to_owned())]);
        assert_eq!(left_out(&limit), []);
        // One a second, then.
        let came = (0..10_000).step_by(10).filter(|millis| at(1, *millis, "later")).count();
        assert_eq!(came, 9);
        assert_eq!(left_out(&limit), [(991, "later".to_owned())]);
    }

    #[test]
    fn kinds_that_are_made_up_are_one() {
        let (limit, now) = (limit(), Instant::now());
        let came = (1..100_000).filter(|kind| limit.allows(*kind, LINES, now, Level::WARN, String::new)).count();
        assert_eq!(came, KINDS + LINES.burst as usize);
        assert!(limit.kinds().len() <= KINDS + 1);
        // Those that are over make room.
        let later = now + Duration::from_secs(60);
        limit.take();
        assert!(limit.allows(1 << 40, LINES, later, Level::WARN, String::new));
        assert_eq!(limit.kinds().len(), 1);
    }

    #[test]
    fn by_place_and_feed() {
        use tracing_subscriber::{layer::SubscriberExt, registry};
        let limit = limit();
        let subscriber = registry().with(limit.clone());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..30 {
                for feed in ["a", "b"] {
                    info!(feed, number, "refused");
                }
                tracing::debug!("asked for");
            }
        });
        let mut left_out = left_out(&limit);
        left_out.sort();
        let line = |feed| (10, format!("refused feed=\"{feed}\" number=20"));
        assert_eq!(left_out, [line("a"), line("b")]);
    }
}
