//! A UDP socket that one process reads for several, while connections of earlier ones end.
//!
//! After a server has been taken over, packets of its connections still arrive at the same port. Only the new process
//! reads the socket. It finds the process that a packet belongs to by the connection id, which names it ([`Ids`]), and
//! passes the packet on over a [line](packet::line) to that process. Every process sends by itself.
//!
//! `SO_REUSEPORT` does not help: the system chooses a socket by addresses, so packets of old connections would reach
//! the new process, and the other way round. A BPF program could sort them, but needs privileges, and does not know
//! connections that are about to begin.

mod packet;

use std::{
    io::{self, IoSliceMut},
    net::UdpSocket,
    os::unix::net::UnixDatagram,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use quinn::{AsyncUdpSocket, udp::RecvMeta};
use socket2::SockRef;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub(crate) use self::packet::line;
use super::routing::Ids;

/// How many reads in a row may bring packets of other processes only, before others get their turn.
const ROUNDS: usize = 8;

// The state of a socket.
/// This process reads it.
const OWN: u8 = 0;
/// This process does not read it yet, or pauses.
const HELD: u8 = 1;
/// Another process reads it, and passes on the packets of this one's connections.
const GIVEN: u8 = 2;
/// The process that read it for this one has ended.
const LOST: u8 = 3;

/// A process that has connections on a socket without reading it.
#[derive(Debug)]
pub(crate) struct Owner {
    ids: Ids,
    line: UnixDatagram,
}

impl Owner {
    /// From what it states about itself ([`Relay::ids`]); `None` if that is of another version.
    pub(crate) fn new(ids: &[u8], line: UnixDatagram) -> io::Result<Option<Self>> {
        line.set_nonblocking(true)?;
        // A smaller buffer works too.
        let _ = SockRef::from(&line).set_send_buffer_size(packet::BUFFER);
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

/// A socket that other processes have read, or will.
#[derive(Debug)]
pub(crate) struct Relay {
    /// A duplicate, for other processes.
    socket: UdpSocket,
    ids: Ids,
    state: AtomicU8,
    /// Processes whose packets arrive here.
    owners: RwLock<Vec<Owner>>,
    has_owners: AtomicBool,
    /// Set when the socket has been left to another process.
    given: Mutex<Option<Given>>,
    reader: AtomicWaker,
    /// Cancelled when no process reads the socket for this one any more.
    lost: CancellationToken,
}

/// How this process gets its packets when another one reads the socket.
#[derive(Debug)]
struct Given {
    line: tokio::net::UnixDatagram,
    /// What the next one is read into.
    scratch: Vec<u8>,
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
            lost: CancellationToken::new(),
        })
    }

    /// The socket, for a process that takes over.
    pub(crate) fn socket(&self) -> io::Result<UdpSocket> {
        self.socket.try_clone()
    }

    /// By what another process recognises packets of this one.
    pub(crate) fn ids(&self) -> Vec<u8> {
        self.ids.to_bytes()
    }

    /// The processes whose packets arrive here, for one that takes over. Those that have ended are forgotten first: with
    /// each hand-over there would be one more.
    pub(crate) fn owners(&self) -> io::Result<Vec<(Vec<u8>, UnixDatagram)>> {
        self.forget(|owner| packet::has_ended(&owner.line));
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
        let _ = SockRef::from(&line).set_recv_buffer_size(packet::BUFFER);
        let line = tokio::net::UnixDatagram::from_std(line)?;
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.is_some() {
            return Err(io::Error::other("another server has already taken over this socket"));
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

    /// Waits until no process reads the socket for this one any more: the one that it was left to has ended.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
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

    /// Passes packets of other processes on. Moves the buffers with packets of this one to the front, and returns how
    /// many those are.
    fn pass_on(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta], count: usize) -> usize {
        let (mut kept, mut gone) = (0, Vec::new());
        let owners = self.owners.read().unwrap_or_else(PoisonError::into_inner);
        for at in 0..count {
            // One buffer may have several packets, all of the same length except for the last.
            let (buf, about) = (&mut bufs[at], &mut meta[at]);
            let (stride, end, mut left) = (about.stride.max(1), about.len, 0);
            for start in (0..end).step_by(stride) {
                let packet = start..end.min(start + stride);
                match self.owner_of(&owners, &buf[packet.clone()]) {
                    Some(owner) => {
                        if !packet::send(&owners[owner].line, about, &buf[packet]) {
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
            self.forget(|owner| gone.contains(&owner.process()));
        }
        kept
    }

    /// The process that a packet belongs to, if it is not this one.
    fn owner_of(&self, owners: &[Owner], packet: &[u8]) -> Option<usize> {
        if self.ids.process_of_packet(packet) == Some(self.ids.process()) {
            return None;
        }
        owners.iter().position(|owner| owner.ids.process_of_packet(packet) == Some(owner.process()))
    }

    /// Forgets processes that have ended: the next packet of each of their clients is answered with a stateless reset.
    fn forget(&self, has_ended: impl Fn(&Owner) -> bool) {
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        owners.retain(|owner| {
            let ended = has_ended(owner);
            if ended {
                debug!(process = owner.process(), "an earlier process that had connections has ended");
            }
            !ended
        });
        self.has_owners.store(!owners.is_empty(), Ordering::Relaxed);
    }

    /// No process reads the socket for this one any more.
    fn lose(&self, why: &str) {
        self.state.store(LOST, Ordering::Release);
        warn!("the remaining QUIC connections no longer receive packets and are closed: {why}");
        self.lost.cancel();
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
        scratch.resize(packet::LONGEST_MESSAGE, 0);
        loop {
            let (mut count, most) = (0, bufs.len().min(meta.len()));
            while count < most {
                let length = match line.try_recv(scratch) {
                    // Messages are never empty: this is the end.
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
                let Some((about, packet)) = packet::read(&scratch[..length]) else { continue };
                // The engine reads nothing that is longer.
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

#[cfg(test)]
mod tests {
    use super::*;
    use quinn::udp::EcnCodepoint;
    use quinn_proto::ConnectionIdGenerator;

    fn ids(process: u8) -> Ids {
        Ids::new(None, [1; 32], process)
    }

    fn about(addr: &str, to: Option<&str>, len: usize, stride: usize) -> RecvMeta {
        let to = to.map(|to| to.parse().unwrap());
        RecvMeta { stride, ..packet::about(addr.parse().unwrap(), to, EcnCodepoint::from_bits(0b10), len) }
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
                assert_eq!(packet::read(&message[..length]).unwrap().1, packet);
            }
        }
        // One of them has ended.
        drop(ends);
        let mut one = packet(old.generate_cid(), 6);
        let mut meta = [about("192.0.2.1:1", None, one.len(), 12)];
        assert_eq!(relay.pass_on(&mut [IoSliceMut::new(&mut one)], &mut meta, 1), 0);
        assert_eq!(relay.owners.read().unwrap().len(), 1);
    }

    /// A server that is taken over again and again would run out of files.
    #[cfg(target_os = "linux")]
    #[test]
    fn processes_that_have_ended_are_not_handed_on() {
        let (lines, mut ends): (Vec<_>, Vec<_>) = (0..2).map(|_| line().unwrap()).unzip();
        let owners =
            (1..3).zip(lines).map(|(process, line)| Owner::new(&ids(process).to_bytes(), line).unwrap().unwrap());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let relay = Relay::new(&socket, ids(3), Some(owners.collect())).unwrap();
        assert_eq!(relay.owners().unwrap().len(), 2);
        ends.pop();
        assert_eq!(relay.owners().unwrap().len(), 1);
        ends.pop();
        assert!(relay.owners().unwrap().is_empty() && !relay.has_owners.load(Ordering::Relaxed));
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
        write.send(&packet::message(&about("192.0.2.1:1", None, 3, 3), b"abc")).unwrap();
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
        relay.lost().await;
        assert_eq!(&buffer[..3], b"abc");
    }
}
