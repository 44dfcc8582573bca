//! A server that takes over from another: its sockets, and the way of packets to connections that stay where they are.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::net::UnixDatagram,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::warn;

use crate::{
    listen::Pool,
    quic::relay::{self, Owner, Relay},
};

/// Lets another server, usually of another process, take over from a running one.
///
/// TCP listeners are shared: each connection stays with the server that accepted it. A UDP socket is read by one
/// server; it recognises packets for connections of others by the ids in them, and passes those on. So the order is:
/// the old server makes an [`offer`](Self::offer); the new one is [built](super::ServerBuilder::inherit) on it, and can
/// still fail; the offer is [accepted](Offer::accept) and the old server's stop token cancelled, so that its clients
/// leave within its grace time; the new one runs. Between processes, what the offer consists of is sent over a Unix
/// socket (`SCM_RIGHTS`).
///
/// ```no_run
/// # async fn doc(identity: h3cast_transport::Identity) -> Result<(), Box<dyn std::error::Error>> {
/// use h3cast_transport::{CancellationToken, Server};
///
/// let old = Server::builder(identity.clone()).listen("localhost:4433".parse()?).build().await?;
/// let (handover, stop) = (old.handover()?, CancellationToken::new());
/// let draining = tokio::spawn(old.run(stop.clone()));
///
/// let (offer, inherited) = handover.offer()?;
/// let new = Server::builder(identity).listen("localhost:4433".parse()?).inherit(inherited).build().await?;
/// offer.accept(&new.addresses().udp)?;
/// stop.cancel();
/// new.serve().await?;
/// # draining.await??;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Handover(Arc<Sockets>);

#[derive(Debug)]
struct Sockets {
    udp: Vec<Arc<Relay>>,
    tcp: Vec<TcpListener>,
    given: Arc<AtomicBool>,
}

/// What one server has from another.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Inherited {
    /// Its UDP sockets.
    pub udp: Vec<InheritedUdp>,
    /// Its TCP listeners, whatever they are for.
    pub tcp: Vec<TcpListener>,
}

/// A UDP socket that one server has from another.
#[derive(Debug)]
#[non_exhaustive]
pub struct InheritedUdp {
    /// The socket.
    pub socket: UdpSocket,
    /// The servers that have connections on it: the one that it is from, and earlier ones.
    pub lines: Vec<Line>,
}

/// How packets reach a server that has connections on a UDP socket, and does not read it any more.
#[derive(Debug)]
#[non_exhaustive]
pub struct Line {
    /// What they are recognised by. A process that knows this can forge packets that end its connections.
    pub ids: Vec<u8>,
    /// Where they are written.
    pub socket: UnixDatagram,
}

/// The old server's side of its offer. If it is dropped, nothing has happened.
#[derive(Debug)]
#[must_use = "dropped, the server keeps its sockets"]
pub struct Offer {
    /// Where each socket is bound, and the end of the line to this server.
    lines: Vec<(SocketAddr, Arc<Relay>, UnixDatagram)>,
    given: Arc<AtomicBool>,
}

impl Inherited {
    /// What was sent from another process.
    #[must_use]
    pub fn new(udp: Vec<InheritedUdp>, tcp: Vec<TcpListener>) -> Self {
        Self { udp, tcp }
    }

    pub(super) fn into_parts(self) -> (Pool, HashMap<SocketAddr, Vec<Owner>>) {
        let (mut pool, mut owners) = (Pool { tcp: self.tcp, ..Pool::default() }, HashMap::new());
        for InheritedUdp { socket, lines } in self.udp {
            let Ok(address) = socket.local_addr() else { continue };
            let owner = |line: Line| match Owner::new(&line.ids, line.socket) {
                Ok(Some(owner)) => Some(owner),
                // Its clients come back when they have timed out.
                _ => {
                    warn!(%address, "the connections of an earlier server are lost: it has another version");
                    None
                }
            };
            owners.insert(address, lines.into_iter().filter_map(owner).collect());
            pool.udp.push(socket);
        }
        (pool, owners)
    }
}

impl InheritedUdp {
    /// A socket, and who has connections on it.
    #[must_use]
    pub fn new(socket: UdpSocket, lines: Vec<Line>) -> Self {
        Self { socket, lines }
    }
}

impl Line {
    /// What was sent from another process.
    #[must_use]
    pub fn new(ids: Vec<u8>, socket: UnixDatagram) -> Self {
        Self { ids, socket }
    }
}

impl Handover {
    pub(super) fn new(udp: Vec<Arc<Relay>>, tcp: Vec<TcpListener>, given: Arc<AtomicBool>) -> Self {
        Self(Arc::new(Sockets { udp, tcp, given }))
    }

    /// Duplicates of the sockets for another server, and what is to be done when it has them. The server keeps running.
    ///
    /// # Errors
    ///
    /// If file descriptors have run out, or another server has taken over before.
    pub fn offer(&self) -> io::Result<(Offer, Inherited)> {
        let (mut lines, mut inherited) = (Vec::new(), Inherited::default());
        for relay in &self.0.udp {
            if relay.is_given() {
                return Err(io::Error::other("another server has already taken over: ask that one"));
            }
            let socket = relay.socket()?;
            let (other, own) = relay::line()?;
            let earlier = relay.owners()?.into_iter().map(|(ids, socket)| Line { ids, socket });
            let first = Line { ids: relay.ids(), socket: other };
            lines.push((socket.local_addr()?, relay.clone(), own));
            inherited.udp.push(InheritedUdp { socket, lines: std::iter::once(first).chain(earlier).collect() });
        }
        for tcp in &self.0.tcp {
            inherited.tcp.push(tcp.try_clone()?);
        }
        Ok((Offer { lines, given: self.0.given.clone() }, inherited))
    }
}

impl Offer {
    /// Stops reading the UDP sockets at these addresses, until this is [accepted](Self::accept) or dropped: what comes
    /// waits. For the moment in which it is not sure that the new server begins to read.
    pub fn pause(&self, udp: &[SocketAddr]) {
        self.lines.iter().filter(|(address, ..)| udp.contains(address)).for_each(|(_, relay, _)| relay.pause());
    }

    /// Leaves the UDP sockets at these addresses, those of the new server, to it. From now on this server gets the
    /// packets of its connections from there. It must be stopped too, as it accepts TCP connections until then; those
    /// that wait are left to the new one.
    ///
    /// # Errors
    ///
    /// If a line cannot be used: if the new server runs, it reads that socket all the same. Or if another offer was
    /// accepted before: the new server must not run then, as two would read that socket.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn accept(mut self, udp: &[SocketAddr]) -> io::Result<()> {
        self.given.store(true, Ordering::Release);
        let taken = std::mem::take(&mut self.lines).into_iter().filter(|(address, ..)| udp.contains(address));
        taken.map(|(_, relay, line)| relay.give(line)).fold(Ok(()), Result::and)
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.lines.iter().for_each(|(_, relay, _)| relay.open());
    }
}
