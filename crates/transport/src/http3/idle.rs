//! What a connection does while it carries nothing, and while it carries something.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep};

use crate::{limits::Limits, quic, service::after};

/// After GOAWAY, how long a request that has been sent before may take to arrive.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Knows since when a connection carries neither a request nor a session. It is kept alive only while it carries one
/// ([RFC 9114 §5.1](https://www.rfc-editor.org/rfc/rfc9114#section-5.1)), and has to go when it has been without for
/// too long, whatever the client does to keep it.
pub(super) struct Idle {
    keep_alive: Duration,
    /// How long a client may take for its first request.
    first: Duration,
    /// Between looks while it carries nothing.
    interval: Duration,
    /// Between signs of life of the client's while it carries something.
    ping: Duration,
    /// `None` while it carries something.
    since: Option<Instant>,
    asked: bool,
    /// It has been given up: GOAWAY was sent.
    retired: bool,
    tick: Pin<Box<Sleep>>,
}

/// What it is time for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// To have the client show that it is there.
    KeepAlive,
    /// To tell the client that this connection takes no more requests, and wait for those that are on their way.
    Retire,
    /// To close it as soon as it carries nothing.
    End,
    Nothing,
}

impl Idle {
    pub(super) fn new(limits: &Limits) -> Self {
        // Short times are for tests, and are to be kept as well.
        let ping = quic::keep_alive(limits);
        let interval = ping.min(limits.keep_alive.max(Duration::from_millis(10)));
        Self {
            keep_alive: limits.keep_alive,
            first: limits.keep_alive.max(limits.head_timeout),
            interval,
            ping,
            since: Some(Instant::now()),
            asked: false,
            retired: false,
            tick: Box::pin(sleep(interval)),
        }
    }

    /// Whether the connection carries something now.
    pub(super) fn note(&mut self, is_busy: bool) {
        if is_busy {
            (self.since, self.asked) = (None, true);
        } else if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            // The next sign of life may be due much later. A connection that is retired goes by LAST_CALL.
            if !self.retired {
                self.tick.as_mut().reset(now + self.interval);
            }
        }
    }

    /// Waits until something may be due. Cancel-safe.
    pub(super) async fn tick(&mut self) {
        self.tick.as_mut().await;
    }

    /// What is due at a tick.
    pub(super) fn due(&mut self) -> Due {
        let now = Instant::now();
        let (due, next) = match self.since {
            None => (Due::KeepAlive, now + self.ping),
            Some(_) if self.retired => (Due::End, now + self.interval),
            Some(since) => {
                let over = after(since, if self.asked { self.keep_alive } else { self.first });
                if now >= over {
                    self.retired = true;
                    (Due::Retire, now + LAST_CALL)
                } else {
                    (Due::Nothing, over.min(now + self.interval))
                }
            }
        };
        self.tick.as_mut().reset(next);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn kept_alive_while_busy_and_retired_when_idle() {
        let limits = Limits::default();
        let mut idle = Idle::new(&limits);
        let next = async |idle: &mut Idle| {
            let began = Instant::now();
            idle.tick().await;
            (idle.due(), began.elapsed().as_secs_f32().round())
        };
        idle.note(true);
        assert_eq!(next(&mut idle).await, (Due::KeepAlive, 12.0));
        assert_eq!(next(&mut idle).await, (Due::KeepAlive, 12.0));
        idle.note(false);
        for _ in 0..6 {
            assert_eq!(next(&mut idle).await, (Due::Nothing, 12.0));
        }
        assert_eq!(next(&mut idle).await, (Due::Retire, 3.0));
        // One that came just before is carried to its end.
        idle.note(true);
        assert_eq!(next(&mut idle).await, (Due::KeepAlive, 1.0));
        idle.note(false);
        assert_eq!(next(&mut idle).await, (Due::End, 12.0));
    }
    #[tokio::test(start_paused = true)]
    async fn kept_alive_seldom_and_retired_soon_without_keep_alive() {
        let mut idle = Idle::new(&Limits::default().keep_alive(Duration::ZERO));
        let next = async |idle: &mut Idle| {
            let began = Instant::now();
            idle.tick().await;
            (idle.due(), began.elapsed().as_millis())
        };
        idle.note(true);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2 * 12) {
            let (due, millis) = next(&mut idle).await;
            // The first one by when an idle connection would be looked at.
            assert!(
                due == Due::KeepAlive && (millis == 12_000 || began.elapsed() < Duration::from_secs(1)),
                "{millis}"
            );
        }
        idle.note(false);
        assert_eq!(next(&mut idle).await, (Due::Retire, 10));
        // What comes and goes meanwhile does not shorten the time for what else is on its way.
        idle.note(true);
        idle.note(false);
        assert_eq!(next(&mut idle).await, (Due::End, LAST_CALL.as_millis()));
    }
}
