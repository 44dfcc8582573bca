//! Addresses to listen on, and the sockets bound there.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    str::FromStr,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tracing::warn;

/// `HOST:PORT` to listen on. The name `localhost` means both `127.0.0.1` and `[::1]`; port 0 takes
/// a free port, the same one for all its sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    host: String,
    port: u16,
}

/// A text is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address to listen on: write HOST:PORT, as in localhost:4433, 0.0.0.0:443 or [::1]:0")]
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
        if host.is_empty() || (host.parse::<Ipv6Addr>().is_err() && !host.chars().all(plain)) {
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
    #[error("{address} is in use by another program: stop it, or choose another port with {flag}")]
    InUse {
        /// The address.
        address: SocketAddr,
        /// The option that chooses it.
        flag: &'static str,
    },
    /// The host name is not known.
    #[error("cannot find the address of `{host}`: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// Plain HTTP is for this machine alone.
    #[error(
        "{address} is not a loopback address: plain HTTP is served to this machine only, choose localhost:PORT or `off` for {flag}"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
        /// The option that chooses it.
        flag: &'static str,
    },
    /// The system refused for another reason.
    #[error("cannot listen on {address}: {source} (choose another address with {flag})")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The option that chooses it.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The sockets of one [`Listen`].
#[derive(Debug)]
pub(crate) struct Bound {
    /// Its host as it stands in a URL, and its real port.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) udp: Vec<UdpSocket>,
    pub(crate) tcp: Vec<TcpListener>,
}

/// What is to be bound at each address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// HTTP/3 on UDP, and HTTP/2 and 1.1 on TCP.
    UdpAndTcp,
    /// HTTP/3 alone.
    Udp,
    /// Plain HTTP.
    Tcp,
}

/// With port 0: how often to try when the free port of one socket is taken for another. The
/// sockets stay bound, so that nothing is probed and let go.
const PORT_TRIES: usize = 32;

/// The UDP buffers that are asked for, in bytes. With the usual 208 KiB, 500 simultaneous
/// handshakes lose a tenth of their packets.
const UDP_BUFFER: usize = 4 << 20;

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

    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>, ListenError> {
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

    pub(crate) async fn bind(&self, sockets: Sockets, flag: &'static str) -> Result<Bound, ListenError> {
        let addresses = self.addresses().await?;
        if sockets == Sockets::Tcp
            && let Some(ip) = addresses.iter().find(|ip| !ip.is_loopback())
        {
            return Err(ListenError::NotLoopback { address: (*ip, self.port).into(), flag });
        }
        let mut tries = if self.port == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            match self.bind_once(&addresses, sockets, flag) {
                Err(ListenError::InUse { .. }) if tries > 0 => {}
                other => return other,
            }
        }
    }

    fn bind_once(&self, addresses: &[IpAddr], sockets: Sockets, flag: &'static str) -> Result<Bound, ListenError> {
        let mut bound = Bound { host: authority(&self.host), port: self.port, udp: Vec::new(), tcp: Vec::new() };
        for ip in addresses {
            let address = SocketAddr::new(*ip, bound.port);
            match bind_at(address, sockets) {
                Ok((port, udp, tcp)) => {
                    bound.port = port;
                    bound.udp.extend(udp);
                    bound.tcp.extend(tcp);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(ListenError::InUse { address, flag });
                }
                // A machine without IPv6 still has a localhost.
                Err(error) if no_such_address(&error) && addresses.len() > 1 => {
                    warn!(%address, %error, "not listening there");
                }
                Err(source) => return Err(ListenError::Bind { address, flag, source }),
            }
        }
        match bound.tcp.is_empty() && bound.udp.is_empty() {
            true => Err(ListenError::Bind {
                address: SocketAddr::new(addresses[0], self.port),
                flag,
                source: io::ErrorKind::AddrNotAvailable.into(),
            }),
            false => Ok(bound),
        }
    }
}

fn no_such_address(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no kind of its own.
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(97)
}

fn bind_at(address: SocketAddr, sockets: Sockets) -> io::Result<(u16, Option<UdpSocket>, Option<TcpListener>)> {
    let tcp = if sockets == Sockets::Udp { None } else { Some(bind_tcp(address)?) };
    // With port 0, both get the same.
    let port = tcp.as_ref().map_or(Ok(address.port()), |tcp| tcp.local_addr().map(|at| at.port()))?;
    if sockets == Sockets::Tcp {
        return Ok((port, None, tcp));
    }
    let udp = bind_udp(SocketAddr::new(address.ip(), port))?;
    Ok((udp.local_addr()?.port(), Some(udp), tcp))
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let tcp = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        tcp.set_only_v6(true)?;
    }
    // A restarted server must not wait for connections of its predecessor. On Windows the option
    // would let two servers share a port.
    #[cfg(unix)]
    tcp.set_reuse_address(true)?;
    tcp.bind(&address.into())?;
    tcp.listen(1024)?;
    tcp.set_nonblocking(true)?;
    Ok(tcp.into())
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let udp = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        udp.set_only_v6(true)?;
    }
    enlarge_buffers(&udp);
    udp.set_nonblocking(true)?;
    udp.bind(&address.into())?;
    Ok(udp.into())
}

/// Asks for large buffers, and says so when the system gives less.
pub(crate) fn enlarge_buffers(socket: &Socket) {
    // What the system refuses shows in what it gives.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_BUFFER);
    let given = SockRef::from(socket).recv_buffer_size().unwrap_or_default();
    if given < UDP_BUFFER {
        tracing::info!(
            given,
            wanted = UDP_BUFFER,
            "the system limits the UDP receive buffer: with hundreds of viewers connecting at once, raise net.core.rmem_max"
        );
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
    /// URL.
    pub tls: Vec<String>,
    /// `HOST:PORT` of plain HTTP.
    pub http: Option<String>,
    /// The UDP socket addresses, for HTTP/3 and WebTransport.
    pub udp: Vec<SocketAddr>,
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
        ] {
            assert_eq!(text.parse(), Ok(Listen { host: host.into(), port }), "{text}");
        }
        for text in ["", "4433", ":4433", "localhost", "localhost:", "localhost:99999", "[::1:80", "a b:1", "[x]:1"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
        assert_eq!("[::1]:80".parse::<Listen>().unwrap().to_string(), "[::1]:80");
    }

    #[tokio::test]
    async fn localhost_has_one_port_for_all_its_sockets() {
        let bound = Listen::localhost(0).bind(Sockets::UdpAndTcp, "--listen").await.unwrap();
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
        let first = Listen::localhost(0).bind(Sockets::UdpAndTcp, "--listen").await.unwrap();
        let again = Listen::localhost(first.port).bind(Sockets::UdpAndTcp, "--listen").await.unwrap_err();
        assert!(matches!(again, ListenError::InUse { .. }), "{again}");
        assert!(again.to_string().contains("--listen"), "{again}");
    }

    #[tokio::test]
    async fn plain_http_is_for_loopback() {
        let listen: Listen = "0.0.0.0:0".parse().unwrap();
        assert!(matches!(listen.bind(Sockets::Tcp, "--http").await, Err(ListenError::NotLoopback { .. })));
    }
}
