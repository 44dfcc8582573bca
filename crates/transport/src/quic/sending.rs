//! What a connection keeps for a peer that takes nothing, and for how long.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::config::{FIRST_SEND_WINDOW, SEND_WINDOW};

/// What the streams of a connection keep to when they are written.
#[derive(Debug, Default)]
pub(super) struct Sending {
    window: OnceLock<Window>,
    timeout: OnceLock<Timeout>,
}

/// A send window that grows with what the peer acknowledges, up to [`SEND_WINDOW`].
///
/// quinn has one of a fixed size, and keeps that much for a peer that acknowledges nothing, with 32 bytes for each
/// piece of it: as much again and more where chunks are small. The congestion window, which only acknowledgements let
/// grow, shows what a peer is good for; twice that keeps it busy.
#[derive(Debug)]
struct Window {
    /// Weak: streams must not keep the connection open.
    engine: Weak<quinn::Connection>,
    size: AtomicU64,
}

struct Timeout {
    time: Duration,
    cut: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.time.fmt(f)
    }
}

impl Sending {
    /// Has the send window grow from its first size on.
    pub(super) fn grow(&self, engine: &Arc<quinn::Connection>) {
        let window = Window { engine: Arc::downgrade(engine), size: AtomicU64::new(FIRST_SEND_WINDOW) };
        let _ = self.window.set(window);
    }

    /// Streams that take nothing for `time` are reset, and `cut` is called for each.
    pub(super) fn limit(&self, time: Duration, cut: impl Fn() + Send + Sync + 'static) {
        let _ = self.timeout.set(Timeout { time, cut: Box::new(cut) });
    }

    /// The time of [`limit`](Self::limit).
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout.get().map(|timeout| timeout.time)
    }

    /// Lets the window grow, now that a stream could not be written; whether it has grown.
    pub(super) fn widen(&self) -> bool {
        let Some(window) = self.window.get() else { return false };
        let size = window.size.load(Ordering::Relaxed);
        if size >= SEND_WINDOW {
            return false;
        }
        let Some(engine) = window.engine.upgrade() else { return false };
        let wanted = (2 * engine.stats().path.cwnd).min(SEND_WINDOW);
        // By a quarter at least, so that it is not asked for each packet.
        if wanted < size + size / 4 && wanted < SEND_WINDOW {
            return false;
        }
        window.size.store(wanted, Ordering::Relaxed);
        engine.set_send_window(wanted);
        true
    }
}

/// For how long a stream could not be written.
#[derive(Debug, Default)]
pub(super) struct Blocked(Option<Box<BlockedSince>>);

#[derive(Debug)]
struct BlockedSince {
    since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Blocked {
    /// Something was taken.
    #[inline]
    pub(super) fn ended(&mut self) {
        if let Some(blocked) = &mut self.0 {
            // The timer stays: many streams are blocked every few packets.
            blocked.since = None;
        }
    }

    /// Completes when nothing was taken for the time that there is, which is reported then.
    pub(super) fn poll(&mut self, sending: &Sending, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Timeout { time, cut }) = sending.timeout.get() else { return Poll::Pending };
        let blocked = self.0.get_or_insert_with(|| {
            Box::new(BlockedSince { since: None, timer: Box::pin(sleep_until(Instant::now() + *time)) })
        });
        let end = *blocked.since.get_or_insert_with(Instant::now) + *time;
        loop {
            ready!(blocked.timer.as_mut().poll(cx));
            if blocked.timer.deadline() >= end {
                cut();
                return Poll::Ready(());
            }
            blocked.timer.as_mut().reset(end);
        }
    }
}
