//! The side of the server that is taken over.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    net::UnixStream,
    sync::{Mutex, MutexGuard},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    SAME_STORE, Shelf,
    taking::{self, Taking},
    wire::{self, FeedState, ToNew, ToOld},
};
use crate::{
    app::estate::{Estate, HeldEstate},
    chunk::Chunk,
    fault,
    server::{Handover, Offer},
};

/// How long a new server may take to be ready: to store its certificate and bind additional ports.
const STARTING: Duration = Duration::from_secs(60);
/// How long it may take for each message, while publishers wait.
const TAKING: Duration = Duration::from_secs(10);
/// How long it may take to be told that it does not take over: it notices the end of the connection, too.
pub(super) const TELLING: Duration = Duration::from_secs(1);
/// How long a new server waits until one before it that has failed has let go of the store: less than the new one does.
const RETURNING: Duration = Duration::from_secs(10);
/// So much of a history is written at once, in bytes, except for larger chunks.
const PART: usize = 256 << 10;

/// How long a server that was told to stop waits for the one that is about to take over.
pub(super) const HURRY: Duration = Duration::from_secs(5);

/// A server that another one may take over.
pub(in crate::cli::serve) struct Yielding {
    pub(super) handover: Handover,
    /// Where it listens.
    pub(super) listens: Vec<SocketAddr>,
    pub(super) estate: Estate,
    /// Its feeds on disk.
    pub(super) shelf: Shelf,
    pub(super) grace: Duration,
    /// Held while a server takes over from this one.
    pub(super) changing: Arc<Mutex<()>>,
    /// Which one that is.
    pub(super) taking: Taking,
    /// Whether this server's socket is another's now.
    pub(super) left: Arc<AtomicBool>,
    pub(super) stop: CancellationToken,
    pub(super) ending: CancellationToken,
}

/// The server that has taken over, which waits to be told to serve.
struct Successor {
    other: Other,
    pid: i32,
    ready: Ready,
}

/// What a new server that is ready takes over.
struct Ready {
    udp: Vec<SocketAddr>,
    offer: Offer,
    held: HeldEstate,
}

/// The new server's end of the connection.
struct Other {
    stream: UnixStream,
    /// Until it is dropped, this server takes over.
    _takes: Arc<OwnedFd>,
    /// A message was not written whole: whatever came after it would be taken for its rest.
    is_broken: bool,
}

impl Other {
    async fn write(&mut self, message: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // Also if this is not polled to its end.
        self.is_broken = true;
        timeout(TAKING, self.stream.write_all(message)).await??;
        self.is_broken = false;
        Ok(())
    }

    async fn tell(&mut self, message: &ToNew) -> io::Result<()> {
        self.write(&wire::message(message)?).await
    }

    async fn read(&mut self) -> io::Result<ToOld> {
        timeout(TAKING, wire::read_short(&mut self.stream)).await?
    }

    /// Does something that it waits for, unless it has gone, or says that it fails.
    async fn served<T>(&self, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        tokio::select! {
            done = done => done,
            () = taking::stirs(&self.stream) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Why it has closed its end, if it said so.
    async fn last_word(&mut self) -> Option<io::Error> {
        match self.read().await {
            Ok(ToOld::Fails { why }) => Some(io::Error::other(why)),
            _ => None,
        }
    }
}

impl Yielding {
    /// Hands over to the server at the other end, if it wants that; then this one stops.
    pub(in crate::cli::serve) async fn to(&self, mut stream: UnixStream) {
        match Box::pin(self.is_chosen(&mut stream)).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return debug!(%error, "a server that looks for another one was not answered"),
        }
        let _changing = match self.turn(&stream).await {
            Ok(changing) => changing,
            Err(why) => {
                _ = Self::refuse(&mut stream, &why).await;
                return;
            }
        };
        if let Err(error) = Box::pin(self.hand_over(stream)).await {
            return match self.stop.is_cancelled() {
                true => warn!("a new server did not take over, and this one stops: {error}"),
                false => warn!("a new server did not take over, this one keeps serving: {error}"),
            };
        }
        self.left.store(true, Ordering::Release);
        // No longer for load balancers: the ports are served.
        self.stop.cancel();
        self.ending.cancel();
    }

    /// Waits until no other server takes over: one that has failed may have the store for a moment. Why not, if it does
    /// not come to that.
    async fn turn(&self, stream: &UnixStream) -> Result<MutexGuard<'_, ()>, String> {
        if let Ok(turn) = self.changing.try_lock() {
            return Ok(turn);
        }
        let busy = || match self.taking.who() {
            _ if self.ending.is_cancelled() => "it stops".into(),
            Some((pid, true)) => format!("process {pid} is taking over from it now"),
            Some((pid, false)) => match self.shelf.is_missing(pid) {
                Some(true) => format!("process {pid} has failed to take over, and still uses the store: stop it first"),
                Some(false) => {
                    "it does not have its store back yet after a take-over that failed: its log says why".into()
                }
                None => format!("it is not done yet with process {pid}, which has failed to take over: try again"),
            },
            None => "it stops".into(),
        };
        if self.ending.is_cancelled() || self.taking.who().is_some_and(|(_, is_there)| is_there) {
            return Err(busy());
        }
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).unwrap_or_default();
        info!("process {pid} waits to take over until this server has its store again");
        tokio::select! {
            turn = timeout(RETURNING, self.changing.lock()) => turn.map_err(|_| busy()),
            () = self.ending.cancelled() => Err(busy()),
            // It says nothing meanwhile: it has gone.
            () = taking::stirs(stream) => Err("it has ended".into()),
        }
    }

    async fn hand_over(&self, stream: UnixStream) -> io::Result<()> {
        let too_late = CancellationToken::new();
        let hurrying = async {
            self.stop.cancelled().await;
            sleep(HURRY).await;
            too_late.cancel();
            std::future::pending::<std::convert::Infallible>().await
        };
        let successor = tokio::select! {
            successor = Box::pin(self.prepare(stream, &too_late)) => successor?,
            never = hurrying => match never {},
        };
        if let Err((error, held)) = successor.serve(self.grace).await {
            self.take_back(held, true).await;
            return Err(error);
        }
        // After the feeds have ended, so that what waits for it learns why.
        self.shelf.leave().await;
        Ok(())
    }

    /// Tells another server what this one is. Whether it takes over from this one.
    async fn is_chosen(&self, stream: &mut UnixStream) -> io::Result<bool> {
        let (pid, listens, stops) = (std::process::id(), self.listens.clone(), self.stop.is_cancelled());
        let about = wire::About { version: wire::VERSION, pid, listens, stops, stores: self.shelf.is_there() };
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
    async fn refuse(stream: &mut UnixStream, why: &str) -> io::Result<()> {
        let message = wire::Offer { refused: Some(why.into()), udp: Vec::new(), tcp: 0 };
        timeout(TELLING, wire::write(stream, &message)).await?
    }

    /// Hands over to the new server at the other end, up to where it could serve. If that has not come so far when it
    /// is `too_late`, it is told that this one stops; what fails, why.
    async fn prepare(&self, mut stream: UnixStream, too_late: &CancellationToken) -> io::Result<Successor> {
        let pid = stream.peer_cred()?.pid().unwrap_or_default();
        let takes = self.taking.begins(pid, &stream)?;
        info!("process {pid} is about to take over");
        let offer = match self.offer(&mut stream).await {
            Ok(offer) => offer,
            Err(error) => {
                let _ = Self::refuse(&mut stream, &error.to_string()).await;
                return Err(error);
            }
        };
        let mut other = Other { stream, _takes: takes, is_broken: false };
        let mut held = None;
        // Publishers wait until the new server was told: before anything is published here that it does not have.
        let given = too_late.run_until_cancelled(async {
            match self.give(&mut other, &mut held).await {
                // It may have said why before it closed its end.
                Err(error) if wire::has_ended(&error) => Err(other.last_word().await.unwrap_or(error)),
                given => given,
            }
        });
        let given = given.await;
        let (last, error, held) = match (given, held) {
            (Some(Ok(udp)), Some(held)) => return Ok(Successor { other, pid, ready: Ready { udp, offer, held } }),
            (Some(Err(error)), held) => (ToNew::Refused { why: error.to_string() }, error, held),
            (_, held) => (
                ToNew::Stops,
                io::Error::other("it did not have everything in time after this server was told to stop"),
                held,
            ),
        };
        let _ = timeout(TELLING, other.tell(&last)).await;
        let keeps_serving = matches!(last, ToNew::Refused { .. });
        // It may wait for that.
        drop(other);
        if let Some(held) = held {
            self.take_back(held, keeps_serving).await;
        }
        Err(error)
    }

    /// Has publishers continue after a new server has failed, once that has let go of the store.
    async fn take_back(&self, held: HeldEstate, keeps_serving: bool) {
        match keeps_serving && self.shelf.reclaim(&self.stop).await {
            // Without having been given up, publishers publish on.
            true => drop(held),
            // The new server is to have the store when this one has ended.
            false => held.stop(),
        }
    }

    /// Sends the sockets.
    async fn offer(&self, stream: &mut UnixStream) -> io::Result<Offer> {
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
        timeout(TAKING, wire::write_sockets(stream, &message, &sockets)).await??;
        Ok(offer)
    }

    /// What a new server says next that starts.
    async fn starting(other: &mut Other) -> io::Result<ToOld> {
        match timeout(STARTING, wire::read_short(&mut other.stream)).await {
            Ok(message) => message,
            Err(_) => Err(io::Error::other(format!("it was not ready within {STARTING:?}"))),
        }
    }

    /// Gives up the store when the new server needs it, waits until that is ready, holds publishers, sends all feeds that
    /// clients write, and waits until they were taken. Gives the sockets that the new server reads.
    async fn give(&self, other: &mut Other, held: &mut Option<HeldEstate>) -> io::Result<Vec<SocketAddr>> {
        let udp = match Self::starting(other).await? {
            ToOld::Release { folder } => {
                // Most of it while publishers need not wait.
                other.served(self.shelf.flush(folder)).await?;
                held.get_or_insert_with(|| self.estate.hold());
                self.shelf.release().await?;
                fault::point("store-released");
                other.tell(&ToNew::Released).await?;
                is_ready(Self::starting(other).await?)?
            }
            ToOld::Ready { .. } if self.shelf.is_there() => {
                return Err(io::Error::other(format!("its feeds are on disk: {SAME_STORE}")));
            }
            ready => is_ready(ready)?,
        };
        fault::point("hand-over");
        let held = held.get_or_insert_with(|| self.estate.hold());
        let histories = held.histories();
        let feeds = histories.iter().map(|(name, history)| FeedState::new(name, history)).collect();
        let (publications, (stored, written)) = (held.publications(), self.estate.stored());
        other.tell(&ToNew::State { feeds, publications, stored, written: Some(written) }).await?;
        match other.read().await? {
            ToOld::Send => {}
            message => return Err(unexpected(message, "another message than that it can continue the feeds")),
        }
        for (_, history) in &histories {
            for part in parts(&history.chunks) {
                other.write(&wire::with_chunks(part)?).await?;
            }
        }
        match other.read().await? {
            ToOld::Taken => Ok(udp),
            message => Err(unexpected(message, "another message than that it has taken the feeds")),
        }
    }
}

/// The parts in which chunks are sent.
fn parts(mut chunks: &[Arc<Chunk>]) -> impl Iterator<Item = &[Arc<Chunk>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let count = chunks.iter().take_while(|chunk| {
            let is_within = bytes < PART;
            bytes += chunk.bytes.len() + size_of::<Chunk>();
            is_within
        });
        let part = chunks.split_off(..count.count())?;
        (!part.is_empty()).then_some(part)
    })
}

impl Successor {
    /// Has it serve. From then on this server only drains, and must be stopped. What was held is given back if it cannot be
    /// told.
    async fn serve(self, grace: Duration) -> Result<(), (io::Error, HeldEstate)> {
        let Self { mut other, pid, ready: Ready { udp, offer, held } } = self;
        // Two servers must not read one socket: each would answer the other's clients.
        offer.pause(&udp);
        fault::point("hand-over-last");
        if let Err(error) = other.tell(&ToNew::Go).await {
            return Err((error, held));
        }
        if let Err(error) = offer.accept(&udp) {
            warn!(%error, "QUIC clients can no longer reach this server");
        }
        held.give_up();
        info!("process {pid} has taken over; remaining connections have {grace:?} to finish");
        Ok(())
    }
}

/// The sockets that a new server reads which is ready.
fn is_ready(message: ToOld) -> io::Result<Vec<SocketAddr>> {
    match message {
        ToOld::Ready { udp } => Ok(udp),
        message => Err(unexpected(message, "another message than that it is ready")),
    }
}

/// A message that is not the one that was to come.
fn unexpected(message: ToOld, what: &'static str) -> io::Error {
    match message {
        ToOld::Fails { why } => io::Error::other(why),
        ToOld::Chosen | ToOld::Release { .. } | ToOld::Ready { .. } | ToOld::Send | ToOld::Taken => wire::invalid(what),
    }
}
