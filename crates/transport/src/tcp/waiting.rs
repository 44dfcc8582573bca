//! How long a connection over TCP waits for its next request.
//!
//! hyper has one timer for the pause between two requests and the head of the second; here each has its own.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::{Instant, sleep};

use crate::{admission::Idler, limits::Limits, service::after};

/// What a connection waits for, and until when.
#[derive(Debug, Clone)]
pub(super) struct Waiting(Arc<WaitingConnection>);

#[derive(Debug)]
struct WaitingConnection {
    keep_alive: Duration,
    head_timeout: Duration,
    /// Over HTTP/2.
    idle_timeout: Duration,
    state: Mutex<Pause>,
    waker: AtomicWaker,
    /// Where those look who need its place.
    idler: Option<Arc<Idler>>,
}

/// Nothing, before the first request.
#[derive(Debug, Default)]
struct Pause {
    /// What holds the connection: bodies of a request and its response.
    held: usize,
    /// Until when the next head must begin or, `begun`, be complete.
    deadline: Option<Instant>,
    begun: bool,
    /// Over HTTP/2: since when there is nothing.
    http2_since: Option<Instant>,
    /// Whom it concerns that something holds the connection.
    gate: Option<Waker>,
}

/// While this is there, the connection waits for no other request.
#[derive(Debug)]
pub(super) struct Busy {
    waiting: Waiting,
    /// It may be dropped outside of the connection's task.
    strays: bool,
}

impl Waiting {
    pub(super) fn new(limits: &Limits, idler: Option<Arc<Idler>>) -> Self {
        Self(Arc::new(WaitingConnection {
            keep_alive: limits.keep_alive,
            head_timeout: limits.head_timeout,
            idle_timeout: limits.idle_timeout,
            state: Mutex::default(),
            waker: AtomicWaker::new(),
            idler,
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

    /// A request over HTTP/2, until its response has been sent, by a task of its own.
    pub(super) fn http2(&self) -> Busy {
        let busy = self.hold(true);
        self.state().http2_since.get_or_insert_with(Instant::now);
        busy
    }

    /// Something holds it from now on until its end.
    pub(super) fn stay(&self) {
        self.0.begin(&mut self.state());
    }

    fn hold(&self, strays: bool) -> Busy {
        let mut state = self.state();
        self.0.begin(&mut state);
        let gate = state.gate.take();
        drop(state);
        if let Some(gate) = gate {
            gate.wake();
        }
        Busy { waiting: self.clone(), strays }
    }

    /// Waits until something holds the connection.
    pub(super) fn poll_busy(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.held > 0 {
            return Poll::Ready(());
        }
        state.gate = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn is_busy(&self) -> bool {
        self.state().held > 0
    }

    /// Bytes have arrived: if a head was waited for, it begins.
    pub(super) fn read(&self) {
        let mut state = self.state();
        if state.deadline.is_none() {
        } else if let Some(since) = state.http2_since {
            state.deadline = Some(self.0.http2_end(since));
        } else if !state.begun {
            state.begun = true;
            state.deadline = Some(after(Instant::now(), self.0.head_timeout));
        }
    }

    /// Begins the pause again: the client was still reading.
    pub(super) fn restart(&self) {
        let mut state = self.state();
        if state.held == 0 && !state.begun {
            state.rest(&self.0);
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

impl WaitingConnection {
    /// Something more holds it.
    fn begin(&self, state: &mut Pause) {
        state.held += 1;
        state.deadline = None;
        if state.held == 1
            && let Some(idler) = &self.idler
        {
            idler.busy();
        }
    }

    /// When an HTTP/2 connection ends that has been without a request since then: what the client sends keeps it, but
    /// not for ever.
    fn http2_end(&self, since: Instant) -> Instant {
        after(since, self.keep_alive).min(after(Instant::now(), self.idle_timeout))
    }
}

impl Pause {
    /// There is nothing from now on.
    fn rest(&mut self, connection: &WaitingConnection) {
        let now = Instant::now();
        self.deadline = Some(match &mut self.http2_since {
            None => after(now, connection.keep_alive),
            Some(since) => {
                *since = now;
                connection.http2_end(now)
            }
        });
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let inner = &self.waiting.0;
        let mut state = self.waiting.state();
        state.held -= 1;
        if state.held == 0 {
            state.begun = false;
            state.rest(inner);
            if let Some(idler) = &inner.idler {
                idler.idle();
            }
            drop(state);
            if self.strays {
                inner.waker.wake();
            }
        }
    }
}
