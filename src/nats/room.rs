//! Room in memory for what is read of the past.
//!
//! How large a message is shows when the client has it, whole and some times over, and JetStream stores some as large as
//! nats-server takes. So where that is much, not all who read may do so at once.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use crate::feed::{Budget, Past, Turn};

/// Up to this size messages come as they are asked for: nats-server takes no larger ones if it is not told otherwise.
const USUAL: u64 = 1 << 20;
/// How often a message is there at once while it is read: in what the client reads into, which grows, and as a chunk.
const TIMES: u64 = 3;

/// That of a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Room(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    budget: OnceLock<Budget>,
    /// The largest message that was read, in bytes: the server may have taken larger ones than it does now.
    largest: AtomicU64,
}

impl Room {
    /// What is read is to stay within that budget. The first one counts.
    pub(super) fn charge_to(&self, budget: &Budget) {
        let _ = self.0.budget.set(budget.clone());
    }

    /// Waits for a turn to read messages of up to `most` bytes, if that is much.
    pub(super) async fn turn(&self, most: u64) -> Option<Turn> {
        let most = most.max(self.0.largest.load(Ordering::Relaxed));
        let budget = self.0.budget.get().filter(|_| most > USUAL)?;
        Some(budget.turn(most.saturating_mul(TIMES)).await)
    }

    /// What was read in that turn; the large ones of it take some of it for as long as they are there.
    pub(super) fn keep(&self, past: &mut Past, turn: Option<Turn>) {
        for chunk in past.chunks.iter().filter(|chunk| chunk.bytes.len() as u64 > USUAL) {
            self.0.largest.fetch_max(chunk.bytes.len() as u64, Ordering::Relaxed);
        }
        let Some(mut turn) = turn else { return };
        for chunk in past.chunks.iter_mut().filter(|chunk| chunk.bytes.len() as u64 > USUAL) {
            chunk.bytes = turn.keep(std::mem::take(&mut chunk.bytes));
        }
    }
}
