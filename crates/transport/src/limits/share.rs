//! What one address may have of all that a server takes.

use std::fmt;

use super::Limits;

/// One address has at least so many by default, a browser's worth and more, however few there are in all.
const LEAST: usize = 16;

/// The most that one address may have, of a limit in all.
fn most(total: usize) -> usize {
    total - total / 4
}

/// A limit for each address, and the limit in all that it is a part of.
#[derive(Debug, Clone, Copy)]
struct Share {
    name: &'static str,
    given: Option<usize>,
    default: usize,
    of: &'static str,
    total: usize,
}

impl Share {
    /// `usize::MAX` stands for no limit.
    fn limit(&self) -> usize {
        match self.given {
            Some(0) => usize::MAX,
            // A part of so few would protect no one.
            _ if self.total < 4 => usize::MAX,
            Some(given) => given.min(most(self.total)),
            None => self.default.min((self.total / 4).max(LEAST)).min(most(self.total)),
        }
    }

    /// Whether one address gets less than what was asked for.
    fn excess(self) -> Option<Excess> {
        self.given.filter(|given| *given > self.limit()).map(|given| Excess { share: self, given })
    }
}

/// A limit per address that is lowered, so that no address takes all there is.
#[derive(Debug)]
pub(crate) struct Excess {
    share: Share,
    given: usize,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { share, given } = self;
        let (Share { name, of, total, .. }, limit) = (share, share.limit());
        write!(
            f,
            "{name}={given} is too many for {of}={total}: one address gets {limit}, three quarters of it. \
             Raise {of}, or turn the limit per address off (0)"
        )
    }
}

impl Limits {
    /// How many handshakes may be in progress: they never take the last quarter of all places.
    pub(crate) fn all_handshakes(&self) -> usize {
        self.handshakes.min(most(self.connections))
    }

    fn connections_share(&self) -> Share {
        Share {
            name: "connections_per_address",
            given: self.connections_per_address,
            default: 1024,
            of: "connections",
            total: self.connections,
        }
    }

    fn tcp_share(&self) -> Share {
        Share { of: "tcp_connections", total: self.tcp_connections, ..self.connections_share() }
    }

    fn handshakes_share(&self) -> Share {
        Share {
            name: "handshakes_per_address",
            given: self.handshakes_per_address,
            default: 256,
            of: "handshakes",
            total: self.all_handshakes(),
        }
    }

    /// Connections of one address; here and below, `usize::MAX` stands for no limit.
    pub(crate) fn connections_of_one(&self) -> usize {
        self.connections_share().limit()
    }

    /// Those over TCP.
    pub(crate) fn tcp_connections_of_one(&self) -> usize {
        self.tcp_share().limit()
    }

    /// Handshakes in progress of one address.
    pub(crate) fn handshakes_of_one(&self) -> usize {
        self.handshakes_share().limit()
    }

    /// Limits per address that are lowered because they are too large for those in all.
    pub(crate) fn excesses(&self) -> impl Iterator<Item = Excess> {
        let shares = [self.connections_share(), self.tcp_share(), self.handshakes_share()];
        shares.into_iter().filter_map(Share::excess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_a_part_of_what_there_is() {
        let of =
            |limits: Limits| [limits.connections_of_one(), limits.tcp_connections_of_one(), limits.handshakes_of_one()];
        let limits = Limits::default();
        assert_eq!(of(limits), [1024, 1024, 256]);
        // The defaults follow the totals,
        assert_eq!(of(limits.tcp_connections(100).connections(1000)), [250, 25, 187]);
        assert_eq!(of(limits.connections(200)), [50, 1024, 37]);
        // down to a browser's worth.
        assert_eq!(of(limits.connections(40).tcp_connections(20).handshakes(8)), [16, 15, 6]);
        assert_eq!(of(limits.connections(4).tcp_connections(4)), [3, 3, usize::MAX]);
        assert_eq!(of(limits.connections(3).tcp_connections(1).connections_per_address(9)), [usize::MAX; 3]);
        // What is given is kept, but for the last quarter.
        let given = limits.connections_per_address(3000).handshakes_per_address(700);
        assert_eq!(of(given), [3000, 3000, 700]);
        assert_eq!(given.excesses().count(), 0);
        let given = limits.connections_per_address(100_000).handshakes_per_address(1000);
        assert_eq!(of(given), [49_152, 3072, 768]);
        let told: Vec<_> = given.excesses().map(|excess| excess.to_string()).collect();
        assert_eq!(told.len(), 3);
        assert_eq!(
            told[1],
            "connections_per_address=100000 is too many for tcp_connections=4096: one address gets 3072, three \
             quarters of it. Raise tcp_connections, or turn the limit per address off (0)"
        );
        assert_eq!(of(limits.connections_per_address(0).handshakes_per_address(0)), [usize::MAX; 3]);
        assert_eq!(of(limits.connections(usize::MAX)), [1024, 1024, 256]);
    }
}
