//! What is counted of NATS.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

use super::connection::LinkState;
use crate::App;

/// What is counted of all connections. Clones are handles of the same counters.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(Arc<Tally>);

#[derive(Debug, Default)]
struct Tally {
    /// Of each connection.
    states: Mutex<Vec<watch::Receiver<LinkState>>>,
    pending: AtomicU64,
    publishing: AtomicU64,
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

    /// A message that is published, until this is dropped.
    pub(super) fn publishing(&self) -> Publishing {
        self.0.publishing.fetch_add(1, Ordering::Relaxed);
        Publishing(self.clone())
    }

    /// Shows them in `/metrics`, if there is a connection.
    pub(super) fn install(&self, app: App) -> App {
        if self.sum(|_| 1) == 0.0 {
            return app;
        }
        let [all, connected, lost, pending, publishing] = std::array::from_fn(|_| self.clone());
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        app.gauge("h3cast_nats_connections", "Connections to NATS that there should be.", move || all.sum(|_| 1))
            .gauge("h3cast_nats_connected", "Those of them that there are now.", move || {
                connected.sum(|state| state.connected.into())
            })
            .counter("h3cast_nats_disconnects_total", "NATS connections lost.", move || lost.sum(|state| state.losses))
            .gauge("h3cast_nats_pending", "Messages in JetStream for feeds that have not been read yet.", move || {
                get(&pending.0.pending)
            })
            .gauge("h3cast_nats_publishing", "Messages published that JetStream has not acknowledged.", move || {
                get(&publishing.0.publishing)
            })
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
pub(super) struct Publishing(Counts);

impl Drop for Publishing {
    fn drop(&mut self) {
        self.0.0.publishing.fetch_sub(1, Ordering::Relaxed);
    }
}
