//! Waiting beside something that is much more frequent.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

/// A future that is waited for beside others, and polled only when it has something to say: a chunk
/// wakes the task of each of its viewers, and to ask a stream whether it was stopped takes the lock
/// of its connection. Once it is over, it stays so.
#[derive(Debug)]
pub struct Rarely<F> {
    future: Option<F>,
    door: Door,
}

/// Waits for a future that seldom wakes: see `Rarely`.
pub fn rarely<F: Future + Unpin>(future: F) -> Rarely<F> {
    Rarely { future: Some(future), door: Door::new() }
}

impl<F: Future + Unpin> Future for Rarely<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { future: Some(future), door } = &mut *self else { return Poll::Ready(()) };
        ready!(door.poll(cx, |cx| Pin::new(future).poll(cx)));
        self.future = None;
        Poll::Ready(())
    }
}

/// Lets a question through only when someone has rung since it was asked last.
#[derive(Debug)]
pub(crate) struct Door {
    bell: Arc<Bell>,
    /// Rings the bell.
    waker: Waker,
    /// What the bell wakes, to see without its lock that it need not be told again.
    told: Option<Waker>,
}

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    wakes: Mutex<Option<Waker>>,
}

impl Door {
    pub(crate) fn new() -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), wakes: Mutex::default() });
        Self { waker: bell.clone().into(), bell, told: None }
    }

    /// Asks `poll`, unless it said `Pending` when it was asked last and has woken nobody since.
    pub(crate) fn poll<T>(&mut self, cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if !self.told.as_ref().is_some_and(|told| told.will_wake(cx.waker())) {
            self.told = Some(cx.waker().clone());
            self.bell.wakes().clone_from(&self.told);
        }
        // Read after the bell knows whom to wake: a ring before that is seen here.
        if !self.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // Taken back before the question: what happens meanwhile rings again.
        self.bell.rung.swap(false, Ordering::AcqRel);
        let answer = poll(&mut Context::from_waker(&self.waker));
        if answer.is_ready() {
            self.ring();
        }
        answer
    }

    /// Lets the next question through. It wakes nobody.
    pub(crate) fn ring(&self) {
        self.bell.rung.store(true, Ordering::Release);
    }
}

impl Bell {
    fn wakes(&self) -> MutexGuard<'_, Option<Waker>> {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        // Woken outside the lock: a waker may do anything.
        let waker = self.wakes().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn is_polled_only_when_it_was_woken() {
        let polls = Arc::new(AtomicUsize::new(0));
        let (sender, mut receiver) = oneshot::channel::<()>();
        let counted = polls.clone();
        let mut waiting = rarely(std::future::poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut receiver).poll(cx)
        }));
        let outer = Door::new();
        let mut poll = |waker: &Waker| Pin::new(&mut waiting).poll(&mut Context::from_waker(waker));
        assert_eq!(poll(Waker::noop()), Poll::Pending);
        assert_eq!(poll(Waker::noop()), Poll::Pending);
        // A task that takes over from another is the one to be woken.
        assert_eq!(poll(&outer.waker), Poll::Pending);
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        outer.bell.rung.store(false, Ordering::Relaxed);
        sender.send(()).unwrap();
        assert!(outer.bell.rung.load(Ordering::Relaxed));
        assert_eq!(poll(&outer.waker), Poll::Ready(()));
        assert_eq!(poll(&outer.waker), Poll::Ready(()));
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_lost() {
        for _ in 0..2_000 {
            let (sender, receiver) = oneshot::channel::<()>();
            let (waiting, sent) = (rarely(receiver), tokio::spawn(async move { sender.send(()) }));
            tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.expect("woken");
            sent.await.unwrap().unwrap();
        }
    }
}
