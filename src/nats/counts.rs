//! What is counted of NATS.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::{sync::watch, time::Instant};

use super::{connection::LinkState, error::Refusal};
use crate::App;

/// Upper bounds of the times that JetStream takes to acknowledge, in seconds.
const BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0];

/// What is counted of all connections. Clones are handles of the same counters.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(Arc<Tally>);

#[derive(Debug, Default)]
struct Tally {
    /// Of each connection.
    states: Mutex<Vec<watch::Receiver<LinkState>>>,
    /// Of each feed that is the whole of a stream.
    places: Mutex<Vec<Weak<Place>>>,
    pending: AtomicU64,
    publishing: AtomicU64,
    reads_waiting: AtomicU64,
    consumers: AtomicU64,
    /// Patterns of which several streams store subjects.
    ambiguous: AtomicU64,
    /// There will be connections.
    expected: AtomicBool,
    acknowledged: [AtomicU64; BOUNDS.len() + 1],
    acknowledged_micros: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

type Counter = fn(&Tally) -> &AtomicU64;

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counts {
    /// One more connection.
    pub(super) fn add(&self, state: watch::Receiver<LinkState>) {
        self.0.states.lock().unwrap_or_else(PoisonError::into_inner).push(state);
    }

    fn sum(&self, of_one: impl Fn(&LinkState) -> u64) -> f64 {
        let states = self.0.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.iter().map(|state| of_one(&state.borrow())).sum::<u64>() as f64
    }

    /// What one feed has still to read, until this is dropped.
    pub(super) fn pending(&self) -> Pending {
        Pending { counts: self.clone(), now: 0 }
    }

    /// Where a feed is in its stream, whose last message has that number, until this is dropped.
    pub(super) fn place(&self, head: Arc<AtomicU64>) -> Arc<Place> {
        let place = Arc::new(Place { head, read: AtomicU64::default() });
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| place.strong_count() > 0);
        places.push(Arc::downgrade(&place));
        place
    }

    /// How far the feed that is farthest behind its stream is behind it.
    fn lag(&self) -> f64 {
        let places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        let lags =
            places.iter().filter_map(Weak::upgrade).map(|place| get(&place.head).saturating_sub(get(&place.read)));
        lags.max().unwrap_or_default() as f64
    }

    /// A message that is published, until this is dropped.
    pub(super) fn publishing(&self) -> Publishing {
        Publishing { _one: self.one(|tally| &tally.publishing), counts: self.clone(), since: Instant::now() }
    }

    /// A reading of the past that waits for its turn, until this is dropped.
    pub(super) fn read_waiting(&self) -> One {
        self.one(|tally| &tally.reads_waiting)
    }

    /// A consumer that fills feeds of this server, until this is dropped.
    pub(super) fn consumer(&self) -> One {
        self.one(|tally| &tally.consumers)
    }

    /// A pattern of which several streams store subjects, until this is dropped.
    pub(super) fn ambiguous(&self) -> One {
        self.one(|tally| &tally.ambiguous)
    }

    /// There will be connections, if there are none yet.
    pub(super) fn expect(&self) {
        self.0.expected.store(true, Ordering::Relaxed);
    }

    /// A publication that is given up.
    pub(super) fn refused(&self, why: Refusal) {
        self.0.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn one(&self, of: Counter) -> One {
        of(&self.0).fetch_add(1, Ordering::Relaxed);
        One { counts: self.clone(), of }
    }

    /// How long acknowledged messages took.
    fn times(&self) -> (Vec<(f64, u64)>, f64) {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets = bounds.zip(self.0.acknowledged.iter().map(get)).collect();
        (buckets, get(&self.0.acknowledged_micros) as f64 / 1e6)
    }

    /// Shows them in `/metrics`, if there is a connection, or will be.
    pub(super) fn install(&self, app: App) -> App {
        if self.sum(|_| 1) == 0.0 && !self.0.expected.load(Ordering::Relaxed) {
            return app;
        }
        let [all, connected, lost, made_again, times, refused, lag] = std::array::from_fn(|_| self.clone());
        let app = app
            .gauge("h3cast_nats_connections", "Connections to NATS that there should be.", move || all.sum(|_| 1))
            .gauge("h3cast_nats_connected", "Those of them that there are now.", move || {
                connected.sum(|state| state.connected.into())
            })
            .gauge(
                "h3cast_nats_lag",
                "Messages of its stream that the feed farthest behind has yet to read, as the stream's leader counts.",
                move || lag.lag(),
            )
            .counter("h3cast_nats_disconnects_total", "NATS connections lost.", move || lost.sum(|state| state.losses))
            .counter("h3cast_nats_reconnects_total", "NATS connections made again.", move || {
                made_again.sum(|state| state.returns)
            })
            .histogram(
                "h3cast_nats_publish_seconds",
                "Time from sending a message, or a batch of them, to JetStream until it is acknowledged.",
                move || times.times(),
            )
            .counters(
                "h3cast_nats_refused_total",
                "Publications to JetStream given up, by cause.",
                "cause",
                move || Refusal::ALL.map(|why| (why.name(), get(&refused.0.refused[why as usize]) as f64)).into(),
            );
        let gauges: [(_, _, Counter); 5] = [
            (
                "h3cast_nats_ambiguous_patterns",
                "Patterns of feeds whose subjects are stored by several streams, of which one is read.",
                |tally| &tally.ambiguous,
            ),
            ("h3cast_nats_pending", "Messages in JetStream for feeds that have not been read yet.", |tally| {
                &tally.pending
            }),
            ("h3cast_nats_publishing", "Messages published that JetStream has not acknowledged.", |tally| {
                &tally.publishing
            }),
            ("h3cast_nats_reads_waiting", "Viewers waiting for their turn to read older chunks.", |tally| {
                &tally.reads_waiting
            }),
            ("h3cast_nats_consumers", "JetStream consumers of this server that fill its feeds.", |tally| {
                &tally.consumers
            }),
        ];
        gauges.into_iter().fold(app, |app, (name, help, of)| {
            let counts = self.clone();
            app.gauge(name, help, move || get(of(&counts.0)) as f64)
        })
    }
}

/// See [`Counts::place`].
#[derive(Debug)]
pub(super) struct Place {
    head: Arc<AtomicU64>,
    read: AtomicU64,
}

impl Place {
    /// All messages up to the one of that number have been read.
    pub(super) fn read_up_to(&self, number: u64) {
        self.read.store(number, Ordering::Relaxed);
    }
}

/// See [`Counts::pending`].
#[derive(Debug)]
pub(super) struct Pending {
    counts: Counts,
    now: u64,
}

impl Pending {
    pub(super) fn set(&mut self, now: u64) {
        let all = &self.counts.0.pending;
        match now.checked_sub(self.now) {
            Some(more) => all.fetch_add(more, Ordering::Relaxed),
            None => all.fetch_sub(self.now - now, Ordering::Relaxed),
        };
        self.now = now;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// See [`Counts::publishing`].
#[derive(Debug)]
pub(super) struct Publishing {
    _one: One,
    counts: Counts,
    since: Instant,
}

impl Publishing {
    /// JetStream has it.
    pub(super) fn acknowledged(&self) {
        let took = self.since.elapsed();
        let at = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound).unwrap_or(BOUNDS.len());
        let tally = &self.counts.0;
        tally.acknowledged[at].fetch_add(1, Ordering::Relaxed);
        let micros = took.as_micros().try_into().unwrap_or(u64::MAX);
        tally.acknowledged_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// One that is counted, until this is dropped.
#[derive(Debug)]
pub(super) struct One {
    counts: Counts,
    of: Counter,
}

impl Drop for One {
    fn drop(&mut self) {
        (self.of)(&self.counts.0).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_that_of_the_feed_farthest_behind() {
        let counts = Counts::default();
        assert_eq!(counts.lag(), 0.0);
        let places = [10, 20].map(|head| counts.place(Arc::new(AtomicU64::new(head))));
        places[0].read_up_to(3);
        // The leader is asked now and then: more may have been read.
        places[1].read_up_to(21);
        assert_eq!(counts.lag(), 7.0);
        drop(places);
        assert_eq!(counts.lag(), 0.0);
    }
}
