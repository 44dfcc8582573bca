//! What a server counts of its connections, handshakes, sessions and requests, for what shows it.
//!
//! Plain atomics without a lock: [reading](Counts::snapshot) them holds up no connection. Clients admitted and refused
//! are counted by [`admission`](crate::admission).

mod labels;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::StatusCode;

pub use labels::{Answer, Carrier, HandshakeFailure, Protocol};

/// The upper bounds of the distribution of round-trip times, in seconds.
const RTT_BOUNDS: [f64; 11] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0];

/// What a server counts. Clones are handles of the same counters. See
/// [`ServerHandle::counts`](crate::server::ServerHandle::counts).
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Tally>);

#[derive(Debug, Default)]
struct Tally {
    /// By [`Protocol`].
    connections: [AtomicU64; 3],
    opened: [AtomicU64; 3],
    sessions: AtomicU64,
    /// By [`Carrier`].
    handshakes: [AtomicU64; 2],
    failures: [[AtomicU64; HandshakeFailure::ALL.len()]; 2],
    /// By [`Protocol`].
    requests: [[AtomicU64; Answer::ALL.len()]; 4],
    rtt_buckets: [AtomicU64; RTT_BOUNDS.len() + 1],
    /// In microseconds.
    rtt_sum: AtomicU64,
    sent_packets: AtomicU64,
    lost_packets: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

/// What a server has counted, at one point in time.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    connections: [u64; 3],
    opened: [u64; 3],
    handshakes: [u64; 2],
    failures: [[u64; HandshakeFailure::ALL.len()]; 2],
    requests: [[u64; Answer::ALL.len()]; 4],
    /// WebTransport sessions opened so far.
    pub sessions: u64,
    /// What QUIC connections carry: see [`Quic`].
    pub quic: Quic,
}

/// What QUIC connections have carried, and how well, once they got to HTTP/3: without handshakes that were refused or
/// failed. Each open connection adds to it every 3 s, and at its end.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Quic {
    /// Smoothed round-trip times ([RFC 9002 §5.3](https://www.rfc-editor.org/rfc/rfc9002#section-5.3)), in seconds:
    /// one of each open connection every 3 s, and the last one of each that has ended.
    pub rtt: Distribution,
    /// Packets sent. When a client moves to another network, some of those of the last 3 s may be missing.
    pub sent_packets: u64,
    /// Those of them that were taken to be lost.
    pub lost_packets: u64,
    /// UDP payloads sent, in bytes.
    pub sent_bytes: u64,
    /// UDP payloads received, in bytes.
    pub received_bytes: u64,
}

/// How values are distributed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Distribution {
    /// The upper bound of each bucket (the last one is infinite), and how many values are in it and in none before.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all values.
    pub sum: f64,
}

impl Distribution {
    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

impl Snapshot {
    /// Connections now whose handshake is complete, without one for WebTransport, whose sessions are in those of
    /// HTTP/3. Over TCP without TLS they count as HTTP/1.1 until their first request.
    #[must_use]
    pub fn connections(&self, protocol: Protocol) -> u64 {
        self.connections.get(protocol as usize).copied().unwrap_or_default()
    }

    /// How many of them there were so far.
    #[must_use]
    pub fn opened(&self, protocol: Protocol) -> u64 {
        self.opened.get(protocol as usize).copied().unwrap_or_default()
    }

    /// Handshakes completed so far.
    #[must_use]
    pub fn handshakes(&self, carrier: Carrier) -> u64 {
        self.handshakes[carrier as usize]
    }

    /// Handshakes so far that failed so. Those that were refused before they began are not among them.
    #[must_use]
    pub fn failed(&self, carrier: Carrier, reason: HandshakeFailure) -> u64 {
        self.failures[carrier as usize][reason as usize]
    }

    /// Requests answered so; those for sessions are of [`Protocol::WebTransport`].
    #[must_use]
    pub fn requests(&self, protocol: Protocol, answer: Answer) -> u64 {
        self.requests[protocol as usize][answer as usize]
    }
}

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

impl Counts {
    /// What has been counted by now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &self.0;
        let bounds = RTT_BOUNDS.into_iter().chain([f64::INFINITY]);
        Snapshot {
            connections: tally.connections.each_ref().map(get),
            opened: tally.opened.each_ref().map(get),
            handshakes: tally.handshakes.each_ref().map(get),
            failures: tally.failures.each_ref().map(|failures| failures.each_ref().map(get)),
            requests: tally.requests.each_ref().map(|answers| answers.each_ref().map(get)),
            sessions: get(&tally.sessions),
            quic: Quic {
                rtt: Distribution {
                    buckets: bounds.zip(tally.rtt_buckets.each_ref().map(get)).collect(),
                    sum: Duration::from_micros(get(&tally.rtt_sum)).as_secs_f64(),
                },
                sent_packets: get(&tally.sent_packets),
                lost_packets: get(&tally.lost_packets),
                sent_bytes: get(&tally.sent_bytes),
                received_bytes: get(&tally.received_bytes),
            },
        }
    }

    /// Counts a connection, until this is dropped. What it speaks may not be known yet.
    pub(crate) fn connection(&self, protocol: Option<Protocol>) -> Connection {
        let connection = Connection { counts: self.clone(), protocol: AtomicU8::new(UNKNOWN) };
        add(&self.0.connections[Protocol::Http1 as usize], 1);
        if let Some(protocol) = protocol {
            connection.speaks(protocol);
        }
        connection
    }

    /// A handshake that begins.
    pub(crate) fn handshake(&self, carrier: Carrier) -> Handshake {
        Handshake { counts: self.clone(), carrier, is_over: AtomicBool::new(false) }
    }

    /// A request that begins.
    pub(crate) fn request(&self, protocol: Protocol) -> Request {
        Request { counts: self.clone(), protocol, is_answered: false }
    }

    /// What a QUIC connection has carried since the last time.
    pub(crate) fn carried(&self, more: &Carried) {
        let tally = &self.0;
        if let Some(rtt) = more.rtt {
            let at = RTT_BOUNDS.partition_point(|bound| *bound < rtt.as_secs_f64());
            add(&tally.rtt_buckets[at], 1);
            add(&tally.rtt_sum, u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
        }
        add(&tally.sent_packets, more.sent_packets);
        add(&tally.lost_packets, more.lost_packets);
        add(&tally.sent_bytes, more.sent_bytes);
        add(&tally.received_bytes, more.received_bytes);
    }
}

/// What a QUIC connection has carried, or some of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Carried {
    /// If one was measured.
    pub(crate) rtt: Option<Duration>,
    pub(crate) sent_packets: u64,
    pub(crate) lost_packets: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

/// Not [`Protocol`].
const UNKNOWN: u8 = u8::MAX;

/// A connection that counts.
#[derive(Debug)]
pub(crate) struct Connection {
    counts: Counts,
    /// What it speaks, once that is known.
    protocol: AtomicU8,
}

impl Connection {
    /// It is known what it speaks. Only the first call counts.
    pub(crate) fn speaks(&self, protocol: Protocol) {
        if self.protocol.load(Ordering::Relaxed) != UNKNOWN {
            return;
        }
        let set = self.protocol.compare_exchange(UNKNOWN, protocol as u8, Ordering::Relaxed, Ordering::Relaxed);
        if set.is_ok() {
            let tally = &self.counts.0;
            add(&tally.connections[protocol as usize], 1);
            tally.connections[Protocol::Http1 as usize].fetch_sub(1, Ordering::Relaxed);
            add(&tally.opened[protocol as usize], 1);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.speaks(Protocol::Http1);
        let protocol = usize::from(*self.protocol.get_mut());
        self.counts.0.connections[protocol].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A handshake that counts, once it is over. One that is dropped before was ended by a stop.
#[derive(Debug)]
pub(crate) struct Handshake {
    counts: Counts,
    carrier: Carrier,
    is_over: AtomicBool,
}

impl Handshake {
    pub(crate) fn completed(&self) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            add(&self.counts.0.handshakes[self.carrier as usize], 1);
        }
    }

    /// Only the first reason counts.
    pub(crate) fn failed(&self, reason: HandshakeFailure) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            add(&self.counts.0.failures[self.carrier as usize][reason as usize], 1);
        }
    }

    /// It is none of ours that failed: a client that speaks no TLS.
    #[cfg(feature = "tcp")]
    pub(crate) fn forget(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.failed(HandshakeFailure::Stopped);
    }
}

/// A request that counts, once it is answered, or given up.
#[derive(Debug)]
pub(crate) struct Request {
    counts: Counts,
    protocol: Protocol,
    is_answered: bool,
}

impl Request {
    /// It is one for a session.
    pub(crate) fn is_session(&mut self) {
        self.protocol = Protocol::WebTransport;
    }

    /// The first status counts.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.count(Answer::of(status));
    }

    /// The session is open.
    pub(crate) fn opened(&self) {
        add(&self.counts.0.sessions, 1);
    }

    fn count(&mut self, answer: Answer) {
        if !std::mem::replace(&mut self.is_answered, true) {
            add(&self.counts.0.requests[self.protocol as usize][answer as usize], 1);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.count(Answer::None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_for_what_it_speaks() {
        let counts = Counts::default();
        let now = |protocol| {
            let snapshot = counts.snapshot();
            (snapshot.connections(protocol), snapshot.opened(protocol))
        };
        let plain = counts.connection(None);
        assert_eq!((now(Protocol::Http1), now(Protocol::Http2)), ((1, 0), (0, 0)), "unknown");
        plain.speaks(Protocol::Http2);
        plain.speaks(Protocol::Http1);
        let quic = counts.connection(Some(Protocol::Http3));
        let silent = counts.connection(None);
        assert_eq!([Protocol::Http1, Protocol::Http2, Protocol::Http3].map(now), [(1, 0), (1, 1), (1, 1)]);
        drop((plain, quic, silent));
        assert_eq!([Protocol::Http1, Protocol::Http2, Protocol::Http3].map(now), [(0, 1), (0, 1), (0, 1)]);
    }

    #[test]
    fn what_is_dropped_counts_once() {
        let counts = Counts::default();
        let mut answered = counts.request(Protocol::Http2);
        answered.answered(StatusCode::NOT_FOUND);
        answered.answered(StatusCode::OK);
        drop((answered, counts.request(Protocol::Http2)));
        let handshake = counts.handshake(Carrier::Quic);
        handshake.completed();
        handshake.failed(HandshakeFailure::Closed);
        drop((handshake, counts.handshake(Carrier::Tls)));
        let snapshot = counts.snapshot();
        let requests = Answer::ALL.map(|answer| snapshot.requests(Protocol::Http2, answer));
        assert_eq!(requests, [1, 0, 0, 1, 0]);
        assert_eq!(Carrier::ALL.map(|carrier| snapshot.handshakes(carrier)), [1, 0]);
        let failed = |carrier| HandshakeFailure::ALL.map(|reason| snapshot.failed(carrier, reason));
        assert_eq!((failed(Carrier::Quic), failed(Carrier::Tls)), ([0; 7], [0, 0, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn round_trips_are_distributed() {
        let counts = Counts::default();
        for millis in [1, 3, 3_000] {
            counts.carried(&Carried {
                rtt: Some(Duration::from_millis(millis)),
                lost_packets: 1,
                ..Carried::default()
            });
        }
        let quic = counts.snapshot().quic;
        let filled: Vec<_> = quic.rtt.buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(filled, [(0.001, 1), (0.005, 1), (f64::INFINITY, 1)]);
        assert_eq!((quic.rtt.count(), quic.rtt.sum, quic.lost_packets), (3, 3.004, 3));
    }
}
