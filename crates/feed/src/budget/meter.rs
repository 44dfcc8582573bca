//! What the system reports, asked for as clients come, and not only when it is time to observe.
//!
//! What clients are charged is what well-behaved ones cost. One that reads nothing takes several times as much, most of
//! it in the kernel, and hundreds may come between two observations.

use std::{
    fmt,
    sync::{OnceLock, TryLockError},
};

use tokio::sync::Notify;

use super::{Budget, Ordering, PoisonError, Pressure};

type Resident = Box<dyn Fn() -> u64 + Send + Sync>;

#[derive(Default)]
pub(super) struct Meter {
    resident: OnceLock<Resident>,
    risen: Notify,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

impl Budget {
    /// Has the budget ask `resident` what the system reports of the process's memory, in bytes, each time that clients
    /// have come to be [charged](Self::charge) and [counted](Self::count) 1 % of the limit more since it last knew.
    /// [`pressure`](Self::pressure) then follows at once what they really take, however many come between two
    /// [observations](Self::observe), which alone cut viewers: [`risen`](Self::risen) is the time for one.
    ///
    /// It is called whenever the pressure is read, so it should not block: some files of the kernel may be read. Only
    /// the first `resident` counts.
    ///
    /// ```
    /// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
    /// use h3cast_feed::{Budget, Pressure};
    ///
    /// let (budget, clients) = (Budget::new(1_000_000), Arc::new(AtomicU64::new(0)));
    /// let (counted, taken) = (clients.clone(), clients.clone());
    /// budget.count(move || counted.load(Ordering::Relaxed) * 10_000);
    /// // They take five times as much.
    /// budget.measure(move || taken.load(Ordering::Relaxed) * 50_000);
    /// budget.observe(0);
    /// clients.store(18, Ordering::Relaxed);
    /// assert_eq!(budget.pressure(), Pressure::High);
    /// ```
    pub fn measure(&self, resident: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.0.meter.resident.set(Box::new(resident));
    }

    /// Completes when the pressure has risen since it was [observed](Self::observe) last, as far as it is
    /// [measured](Self::measure). Cancel safe.
    pub async fn risen(&self) {
        self.0.meter.risen.notified().await;
    }

    /// Measures, while clients are charged so much. Whether it did.
    pub(super) fn measured(&self, clients: u64) -> bool {
        let Some(resident) = self.0.meter.resident.get() else { return false };
        // One at a time. The others go by what was known, and by what clients are charged since.
        let mut heap = match self.0.heap.try_lock() {
            Ok(heap) => heap,
            Err(TryLockError::Poisoned(heap)) => PoisonError::into_inner(heap),
            Err(TryLockError::WouldBlock) => return false,
        };
        let histories = self.0.histories.load(Ordering::Relaxed);
        let in_use = self.reported(&mut heap, self.now(), resident(), (histories, clients));
        drop(heap);
        let observed = Pressure::of(self.0.pressure.load(Ordering::Relaxed));
        if observed.next(in_use.max(histories + clients), self.limit()) > observed {
            self.0.meter.risen.notify_one();
        }
        true
    }
}
