//! What a viewer holds that shares it with no other: chunks of a feed that is read for it alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use super::{Budget, Pressure};
use crate::cost;

/// What a viewer is charged at least for which a source is read, in bytes: the first send window of a connection over
/// QUIC, a batch, and `BESIDES`.
pub(super) const RESERVED: u64 = 512 << 10;
/// What it costs besides what is on its way: buffers that its source is read into, and what its connection needs while
/// it is busy.
const BESIDES: u64 = 224 << 10;
/// What a transport keeps for each buffer, in bytes.
const EACH: usize = 64;

/// What a viewer holds by itself. It is charged for as long as any of it is on its way, whether or not the viewer is
/// still there.
pub(crate) struct Holding {
    budget: Budget,
    /// It is charged this at least.
    least: u64,
    bytes: AtomicU64,
    /// When it has taken something of it, as the budget counts time; 0 before.
    last: AtomicU64,
    /// Waits to be given more.
    waits: AtomicWaker,
}

impl Holding {
    /// That of a viewer for which a source is read: it is charged from the start.
    pub(super) fn reserved(budget: &Budget) -> Arc<Self> {
        budget.0.charged.fetch_add(RESERVED, Ordering::Relaxed);
        Self::new(budget, RESERVED, BESIDES)
    }

    /// That of a client for which so many bytes are held: what it is given is part of them.
    pub(super) fn of(budget: &Budget, bytes: u64) -> Arc<Self> {
        budget.0.charged.fetch_add(bytes, Ordering::Relaxed);
        Self::new(budget, bytes, 0)
    }

    /// That of a viewer that only sometimes gets chunks of its own.
    pub(super) fn none_yet(budget: &Budget) -> Arc<Self> {
        Self::new(budget, 0, 0)
    }

    fn new(budget: &Budget, least: u64, bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            budget: budget.clone(),
            least,
            bytes: bytes.into(),
            last: AtomicU64::new(0),
            waits: AtomicWaker::new(),
        })
    }

    /// Charges a batch until its last buffer is dropped: transports keep the buffers of a stream in order.
    pub(crate) fn give(self: &Arc<Self>, batch: &mut [Bytes]) {
        let cost = cost_of(batch);
        let Some(last) = batch.last_mut() else { return };
        self.add(cost);
        *last = Bytes::from_owner(Given { bytes: std::mem::take(last), cost, holding: self.clone() });
    }

    /// Charges what waits for more before it is given: those buffers, and as many bytes in one that is not full.
    pub(super) fn gather(self: &Arc<Self>, batch: &[Bytes], joined: usize) -> Gathered {
        let cost = cost_of(batch) + cost::buffer(joined) as u64;
        self.add(cost);
        Gathered { cost, holding: self.clone() }
    }

    fn add(&self, cost: u64) {
        let before = self.bytes.fetch_add(cost, Ordering::SeqCst);
        let more = (before + cost).max(self.least) - before.max(self.least);
        self.budget.0.charged.fetch_add(more, Ordering::Relaxed);
    }

    fn subtract(&self, cost: u64) {
        let before = self.bytes.fetch_sub(cost, Ordering::SeqCst);
        let less = before.max(self.least) - (before - cost).max(self.least);
        self.budget.0.charged.fetch_sub(less, Ordering::Relaxed);
    }

    fn taken(&self, cost: u64) {
        self.subtract(cost);
        self.last.store(self.budget.now(), Ordering::Relaxed);
        self.waits.wake();
    }

    /// When something of it was taken last; 0 if nothing was.
    pub(super) fn taken_at(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Completes when it may be given more: near the limit of the budget it is given no more than what is
    /// reserved for one viewer, and waits until it has taken some of that. So what is charged stays near
    /// where no viewers are admitted any more, however much their connections would take.
    #[inline]
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let is_full = || self.bytes.load(Ordering::SeqCst) >= RESERVED;
        if !is_full() || self.budget.pressure() == Pressure::Low {
            return Poll::Ready(());
        }
        self.waits.register(cx.waker());
        // What was taken meanwhile woke no one. As it holds something, there is something yet to be taken.
        if is_full() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Wakes what waits for room, since it is not to be given any.
    pub(super) fn wake(&self) {
        self.waits.wake();
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.budget.0.charged.fetch_sub(self.least, Ordering::Relaxed);
    }
}

/// What buffers on their way cost, in bytes.
fn cost_of(batch: &[Bytes]) -> u64 {
    batch.iter().map(|buffer| cost::buffer(buffer.len()) + EACH).sum::<usize>() as u64
}

/// What waits for more is charged until this is dropped.
pub(crate) struct Gathered {
    cost: u64,
    holding: Arc<Holding>,
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.holding.subtract(self.cost);
    }
}

/// The last buffer of a batch.
struct Given {
    bytes: Bytes,
    cost: u64,
    holding: Arc<Holding>,
}

impl AsRef<[u8]> for Given {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.holding.taken(self.cost);
    }
}
