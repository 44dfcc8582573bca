//! What clients may cost, as arguments.

use std::time::Duration;

use clap::Args;

use crate::{Limits, cli::values};

/// Each but `memory` is the setting of [`Limits`] of the same name, whose default it keeps when it is not given.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Memory that the server may use: bytes (k, M and G as for --history), a percentage of what the machine
    /// or its control group (cgroup) has, or `off`. From 90 % of it on, new viewers are refused with 503;
    /// from 95 %, the viewers that have taken nothing for the longest time are cut, and can resume. Histories
    /// stay: give a --history that fits. [default: 75%]
    #[arg(long, env = "H3CAST_MEMORY", value_name = "BYTES|PERCENT|off", value_parser = super::memory::parse)]
    pub(super) memory: Option<super::memory::Memory>,
    /// Connections at once, QUIC and TCP together. The next one over QUIC is refused, over TCP it waits.
    /// [default: 65536]
    #[arg(long, env = "H3CAST_MAX_CONNECTIONS", value_name = "N", value_parser = values::at_least_one)]
    max_connections: Option<usize>,
    /// Connections at once on each TCP listener. The next one takes the place of the one that has been without a
    /// request for longest, or waits. [default: 4096]
    #[arg(long, env = "H3CAST_MAX_TCP_CONNECTIONS", value_name = "N", value_parser = values::at_least_one)]
    max_tcp_connections: Option<usize>,
    /// Handshakes in progress at once, of QUIC and of TLS over TCP each. The next one ends the oldest.
    /// [default: 1024]
    #[arg(long, env = "H3CAST_MAX_HANDSHAKES", value_name = "N", value_parser = values::at_least_one)]
    max_handshakes: Option<usize>,
    /// Connections at once of one address (IPv4 address or IPv6 /64); 0 for no limit. The next one is
    /// refused. Load tests from one machine need more. One address never gets more than three quarters of
    /// --max-connections, or over TCP of --max-tcp-connections. [default: 1024, at most a quarter of all]
    #[arg(long, env = "H3CAST_CONNECTIONS_PER_ADDRESS", value_name = "N", value_parser = values::count::<usize>)]
    connections_per_address: Option<usize>,
    /// Handshakes in progress at once of one address; 0 for no limit. The next one is refused. Never more than
    /// three quarters of --max-handshakes. [default: 256, at most a quarter of all]
    #[arg(long, env = "H3CAST_HANDSHAKES_PER_ADDRESS", value_name = "N", value_parser = values::count::<usize>)]
    handshakes_per_address: Option<usize>,
    /// Requests open at once of one address, each feed that is read being one; 0 for no limit. The next one
    /// is answered with 429. [default: 2048]
    #[arg(long, env = "H3CAST_REQUESTS_PER_ADDRESS", value_name = "N", value_parser = values::count::<usize>)]
    requests_per_address: Option<usize>,
    /// WebTransport sessions open at once of one address; 0 for no limit. The next one is answered with 429.
    /// [default: 1024]
    #[arg(long, env = "H3CAST_SESSIONS_PER_ADDRESS", value_name = "N", value_parser = values::count::<usize>)]
    sessions_per_address: Option<usize>,
    /// QUIC handshakes in progress from which on clients must first prove their address (Retry), against
    /// floods with forged ones; 0 for always. It costs them a round trip. [default: 100]
    #[arg(long, env = "H3CAST_RETRY_HANDSHAKES", value_name = "N", value_parser = values::count::<usize>)]
    retry_handshakes: Option<usize>,
    /// QUIC connections begun in a second from which on they must do the same; 0 for always. [default: 500]
    #[arg(long, env = "H3CAST_RETRY_INITIALS", value_name = "N", value_parser = values::count::<u32>)]
    retry_initials: Option<u32>,
    /// How long a handshake may take, from a client's first packet to its end. [default: 10s]
    #[arg(long, env = "H3CAST_HANDSHAKE_TIMEOUT", value_name = "TIME", value_parser = values::some_time)]
    handshake_timeout: Option<Duration>,
    /// How long a connection stays open without a request. [default: 75s]
    #[arg(long, env = "H3CAST_KEEP_ALIVE", value_name = "TIME", value_parser = values::time)]
    keep_alive: Option<Duration>,
    /// How long an HTTP/2 or HTTP/3 connection stays open without a sign of life from the client.
    /// [default: 30s]
    #[arg(long, env = "H3CAST_IDLE_TIMEOUT", value_name = "TIME", value_parser = values::some_time)]
    idle_timeout: Option<Duration>,
    /// How long a client may take nothing while there is something to send to it; 0s for ever. Then its response is cut,
    /// and viewers resume from their cursor. Viewers that wait for new chunks are never cut. [default: 60s]
    #[arg(long, env = "H3CAST_SEND_TIMEOUT", value_name = "TIME", value_parser = values::time)]
    send_timeout: Option<Duration>,
    /// Frames a second that bring nothing (SETTINGS, PING, requests that are given up at once) on one connection
    /// of HTTP/2 or HTTP/3, ten times as many at once; 0 for no limit. Then it is closed. [default: 100]
    #[arg(long, env = "H3CAST_CONTROL_FRAMES", value_name = "N", value_parser = values::count::<u32>)]
    control_frames: Option<u32>,
}

impl LimitArgs {
    /// What a server is to keep to.
    pub(super) fn limits(&self) -> Limits {
        /// Sets a limit if it was given.
        fn set<T: Copy>(limits: Limits, given: Option<T>, setter: fn(Limits, T) -> Limits) -> Limits {
            given.map_or(limits, |value| setter(limits, value))
        }
        let limits = set(Limits::default(), self.max_connections, Limits::connections);
        let limits = set(limits, self.max_tcp_connections, Limits::tcp_connections);
        let limits = set(limits, self.max_handshakes, Limits::handshakes);
        let limits = set(limits, self.connections_per_address, Limits::connections_per_address);
        let limits = set(limits, self.handshakes_per_address, Limits::handshakes_per_address);
        let limits = set(limits, self.requests_per_address, Limits::requests_per_address);
        let limits = set(limits, self.sessions_per_address, Limits::sessions_per_address);
        let limits = set(limits, self.retry_handshakes, Limits::retry_handshakes);
        let limits = set(limits, self.retry_initials, Limits::retry_initials);
        let limits = set(limits, self.handshake_timeout, Limits::handshake_timeout);
        let limits = set(limits, self.keep_alive, Limits::keep_alive);
        let limits = set(limits, self.idle_timeout, Limits::idle_timeout);
        let limits = set(limits, self.send_timeout, Limits::send_timeout);
        set(limits, self.control_frames, Limits::control_frames)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Given {
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn given(args: &[&str]) -> Result<Limits, clap::Error> {
        Given::try_parse_from(std::iter::once(&"serve").chain(args)).map(|given| given.limits.limits())
    }

    #[test]
    fn what_is_not_given_keeps_its_default() {
        assert_eq!(given(&[]).unwrap(), Limits::default());
        let expected = Limits::default().connections_per_address(0).handshake_timeout(Duration::from_secs(3));
        assert_eq!(given(&["--connections-per-address=0", "--handshake-timeout=3s"]).unwrap(), expected);
        for bad in ["--max-connections=0", "--max-handshakes=x", "--idle-timeout=0s", "--keep-alive=1"] {
            assert!(given(&[bad]).is_err(), "{bad}");
        }
    }
}
