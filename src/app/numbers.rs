//! What can be counted of a server and its feeds, for what shows it.

use std::time::SystemTime;

use super::{App, viewing::Shape};
use crate::{
    admission::{self, Counters},
    counts::{self, Counts},
    feed::{Delivered, Feed, Pressure, Status},
    source::command::Commands,
};

/// How many feeds are listed one by one. Feeds that were named at the start are always among them; clients may create
/// thousands of others.
const FEEDS: usize = 1_000;

/// Everything that is counted, at one point in time: a plain copy, to read at leisure. What `/metrics` and the status page
/// show is from here, so that they cannot differ.
#[derive(Debug, Clone)]
pub(crate) struct Numbers {
    /// The feeds that were asked for, at most [`FEEDS`] of those that clients created.
    pub(crate) feeds: Vec<(String, Status)>,
    /// How many feeds there are in all.
    pub(crate) all_feeds: usize,
    /// How many feeds have been removed to make room for others.
    pub(crate) evicted: u64,
    /// Publications that run now.
    pub(crate) publications: usize,
    /// `Idempotency-Key`s that are remembered.
    pub(crate) keys: usize,
    /// Commands that run now, if the program runs any.
    pub(crate) commands: Option<usize>,
    /// What the server has admitted and refused: with a server of this library.
    pub(crate) admission: Option<admission::Snapshot>,
    /// What it has counted of connections, handshakes, sessions and requests.
    pub(crate) counts: Option<counts::Snapshot>,
    /// With a bound on memory.
    pub(crate) memory: Option<Memory>,
    /// When the certificate that is in use begins to be valid, and when it ends.
    pub(crate) certificate: Option<(SystemTime, SystemTime)>,
    /// What viewers are given, by transport and format.
    pub(crate) viewing: Vec<(counts::Protocol, Shape, Delivered)>,
    /// When the program was started, as far as that is known: see [`started`](super::started).
    pub(crate) started: SystemTime,
    /// What the program has added: see [`App::gauge`] and [`App::counter`].
    pub(crate) added: Vec<(Added, Sample)>,
}

/// What is counted of memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// In use: what is charged, or what the system reports.
    pub(crate) used: u64,
    /// Of histories, connections and viewers.
    pub(crate) charged: u64,
    /// What may be used.
    pub(crate) limit: u64,
    pub(crate) pressure: Pressure,
    /// How many viewers were cut because memory was short.
    pub(crate) cut: u64,
}

/// A number that the program adds.
#[derive(Clone)]
pub(crate) struct Added {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(super) sample: std::sync::Arc<dyn Fn() -> Sample + Send + Sync>,
}

/// What it is now.
#[derive(Debug, Clone)]
pub(crate) enum Sample {
    Gauge(f64),
    /// It only grows.
    Counter(f64),
    /// One for each value of a label.
    Counters(&'static str, Vec<(&'static str, f64)>),
    /// The upper bound of each bucket and how many values are in it and in none before; their sum.
    Histogram(Vec<(f64, u64)>, f64),
}

impl std::fmt::Debug for Added {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Numbers {
    /// Those of an app now; of the feeds, those that are given, which one client may see.
    pub(crate) fn of(app: &App, feeds: &[Feed]) -> Self {
        let all_feeds = feeds.len();
        let (publications, keys) = app.publications.counts();
        Self {
            feeds: listed(app, feeds).into_iter().map(|feed| (feed.name().to_owned(), feed.status())).collect(),
            all_feeds,
            evicted: app.feeds.evicted(),
            publications,
            keys,
            commands: app.commands.as_ref().map(Commands::running),
            admission: app.admission.as_ref().map(Counters::snapshot),
            counts: app.counts.as_ref().map(Counts::snapshot),
            memory: app.budget.as_ref().map(|budget| Memory {
                used: budget.used(),
                charged: budget.charged(),
                limit: budget.limit(),
                pressure: budget.pressure(),
                cut: budget.cut(),
            }),
            certificate: app.identity.as_ref().map(|identity| {
                let certificate = identity.current();
                (certificate.not_before(), certificate.not_after())
            }),
            viewing: app.viewing.snapshot(),
            started: app.started,
            added: app.added.iter().map(|added| (added.clone(), (added.sample)())).collect(),
        }
    }
}

/// The feeds that are listed: the named ones, and of the others the first ones by name.
fn listed<'a>(app: &App, feeds: &'a [Feed]) -> Vec<&'a Feed> {
    let (mut listed, mut others): (Vec<_>, Vec<_>) =
        feeds.iter().partition(|feed| app.feeds.named(feed.name()).is_some());
    others.sort_unstable_by(|one, other| one.name().cmp(other.name()));
    listed.extend(others.into_iter().take(FEEDS));
    listed
}
