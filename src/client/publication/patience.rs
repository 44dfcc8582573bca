//! How long a publication waits for its server to answer what it is sent.

use std::{pin::pin, time::Duration};

use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};

use super::PublishError;
use crate::client::Connection;

/// A server that has not failed is waited for so long at least, however short the time to try is.
const LEAST: Duration = Duration::from_secs(1);
/// How often it is looked at whether what is sent is still on its way.
const LOOK: Duration = Duration::from_millis(100);
/// How long a server that has failed is waited for after it took something, when the time to try is over.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// What is more than acknowledgements and signs of life, in bytes: a full packet.
const MOVES: u64 = 1000;

/// Waits until a given moment, and longer only while data is still on its way: a slow network is not a silent server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Since when the server has taken nothing and answered nothing.
    pub(super) since: Instant,
    /// When that is over; `None` for never.
    pub(super) until: Option<Instant>,
    /// How much later, for as long as it takes something.
    grace: Duration,
}

/// What a connection has carried so far.
#[derive(Debug, Clone, Copy, Default)]
struct Carried {
    /// Bytes.
    sent: u64,
    /// Packets, acknowledgements among them.
    received: u64,
}

impl Patience {
    /// With a server that has not failed, from now on: half of the time to try, so that there is some left to connect
    /// anew, since a server that is gone may be back at the same address. None has to answer in no time at all.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        let (since, grace) = (Instant::now(), (limit.unwrap_or_default() / 2).max(LEAST));
        let until = limit.filter(|limit| !limit.is_zero()).and_then(|_| since.checked_add(grace));
        Self { since, until, grace }
    }

    /// With a server that has failed.
    pub(super) fn by(deadline: Instant) -> Self {
        Self { since: Instant::now(), until: Some(deadline), grace: ON_ITS_WAY }
    }

    /// Waits for what the server does on this connection. What is waited for is pinned where it is: moved into this, it
    /// would take its room several times.
    pub(super) async fn wait<T>(
        &mut self,
        connection: &Connection,
        event: impl Future<Output = T> + Unpin,
    ) -> Result<T, PublishError> {
        let handle = connection.handle();
        let carried = || {
            // Over QUIC, they are there at once.
            let stats = handle.stats().now_or_never().unwrap_or_default();
            let (sent, received) = (stats.sent_bytes, stats.received_packets);
            Carried { sent: sent.unwrap_or_default(), received: received.unwrap_or_default() }
        };
        self.wait_while(carried, event).await
    }

    async fn wait_while<T>(
        &mut self,
        carried: impl Fn() -> Carried,
        event: impl Future<Output = T>,
    ) -> Result<T, PublishError> {
        let Some(mut until) = self.until else { return Ok(event.await) };
        let mut event = pin!(event);
        // Most of what is sent is taken at once.
        if let Some(done) = event.as_mut().now_or_never() {
            return Ok(done);
        }
        let mut last = carried();
        loop {
            let look = until.min(Instant::now() + LOOK);
            if let Ok(done) = timeout_at(look, &mut event).await {
                return Ok(done);
            }
            let (now, carries) = (Instant::now(), carried());
            if now > look + LOOK {
                // This process itself stood still: what has come meanwhile was not looked at.
                self.since = now;
                until = now.checked_add(self.grace).map_or(until, |then| then.max(until));
            }
            // Without a sign of the server, it is only sent again.
            if carries.sent >= last.sent + MOVES && carries.received > last.received {
                self.since = now;
                until = now.checked_add(self.grace).map_or(until, |then| then.max(until));
            } else if now >= until {
                return Err(PublishError::Unanswered);
            }
            last = carries;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// How long a server is waited for that takes what is sent for so long, and then neither takes nor answers anything.
    async fn waited(mut patience: Patience, takes: Duration, (bytes, packets): (u64, u64)) -> (Duration, Duration) {
        let begun = Instant::now();
        let carried = || {
            let looks = begun.elapsed().min(takes).as_millis() as u64 / LOOK.as_millis() as u64;
            Carried { sent: looks * bytes, received: looks * packets }
        };
        let done = patience.wait_while(carried, pending::<()>()).await;
        assert!(matches!(done, Err(PublishError::Unanswered)), "{done:?}");
        (begun.elapsed(), patience.since - begun)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_waited_for_as_long_as_it_is_tried_and_a_slow_network_longer() {
        let secs = Duration::from_secs;
        let near = |(waited, since): (Duration, Duration), expected: (Duration, Duration)| {
            let slack = LOOK + Duration::from_millis(10);
            assert!(waited >= expected.0 && waited <= expected.0 + slack, "{waited:?} {expected:?}");
            assert!(since + slack >= expected.1 && since <= expected.1 + slack, "{since:?} {expected:?}");
        };
        let (full, none) = ((2 * MOVES, 2), Duration::ZERO);
        for (limit, least) in [(Duration::from_millis(10), LEAST), (LEAST, LEAST), (secs(6), secs(3))] {
            let patience = || Patience::new(Some(limit));
            near(waited(patience(), none, full).await, (least, none));
            // Signs of life are no progress, nor is what is sent again to a server that is gone.
            near(waited(patience(), secs(60), (60, 1)).await, (least, none));
            near(waited(patience(), secs(60), (2 * MOVES, 0)).await, (least, none));
            near(waited(patience(), secs(20), full).await, (secs(20) + least, secs(20)));
        }
        let failed = || Patience::by(Instant::now() + secs(1));
        near(waited(failed(), none, full).await, (secs(1), none));
        near(waited(failed(), secs(20), full).await, (secs(20) + ON_ITS_WAY, secs(20)));
        near(waited(Patience::by(Instant::now()), secs(20), full).await, (none, none));
        for limit in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
            assert!(Patience::new(limit).until.is_none(), "{limit:?}");
        }
        let answer = Patience::new(Some(LEAST)).wait_while(Carried::default, async { 7 }).await;
        assert!(matches!(answer, Ok(7)));
    }

    /// As after Ctrl-Z and `fg`: the answer may be there, and nobody has read it.
    #[tokio::test]
    async fn a_process_that_stood_still_looks_again() {
        let mut looks = 0;
        let event = std::future::poll_fn(|cx| {
            looks += 1;
            match looks {
                1 => std::task::Poll::Pending,
                2 => {
                    std::thread::sleep(LEAST + 2 * LOOK);
                    cx.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
                _ => std::task::Poll::Ready(7),
            }
        });
        let answer = Patience::new(Some(LEAST)).wait_while(Carried::default, event).await;
        assert!(matches!(answer, Ok(7)), "{answer:?}");
    }
}
