//! Packets that one process passes on to another: lines, and what is written on them.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::unix::net::UnixDatagram,
};

use quinn::udp::{EcnCodepoint, RecvMeta};
use tracing::trace;

/// How many bytes may wait on a line for the other process to read them. The system may allow less.
pub(super) const BUFFER: usize = 4 << 20;
/// The longest datagram that UDP carries, after what precedes it on a line.
pub(super) const LONGEST_MESSAGE: usize = Head::LEN + 65_535;

/// A line: the end where packets are written, and the one where they are read. Of a pair of datagram sockets, Linux does
/// not tell one end that the other is closed, and bounds the number of messages that wait (`net.unix.max_dgram_qlen`).
/// Sequenced packets have neither fault, and are used in the same way.
#[cfg(target_os = "linux")]
pub(crate) fn line() -> io::Result<(UnixDatagram, UnixDatagram)> {
    let (write, read) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None)?;
    let datagrams = |socket| UnixDatagram::from(std::os::fd::OwnedFd::from(socket));
    Ok((datagrams(write), datagrams(read)))
}

/// A line: the end where packets are written, and the one where they are read.
#[cfg(not(target_os = "linux"))]
pub(crate) fn line() -> io::Result<(UnixDatagram, UnixDatagram)> {
    UnixDatagram::pair()
}

/// A packet as it is written on a line.
pub(super) fn message(about: &RecvMeta, packet: &[u8]) -> Vec<u8> {
    [&Head::written(about)[..], packet].concat()
}

/// A packet from a line.
pub(super) fn read(message: &[u8]) -> Option<(RecvMeta, &[u8])> {
    Head::read(message)
}

/// Whether the process that reads a line has ended, as far as the system tells: the end where packets are written gets
/// none.
pub(super) fn has_ended(line: &UnixDatagram) -> bool {
    cfg!(target_os = "linux") && matches!(line.recv(&mut [0]), Ok(0))
}

/// Writes a packet, and returns whether there still is a process to read it. A full line loses packets, as the network
/// does.
pub(super) fn send(line: &UnixDatagram, about: &RecvMeta, packet: &[u8]) -> bool {
    match line.send(&message(about, packet)) {
        Ok(_) => true,
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory | io::ErrorKind::Interrupted => {
                trace!("a line is full");
                true
            }
            // The process has ended. For any other error, its connections are not given up.
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotConnected => false,
            _ => {
                trace!(%error, "a packet is not passed on");
                true
            }
        },
    }
}

/// What the engine needs to know about one packet.
pub(super) fn about(addr: SocketAddr, to: Option<IpAddr>, ecn: Option<EcnCodepoint>, length: usize) -> RecvMeta {
    RecvMeta { addr, len: length, stride: length, ecn, dst_ip: to }
}

/// Where a packet comes from, the address to which it was sent, and congestion on its way: what precedes it on a line.
struct Head;

impl Head {
    const LEN: usize = 1 + 16 + 2 + 4 + 1 + 16;
    /// Flag: the sender has an IPv4 address.
    const V4: u8 = 1;
    /// Flag: the address to which it was sent is known.
    const TO: u8 = 2;
    /// Flag: that one is an IPv4 address.
    const TO_V4: u8 = 4;

    fn written(about: &RecvMeta) -> [u8; Self::LEN] {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let scope = if let SocketAddr::V6(v6) = about.addr { v6.scope_id() } else { 0 };
        let flags = if about.addr.is_ipv4() { Self::V4 } else { 0 }
            | about.dst_ip.map_or(0, |to| Self::TO | if to.is_ipv4() { Self::TO_V4 } else { 0 });
        let mut head = [0; Self::LEN];
        head[0] = flags;
        head[1..17].copy_from_slice(&octets(about.addr.ip()));
        head[17..19].copy_from_slice(&about.addr.port().to_be_bytes());
        head[19..23].copy_from_slice(&scope.to_be_bytes());
        head[23] = about.ecn.map_or(0, |ecn| ecn as u8);
        head[24..40].copy_from_slice(&about.dst_ip.map_or([0; 16], octets));
        head
    }

    fn read(message: &[u8]) -> Option<(RecvMeta, &[u8])> {
        let (head, packet) = message.split_first_chunk::<{ Self::LEN }>()?;
        let ip = |at: usize, is_v4: bool| {
            let octets: [u8; 16] = head[at..at + 16].try_into().ok()?;
            let v6 = Ipv6Addr::from(octets);
            Some(if is_v4 { IpAddr::V4(v6.to_ipv4_mapped()?) } else { IpAddr::V6(v6) })
        };
        let flags = head[0];
        let port = u16::from_be_bytes([head[17], head[18]]);
        let scope = u32::from_be_bytes([head[19], head[20], head[21], head[22]]);
        let addr = match ip(1, flags & Self::V4 != 0)? {
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
            ip => SocketAddr::new(ip, port),
        };
        let to = if flags & Self::TO != 0 { Some(ip(24, flags & Self::TO_V4 != 0)?) } else { None };
        let about = about(addr, to, EcnCodepoint::from_bits(head[23]), packet.len());
        (!packet.is_empty()).then_some((about, packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(addr: &str, to: Option<&str>) -> RecvMeta {
        super::about(addr.parse().unwrap(), to.map(|to| to.parse().unwrap()), EcnCodepoint::from_bits(0b10), 3)
    }

    #[test]
    fn what_is_known_of_a_packet_stays_known() {
        for (addr, to) in [
            ("192.0.2.1:443", None),
            ("192.0.2.1:443", Some("192.0.2.9")),
            ("[2001:db8::1]:1", Some("2001:db8::2")),
            ("[::ffff:192.0.2.1]:65535", Some("::ffff:192.0.2.9")),
            ("[fe80::1%3]:9", Some("fe80::2")),
        ] {
            let (about, message) = (about(addr, to), message(&about(addr, to), b"abc"));
            let (read, packet) = read(&message).unwrap();
            assert_eq!(
                (read.addr, read.dst_ip, read.ecn, read.len, packet),
                (about.addr, about.dst_ip, about.ecn, 3, &b"abc"[..])
            );
        }
        assert!(read(&[0; Head::LEN]).is_none());
        assert!(read(&[0; 3]).is_none());
    }
}
