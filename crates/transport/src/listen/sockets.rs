//! Sockets that are bound, all or none, and those that are handed in.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tracing::warn;

use super::{Listen, ListenError, authority};

/// The sockets of one [`Listen`].
#[derive(Debug)]
pub(crate) struct Bound {
    /// Its host as it stands in a URL, and its real port.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) udp: Vec<UdpSocket>,
    pub(crate) tcp: Vec<TcpListener>,
}

impl Bound {
    fn new(host: String, port: u16) -> Self {
        Self { host, port, udp: Vec::new(), tcp: Vec::new() }
    }

    /// The one at an address.
    fn at(all: &mut Vec<Self>, address: SocketAddr) -> &mut Self {
        let (host, port) = (authority(&address.ip().to_string()), address.port());
        let place = all.iter().position(|bound| bound.host == host && bound.port == port);
        let place = place.unwrap_or_else(|| {
            all.push(Self::new(host, port));
            all.len() - 1
        });
        &mut all[place]
    }

    /// As it stands in a URL; of every interface, the wildcard address of each family that is bound.
    pub(crate) fn authorities(&self) -> Vec<String> {
        if !self.host.is_empty() {
            return vec![format!("{}:{}", self.host, self.port)];
        }
        let tcp = self.tcp.iter().filter_map(|tcp| tcp.local_addr().ok());
        let mut all: Vec<_> = tcp.chain(self.udp.iter().filter_map(|udp| udp.local_addr().ok())).collect();
        all.sort_unstable();
        all.dedup();
        all.iter().map(ToString::to_string).collect()
    }
}

/// What is to be bound at each address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// HTTP/3 on UDP, and HTTP/2 and 1.1 on TCP.
    UdpAndTcp,
    /// HTTP/3 alone.
    Udp,
    /// HTTP/2 and 1.1 alone.
    Tcp,
}

impl Sockets {
    fn has_udp(self) -> bool {
        self != Self::Tcp
    }

    fn has_tcp(self) -> bool {
        self != Self::Udp
    }
}

/// Sockets of another process, to be used instead of binding their addresses again.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(crate) udp: Vec<UdpSocket>,
    pub(crate) tcp: Vec<TcpListener>,
}

impl Pool {
    fn take<T>(sockets: &mut Vec<T>, is_at: impl Fn(&T) -> bool) -> Option<T> {
        let at = sockets.iter().position(is_at)?;
        Some(sockets.swap_remove(at))
    }

    fn take_udp(&mut self, at: SocketAddr) -> Option<UdpSocket> {
        Self::take(&mut self.udp, |udp| udp.local_addr().is_ok_and(|bound| bound == at))
    }

    fn take_tcp(&mut self, at: SocketAddr) -> Option<TcpListener> {
        Self::take(&mut self.tcp, |tcp| tcp.local_addr().is_ok_and(|bound| bound == at))
    }
}

/// With port 0: how often to try when the free port of one socket is taken for another. The
/// sockets stay bound, so that nothing is probed and let go.
const PORT_TRIES: usize = 32;

/// The UDP buffers that are asked for, in bytes. With the usual 208 KiB, 500 simultaneous
/// handshakes lose a tenth of their packets.
const UDP_BUFFER: usize = 4 << 20;

impl Listen {
    /// Binds every address of it, or none.
    pub(crate) async fn bind(&self, sockets: Sockets, pool: &mut Pool) -> Result<Bound, ListenError> {
        self.bind_all(&self.addresses().await?, sockets, pool)
    }

    /// The same for plain HTTP.
    pub(crate) async fn bind_plain(&self, pool: &mut Pool) -> Result<Bound, ListenError> {
        let addresses = self.addresses().await?;
        for ip in &addresses {
            loopback((*ip, self.port).into())?;
        }
        self.bind_all(&addresses, Sockets::Tcp, pool)
    }

    fn bind_all(&self, addresses: &[IpAddr], sockets: Sockets, pool: &mut Pool) -> Result<Bound, ListenError> {
        let mut tries = if self.port == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            match self.bind_once(addresses, sockets, pool) {
                Err(ListenError::InUse { .. }) if tries > 0 => {}
                other => return other,
            }
        }
    }

    fn bind_once(&self, addresses: &[IpAddr], sockets: Sockets, pool: &mut Pool) -> Result<Bound, ListenError> {
        let mut bound = Bound::new(authority(&self.host), self.port);
        for ip in addresses {
            let address = SocketAddr::new(*ip, bound.port);
            match bind_at(address, sockets, pool) {
                Ok((port, udp, tcp)) => {
                    bound.port = port;
                    bound.udp.extend(udp);
                    bound.tcp.extend(tcp);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(ListenError::InUse { address }),
                // A machine without IPv6 still has a localhost.
                Err(error) if no_such_address(&error) && addresses.len() > 1 => {
                    warn!(%address, %error, "not listening there");
                }
                Err(source) => return Err(ListenError::Bind { address, source }),
            }
        }
        match bound.tcp.is_empty() && bound.udp.is_empty() {
            true => Err(ListenError::Bind {
                address: SocketAddr::new(addresses[0], self.port),
                source: io::ErrorKind::AddrNotAvailable.into(),
            }),
            false => Ok(bound),
        }
    }
}

/// Plain HTTP is served to this machine only.
fn loopback(address: SocketAddr) -> Result<(), ListenError> {
    match address.ip().to_canonical().is_loopback() {
        true => Ok(()),
        false => Err(ListenError::NotLoopback { address }),
    }
}

/// Sockets that the application bound, or was given by what started it, for TLS and QUIC: by address.
pub(crate) fn handed_in(udp: Vec<UdpSocket>, tcp: Vec<TcpListener>) -> Result<Vec<Bound>, ListenError> {
    let mut all = Vec::new();
    for socket in udp {
        socket.set_nonblocking(true).map_err(ListenError::Handed)?;
        enlarge_buffers(&SockRef::from(&socket));
        let address = socket.local_addr().map_err(ListenError::Handed)?;
        Bound::at(&mut all, address).udp.push(socket);
    }
    for listener in tcp {
        listener.set_nonblocking(true).map_err(ListenError::Handed)?;
        let address = listener.local_addr().map_err(ListenError::Handed)?;
        Bound::at(&mut all, address).tcp.push(listener);
    }
    Ok(all)
}

/// The same for plain HTTP.
pub(crate) fn handed_in_plain(listeners: Vec<TcpListener>) -> Result<Vec<Bound>, ListenError> {
    let all = handed_in(Vec::new(), listeners)?;
    for listener in all.iter().flat_map(|bound| &bound.tcp) {
        loopback(listener.local_addr().map_err(ListenError::Handed)?)?;
    }
    Ok(all)
}

fn no_such_address(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no kind of its own.
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(97)
}

/// Binds what is wanted, all at the port that the first has got.
fn bind_at(
    mut address: SocketAddr,
    sockets: Sockets,
    pool: &mut Pool,
) -> io::Result<(u16, Option<UdpSocket>, Option<TcpListener>)> {
    let domain = Domain::for_address(address);
    let (mut udp, mut tcp) = (None, None);
    if sockets.has_tcp() {
        tcp = pool.take_tcp(address);
    }
    if sockets.has_udp() {
        udp = pool.take_udp(address);
    }
    if sockets.has_tcp() && tcp.is_none() {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A restarted server must not wait for connections of its predecessor. On Windows the option
        // would let two servers share a port.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from(socket);
        address.set_port(listener.local_addr()?.port());
        tcp = Some(listener);
    }
    if sockets.has_udp() && udp.is_none() {
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        enlarge_buffers(&socket);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        address.set_port(socket.local_addr()?.port());
        udp = Some(socket);
    }
    Ok((address.port(), udp, tcp))
}

/// Asks for large buffers, and logs it when the system gives less.
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
