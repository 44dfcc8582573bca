//! How well a connection works, counted with all others.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::{
    counts::{Carried, Counts},
    quic::{Connection, INITIAL_RTT},
};

/// How often they are looked at, whatever the settings are: each connection weighs the same among round-trip times.
const EVERY: Duration = Duration::from_secs(3);

/// What a connection has carried, and what of that has been counted. The rest is when this is dropped.
pub(super) struct Vitals {
    conn: Connection,
    counts: Counts,
    counted: Carried,
    ticks: Interval,
}

impl Vitals {
    pub(super) fn new(conn: &Connection, counts: &Counts) -> Self {
        let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { conn: conn.clone(), counts: counts.clone(), counted: Carried::default(), ticks }
    }

    /// Waits until it is time to [`look`](Self::look). Cancel-safe.
    pub(super) async fn tick(&mut self) {
        self.ticks.tick().await;
    }

    /// Counts what the connection has carried since the last look, and its round-trip time.
    pub(super) fn look(&mut self) {
        let path = self.conn.path();
        let now = Carried {
            // As it is until one has been measured.
            rtt: (path.rtt != INITIAL_RTT).then_some(path.rtt),
            sent_packets: path.sent_packets,
            lost_packets: path.lost_packets,
            sent_bytes: path.sent_bytes,
            received_bytes: path.received_bytes,
        };
        let before = std::mem::replace(&mut self.counted, now);
        // Packets are those of a path: they start over when the client moves. What the old path has sent since the last
        // look is not counted then, and the new one's count from what the old one had if it has sent more already.
        let more = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        self.counts.carried(&Carried {
            rtt: now.rtt,
            sent_packets: more(now.sent_packets, before.sent_packets),
            lost_packets: more(now.lost_packets, before.lost_packets),
            sent_bytes: more(now.sent_bytes, before.sent_bytes),
            received_bytes: more(now.received_bytes, before.received_bytes),
        });
    }
}

impl Drop for Vitals {
    fn drop(&mut self) {
        self.look();
    }
}
