//! The side of the server that takes over.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};
use tracing::{info, warn};

use super::{
    TAKE_OVER,
    wire::{self, ToNew, ToOld},
};
use crate::{
    app::estate::{Estate, KnownPublications},
    cli::Failure,
    fault,
    feed::History,
    server::{Inherited, InheritedUdp, Line},
};

/// How long the old server may take for each message.
const PATIENCE: Duration = Duration::from_secs(15);

/// A server that is taken over, and keeps serving so far.
pub(in crate::cli::serve) struct Predecessor {
    stream: BufReader<UnixStream>,
    pid: u32,
}

/// What it had.
struct State {
    feeds: Vec<(String, History)>,
    publications: KnownPublications,
}

/// How it went.
enum Outcome {
    /// The old server drains.
    Go(State),
    /// The old server has ended by itself before it had given everything, or without a word after that.
    Ended(Option<State>),
}

impl Predecessor {
    /// Finds the server at one of these sockets that listens at one of these addresses, or at any if there are none.
    pub(in crate::cli::serve) async fn find(
        sockets: Vec<PathBuf>,
        wanted: impl Fn(SocketAddr) -> bool,
    ) -> Result<Option<(Self, Inherited)>, Failure> {
        for path in sockets {
            match Self::ask(&path).await {
                Ok((found, inherited)) => {
                    let udp = inherited.udp.iter().filter_map(|udp| udp.socket.local_addr().ok());
                    let tcp = inherited.tcp.iter().filter_map(|tcp| tcp.local_addr().ok());
                    if udp.chain(tcp).any(&wanted) {
                        return Ok(Some((found, inherited)));
                    }
                }
                // It was killed, or has just ended.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {}
                Err(error) => {
                    let text = format!("--take-over: the server at {} does not hand over: {error}", path.display());
                    return Err(Failure::running(anyhow::anyhow!(text)));
                }
            }
        }
        Ok(None)
    }

    async fn ask(path: &Path) -> io::Result<(Self, Inherited)> {
        let asked = async {
            let mut stream = UnixStream::connect(path).await?;
            stream.write_all(format!("{TAKE_OVER}\n").as_bytes()).await?;
            let (offer, sockets) = wire::read_sockets::<wire::Offer>(&mut stream).await?;
            if offer.version != wire::VERSION {
                return Err(wire::invalid("it is of another version"));
            }
            let inherited =
                inherited(&offer, sockets.into_iter()).ok_or_else(|| wire::invalid("sockets are missing"))?;
            Ok((Self { stream: BufReader::with_capacity(64 << 10, stream), pid: offer.pid }, inherited))
        };
        timeout(PATIENCE, asked).await?
    }

    /// Takes its feeds over, for a server that could serve now and will read these sockets.
    pub(in crate::cli::serve) async fn hand_over(mut self, estate: &Estate, udp: &[SocketAddr]) -> Result<(), Failure> {
        let pid = self.pid;
        let outcome = self.take(udp).await.map_err(|error| {
            Failure::running(anyhow::anyhow!(
                "--take-over: process {pid} did not hand over, and keeps serving: {error}"
            ))
        })?;
        let (state, went) = match outcome {
            Outcome::Go(state) => (state, true),
            Outcome::Ended(Some(state)) => (state, false),
            Outcome::Ended(None) => {
                warn!("process {pid} ended before it had handed over: its feeds start over");
                return Ok(());
            }
        };
        let (mut feeds, mut chunks) = (0, 0);
        for (name, history) in state.feeds {
            let many = history.chunks.len();
            match estate.restore_feed(&name, history).await {
                true => (feeds, chunks) = (feeds + 1, chunks + many),
                false => warn!(feed = name, "clients do not publish to this feed any more: its history is lost"),
            }
        }
        estate.restore_publications(state.publications);
        match went {
            true => info!("took over from process {pid}: {feeds} feeds that clients write, {chunks} chunks"),
            false => {
                warn!("process {pid} ended while it handed over: continuing with its {feeds} feeds, {chunks} chunks")
            }
        }
        Ok(())
    }

    async fn take(&mut self, udp: &[SocketAddr]) -> io::Result<Outcome> {
        // Publishers wait until `Taken`: nothing is done before that which could be done later.
        let state = match self.state(udp).await {
            Ok(state) => state,
            Err(error) if has_ended(&error) => return Ok(Outcome::Ended(None)),
            Err(error) => return Err(error),
        };
        fault::point("take-over");
        let go = async {
            wire::write(self.stream.get_mut(), &ToOld::Taken).await?;
            wire::read(&mut self.stream).await
        };
        match timeout(PATIENCE, go).await? {
            Ok(ToNew::Go) => Ok(Outcome::Go(state)),
            Ok(ToNew::Refused { why }) => Err(io::Error::other(why)),
            Ok(ToNew::State { .. }) => Err(wire::invalid("the feeds twice")),
            Err(error) if has_ended(&error) => Ok(Outcome::Ended(Some(state))),
            Err(error) => Err(error),
        }
    }

    async fn state(&mut self, udp: &[SocketAddr]) -> io::Result<State> {
        let ready = ToOld::Ready { udp: udp.to_vec() };
        timeout(PATIENCE, wire::write(self.stream.get_mut(), &ready)).await??;
        let (feeds, publications) = match timeout(PATIENCE, wire::read(&mut self.stream)).await?? {
            ToNew::State { feeds, publications } => (feeds, publications),
            ToNew::Refused { why } => return Err(io::Error::other(why)),
            ToNew::Go => return Err(wire::invalid("no feeds")),
        };
        let mut state = State { feeds: Vec::new(), publications };
        for feed in feeds {
            let history = timeout(PATIENCE, feed.read_chunks(&mut self.stream)).await??;
            state.feeds.push((feed.name, history));
        }
        Ok(state)
    }
}

/// Whether the process at the other end has.
fn has_ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Puts together what was sent one by one.
fn inherited(offer: &wire::Offer, mut sockets: impl Iterator<Item = OwnedFd>) -> Option<Inherited> {
    let mut udp = Vec::new();
    for lines in &offer.udp {
        let socket = UdpSocket::from(sockets.next()?);
        let lines = lines.iter().map(|ids| Some(Line::new(ids.clone(), UnixDatagram::from(sockets.next()?))));
        let lines = lines.collect::<Option<Vec<_>>>()?;
        udp.push(InheritedUdp::new(socket, lines));
    }
    let tcp = (0..offer.tcp).map(|_| Some(TcpListener::from(sockets.next()?))).collect::<Option<Vec<_>>>()?;
    Some(Inherited::new(udp, tcp))
}
