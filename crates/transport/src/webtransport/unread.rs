//! The bidirectional streams of a connection's peer whose beginning has not been read, so that nothing shows whose
//! they are.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// How long a later stream waits for the beginning of an earlier one. Enough to send a lost packet again.
const PATIENCE: Duration = Duration::from_secs(1);

/// QUIC accepts streams in the order of their ids, and those that a packet of a later one shows to be open as well
/// ([RFC 9000 §3.2](https://www.rfc-editor.org/rfc/rfc9000#section-3.2)). So an earlier stream is here, or has been
/// read, or the peer has not opened it.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// In the order of their ids, with the time when they came.
    streams: Mutex<Vec<(u64, Instant)>>,
    read: Notify,
}

impl Unread {
    fn streams(&self) -> MutexGuard<'_, Vec<(u64, Instant)>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn came(&self, id: u64) {
        self.streams().push((id, Instant::now()));
    }

    pub(super) fn read(&self, id: u64) {
        self.streams().retain(|(unread, _)| *unread != id);
        self.read.notify_waiters();
    }

    /// Waits until every stream before this one has been read, or has been silent for a while since it came, which
    /// counts from `since` at the earliest. Cancel-safe.
    pub(super) async fn none_before(&self, id: u64, since: Instant) {
        loop {
            let read = self.read.notified();
            let now = Instant::now();
            let deadline = |(_, came): &(u64, Instant)| (*came).max(since) + PATIENCE;
            let earlier = self.streams().iter().take_while(|(unread, _)| *unread < id).map(deadline).max();
            let Some(deadline) = earlier.filter(|deadline| *deadline > now) else { return };
            let _ = tokio::time::timeout_at(deadline, read).await;
        }
    }
}
