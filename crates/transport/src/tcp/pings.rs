//! PINGs of HTTP/2, only while a connection carries something.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;

use super::waiting::Waiting;

/// The timer by which hyper sends PINGs. hyper sends them to connections without a request as well, and has no setting
/// for that; here time does not pass for those ([RFC 9114 §5.1](https://www.rfc-editor.org/rfc/rfc9114#section-5.1)
/// has the reason, for HTTP/3).
#[derive(Debug, Clone)]
pub(super) struct Pings {
    timer: TokioTimer,
    waiting: Waiting,
}

impl Pings {
    pub(super) fn new(waiting: &Waiting) -> Self {
        Self { timer: TokioTimer::new(), waiting: waiting.clone() }
    }

    fn gated(&self, sleep: Pin<Box<dyn Sleep>>) -> Pin<Box<dyn Sleep>> {
        Box::pin(Gated { sleep, waiting: self.waiting.clone() })
    }
}

impl Timer for Pings {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.gated(self.timer.sleep(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.gated(self.timer.sleep_until(deadline))
    }

    fn now(&self) -> Instant {
        self.timer.now()
    }
}

struct Gated {
    sleep: Pin<Box<dyn Sleep>>,
    waiting: Waiting,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.waiting.poll_busy(cx));
        self.sleep.as_mut().poll(cx)
    }
}

impl Sleep for Gated {}
