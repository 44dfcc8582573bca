//! What a client does with its connection, as the engine counts it, looked at now and then: whether it acknowledges
//! what it is sent, and how many frames it sends that bring nothing.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::unacknowledged::{self, Unacknowledged};
use crate::{
    limits::Limits,
    quic::{Connection, Frames},
};

/// How often the frames are counted. A flood costs that long at most, with ten seconds' worth at once that are allowed.
const COUNT: Duration = Duration::from_secs(3);

/// Looks at a connection. Each look wakes a task that would sleep otherwise.
pub(super) struct Watch {
    ticks: Option<Interval>,
    send_timeout: Option<Duration>,
    unacknowledged: Unacknowledged,
    flow: Flow,
}

/// What was seen.
pub(super) enum Seen {
    /// So many frames that nothing accounts for.
    Frames(u32),
    /// Nothing was acknowledged for so long.
    Stalled(Duration),
}

impl Watch {
    pub(super) fn new(limits: &Limits) -> Self {
        let send_timeout = limits.send_pauses().map(|(timeout, _)| timeout);
        let count = (limits.control_frames > 0).then_some(COUNT);
        let pause = send_timeout.map(unacknowledged::pause).into_iter().chain(count).min();
        let ticks = pause.map(|pause| {
            let mut ticks = interval_at(Instant::now() + pause, pause);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { ticks, send_timeout, unacknowledged: Unacknowledged::default(), flow: Flow::default() }
    }

    /// Waits until it is time to [`look`](Self::look). Cancel-safe.
    pub(super) async fn tick(&mut self) {
        match &mut self.ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }

    /// Looks at the connection; `has_requests` while it has any.
    pub(super) fn look(&mut self, conn: &Connection, has_requests: bool) -> Seen {
        let (acknowledged, frames) = conn.seen();
        if !has_requests {
            self.unacknowledged = Unacknowledged::default();
        } else if let Some(timeout) = self.send_timeout
            && self.unacknowledged.look(acknowledged, timeout, Instant::now())
        {
            return Seen::Stalled(timeout);
        }
        Seen::Frames(self.flow.look(frames))
    }
}

/// Frames both ways, as they were seen last.
#[derive(Debug, Default)]
struct Flow {
    seen: Frames,
    /// What was carried before, and may be answered now.
    credit: u64,
}

impl Flow {
    /// How many frames there were since the last look that bring nothing, beyond those that go with what was carried:
    /// an acknowledgement, and credit for a stream and for the connection, with each packet.
    fn look(&mut self, now: Frames) -> u32 {
        const EACH: u64 = 4;
        let since = |now: u64, before: u64| now.saturating_sub(before);
        let carried = EACH.saturating_mul(since(now.carrying, self.seen.carrying));
        let idle = since(now.idle, self.seen.idle).saturating_sub(self.credit);
        self.seen = now;
        // What came before the last look has been answered by now.
        self.credit = carried.saturating_sub(idle);
        u32::try_from(idle.saturating_sub(carried)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_with_data_is_not_counted() {
        let mut flow = Flow::default();
        let mut look = |carrying, idle| flow.look(Frames { carrying, idle });
        assert_eq!(look(1000, 3000), 0);
        // Credit for what was carried may come later, and once.
        assert_eq!(look(1000, 4000), 0);
        assert_eq!(look(1000, 4500), 500);
        assert_eq!(look(2000, 4500), 0);
        assert_eq!(look(2000, 4500), 0);
        assert_eq!(look(2000, 8500), 4000);
    }
}
