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
    dropped::{Dropped, Lacking},
    process::Process,
    wire::{self, Created, FeedState, ToNew, ToOld},
};
use crate::{
    app::estate::{Estate, KnownPublications},
    cli::Failure,
    fault,
    feed::{Feed, History},
    server::{Inherited, InheritedUdp, Line},
};

/// How long the old server may take for each message.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long one that may be another than the one that is wanted may take to say what it is.
const GLANCE: Duration = Duration::from_secs(3);
/// How long a process may take to end after it has closed its socket.
const ENDING: Duration = Duration::from_secs(5);

/// A server that is taken over, and keeps serving so far.
pub(in crate::cli::serve) struct Predecessor {
    stream: BufReader<UnixStream>,
    pid: u32,
    process: Process,
}

/// What it had.
struct State {
    feeds: Vec<(Feed, History)>,
    publications: KnownPublications,
}

/// What a new server does with the feeds of the old one.
#[derive(Clone, Copy)]
struct Heir<'a> {
    estate: &'a Estate,
    dropped: &'a [Dropped],
}

/// How it went.
enum Outcome {
    /// The old server drains.
    Go(State),
    /// The old server has ended by itself before it had given everything, or without a word after that.
    Ended(Option<State>),
}

/// Why a message did not come.
enum Trouble {
    /// The other end is closed.
    Ended,
    /// The old server stops.
    Stops,
    /// Feeds would be lost.
    Lacking(Lacking),
    Other(io::Error),
}

/// Why a server is not taken over.
enum Refused {
    Lacking(Lacking),
    Other(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        if wire::has_ended(&error) { Self::Ended } else { Self::Other(error) }
    }
}

impl Predecessor {
    /// Finds the server at one of these sockets that listens where that is `wanted`. If it was `named`, it is that one or
    /// an error.
    pub(in crate::cli::serve) async fn find(
        sockets: Vec<PathBuf>,
        named: bool,
        wanted: impl Fn(SocketAddr) -> bool,
    ) -> Result<Option<(Self, Inherited)>, Failure> {
        for path in sockets {
            let failed = |error: io::Error| {
                let text = format!("--take-over: the server at {} does not hand over: {error}", path.display());
                Failure::running(anyhow::anyhow!(text))
            };
            let patience = if named { PATIENCE } else { GLANCE };
            let (found, about) = match within(patience, Self::ask(&path)).await {
                Ok(asked) => asked,
                // It was killed, or has just ended.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                    continue;
                }
                Err(error) if named => return Err(failed(error)),
                Err(error) => {
                    warn!("--take-over: the server at {} does not say what it is: {error}", path.display());
                    continue;
                }
            };
            if about.listens.iter().copied().any(&wanted) {
                if about.version != wire::VERSION {
                    return Err(failed(wire::invalid("it is of another version")));
                }
                return within(PATIENCE, found.choose()).await.map(Some).map_err(failed);
            }
        }
        Ok(None)
    }

    async fn ask(path: &Path) -> io::Result<(Self, wire::About)> {
        let mut stream = UnixStream::connect(path).await?;
        // Another user's could hand over sockets that it reads along, and chunks of its own making.
        let (peer, own) = (stream.peer_cred()?, rustix::process::geteuid().as_raw());
        if peer.uid() != own && peer.uid() != 0 {
            let text = format!("it is of user {}, and this one of user {own}", peer.uid());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        // While it runs.
        let process = Process::find(peer.pid());
        stream.write_all(format!("{TAKE_OVER}\n").as_bytes()).await?;
        let about = wire::read_short::<wire::About>(&mut stream).await?;
        // No more than the answer has come.
        Ok((Self { stream: BufReader::with_capacity(64 << 10, stream), pid: about.pid, process }, about))
    }

    /// Has it offer its sockets.
    async fn choose(mut self) -> io::Result<(Self, Inherited)> {
        let stream = self.stream.get_mut();
        wire::write(stream, &ToOld::Chosen).await?;
        let (offer, sockets) = wire::read_sockets::<wire::Offer>(stream).await?;
        if let Some(why) = offer.refused {
            return Err(io::Error::other(why));
        }
        let inherited = inherited(&offer, sockets.into_iter()).ok_or_else(|| wire::invalid("sockets are missing"))?;
        Ok((self, inherited))
    }

    /// Takes its feeds over, except for those that may be `dropped`, for a server that could serve now and will read
    /// these sockets.
    pub(in crate::cli::serve) async fn hand_over(
        mut self,
        estate: &Estate,
        dropped: &[Dropped],
        udp: &[SocketAddr],
    ) -> Result<(), Failure> {
        let pid = self.pid;
        let outcome = self.take(Heir { estate, dropped }, udp).await.map_err(|refused| match refused {
            Refused::Lacking(lacking) => {
                Failure::usage(anyhow::anyhow!("--take-over: process {pid} keeps serving: {lacking}"))
            }
            Refused::Other(error) => Failure::running(anyhow::anyhow!(
                "--take-over: process {pid} did not hand over, and keeps serving: {error}"
            )),
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
        for (feed, history) in state.feeds {
            let many = history.chunks.len();
            match feed.restore(history) {
                Ok(()) => (feeds, chunks) = (feeds + 1, chunks + many),
                Err(error) => warn!(feed = feed.name(), %error, "a feed of the old server starts over"),
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

    async fn take(&mut self, heir: Heir<'_>, udp: &[SocketAddr]) -> Result<Outcome, Refused> {
        // Publishers wait until `Taken`: nothing is done before that which could be done later.
        let state = match self.state(heir, udp).await {
            Ok(state) => state,
            Err(trouble) => return self.without_go(trouble, None).await,
        };
        fault::point("take-over");
        match self.taken().await {
            Ok(()) => Ok(Outcome::Go(state)),
            Err(trouble) => self.without_go(trouble, Some(state)).await,
        }
    }

    /// What is left to do if it has not said that this server is to serve.
    async fn without_go(&self, trouble: Trouble, state: Option<State>) -> Result<Outcome, Refused> {
        match trouble {
            // Only then it has not published on.
            Trouble::Ended => match timeout(ENDING, self.process.ended()).await {
                Ok(()) => Ok(Outcome::Ended(state)),
                Err(_) => Err(Refused::Other(io::Error::other("it has ended the connection"))),
            },
            Trouble::Stops => {
                warn!("process {} was told to stop before it had handed over: waiting for its end", self.pid);
                // Two servers must not read one socket.
                self.process.ended().await;
                Ok(Outcome::Ended(None))
            }
            Trouble::Lacking(lacking) => Err(Refused::Lacking(lacking)),
            Trouble::Other(error) => Err(Refused::Other(error)),
        }
    }

    async fn state(&mut self, heir: Heir<'_>, udp: &[SocketAddr]) -> Result<State, Trouble> {
        let ready = ToOld::Ready { udp: udp.to_vec() };
        let (feeds, publications) = match self.answer(&ready).await? {
            ToNew::State { feeds, publications } => (feeds, publications),
            other => return Err(unexpected(other)),
        };
        let found = match heir.find(&feeds).await {
            Ok(found) => found,
            Err(lacking) => {
                // It is told for its log; it notices the end of the connection otherwise.
                let fails = ToOld::Fails { why: lacking.to_string() };
                let _ = within(PATIENCE, wire::write(self.stream.get_mut(), &fails)).await;
                return Err(Trouble::Lacking(lacking));
            }
        };
        // Why that failed, what is read says.
        let _ = within(PATIENCE, wire::write(self.stream.get_mut(), &ToOld::Send)).await;
        let mut state = State { feeds: Vec::new(), publications };
        for (of, found) in feeds.iter().zip(found) {
            let history = within(PATIENCE, of.read_chunks(&mut self.stream)).await?;
            state.feeds.extend(found.map(|feed| (feed, history)));
        }
        Ok(state)
    }

    async fn taken(&mut self) -> Result<(), Trouble> {
        match self.answer(&ToOld::Taken).await? {
            ToNew::Go => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Says something, and gives what is said to it.
    async fn answer(&mut self, message: &ToOld) -> Result<ToNew, Trouble> {
        let written = within(PATIENCE, wire::write(self.stream.get_mut(), message)).await;
        match within(PATIENCE, wire::read(&mut self.stream)).await {
            // Also of one that has closed its end since: it may have said why.
            Ok(answer) => Ok(answer),
            Err(error) => Err(written.err().unwrap_or(error).into()),
        }
    }
}

impl Heir<'_> {
    /// The feed that continues each of the old server's, if it is not dropped.
    async fn find(self, feeds: &[FeedState]) -> Result<Vec<Option<Feed>>, Lacking> {
        let (mut found, mut lacking) = (Vec::new(), Vec::new());
        for of in feeds {
            let provenance = of.created.as_ref().map(Created::provenance);
            found.push(match self.estate.adopt(&of.name, provenance.as_ref()).await {
                Ok(feed) => Some(feed),
                // Nothing is lost.
                Err(_) if of.next == 0 => None,
                Err(_) if self.dropped.iter().any(|dropped| dropped.is(&of.name)) => {
                    warn!(feed = of.name, "a feed of the old server is dropped with its history (--take-over-drop)");
                    None
                }
                Err(lack) => {
                    lacking.push((of.name.clone(), lack));
                    None
                }
            });
        }
        match lacking.is_empty() {
            true => Ok(found),
            false => Err(Lacking(lacking)),
        }
    }
}

async fn within<T>(time: Duration, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(time, done).await?
}

/// A message that is not the one that was to come.
fn unexpected(message: ToNew) -> Trouble {
    match message {
        ToNew::Refused { why } => Trouble::Other(io::Error::other(why)),
        ToNew::Stops => Trouble::Stops,
        ToNew::State { .. } | ToNew::Go => Trouble::Other(wire::invalid("another message than the one to come")),
    }
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
