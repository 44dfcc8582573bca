//! A UDP socket that one process reads for several, while connections of earlier ones end.
//!
//! When a server is taken over, packets of its connections still come to the same port. The new process reads the
//! socket alone, and tells whose each packet is by its connection id, which names its process ([`Ids`]). Those of
//! others it passes on, each over a pair of Unix sockets of its own, a line. All of them send by themselves.
//!
//! `SO_REUSEPORT` would not do: the system chooses a socket by addresses, so that packets of an old connection came to
//! the new process and the other way round, unless a BPF program were attached, which takes rights and knows no
//! connections that are about to begin.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::unix::net::UnixDatagram,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use quinn::{
    AsyncUdpSocket,
    udp::{EcnCodepoint, RecvMeta},
};
use socket2::SockRef;
use tracing::{debug, trace, warn};

use super::routing::Ids;

/// What a line may hold that the other process has not read yet, in bytes. The system may allow less.
const LINE_BUFFER: usize = 4 << 20;
/// The longest datagram that UDP carries.
const LONGEST: usize = 65_535;
/// How many times the socket is read at once if all that comes is for others.
const ROUNDS: usize = 8;

/// Which process reads the socket: this one.
const OWN: u8 = 0;
/// Another process does, and this one will; or briefly no process does.
const HELD: u8 = 1;
/// Another process does, and passes on what is for this one.
const GIVEN: u8 = 2;
/// No process reads it for this one any more.
const LOST: u8 = 3;

/// A process that has connections on a socket which it does not read.
#[derive(Debug)]
pub(crate) struct Owner {
    ids: Ids,
    line: UnixDatagram,
}

impl Owner {
    /// By what it has written of itself ([`Relay::ids`]); `None` if that is of another version.
    pub(crate) fn new(ids: &[u8], line: UnixDatagram) -> io::Result<Option<Self>> {
        line.set_nonblocking(true)?;
        // What the system refuses, it has refused.
        let _ = SockRef::from(&line).set_send_buffer_size(LINE_BUFFER);
        Ok(Ids::from_bytes(ids).map(|ids| Self { ids, line }))
    }

    pub(crate) fn process(&self) -> u8 {
        self.ids.process()
    }

    /// The same, for a process that takes over.
    pub(crate) fn to_parts(&self) -> io::Result<(Vec<u8>, UnixDatagram)> {
        Ok((self.ids.to_bytes(), self.line.try_clone()?))
    }
}

/// What other processes have to do with a socket.
#[derive(Debug)]
pub(crate) struct Relay {
    /// For other processes.
    socket: UdpSocket,
    ids: Ids,
    state: AtomicU8,
    /// Those whose packets come here.
    owners: RwLock<Vec<Owner>>,
    has_owners: AtomicBool,
    /// Once the socket was left to another process.
    given: Mutex<Option<Given>>,
    reader: AtomicWaker,
}

/// How packets come that another process reads.
#[derive(Debug)]
struct Given {
    line: tokio::net::UnixDatagram,
    /// What the next one is read into.
    scratch: Vec<u8>,
}

/// A line: where packets are written, and where they are read. Each end is told when the other is closed, which on
/// Linux pairs of datagram sockets are not; and the number of messages that wait is bounded by their size alone, not
/// by `net.unix.max_dgram_qlen`. For what is done with it, it is the same.
#[cfg(target_os = "linux")]
pub(crate) fn line() -> io::Result<(UnixDatagram, UnixDatagram)> {
    let (write, read) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None)?;
    let datagrams = |socket| UnixDatagram::from(std::os::fd::OwnedFd::from(socket));
    Ok((datagrams(write), datagrams(read)))
}

/// A line: where packets are written, and where they are read.
#[cfg(not(target_os = "linux"))]
pub(crate) fn line() -> io::Result<(UnixDatagram, UnixDatagram)> {
    UnixDatagram::pair()
}

impl Relay {
    pub(super) fn new(socket: &UdpSocket, ids: Ids, owners: Option<Vec<Owner>>) -> io::Result<Self> {
        let state = if owners.is_some() { HELD } else { OWN };
        let owners = owners.unwrap_or_default();
        Ok(Self {
            socket: socket.try_clone()?,
            ids,
            state: state.into(),
            has_owners: (!owners.is_empty()).into(),
            owners: owners.into(),
            given: Mutex::default(),
            reader: AtomicWaker::new(),
        })
    }

    /// The socket, for a process that takes over.
    pub(crate) fn socket(&self) -> io::Result<UdpSocket> {
        self.socket.try_clone()
    }

    /// What another process recognises packets of this one by.
    pub(crate) fn ids(&self) -> Vec<u8> {
        self.ids.to_bytes()
    }

    /// Those whose packets come here, for a process that takes over.
    pub(crate) fn owners(&self) -> io::Result<Vec<(Vec<u8>, UnixDatagram)>> {
        self.owners.read().unwrap_or_else(PoisonError::into_inner).iter().map(Owner::to_parts).collect()
    }

    /// Stops reading for a moment.
    pub(crate) fn pause(&self) {
        let _ = self.state.compare_exchange(OWN, HELD, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Begins to read.
    pub(crate) fn open(&self) {
        if self.state.compare_exchange(HELD, OWN, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.reader.wake();
        }
    }

    /// Leaves reading to another process, which passes packets on over this line. It can be left to one only: two that
    /// read a socket would each get what is for the other's clients.
    pub(crate) fn give(&self, line: UnixDatagram) -> io::Result<()> {
        line.set_nonblocking(true)?;
        let _ = SockRef::from(&line).set_recv_buffer_size(LINE_BUFFER);
        let line = tokio::net::UnixDatagram::from_std(line)?;
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.is_some() {
            return Err(io::Error::other("another server has taken over this socket before"));
        }
        *given = Some(Given { line, scratch: Vec::new() });
        self.state.store(GIVEN, Ordering::Release);
        drop(given);
        self.reader.wake();
        Ok(())
    }

    /// Whether another process reads the socket now.
    pub(crate) fn is_given(&self) -> bool {
        self.state.load(Ordering::Acquire) >= GIVEN
    }

    pub(super) fn poll_recv(
        &self,
        socket: &dyn AsyncUdpSocket,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        for _ in 0..ROUNDS {
            let state = self.state.load(Ordering::Acquire);
            let count = match state {
                OWN => match socket.poll_recv(cx, bufs, meta) {
                    Poll::Ready(received) => received?,
                    Poll::Pending => {
                        self.reader.register(cx.waker());
                        match self.state.load(Ordering::Acquire) == state {
                            true => return Poll::Pending,
                            false => continue,
                        }
                    }
                },
                GIVEN => return self.poll_line(cx, bufs, meta),
                _ => {
                    self.reader.register(cx.waker());
                    match self.state.load(Ordering::Acquire) == state {
                        true => return Poll::Pending,
                        false => continue,
                    }
                }
            };
            if !self.has_owners.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(count));
            }
            let count = self.pass_on(bufs, meta, count);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Passes on what is for others. How many of the buffers are left, which come first then.
    fn pass_on(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta], count: usize) -> usize {
        let (mut kept, mut gone) = (0, Vec::new());
        let owners = self.owners.read().unwrap_or_else(PoisonError::into_inner);
        for at in 0..count {
            // Several packets, of which all but the last have one length.
            let (buf, about) = (&mut bufs[at], &mut meta[at]);
            let (stride, end, mut left) = (about.stride.max(1), about.len, 0);
            for start in (0..end).step_by(stride) {
                let packet = start..end.min(start + stride);
                match self.owner_of(&owners, &buf[packet.clone()]) {
                    Some(owner) => {
                        if !send(&owners[owner].line, about, &buf[packet]) {
                            gone.push(owners[owner].process());
                        }
                    }
                    None => {
                        let length = packet.len();
                        buf.copy_within(packet, left);
                        left += length;
                    }
                }
            }
            about.len = left;
            if left > 0 {
                bufs.swap(kept, at);
                meta.swap(kept, at);
                kept += 1;
            }
        }
        drop(owners);
        if !gone.is_empty() {
            self.forget(&gone);
        }
        kept
    }

    /// Whose a packet is, if it is not this process's.
    fn owner_of(&self, owners: &[Owner], packet: &[u8]) -> Option<usize> {
        if self.ids.process_of_packet(packet) == Some(self.ids.process()) {
            return None;
        }
        owners.iter().position(|owner| owner.ids.process_of_packet(packet) == Some(owner.process()))
    }

    /// Processes that have ended: their clients get a stateless reset with their next packet.
    fn forget(&self, gone: &[u8]) {
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        owners.retain(|owner| !gone.contains(&owner.process()));
        self.has_owners.store(!owners.is_empty(), Ordering::Relaxed);
        debug!("an earlier process that had connections has ended");
    }

    /// No process reads the socket for this one any more.
    fn lose(&self, why: &str) {
        self.state.store(LOST, Ordering::Release);
        warn!("packets of the QUIC connections that are left here do not come any more, so they time out: {why}");
    }

    /// Reads what another process has passed on.
    fn poll_line(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Given { line, scratch }) = &mut *given else { return Poll::Pending };
        scratch.resize(Head::LEN + LONGEST, 0);
        loop {
            let (mut count, most) = (0, bufs.len().min(meta.len()));
            while count < most {
                let length = match line.try_recv(scratch) {
                    // No message is empty: this is the end.
                    Ok(0) => {
                        self.lose("the server that took over has ended");
                        break;
                    }
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        self.lose(&error.to_string());
                        break;
                    }
                };
                let Some((about, packet)) = Head::read(&scratch[..length]) else { continue };
                // Longer than what the engine reads.
                let Some(room) = bufs[count].get_mut(..packet.len()) else { continue };
                room.copy_from_slice(packet);
                meta[count] = about;
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            if self.state.load(Ordering::Acquire) == LOST {
                return Poll::Pending;
            }
            ready!(line.poll_recv_ready(cx))?;
        }
    }
}

/// Passes a packet on. Whether it can still be read: a full line loses packets, as the network does.
fn send(line: &UnixDatagram, about: &RecvMeta, packet: &[u8]) -> bool {
    let message = [&Head::written(about)[..], packet].concat();
    match line.send(&message) {
        Ok(_) => true,
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory | io::ErrorKind::Interrupted => {
                trace!("a line is full");
                true
            }
            // For one packet that cannot be sent, its connection is not given up.
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

/// What is known of one packet.
fn about(addr: SocketAddr, to: Option<IpAddr>, ecn: Option<EcnCodepoint>, length: usize) -> RecvMeta {
    RecvMeta { addr, len: length, stride: length, ecn, dst_ip: to }
}

/// What is known of a packet, before it on a line: from where, to which address, congestion on its way.
struct Head;

impl Head {
    const LEN: usize = 1 + 16 + 2 + 4 + 1 + 16;
    /// The sender has an IPv4 address.
    const V4: u8 = 1;
    /// The address to which it was sent is known; it is an IPv4 address.
    const TO: u8 = 2;
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
    use quinn_proto::ConnectionIdGenerator;

    fn ids(process: u8) -> Ids {
        Ids::new(None, [1; 32], process)
    }

    fn about(addr: &str, to: Option<&str>, len: usize, stride: usize) -> RecvMeta {
        let to = to.map(|to| to.parse().unwrap());
        RecvMeta { stride, ..super::about(addr.parse().unwrap(), to, EcnCodepoint::from_bits(0b10), len) }
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
            let about = about(addr, to, 3, 3);
            let message = [&Head::written(&about)[..], b"abc"].concat();
            let (read, packet) = Head::read(&message).unwrap();
            assert_eq!(
                (read.addr, read.dst_ip, read.ecn, read.len, packet),
                (about.addr, about.dst_ip, about.ecn, 3, &b"abc"[..])
            );
        }
        assert!(Head::read(&[0; Head::LEN]).is_none());
        assert!(Head::read(&[0; 3]).is_none());
    }

    /// The system may give packets of several connections of one client at once.
    #[test]
    fn packets_are_sorted_by_their_connections() {
        let (mut own, mut old, mut older) = (ids(3), ids(2), ids(1));
        let (lines, ends): (Vec<_>, Vec<_>) = (0..2).map(|_| line().unwrap()).unzip();
        let owners = [old.clone(), older.clone()]
            .into_iter()
            .zip(lines)
            .map(|(ids, line)| Owner::new(&ids.to_bytes(), line).unwrap().unwrap());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let relay = Relay::new(&socket, own.clone(), Some(owners.collect())).unwrap();
        let packet = |id: quinn_proto::ConnectionId, payload: u8| [&[0x40], &*id, &[payload; 3]].concat();
        let mut first = [packet(own.generate_cid(), 1), packet(old.generate_cid(), 2), packet(own.generate_cid(), 3)];
        // The last one is shorter.
        first[2].pop();
        let second = [packet(older.generate_cid(), 4), packet(old.generate_cid(), 5)];
        let third = [b"what is for nobody".to_vec()];
        let mut buffers = [first.concat(), second.concat(), third.concat()];
        let strides = [12, 12, 18];
        let mut meta: Vec<_> =
            buffers.iter().zip(strides).map(|(buf, stride)| about("192.0.2.1:1", None, buf.len(), stride)).collect();
        let mut bufs: Vec<_> = buffers.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
        assert_eq!(relay.pass_on(&mut bufs, &mut meta, 3), 2);
        assert_eq!(bufs[0][..meta[0].len], [&first[0][..], &first[2]].concat());
        assert_eq!(&bufs[1][..meta[1].len], b"what is for nobody");
        for (end, expected) in ends.iter().zip([vec![&first[1], &second[1]], vec![&second[0]]]) {
            for packet in expected {
                let mut message = [0; 99];
                let length = end.recv(&mut message).unwrap();
                assert_eq!(Head::read(&message[..length]).unwrap().1, packet);
            }
        }
        // One of them has ended.
        drop(ends);
        let mut one = packet(old.generate_cid(), 6);
        let mut meta = [about("192.0.2.1:1", None, one.len(), 12)];
        assert_eq!(relay.pass_on(&mut [IoSliceMut::new(&mut one)], &mut meta, 1), 0);
        assert_eq!(relay.owners().unwrap().len(), 1);
    }

    /// Two servers do not read one socket.
    #[tokio::test]
    async fn a_socket_is_left_to_one_server() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let relay = Relay::new(&socket, ids(1), None).unwrap();
        let ((_to, line_to_first), (_other, line_to_second)) = (line().unwrap(), line().unwrap());
        relay.give(line_to_first).unwrap();
        assert!(relay.give(line_to_second).is_err());
    }

    #[tokio::test]
    async fn the_end_of_the_server_that_reads_is_noticed() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let relay = Relay::new(&socket, ids(1), None).unwrap();
        let (write, read) = line().unwrap();
        relay.give(read).unwrap();
        write.send(&[&Head::written(&about("192.0.2.1:1", None, 3, 3))[..], b"abc"].concat()).unwrap();
        drop(write);
        let mut buffer = [0; 9];
        let received = std::future::poll_fn(|cx| {
            relay.poll_line(cx, &mut [IoSliceMut::new(&mut buffer)], &mut [RecvMeta::default()])
        });
        assert_eq!(received.await.unwrap(), 1, "what was passed on before that comes");
        std::future::poll_fn(|cx| {
            let polled = relay.poll_line(cx, &mut [IoSliceMut::new(&mut buffer)], &mut [RecvMeta::default()]);
            assert!(polled.is_pending());
            match relay.state.load(Ordering::Acquire) {
                LOST => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
        assert_eq!(&buffer[..3], b"abc");
    }
}
