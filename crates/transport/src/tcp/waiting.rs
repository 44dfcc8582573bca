//! How long an HTTP/1.1 connection waits for its next request.
//!
//! hyper has one timer for the pause between two requests and the head of the second; here each has its own.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::{Instant, sleep};

use crate::{limits::Limits, service::after};

/// What a connection waits for, and until when.
#[derive(Debug, Clone)]
pub(super) struct Waiting(Arc<WaitingConnection>);

#[derive(Debug)]
struct WaitingConnection {
    keep_alive: Duration,
    head_timeout: Duration,
    state: Mutex<Pause>,
    waker: AtomicWaker,
}

/// Nothing, before the first request.
#[derive(Debug, Default)]
struct Pause {
    /// What holds the connection: bodies of a request and its response.
    held: usize,
    /// Until when the next head must begin or, `begun`, be complete.
    deadline: Option<Instant>,
    begun: bool,
}

/// While this is there, the connection waits for no other request.
#[derive(Debug)]
pub(super) struct Busy {
    waiting: Waiting,
    /// It may be dropped outside of the connection's task.
    strays: bool,
}

impl Waiting {
    pub(super) fn new(limits: &Limits) -> Self {
        let (keep_alive, head_timeout) = (limits.keep_alive, limits.head_timeout);
        Self(Arc::new(WaitingConnection {
            keep_alive,
            head_timeout,
            state: Mutex::default(),
            waker: AtomicWaker::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, Pause> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A response is being made, or sent.
    pub(super) fn response(&self) -> Busy {
        self.hold(false)
    }

    /// A request's body is being read, by whatever task.
    pub(super) fn request(&self) -> Busy {
        self.hold(true)
    }

    fn hold(&self, strays: bool) -> Busy {
        let mut state = self.state();
        state.held += 1;
        state.deadline = None;
        Busy { waiting: self.clone(), strays }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.state().held > 0
    }

    /// Bytes have arrived: if a head was waited for, it begins.
    pub(super) fn read(&self) {
        let mut state = self.state();
        if state.deadline.is_some() && !state.begun {
            state.begun = true;
            state.deadline = Some(after(self.0.head_timeout));
        }
    }

    /// Begins the pause again: the client was still reading.
    pub(super) fn restart(&self) {
        let mut state = self.state();
        if state.held == 0 && !state.begun {
            state.deadline = Some(after(self.0.keep_alive));
        }
    }

    /// Waits until a request is overdue. It is polled after the connection itself, whose changes it sees then.
    pub(super) async fn overdue(&self) {
        let mut sleep = pin!(sleep(Duration::ZERO));
        std::future::poll_fn(|cx| {
            self.0.waker.register(cx.waker());
            let Some(deadline) = self.state().deadline else { return Poll::Pending };
            if sleep.deadline() != deadline {
                sleep.as_mut().reset(deadline);
            }
            sleep.as_mut().poll(cx)
        })
        .await;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let inner = &self.waiting.0;
        let mut state = self.waiting.state();
        state.held -= 1;
        if state.held == 0 {
            state.begun = false;
            state.deadline = Some(after(inner.keep_alive));
            drop(state);
            if self.strays {
                inner.waker.wake();
            }
        }
    }
}
