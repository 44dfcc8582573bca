//! Addresses of proxies.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

/// Addresses whose word on clients is believed. The default is none.
///
/// Written as a list, with commas: `192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32`, and the words `loopback`
/// (`127.0.0.0/8`, `::1`) and `private` (loopback, `10.0.0.0/8`, `172.16.0.0/12`, `192.168.0.0/16`, `fc00::/7`).
///
/// ```
/// use h3cast_transport::proxy::TrustedProxies;
///
/// let trusted: TrustedProxies = "loopback,10.1.0.0/16".parse()?;
/// assert!(trusted.contains("10.1.2.3".parse()?) && !trusted.contains("10.2.0.1".parse()?));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[Network]>);

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    /// The others are 0.
    ip: IpAddr,
    prefix: u8,
}

/// A text does not name addresses of proxies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadProxy {
    /// It is something else.
    #[error(
        "`{0}` is not an address of proxies: write an IP address, a network such as 10.0.0.0/8, `loopback` or `private`"
    )]
    Text(String),
    /// An address with bits that its network does not have.
    #[error("`{text}` has bits beyond its prefix: write {network} for the network, or the address alone")]
    Host {
        /// What was written.
        text: String,
        /// What it may mean.
        network: String,
    },
}

const LOOPBACK: [Network; 2] = [
    Network { ip: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
    Network { ip: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
];

const PRIVATE: [Network; 4] = [
    Network { ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), prefix: 8 },
    Network { ip: IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), prefix: 12 },
    Network { ip: IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), prefix: 16 },
    Network { ip: IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), prefix: 7 },
];

/// The address with only its first bits.
fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
            Ipv4Addr::from(u32::from(ip) & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
            Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    }
}

impl Network {
    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.ip.is_ipv4() && masked(ip, self.prefix) == self.ip
    }
}

impl FromStr for Network {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let bad = || BadProxy::Text(text.to_owned());
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        // Peers with such an address are known by the IPv4 address.
        let ip = if prefix.is_none() { ip.to_canonical() } else { ip };
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) if !prefix.bytes().all(|byte| byte.is_ascii_digit()) => return Err(bad()),
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(bad)?,
            None => bits,
        };
        let network = Self { ip: masked(ip, prefix), prefix };
        match network.ip == ip {
            true => Ok(network),
            false => Err(BadProxy::Host { text: text.to_owned(), network: network.to_string() }),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl FromStr for TrustedProxies {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let mut networks = Vec::new();
        for one in text.split(',').map(str::trim) {
            match one {
                "loopback" => networks.extend(LOOPBACK),
                "private" => networks.extend(LOOPBACK.into_iter().chain(PRIVATE)),
                one => networks.push(one.parse()?),
            }
        }
        Ok(Self(networks.into()))
    }
}

/// All addresses of several lists.
impl FromIterator<TrustedProxies> for TrustedProxies {
    fn from_iter<T: IntoIterator<Item = TrustedProxies>>(lists: T) -> Self {
        Self(lists.into_iter().flat_map(|list| list.0.to_vec()).collect())
    }
}

impl TrustedProxies {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is one of them. An IPv4 address may be written as an IPv6 one (`::ffff:192.0.2.1`).
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_proxies() {
        let trusted: TrustedProxies =
            "192.0.2.1, 10.0.0.0/8,2001:db8::/33,198.51.100.128/25,::ffff:192.0.2.9".parse().unwrap();
        for ip in ["192.0.2.1", "::ffff:192.0.2.1", "10.255.0.1", "2001:db8:7fff::1", "198.51.100.200", "192.0.2.9"] {
            assert!(trusted.contains(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["192.0.2.2", "11.0.0.0", "2001:db8:8000::", "198.51.100.1", "127.0.0.1", "::1", "::a00:1"] {
            assert!(!trusted.contains(ip.parse().unwrap()), "{ip}");
        }
        let is_in = |list: &str, ip: &str| list.parse::<TrustedProxies>().unwrap().contains(ip.parse().unwrap());
        for ip in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_in("loopback", ip) && is_in("private", ip), "{ip}");
        }
        for ip in ["10.0.0.1", "172.31.0.1", "192.168.0.1", "fd00::1"] {
            assert!(!is_in("loopback", ip) && is_in("private", ip), "{ip}");
        }
        for ip in ["172.32.0.1", "8.8.8.8", "fe80::1", "::2"] {
            assert!(!is_in("private", ip), "{ip}");
        }
        assert!(is_in("0.0.0.0/0", "8.8.8.8") && is_in("::/0", "2001::") && !is_in("::/0", "8.8.8.8"));
        assert!(!TrustedProxies::default().contains("127.0.0.1".parse().unwrap()));
        let both: TrustedProxies = ["loopback", "8.8.8.8"].map(|list| list.parse().unwrap()).into_iter().collect();
        assert!(both.contains("::1".parse().unwrap()) && both.contains("8.8.8.8".parse().unwrap()));
    }

    #[test]
    fn what_is_no_address_of_proxies() {
        for text in [
            "",
            "localhost",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "::/129",
            "10.0.0",
            "10.0.0.1,",
            "*",
            "unix",
        ] {
            assert!(matches!(text.parse::<TrustedProxies>(), Err(BadProxy::Text(_))), "{text}");
        }
        let error = "10.0.0.1/8".parse::<TrustedProxies>().unwrap_err().to_string();
        assert!(error.contains("write 10.0.0.0/8"), "{error}");
    }
}
