//! Addresses to listen on, and the sockets bound there.

mod sockets;

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

pub(crate) use sockets::{Bound, Pool, Sockets, enlarge_buffers, handed_in, handed_in_plain};

/// `HOST:PORT` to listen on. The name `localhost` means both `127.0.0.1` and `[::1]`; `:PORT` alone means every
/// interface, by IPv4 and IPv6; port 0 takes a free port, the same one for all its sockets.
///
/// ```
/// use h3cast_transport::Listen;
///
/// let listen: Listen = "[::]:4433".parse()?;
/// assert_eq!(listen, "[::]:4433".parse()?);
/// assert!(":4433".parse::<Listen>()?.is_everywhere());
/// assert!("example.com".parse::<Listen>().is_err());
/// # Ok::<(), h3cast_transport::listen::BadListen>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    host: String,
    port: u16,
}

/// A text is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address to listen on: write HOST:PORT, as in localhost:4433, 192.0.2.1:443 or [::1]:0, or :PORT for every interface, with a port from 0 to 65535"
)]
pub struct BadListen(String);

impl FromStr for Listen {
    type Err = BadListen;

    fn from_str(text: &str) -> Result<Self, BadListen> {
        let bad = || BadListen(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.strip_suffix(']').filter(|v6| v6.parse::<Ipv6Addr>().is_ok()).ok_or_else(bad)?,
            None => host,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.parse::<Ipv6Addr>().is_err() && !host.chars().all(plain) {
            return Err(bad());
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", authority(&self.host), self.port)
    }
}

/// A host as it stands in a URL: IPv6 addresses in brackets.
fn authority(host: &str) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]"),
        Err(_) => host.to_owned(),
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another program listens there.
    #[error("{address} is in use by another program: stop it, or choose another port")]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The host name is not known.
    #[error("cannot find the address of `{host}`")]
    Resolve {
        /// The name.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// Plain HTTP is for this machine alone.
    #[error("{address} is not a loopback address: plain HTTP is served to this machine only")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The system refused for another reason.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A socket that was handed in cannot be used.
    #[error("cannot use the socket that was handed in")]
    Handed(#[source] io::Error),
}

impl Listen {
    /// `localhost` at `port`.
    #[must_use]
    pub fn localhost(port: u16) -> Self {
        Self { host: "localhost".into(), port }
    }

    /// The same host at any free port.
    #[must_use]
    pub fn any_port(&self) -> Self {
        Self { host: self.host.clone(), port: 0 }
    }

    /// Whether it is every interface of the machine, by IPv4 and IPv6.
    #[must_use]
    pub fn is_everywhere(&self) -> bool {
        self.host.is_empty()
    }

    /// The host, without brackets; empty for every interface.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 for any free one.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>, ListenError> {
        if self.is_everywhere() {
            return Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]);
        }
        if self.host == "localhost" {
            // Not as the system resolves it: browsers use both, and Chromium the second first.
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        if let Ok(ip) = self.host.parse() {
            return Ok(vec![ip]);
        }
        let resolve = |source| ListenError::Resolve { host: self.host.clone(), source };
        let mut found: Vec<IpAddr> =
            tokio::net::lookup_host((self.host.as_str(), 0)).await.map_err(resolve)?.map(|at| at.ip()).collect();
        found.sort_unstable();
        found.dedup();
        match found.is_empty() {
            true => Err(resolve(io::ErrorKind::NotFound.into())),
            false => Ok(found),
        }
    }
}

/// The default port for HTTP/3, WebTransport, and HTTP over TLS.
pub const DEFAULT_PORT: u16 = 4433;
/// The default port for plain HTTP on loopback.
pub const DEFAULT_HTTP_PORT: u16 = 8080;

/// Where a server listens, with real ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Addresses {
    /// `HOST:PORT` of each listener for HTTP/3, HTTP/2 and HTTP/1.1 over TLS, as it stands in a
    /// URL. Sockets that were handed in come after the others.
    pub tls: Vec<String>,
    /// `HOST:PORT` of plain HTTP, the first one.
    pub http: Option<String>,
    /// The UDP socket addresses, for HTTP/3 and WebTransport.
    pub udp: Vec<SocketAddr>,
    /// The TCP socket addresses, for HTTP/2 and HTTP/1.1 over TLS.
    pub tcp: Vec<SocketAddr>,
    /// The TCP socket addresses of plain HTTP.
    pub plain: Vec<SocketAddr>,
    /// The TCP socket addresses where plain HTTP is redirected to HTTPS.
    pub redirect: Vec<SocketAddr>,
    /// Plain HTTP was to be elsewhere, where another program listens.
    pub http_moved: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        for (text, host, port) in [
            ("localhost:4433", "localhost", 4433),
            ("0.0.0.0:0", "0.0.0.0", 0),
            ("[::1]:80", "::1", 80),
            ("Example.COM:443", "example.com", 443),
            (":4433", "", 4433),
        ] {
            assert_eq!(text.parse(), Ok(Listen { host: host.into(), port }), "{text}");
        }
        for text in ["", "4433", ":", "localhost", "localhost:", "localhost:99999", "[::1:80", "a b:1", "[x]:1"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
        for text in ["[::1]:80", ":80"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
    }

    #[tokio::test]
    async fn a_port_alone_is_every_interface() {
        let bound = ":0".parse::<Listen>().unwrap().bind(Sockets::UdpAndTcp, &mut Pool::default()).await.unwrap();
        let addresses: Vec<_> = bound.tcp.iter().map(|tcp| tcp.local_addr().unwrap()).collect();
        assert!(addresses.iter().all(|at| at.ip().is_unspecified() && at.port() == bound.port), "{addresses:?}");
        assert_eq!(bound.udp.len(), addresses.len());
        let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(bound.authorities(), shown);
        // Where there is IPv6, it is listened on too.
        let has_v6 = std::net::TcpListener::bind("[::1]:0").is_ok();
        assert_eq!(addresses.iter().any(std::net::SocketAddr::is_ipv6), has_v6);
    }

    #[tokio::test]
    async fn localhost_has_one_port_for_all_its_sockets() {
        let bound = Listen::localhost(0).bind(Sockets::UdpAndTcp, &mut Pool::default()).await.unwrap();
        let ports: Vec<u16> = bound
            .udp
            .iter()
            .map(|udp| udp.local_addr().unwrap().port())
            .chain(bound.tcp.iter().map(|tcp| tcp.local_addr().unwrap().port()))
            .collect();
        assert!(ports.iter().all(|port| *port == bound.port && *port != 0), "{ports:?}");
    }

    #[tokio::test]
    async fn a_port_in_use_is_told() {
        let first = Listen::localhost(0).bind(Sockets::UdpAndTcp, &mut Pool::default()).await.unwrap();
        let again = Listen::localhost(first.port).bind(Sockets::UdpAndTcp, &mut Pool::default()).await.unwrap_err();
        assert!(matches!(again, ListenError::InUse { .. }), "{again}");
    }

    #[tokio::test]
    async fn plain_http_is_for_loopback() {
        let listen: Listen = "0.0.0.0:0".parse().unwrap();
        assert!(matches!(listen.bind_plain(&mut Pool::default()).await, Err(ListenError::NotLoopback { .. })));
    }
}
