//! Whom limits per address count together.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What counts as one address: an IPv4 address, or an IPv6 network of 64 bits, since a host picks any address in its
/// own. IPv4 addresses mapped to IPv6 are IPv4; a link-local IPv6 address counts by itself, as all of one link share
/// their network.
///
/// ```
/// use std::net::IpAddr;
/// use h3cast_transport::admission::Key;
///
/// let key = |address: &str| Key::from(address.parse::<IpAddr>().unwrap());
/// assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
/// assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
/// assert_eq!(key("2001:db8:0:1::1").to_string(), "2001:db8:0:1::/64");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Prefix);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Prefix {
    V4(Ipv4Addr),
    /// The upper half.
    Net(u64),
    LinkLocal(Ipv6Addr),
}

impl From<IpAddr> for Key {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => Prefix::V4(address),
            IpAddr::V6(address) if address.is_unicast_link_local() => Prefix::LinkLocal(address),
            IpAddr::V6(address) => Prefix::Net((address.to_bits() >> 64) as u64),
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Prefix::V4(address) => address.fmt(f),
            Prefix::LinkLocal(address) => address.fmt(f),
            Prefix::Net(net) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(net) << 64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_count_as_one() {
        let key = |address: &str| Key::from(address.parse::<IpAddr>().unwrap());
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("fe80::1", "fe80::1", true),
            ("fe80::1", "fe80::2", false),
            ("::1", "127.0.0.1", false),
        ] {
            assert_eq!(key(one) == key(other), same, "{one} {other}");
        }
        for (address, shown) in [("::ffff:192.0.2.1", "192.0.2.1"), ("::1", "::/64"), ("fe80::1", "fe80::1")] {
            assert_eq!(key(address).to_string(), shown);
        }
    }
}
