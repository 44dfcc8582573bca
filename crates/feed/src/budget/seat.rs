//! A viewer as its budget sees it: since when it has taken nothing, and what cuts it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{
    Budget,
    holding::{Gathered, Holding},
};

/// Between two marks, in milliseconds.
const BETWEEN: u64 = 1000;

type OnCut = Box<dyn FnOnce() + Send>;

/// A viewer's place in a budget. Times are in milliseconds, as the budget counts them.
pub(crate) struct Seat {
    budget: Budget,
    number: u64,
    /// When it was given something, if it has not come for more since: the transport still writes it. Else 0.
    given: AtomicU64,
    /// When the mark was given that is still on its way; 0 if none is.
    marked: AtomicU64,
    /// When the last mark was given.
    last: AtomicU64,
    is_cut: AtomicBool,
    on_cut: Mutex<Option<OnCut>>,
    /// What it holds by itself, if it gets what no other gets.
    holding: Option<Arc<Holding>>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("waits_since", &self.waits_since()).finish_non_exhaustive()
    }
}

impl Seat {
    pub(super) fn new(budget: Budget, number: u64, holding: Option<Arc<Holding>>) -> Self {
        Self {
            budget,
            number,
            given: AtomicU64::new(0),
            marked: AtomicU64::new(0),
            last: AtomicU64::new(0),
            is_cut: AtomicBool::new(false),
            on_cut: Mutex::default(),
            holding,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// It has been given something, and is not back for more.
    #[inline]
    pub(crate) fn given(&self) {
        self.given.store(self.budget.now(), Ordering::Relaxed);
    }

    /// It is back, and there is nothing for it.
    #[inline]
    pub(crate) fn waits(&self) {
        self.given.store(0, Ordering::Relaxed);
    }

    /// It is given this, which may be marked, and which is charged if it is `own`: no other viewer gets it.
    #[inline]
    pub(crate) fn give(self: &Arc<Self>, batch: &mut [Bytes], own: bool) {
        self.given();
        if own && let Some(holding) = &self.holding {
            holding.give(batch);
        }
        if let Some(last) = batch.last_mut()
            && self.wants_mark()
        {
            *last = Mark::on(std::mem::take(last), self);
        }
    }

    /// Charges what no other viewer gets while it waits for more: buffers, and as many bytes in one that is not full.
    pub(crate) fn gather(&self, batch: &[Bytes], joined: usize) -> Option<Gathered> {
        self.holding.as_ref().map(|holding| holding.gather(batch, joined))
    }

    /// Completes when it may be given more of its own. It is cut then, or has taken some of what it has.
    #[inline]
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.holding {
            // Cut meanwhile, it may have woken no one.
            Some(holding) if !self.is_cut() => match holding.poll_room(cx) {
                Poll::Pending if self.is_cut() => Poll::Ready(()),
                polled => polled,
            },
            _ => Poll::Ready(()),
        }
    }

    /// Whether it is time for a mark.
    #[inline]
    fn wants_mark(&self) -> bool {
        self.marked.load(Ordering::Relaxed) == 0
            && self.budget.now() >= self.last.load(Ordering::Relaxed).saturating_add(BETWEEN)
    }

    /// Since when it has taken nothing.
    pub(super) fn waits_since(&self) -> Option<u64> {
        let since = |time: &AtomicU64| Some(time.load(Ordering::Relaxed)).filter(|time| *time > 0);
        let since = [&self.given, &self.marked].into_iter().filter_map(since).min()?;
        // A long queue takes its time, which is not that of a client that takes nothing.
        Some(self.holding.as_ref().map_or(since, |holding| since.max(holding.taken_at())))
    }

    /// Calls `cut` when the viewer is cut, at once if it has been.
    pub(crate) fn on_cut(&self, cut: OnCut) {
        let mut on_cut = self.on_cut.lock().unwrap_or_else(PoisonError::into_inner);
        match self.is_cut() {
            true => {
                drop(on_cut);
                cut();
            }
            false => *on_cut = Some(cut),
        }
    }

    /// Cuts it. Whether it had not been cut before.
    pub(super) fn cut(&self) -> bool {
        let mut on_cut = self.on_cut.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_cut.swap(true, Ordering::Relaxed) {
            return false;
        }
        let cut = on_cut.take();
        drop(on_cut);
        if let Some(cut) = cut {
            cut();
        }
        if let Some(holding) = &self.holding {
            holding.wake();
        }
        true
    }

    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }
}

/// The place of a viewer, which it leaves when dropped.
impl Seat {
    pub(crate) fn leave(&self) {
        self.budget.leave(self);
        // What it calls may hold what holds the viewer.
        let on_cut = self.on_cut.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(on_cut);
    }
}

/// A buffer that shows when the client, or the system for it, has taken what it was sent: transports keep a buffer
/// until then.
struct Mark {
    bytes: Bytes,
    seat: Arc<Seat>,
}

impl Mark {
    /// The same bytes, marked.
    fn on(bytes: Bytes, seat: &Arc<Seat>) -> Bytes {
        let now = seat.budget.now();
        seat.marked.store(now, Ordering::Relaxed);
        seat.last.store(now, Ordering::Relaxed);
        Bytes::from_owner(Self { bytes, seat: seat.clone() })
    }
}

impl AsRef<[u8]> for Mark {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.seat.marked.store(0, Ordering::Relaxed);
    }
}
