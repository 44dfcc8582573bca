//! What one client may cost.

mod share;

use std::time::Duration;

/// Longer than anything lasts, and yet it can be added to a time.
pub(crate) const EVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// How many streams a connection is allowed if nothing else is said.
pub(crate) const STREAMS: u32 = 100;
/// The most streams that a connection may be allowed: 8.4 MiB in both directions.
const MOST_STREAMS: u32 = 65_536;

/// What one client may cost: the same over HTTP/1.1, HTTP/2 and HTTP/3.
///
/// ```
/// use std::time::Duration;
/// use h3cast_transport::Limits;
///
/// let limits = Limits::default().head_size(64 * 1024).keep_alive(Duration::from_secs(20));
/// ```
///
/// [`ServerBuilder::build`](crate::server::ServerBuilder::build) refuses values that would let nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub(crate) head_size: u64,
    pub(crate) head_timeout: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) connections: usize,
    pub(crate) connections_per_address: Option<usize>,
    pub(crate) tcp_connections: usize,
    pub(crate) handshakes: usize,
    pub(crate) handshakes_per_address: Option<usize>,
    pub(crate) retry_handshakes: usize,
    pub(crate) retry_initials: u32,
    pub(crate) requests_per_address: usize,
    pub(crate) sessions_per_address: usize,
    pub(crate) streams: u32,
    pub(crate) sessions: usize,
    pub(crate) send_timeout: Duration,
    pub(crate) control_frames: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_size: 16 * 1024,
            head_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            idle_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            connections: 65_536,
            connections_per_address: None,
            tcp_connections: 4096,
            handshakes: 1024,
            handshakes_per_address: None,
            retry_handshakes: 100,
            retry_initials: 500,
            requests_per_address: 2048,
            sessions_per_address: 1024,
            streams: STREAMS,
            sessions: 16,
            send_timeout: Duration::from_secs(60),
            control_frames: 100,
        }
    }
}

/// A limit that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Limits::{limit} cannot be {value}: {expected}")]
pub struct BadLimit {
    limit: &'static str,
    value: String,
    expected: &'static str,
}

/// Larger heads could hold more fields than a `HeaderMap` takes.
const HEAD_SIZES: std::ops::RangeInclusive<u64> = 1024..=512 * 1024;

impl Limits {
    /// The largest head of a request, in bytes: method, target, and all fields, each with 32 bytes of overhead, as
    /// HTTP/2 and HTTP/3 count ([RFC 9114 §4.2.2](https://www.rfc-editor.org/rfc/rfc9114#section-4.2.2)). A larger
    /// one is answered with 431 (over HTTP/2, one that is much larger ends the connection). From 1 KiB to 512 KiB; default 16 KiB.
    #[must_use]
    pub fn head_size(mut self, bytes: usize) -> Self {
        self.head_size = bytes as u64;
        self
    }

    /// How long a request's head may take from its first byte to its last, and how long a new connection over TCP
    /// may take for its first one. Then the connection is closed; over HTTP/3, the request is reset. Over HTTP/2 it
    /// counts for the first request of a connection. Default 10 s.
    #[must_use]
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.head_timeout = timeout;
        self
    }

    /// How long a connection stays open for its next request, over every version of HTTP; zero closes it after each
    /// response. Over HTTP/2 and HTTP/3 the client gets GOAWAY, whatever it sends to keep the connection; a first
    /// request over HTTP/3 has at least [`head_timeout`](Self::head_timeout). Default 75 s.
    #[must_use]
    pub fn keep_alive(mut self, timeout: Duration) -> Self {
        self.keep_alive = timeout;
        self
    }

    /// How long an HTTP/2 or HTTP/3 connection stays open without a sign of life from the client. Only while a request
    /// or session is open
    /// ([RFC 9114 §5.1](https://www.rfc-editor.org/rfc/rfc9114#section-5.1)), clients that are silent for about half
    /// of that, at most 12 s over HTTP/3, are asked for one. Default 30 s.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How long a client may take for its handshake of TLS or QUIC, from its first packet or its connection to the
    /// end of the handshake, whatever it sends meanwhile. Default 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Connections at once, QUIC and TCP together. The next one over QUIC is refused, and the next over TCP waits.
    /// Connections over TCP that have not had a request yet leave the last eighth to others.
    /// When three quarters are taken, clients over QUIC must first show that their address is their own (Retry,
    /// [RFC 9000 §8.1.2](https://www.rfc-editor.org/rfc/rfc9000#section-8.1.2)). An upgraded connection counts until
    /// its handler drops it. Default 65,536.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Connections at once of one address ([`admission::Key`](crate::admission::Key): an IPv4 address, an IPv6 /64),
    /// QUIC and TCP together, within [`connections`](Self::connections). The next one is refused: with
    /// CONNECTION_REFUSED over QUIC, by a reset over TCP. 0 turns the limit off. It applies to loopback too.
    ///
    /// No address gets the last quarter of [`connections`](Self::connections), nor over TCP the last quarter of
    /// [`tcp_connections`](Self::tcp_connections): a larger number is lowered to that, and a server that starts with it
    /// warns of it. A total below four turns it off. Default 1,024, or a quarter of the total where that is
    /// less, but at least 16.
    #[must_use]
    pub fn connections_per_address(mut self, connections: usize) -> Self {
        self.connections_per_address = Some(connections);
        self
    }

    /// Handshakes in progress (half-open connections) at once, of QUIC and of TLS over TCP each, and never more than
    /// three quarters of [`connections`](Self::connections). The next one ends the oldest, so that a flood keeps
    /// nobody out. One takes up to 40 KiB. Default 1,024.
    #[must_use]
    pub fn handshakes(mut self, handshakes: usize) -> Self {
        self.handshakes = handshakes;
        self
    }

    /// Handshakes in progress at once of one address, within [`handshakes`](Self::handshakes). The next one is
    /// refused. A QUIC handshake counts from when the address is known to be the client's own. 0 for no such limit.
    /// As for [`connections_per_address`](Self::connections_per_address), no address gets the last quarter. Default 256,
    /// or a quarter of all where that is less, but at least 16.
    #[must_use]
    pub fn handshakes_per_address(mut self, handshakes: usize) -> Self {
        self.handshakes_per_address = Some(handshakes);
        self
    }

    /// How many QUIC handshakes may be in progress before clients must first show that their address is their own
    /// (Retry, [RFC 9000 §8.1.2](https://www.rfc-editor.org/rfc/rfc9000#section-8.1.2)), which takes them a round
    /// trip. With 0 each must. Default 100.
    #[must_use]
    pub fn retry_handshakes(mut self, handshakes: usize) -> Self {
        self.retry_handshakes = handshakes;
        self
    }

    /// How many QUIC connections may begin in a second before clients must first show that their address is their
    /// own, as at [`retry_handshakes`](Self::retry_handshakes). With 0 each must. Default 500.
    #[must_use]
    pub fn retry_initials(mut self, initials: u32) -> Self {
        self.retry_initials = initials;
        self
    }

    /// Requests at once of one address, over all its connections and versions of HTTP: a feed that is read is one.
    /// The next one is answered with 429. 0 for no such limit. Default 2,048.
    ///
    /// One in early data counts when the handshake shows that the address is the client's own; one too many is reset
    /// then. What a request has been upgraded to counts no more: a protocol after 101 over HTTP/1.1, a tunnel over
    /// HTTP/2 ([RFC 8441](https://www.rfc-editor.org/rfc/rfc8441)). Such a connection counts as one
    /// ([`connections_per_address`](Self::connections_per_address)), and has at most [`streams`](Self::streams)
    /// tunnels; an application that opens many has to count them itself.
    #[must_use]
    pub fn requests_per_address(mut self, requests: usize) -> Self {
        self.requests_per_address = requests;
        self
    }

    /// WebTransport sessions at once of one address, over all its connections. The next one is answered with 429.
    /// Like requests, they have no limit in all but those of connections, and of memory.
    /// 0 for no such limit. Default 1,024.
    #[must_use]
    pub fn sessions_per_address(mut self, sessions: usize) -> Self {
        self.sessions_per_address = sessions;
        self
    }

    /// Connections at once on each TCP listener, within [`connections`](Self::connections). Each takes a file
    /// descriptor. The next one takes the place of one without a request: of the oldest that has not sent a complete head
    /// since it began, or else of the one whose last request ended the longest time ago. While each has a request, it
    /// waits. Default 4,096.
    #[must_use]
    pub fn tcp_connections(mut self, connections: usize) -> Self {
        self.tcp_connections = connections;
        self
    }

    /// Requests at once on one connection of HTTP/2 or HTTP/3, and streams at once in each direction that a client
    /// may open in its WebTransport sessions. The next ones wait for their turn in the client. Over QUIC, clients
    /// without a session may open 9 bidirectional streams until they have opened 4, and 5 unidirectional ones until they
    /// have opened those. HTTP/3 itself needs 3 unidirectional streams, which count; they are always allowed. Default
    /// 100, the least that RFC 9114 §6.1 recommends. Memory is set aside for as many as are allowed, some 70 bytes each,
    /// for each connection over QUIC that makes use of it, and counted as [`Snapshot::set_aside`]: more than 65,536 count
    /// as 65,536.
    ///
    /// [`Snapshot::set_aside`]: crate::admission::Snapshot::set_aside
    #[must_use]
    pub fn streams(mut self, streams: u32) -> Self {
        self.streams = streams.min(MOST_STREAMS);
        self
    }

    /// WebTransport sessions at once on one connection. The next one is answered with 429; with 0 each is.
    /// Default 16.
    #[must_use]
    pub fn sessions(mut self, sessions: usize) -> Self {
        self.sessions = sessions;
        self
    }

    /// How long a client may take nothing while there is something to send to it; zero for ever. One byte is progress:
    /// over TCP one that its system acknowledges, over HTTP/2 and QUIC also one that it gives a stream credit for. A
    /// client that has everything may wait as long as it likes for more.
    ///
    /// Then its response is cut, so that what it pins is freed: over HTTP/1.1 the connection is reset, over HTTP/2 the
    /// stream (CANCEL) or, when the client reads nothing at all, the connection; over HTTP/3 the stream
    /// (H3_REQUEST_CANCELLED), and a stream of a session with code 0. A client that acknowledges nothing over QUIC loses
    /// its connection (H3_EXCESSIVE_LOAD). A response over HTTP/2 that is complete, and waits for credit alone, is cut with
    /// its connection.
    ///
    /// It is looked at now and then, so that a cut may come a sixth of the timeout later; a tenth of it where a client
    /// over QUIC acknowledges nothing. Default 60 s, as nginx has.
    #[must_use]
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.send_timeout = timeout;
        self
    }

    /// How many frames a second a client of HTTP/2 or HTTP/3 may send that bring nothing: SETTINGS, PING, PRIORITY,
    /// WINDOW_UPDATE, empty frames, frames and streams of unknown types, requests that it gives up at once; of QUIC
    /// itself PING, acknowledgements, credit, connection ids and path challenges, which are counted every 3 s. Ten times as
    /// many may come at once, and what the server sends allows for more, so that requests that are answered, and
    /// credit for what is received, have no limit. Then the connection is closed (ENHANCE_YOUR_CALM,
    /// H3_EXCESSIVE_LOAD). Zero for no limit; default 100.
    #[must_use]
    pub fn control_frames(mut self, per_second: u32) -> Self {
        self.control_frames = per_second;
        self
    }

    /// The send timeout, if there is one, and how often to look whether a client still takes something.
    pub(crate) fn send_pauses(&self) -> Option<(Duration, Duration)> {
        let timeout = self.send_timeout.min(EVER);
        (!timeout.is_zero()).then(|| (timeout, timeout / 6))
    }

    /// Whether they can be kept.
    pub(crate) fn check(&self) -> Result<(), BadLimit> {
        let bad = |limit, value: &dyn ToString, expected| Err(BadLimit { limit, value: value.to_string(), expected });
        if !HEAD_SIZES.contains(&self.head_size) {
            return bad("head_size", &self.head_size, "choose from 1 KiB to 512 KiB");
        }
        for (limit, time) in [
            ("head_timeout", self.head_timeout),
            ("idle_timeout", self.idle_timeout),
            ("handshake_timeout", self.handshake_timeout),
        ] {
            if time.is_zero() {
                return bad(limit, &"zero", "no client is that fast");
            }
        }
        for (limit, count) in [
            ("connections", self.connections),
            ("tcp_connections", self.tcp_connections),
            ("handshakes", self.handshakes),
            ("streams", self.streams as usize),
        ] {
            if count == 0 {
                return bad(limit, &0, "no request would be answered");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// The engine sets memory aside for each.
    #[test]
    fn streams_have_an_end() {
        assert_eq!(Limits::default().streams(MOST_STREAMS).streams, MOST_STREAMS);
        assert_eq!(Limits::default().streams(u32::MAX).streams, MOST_STREAMS);
    }

    #[test]
    fn a_send_timeout_without_an_end_can_be_added_to_a_time() {
        let (timeout, pause) = Limits::default().send_timeout(Duration::MAX).send_pauses().unwrap();
        assert!(Instant::now() + timeout > Instant::now() + 2 * pause);
    }
}
