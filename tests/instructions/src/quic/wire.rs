//! What stands for the network and the system: two sockets in memory, each of which receives what the other sends.

use std::{
    collections::VecDeque,
    fmt, io,
    io::IoSliceMut,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use h3cast::quic::engine::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};

use super::uncounted;

/// What a system sends at once, in packets of one length (GSO on Linux).
const SEGMENTS: usize = 64;

/// One end.
pub(crate) struct Socket {
    address: SocketAddr,
    peer: SocketAddr,
    from: Arc<Queue>,
    to: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    packets: Mutex<VecDeque<(Vec<u8>, Option<EcnCodepoint>)>>,
    reader: AtomicWaker,
}

/// The server's socket, and the clients'.
pub(crate) fn pair() -> [Arc<Socket>; 2] {
    let [upward, downward] = [Arc::<Queue>::default(), Arc::default()];
    let [server, clients] = [4433, 50_000].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    [
        Arc::new(Socket { address: server, peer: clients, from: upward.clone(), to: downward.clone() }),
        Arc::new(Socket { address: clients, peer: server, from: downward, to: upward }),
    ]
}

impl Socket {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn send(&self, transmit: &Transmit<'_>) {
        let mut packets = self.to.packets.lock().unwrap_or_else(PoisonError::into_inner);
        let length = transmit.segment_size.unwrap_or(transmit.contents.len());
        packets.extend(transmit.contents.chunks(length).map(|packet| (packet.to_vec(), transmit.ecn)));
        drop(packets);
        self.to.reader.wake();
    }

    fn receive(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<usize> {
        self.from.reader.register(cx.waker());
        let mut packets = self.from.packets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some((packet, ecn)) = packets.pop_front() else { break };
            buf[..packet.len()].copy_from_slice(&packet);
            *meta = RecvMeta::default();
            (meta.addr, meta.dst_ip) = (self.peer, Some(self.address.ip()));
            (meta.len, meta.stride, meta.ecn) = (packet.len(), packet.len(), ecn);
            count += 1;
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(count) }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        uncounted(|| self.send(transmit));
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        uncounted(|| self.receive(cx, bufs, meta)).map(Ok)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS
    }

    /// As Linux is told not to.
    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("address", &self.address).finish_non_exhaustive()
    }
}

/// There is always room.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
