//! The timer of heartbeats.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// How long a stream may be silent before a heartbeat is sent: less than the minute after which many proxies
/// give up.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Notices when a stream has been silent for [`HEARTBEAT`]. Every chunk wakes the task of its viewer, and
/// polling a timer costs more than the chunk; so the timer has a waker of its own, and is polled only after it
/// has rung.
#[derive(Debug)]
pub(super) struct Beat {
    /// Not reset with every chunk: when it is due, it is checked how long ago that was.
    timer: Pin<Box<Sleep>>,
    bell: Arc<BeatBell>,
    /// Rings the bell.
    waker: Waker,
    /// The task that the bell wakes, to compare without a lock.
    task: Option<Waker>,
}

#[derive(Debug)]
struct BeatBell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Beat {
    /// For a stream that was written to at that time.
    pub(super) fn new(written: Instant) -> Self {
        let bell = Arc::new(BeatBell { rung: AtomicBool::new(true), task: Mutex::default() });
        Self { timer: Box::pin(sleep_until(written + HEARTBEAT)), waker: bell.clone().into(), bell, task: None }
    }

    /// Ready when the stream, which was last written to at that time, needs a heartbeat.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, written: Instant) -> Poll<()> {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
            self.bell.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.task);
        }
        // Read after the bell knows whom to wake: an earlier ring is seen here.
        if !self.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        loop {
            // Cleared before the timer is polled: a ring in between is not lost.
            self.bell.rung.store(false, Ordering::Release);
            ready!(self.timer.as_mut().poll(&mut Context::from_waker(&self.waker)));
            self.bell.rung.store(true, Ordering::Release);
            if written.elapsed() >= HEARTBEAT {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(written + HEARTBEAT);
        }
    }
}

impl Wake for BeatBell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        // Woken outside the lock: a waker may do anything.
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}
