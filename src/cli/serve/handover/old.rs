//! The side of the server that is taken over.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt, BufWriter},
    net::UnixStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::wire::{self, FeedState, ToNew, ToOld};
use crate::{
    app::estate::{Estate, HeldEstate},
    fault,
    feed::History,
    server::{Handover, Offer},
};

/// How long a new server may take to be ready: it stores its certificate, and binds what is new.
const STARTING: Duration = Duration::from_secs(60);
/// How long it may take for each part of the feeds, while publishers wait.
const TAKING: Duration = Duration::from_secs(10);
/// How much of a history is written at once, in bytes.
const PIECE: usize = 256 << 10;

/// A server that another one may take over.
pub(in crate::cli::serve) struct Yielding {
    pub(in crate::cli::serve) handover: Handover,
    /// Where it listens.
    pub(in crate::cli::serve) listens: Vec<SocketAddr>,
    pub(in crate::cli::serve) estate: Estate,
}

/// The server that has taken over, which waits to be told to serve.
pub(in crate::cli::serve) struct Successor {
    stream: UnixStream,
    pid: i32,
    udp: Vec<SocketAddr>,
    offer: Offer,
    held: HeldEstate,
}

impl Yielding {
    /// Tells another server what this one is. Whether it takes over from this one.
    pub(in crate::cli::serve) async fn is_chosen(&self, stream: &mut UnixStream) -> io::Result<bool> {
        let about = wire::About { version: wire::VERSION, pid: std::process::id(), listens: self.listens.clone() };
        timeout(TAKING, wire::write(stream, &about)).await??;
        match timeout(TAKING, wire::read_short(stream)).await? {
            Ok(ToOld::Chosen) => Ok(true),
            Ok(_) => Err(wire::invalid("another message than that it takes over")),
            // It looks for another one.
            Err(error) if wire::has_ended(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has the new server at the other end fail.
    pub(in crate::cli::serve) async fn refuse(stream: &mut UnixStream, why: &str) -> io::Result<()> {
        let message = wire::Offer { refused: Some(why.into()), udp: Vec::new(), tcp: 0 };
        timeout(TAKING, wire::write(stream, &message)).await?
    }

    /// Hands over to the new server at the other end, up to where it could serve. If that has not come so far when
    /// `late` is cancelled, it is told that this one stops.
    pub(in crate::cli::serve) async fn to(
        &self,
        mut stream: UnixStream,
        late: &CancellationToken,
    ) -> io::Result<Successor> {
        let pid = stream.peer_cred()?.pid().unwrap_or_default();
        info!("process {pid} is about to take over");
        let (offer, inherited) = self.handover.offer()?;
        let message = wire::Offer {
            refused: None,
            udp: inherited.udp.iter().map(|udp| udp.lines.iter().map(|line| line.ids.clone()).collect()).collect(),
            tcp: inherited.tcp.len(),
        };
        let udp = inherited.udp.iter().flat_map(|udp| {
            std::iter::once(udp.socket.as_fd()).chain(udp.lines.iter().map(|line| line.socket.as_fd()))
        });
        let sockets: Vec<BorrowedFd<'_>> = udp.chain(inherited.tcp.iter().map(AsFd::as_fd)).collect();
        timeout(TAKING, wire::write_sockets(&mut stream, &message, &sockets)).await??;
        drop(inherited);
        let ready = late.run_until_cancelled(timeout(STARTING, wire::read_short(&mut stream))).await;
        let udp = match ready {
            Some(ready) => match ready?? {
                ToOld::Ready { udp } => udp,
                _ => return Err(wire::invalid("another message than that it is ready")),
            },
            None => return stops(&mut stream).await,
        };
        fault::point("hand-over");
        // Dropped with an error, publishers publish on.
        let held = self.estate.hold();
        // The new server is told before anything is published here that it does not have.
        match late.run_until_cancelled(give(&mut stream, &held)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                let refused = ToNew::Refused { why: error.to_string() };
                let _ = timeout(TAKING, wire::write(&mut stream, &refused)).await;
                return Err(error);
            }
            None => return stops(&mut stream).await,
        }
        Ok(Successor { stream, pid, udp, offer, held })
    }
}

impl Successor {
    /// Has it serve. From then on this server only drains, and must be stopped.
    pub(in crate::cli::serve) async fn serve(mut self, grace: Duration) -> io::Result<()> {
        // Two servers must not read one socket: each would answer the other's clients.
        self.offer.pause(&self.udp);
        fault::point("hand-over-last");
        timeout(TAKING, wire::write(&mut self.stream, &ToNew::Go)).await??;
        if let Err(error) = self.offer.accept(&self.udp) {
            warn!(%error, "clients over QUIC do not reach this server any more");
        }
        self.held.give_up();
        info!("process {} has taken over; what is left here may take {grace:?}", self.pid);
        Ok(())
    }
}

/// Tells the new server that this one stops before it has taken over.
async fn stops<T>(stream: &mut UnixStream) -> io::Result<T> {
    let _ = timeout(TAKING, wire::write(stream, &ToNew::Stops)).await;
    Err(io::Error::other("this one was told to stop meanwhile"))
}

/// Sends all feeds that clients write, and waits until they were taken.
async fn give(stream: &mut UnixStream, held: &HeldEstate) -> io::Result<()> {
    let histories = held.histories();
    let feeds = histories.iter().map(|(name, history)| FeedState::new(name, history)).collect();
    let state = ToNew::State { feeds, publications: held.publications() };
    timeout(TAKING, wire::write(stream, &state)).await??;
    match timeout(TAKING, wire::read_short(stream)).await?? {
        ToOld::Send => {}
        other => return Err(unexpected(other, "another message than that it can continue the feeds")),
    }
    let mut to = BufWriter::with_capacity(PIECE, &mut *stream);
    for (_, history) in &histories {
        // So that the time is that of a part, however much there is.
        for chunks in history.chunks.chunks(1000) {
            let part = History::new(history.epoch, history.next, chunks.to_vec());
            timeout(TAKING, wire::write_chunks(&mut to, &part)).await??;
        }
    }
    timeout(TAKING, to.flush()).await??;
    match timeout(TAKING, wire::read_short(stream)).await?? {
        ToOld::Taken => Ok(()),
        other => Err(unexpected(other, "another message than that it has taken the feeds")),
    }
}

/// A message that is not the one that was to come.
fn unexpected(message: ToOld, what: &'static str) -> io::Error {
    match message {
        ToOld::Fails { why } => io::Error::other(why),
        ToOld::Chosen | ToOld::Ready { .. } | ToOld::Send | ToOld::Taken => wire::invalid(what),
    }
}
