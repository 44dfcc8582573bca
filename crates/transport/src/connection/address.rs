//! Addresses as their clients know them.

use std::net::SocketAddr;

/// The address as its client knows it: a socket of both IPv6 and IPv4 has IPv4 clients at `::ffff:192.0.2.1`.
pub(crate) fn canonical(at: SocketAddr) -> SocketAddr {
    match at {
        SocketAddr::V6(six) => six.ip().to_ipv4_mapped().map_or(at, |four| (four, six.port()).into()),
        SocketAddr::V4(_) => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_a_socket_for_both_families_have_the_address_of_theirs() {
        for (at, expected) in [
            ("[::ffff:192.0.2.1]:7", "192.0.2.1:7"),
            ("192.0.2.1:7", "192.0.2.1:7"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
            ("[fe80::1%3]:7", "[fe80::1%3]:7"),
            ("[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(canonical(at.parse().unwrap()), expected.parse().unwrap(), "{at}");
        }
    }
}
