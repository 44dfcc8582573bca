//! Clients over TCP that take nothing of what is there for them.
//!
//! That a write was accepted shows nothing: the system accepts megabytes for a client that reads none of them, and
//! with a full buffer it accepts no more before a third of it is free, which takes a slow client minutes. So what
//! counts is what the client's system has acknowledged: one byte is progress.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use h3cast_proto::code;
use tokio::time::Instant;

use crate::{connection::ConnectionHandle, diag, limits::Limits};

/// How often to look whether there is a limit now.
const UNLIMITED: Duration = Duration::from_secs(10);

/// The sockets of a listener.
#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<Vec<Weak<Progress>>>);

impl Sockets {
    pub(super) fn add(&self, progress: &Arc<Progress>) {
        let mut sockets = lock(&self.0);
        if sockets.len() == sockets.capacity() {
            sockets.retain(|socket| socket.strong_count() > 0);
        }
        sockets.push(Arc::downgrade(progress));
    }

    fn all(&self) -> Vec<Arc<Progress>> {
        let mut sockets = lock(&self.0);
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.iter().filter_map(Weak::upgrade).collect()
    }

    /// Cuts those whose client takes nothing for the time that the limits state, which may change; tells `cut` of each.
    pub(super) async fn watch(&self, limits: impl Fn() -> Limits, cut: impl Fn(SocketAddr)) -> Infallible {
        loop {
            let Some((timeout, pause)) = limits().send_pauses() else {
                tokio::time::sleep(UNLIMITED).await;
                continue;
            };
            tokio::time::sleep(pause).await;
            let mut sockets = self.all();
            sockets.retain(|socket| socket.may_wait());
            let written: Vec<_> = sockets.iter().map(|socket| socket.written.load(Ordering::Acquire)).collect();
            let left = diag::all_unacknowledged(sockets.iter().map(|socket| (socket.local, socket.remote)).collect());
            let (left, now) = (left.await, Instant::now());
            for ((socket, written), left) in sockets.iter().zip(written).zip(left) {
                if socket.look(written, left, timeout, now) {
                    cut(socket.remote);
                    socket.cut(timeout);
                }
            }
        }
    }
}

/// How far a client has come with what was written to its socket.
#[derive(Debug)]
pub(super) struct Progress {
    local: Option<SocketAddr>,
    remote: SocketAddr,
    written: AtomicU64,
    /// The last write was not accepted.
    blocked: AtomicBool,
    seen: Mutex<Seen>,
    handle: OnceLock<ConnectionHandle>,
    cut: AtomicBool,
}

/// What was seen last.
#[derive(Debug)]
struct Seen {
    written: u64,
    taken: u64,
    /// Since when the client has taken nothing of what there is; `None` when it has everything.
    since: Option<Instant>,
}

impl Progress {
    pub(super) fn new(local: Option<SocketAddr>, remote: SocketAddr) -> Self {
        Self {
            local,
            remote,
            written: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            seen: Mutex::new(Seen { written: 0, taken: 0, since: None }),
            handle: OnceLock::new(),
            cut: AtomicBool::new(false),
        }
    }

    /// Says how the connection is to be ended: now, if it was cut before.
    pub(super) fn is_of(&self, handle: &ConnectionHandle) {
        // One after the other with a cut, so that one of the two sees the other.
        let seen = lock(&self.seen);
        let _ = self.handle.set(handle.clone());
        drop(seen);
        if self.is_cut() {
            close(handle, "the client read nothing during its handshake");
        }
    }

    pub(super) fn wrote<E>(&self, written: &Poll<Result<usize, E>>) {
        match written {
            Poll::Ready(Ok(size)) => {
                self.written.fetch_add(*size as u64, Ordering::Release);
                self.blocked.store(false, Ordering::Relaxed);
            }
            Poll::Pending => self.blocked.store(true, Ordering::Relaxed),
            Poll::Ready(Err(_)) => {}
        }
    }

    /// Whether the client may not have everything.
    pub(super) fn may_wait(&self) -> bool {
        let seen = lock(&self.seen);
        let written = self.written.load(Ordering::Relaxed);
        !self.is_cut() && (self.blocked.load(Ordering::Relaxed) || written > seen.written || seen.written > seen.taken)
    }

    /// Takes what the system says is left of `written`, and more that was written since, if it does; whether the
    /// client has taken nothing for `timeout`.
    fn look(&self, written: u64, left: Option<u32>, timeout: Duration, now: Instant) -> bool {
        let (taken, waits) = match left {
            Some(left) => (written.saturating_sub(left.into()), left > 0),
            // What was accepted is the best that is known.
            None => (written, self.blocked.load(Ordering::Relaxed)),
        };
        let mut seen = lock(&self.seen);
        if taken > seen.taken || !waits {
            seen.since = None;
        }
        (seen.written, seen.taken) = (written, taken.max(seen.taken));
        waits && now.saturating_duration_since(*seen.since.get_or_insert(now)) >= timeout
    }

    fn cut(&self, timeout: Duration) {
        let seen = lock(&self.seen);
        self.cut.store(true, Ordering::Release);
        drop(seen);
        if let Some(handle) = self.handle.get() {
            close(handle, &format!("the client read nothing for {timeout:?}"));
        }
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// The last write was not accepted: there is more than the system has.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Its handshake was complete, and the application accepted it.
    pub(super) fn is_served(&self) -> bool {
        self.handle.get().is_some()
    }

    /// The application closed the connection.
    pub(super) fn is_closed(&self) -> bool {
        self.handle.get().is_some_and(ConnectionHandle::is_closed)
    }

    pub(super) fn addresses(&self) -> (Option<SocketAddr>, SocketAddr) {
        (self.local, self.remote)
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// What the system holds for the client is to be dropped: it was cut, or closed by the application while it took
    /// no more.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_cut() || self.is_blocked() && self.is_closed()
    }
}

fn close(handle: &ConnectionHandle, reason: &str) {
    handle.close(code::H3_REQUEST_CANCELLED, reason);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Owner;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn wrote(progress: &Progress, size: usize) {
        progress.wrote::<()>(&Poll::Ready(Ok(size)));
    }

    /// Looks `seconds` after the beginning.
    fn look(progress: &Progress, begun: Instant, seconds: u64, left: Option<u32>) -> bool {
        let written = progress.written.load(Ordering::Relaxed);
        progress.may_wait() && progress.look(written, left, TIMEOUT, begun + Duration::from_secs(seconds))
    }

    fn progress() -> (Progress, Instant) {
        (Progress::new(None, ([127, 0, 0, 1], 9).into()), Instant::now())
    }

    #[test]
    fn a_byte_a_minute_is_progress() {
        let (progress, begun) = progress();
        wrote(&progress, 1000);
        for minute in 0..100 {
            assert!(!look(&progress, begun, minute * 59, Some(1000 - minute as u32)));
        }
        assert!(!look(&progress, begun, 99 * 59 + 59, Some(901)));
        assert!(look(&progress, begun, 99 * 59 + 60, Some(901)));
    }

    #[test]
    fn a_cut_before_the_handshake_was_complete_ends_the_connection() {
        let (progress, _) = progress();
        progress.cut(TIMEOUT);
        let owner = Owner::tcp(None, ([127, 0, 0, 1], 9).into(), None, None, Default::default());
        progress.is_of(owner.handle());
        assert!(owner.handle().closing().is_cancelled());
    }

    #[test]
    fn more_to_send_is_no_progress() {
        let (progress, begun) = progress();
        for second in 0..60 {
            wrote(&progress, 10);
            assert!(!look(&progress, begun, second, Some(10 * (second as u32 + 1))));
        }
        assert!(look(&progress, begun, 61, Some(600)));
    }

    #[test]
    fn who_has_everything_may_wait() {
        let (progress, begun) = progress();
        assert!(!look(&progress, begun, 1000, None));
        wrote(&progress, 10);
        assert!(!look(&progress, begun, 2000, Some(0)));
        // Nothing is asked of the system meanwhile.
        assert!(!progress.may_wait());
        // The time begins with what is written then.
        wrote(&progress, 10);
        assert!(progress.may_wait());
        assert!(!look(&progress, begun, 3000, Some(10)));
        assert!(!look(&progress, begun, 3059, Some(10)));
        assert!(look(&progress, begun, 3060, Some(10)));
        assert!(!look(&progress, begun, 9000, Some(0)));
    }

    #[test]
    fn without_an_answer_of_the_system_what_is_accepted_counts() {
        let (progress, begun) = progress();
        wrote(&progress, 10);
        progress.wrote::<()>(&Poll::Pending);
        assert!(!look(&progress, begun, 50, None));
        assert!(!look(&progress, begun, 100, None));
        assert!(look(&progress, begun, 110, None));
        wrote(&progress, 1);
        assert!(!look(&progress, begun, 120, None));
        assert!(!look(&progress, begun, 900, None));
    }
}
