//! The side of the server that takes over.

mod lost;

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::UnixStream,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::lost::{Refused, Trouble, unexpected};
#[cfg(feature = "store")]
use super::SAME_STORE;
use super::{
    TAKE_OVER,
    dropped::{Dropped, Lacking},
    process::Process,
    wire::{self, Created, FeedState, ToNew, ToOld},
};
use crate::{
    app::estate::{Estate, KnownPublications, Lack},
    chunk::Chunk,
    cli::Failure,
    fault,
    feed::{Feed, History},
    server::{Inherited, InheritedUdp, Line},
    units::many,
};

/// How long the old server may take for each message.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long it may take to flush its store and release it.
#[cfg(feature = "store")]
const RELEASING: Duration = Duration::from_secs(60);

/// How long a server that may not be the right one may take to identify itself.
const GLANCE: Duration = Duration::from_secs(3);

/// How long a server that ends may keep its socket after it has closed a connection, and a pause in between.
const MOMENT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// A server that is taken over, and keeps serving so far.
pub(in crate::cli::serve) struct Predecessor {
    stream: BufReader<UnixStream>,
    /// Its control socket.
    path: PathBuf,
    pid: u32,
    process: Process,
    /// It has feeds on disk.
    #[cfg_attr(not(feature = "store"), allow(dead_code, reason = "it refuses a server without a store"))]
    stores: bool,
}

/// What it had.
struct State {
    feeds: Vec<(Feed, History)>,
    publications: KnownPublications,
    /// How many feeds on disk continue.
    stored: usize,
    /// Some are given up.
    drops: bool,
}

/// What a new server does with the feeds of the old one.
#[derive(Clone, Copy)]
pub(super) struct Heir<'a> {
    pub(super) estate: &'a Estate,
    /// What may be given up.
    pub(super) dropped: &'a [Dropped],
    /// Feeds on disk that would get chunks of another kind of source, in words. The old server may not serve them.
    pub(super) mixed: &'a [String],
}

/// How it went.
enum Outcome {
    /// The old server drains.
    Go(State),
    /// The old server has ended by itself before it had given everything, or without a word after that.
    Ended(Option<State>),
}

/// What the log is to have of a take-over that is done, once this server has begun.
#[must_use]
pub(in crate::cli::serve) enum Report {
    /// There was none.
    Nothing,
    Done(String),
    Warning(String),
}

impl Report {
    pub(in crate::cli::serve) fn log(self) {
        match self {
            Self::Nothing => {}
            Self::Done(text) => info!("{text}"),
            Self::Warning(text) => warn!("{text}"),
        }
    }
}

impl Predecessor {
    /// Finds the server at one of these sockets that listens where that is `wanted`. If it was `named`, it is that one or
    /// an error. Those that listen `elsewhere` are noted.
    pub(in crate::cli::serve) async fn find(
        sockets: Vec<PathBuf>,
        named: bool,
        wanted: impl Fn(SocketAddr) -> bool,
        elsewhere: &mut Vec<(u32, Vec<SocketAddr>)>,
    ) -> Result<Option<(Self, Inherited)>, Failure> {
        for path in sockets {
            let failed = |error: io::Error| {
                let text = format!("--take-over: the server at {} does not hand over: {error}", path.display());
                Failure::running(anyhow::anyhow!(text))
            };
            let patience = if named { PATIENCE } else { GLANCE };
            let (found, about) = match within(patience, Self::ask_again(&path)).await {
                Ok(asked) => asked,
                Err(error) if is_gone(&error) => continue,
                Err(error) if named => return Err(failed(error)),
                Err(error) => {
                    warn!("--take-over: the server at {} does not identify itself: {error}", path.display());
                    continue;
                }
            };
            if !about.listens.iter().copied().any(&wanted) {
                elsewhere.push((about.pid, about.listens));
                continue;
            }
            if about.version != wire::VERSION {
                return Err(failed(wire::invalid("it speaks another version of the protocol")));
            }
            match within(PATIENCE, found.choose()).await {
                // It has nothing to hand over any more: it would have said why it does not.
                Err(error) if wire::has_ended(&error) => continue,
                chosen => return chosen.map(Some).map_err(failed),
            }
        }
        Ok(None)
    }

    /// What the server at a socket is. One that closes the connection without a word is about to close its socket too,
    /// unless it refuses this user.
    async fn ask_again(path: &Path) -> io::Result<(Self, wire::About)> {
        let begun = Instant::now();
        loop {
            match Self::ask(path).await {
                Err(error) if wire::has_ended(&error) => match begun.elapsed() < MOMENT {
                    true => sleep(PAUSE).await,
                    false => return Err(io::Error::other("it closes the connection, as to another user")),
                },
                asked => return asked,
            }
        }
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
        let (stream, path) = (BufReader::with_capacity(64 << 10, stream), path.to_owned());
        Ok((Self { stream, path, pid: about.pid, process, stores: about.stores }, about))
    }

    pub(in crate::cli::serve) fn pid(&self) -> u32 {
        self.pid
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

    /// Whether it has feeds on disk.
    #[cfg(feature = "store")]
    pub(in crate::cli::serve) fn stores(&self) -> bool {
        self.stores
    }

    /// Has it keep serving, as its feeds are in memory only and would not be continued in a store.
    #[cfg(feature = "store")]
    pub(in crate::cli::serve) async fn refuse_to_store(&mut self) -> Failure {
        let text = "its feeds are in memory only, and a server with --store cannot continue them: stop it first, or give them up with --take-over-drop FEED";
        let _: Option<()> = self.fail(text).await;
        Failure::usage(anyhow::anyhow!("--take-over: process {} keeps serving: {text}", self.pid))
    }

    /// Has it release the store in that folder. Whether it has done so; otherwise it has ended.
    #[cfg(feature = "store")]
    pub(in crate::cli::serve) async fn release(&mut self, dir: &Path) -> Result<bool, Failure> {
        let released = async {
            let folder = match super::shelf::folder(dir).await {
                Ok(folder) => folder,
                Err(error) => {
                    let dir = dir.display();
                    let what = match error.kind() {
                        io::ErrorKind::NotFound => format!("there is no folder {dir}"),
                        _ => format!("{dir}: {error}"),
                    };
                    let why = format!("{what}. Its feeds are on disk: {SAME_STORE}");
                    let _: Option<()> = self.fail(&why).await;
                    return Err(Trouble::Other(io::Error::other(why)));
                }
            };
            match self.answer_within(RELEASING, &ToOld::Release { folder }).await? {
                ToNew::Released => Ok(()),
                other => Err(unexpected(other)),
            }
        };
        let Err(trouble) = released.await else { return Ok(true) };
        let ended = self.without_go(trouble, None, &CancellationToken::new()).await;
        ended.map(|_| false).map_err(|refused| refused.of(self.pid))
    }

    /// Takes its feeds over, except for those that may be dropped, for a server that could serve now and will read these
    /// sockets. Gives what to report of it; `None` if this server was told to stop, and the old one keeps serving or
    /// has ended; once that one may have said that this one is to serve, it is too late for that.
    pub(in crate::cli::serve) async fn hand_over(
        mut self,
        heir: Heir<'_>,
        udp: &[SocketAddr],
        stop: &CancellationToken,
    ) -> Result<Option<Report>, Failure> {
        let pid = self.pid;
        let taken = self.take(heir, udp, stop).await.map_err(|refused| refused.of(pid))?;
        let Some(outcome) = taken else { return Ok(None) };
        let (state, went) = match outcome {
            Outcome::Go(state) => (state, true),
            Outcome::Ended(Some(state)) => (state, false),
            // It has not come to what `Heir::find` looks for.
            Outcome::Ended(None) if !heir.mixed.is_empty() => {
                return Err(Failure::usage(anyhow::anyhow!("{}", Lacking::mixed(heir.mixed))));
            }
            Outcome::Ended(None) => {
                return Ok(Some(Report::Warning(format!(
                    "process {pid} ended before it had handed over: its feeds start over"
                ))));
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
        heir.estate.restore_publications(state.publications);
        let continued = continued((feeds, chunks), state.stored, state.drops);
        Ok(Some(match went {
            true => Report::Done(format!("took over from process {pid}: {continued}")),
            false => Report::Warning(format!("process {pid} ended while it handed over: {continued}")),
        }))
    }

    async fn take(
        &mut self,
        heir: Heir<'_>,
        udp: &[SocketAddr],
        stop: &CancellationToken,
    ) -> Result<Option<Outcome>, Refused> {
        // Publishers wait until `Taken`: nothing is done before that which could be done later.
        let state = match stop.run_until_cancelled(self.state(heir, udp)).await {
            Some(Ok(state)) => state,
            Some(Err(trouble)) => return self.without_go(trouble, None, stop).await,
            None => return Ok(self.fail("it was told to stop").await),
        };
        fault::point("take-over");
        if stop.is_cancelled() {
            return Ok(self.fail("it was told to stop").await);
        }
        match self.taken().await {
            Ok(()) => Ok(Some(Outcome::Go(state))),
            Err(trouble) => self.without_go(trouble, Some(state), stop).await,
        }
    }

    /// Has the old server keep serving. It is told why for its log; it notices the end of the connection otherwise.
    async fn fail<T>(&mut self, why: &str) -> Option<T> {
        let fails = ToOld::Fails { why: why.into() };
        let _ = within(GLANCE, wire::write(self.stream.get_mut(), &fails)).await;
        None
    }

    async fn state(&mut self, heir: Heir<'_>, udp: &[SocketAddr]) -> Result<State, Trouble> {
        let ready = ToOld::Ready { udp: udp.to_vec() };
        let (feeds, publications, stored, written) = match self.answer(&ready).await? {
            ToNew::State { feeds, publications, stored, written } => (feeds, publications, stored, written),
            other => return Err(unexpected(other)),
        };
        let (found, stored, drops) = match heir.find(&feeds, &stored, written.as_deref()).await {
            Ok(found) => found,
            Err(lacking) => {
                let _: Option<()> = self.fail(&lacking.to_string()).await;
                return Err(Trouble::Lacking(lacking));
            }
        };
        // Why that failed, what is read says.
        let _ = within(PATIENCE, wire::write(self.stream.get_mut(), &ToOld::Send)).await;
        let mut state = State { feeds: Vec::new(), publications, stored, drops };
        for (of, found) in feeds.iter().zip(found) {
            let history = of.history(self.chunks(of).await?);
            state.feeds.extend(found.map(|feed| (feed, history)));
        }
        Ok(state)
    }

    /// The chunks of a feed.
    async fn chunks(&mut self, of: &FeedState) -> Result<Vec<Arc<Chunk>>, Trouble> {
        let mut seqs = of.seqs()?;
        let mut chunks = Vec::new();
        while !seqs.is_empty() {
            fault::point("take-over-part");
            let count = match within(PATIENCE, wire::read(&mut self.stream)).await? {
                ToNew::Chunks { count } if (1..=seqs.end - seqs.start).contains(&count) => count,
                other => return Err(unexpected(other)),
            };
            let these = seqs.start..seqs.start + count;
            seqs.start = these.end;
            within(PATIENCE, wire::read_chunks(&mut self.stream, these, &mut chunks)).await?;
        }
        Ok(chunks)
    }

    /// Says that it has everything, and waits for the word to serve: without an end, as the old server may have said it,
    /// and then serves no more.
    async fn taken(&mut self) -> Result<(), Trouble> {
        // Why that failed, what is read says.
        let _ = within(PATIENCE, wire::write(self.stream.get_mut(), &ToOld::Taken)).await;
        let late = async {
            sleep(PATIENCE).await;
            warn!("process {} does not say whether it has handed over: waiting for that, or for its end", self.pid);
            std::future::pending().await
        };
        let answer = tokio::select! {
            answer = wire::read(&mut self.stream) => answer?,
            never = late => match never {},
        };
        match answer {
            ToNew::Go => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Says something, and gives what is said to it.
    async fn answer(&mut self, message: &ToOld) -> Result<ToNew, Trouble> {
        self.answer_within(PATIENCE, message).await
    }

    async fn answer_within(&mut self, patience: Duration, message: &ToOld) -> Result<ToNew, Trouble> {
        let written = within(PATIENCE, wire::write(self.stream.get_mut(), message)).await;
        match within(patience, wire::read(&mut self.stream)).await {
            // Also of one that has closed its end since: it may have said why.
            Ok(answer) => Ok(answer),
            Err(error) => Err(written.err().unwrap_or(error).into()),
        }
    }
}

impl Heir<'_> {
    /// The feed that continues each of the old server's, if it is not dropped; how many of those on disk continue; and
    /// whether any is dropped.
    async fn find(
        self,
        feeds: &[FeedState],
        stored: &[String],
        written: Option<&[String]>,
    ) -> Result<(Vec<Option<Feed>>, usize, bool), Lacking> {
        let (mut found, mut lacking, mut drops) = (Vec::new(), Vec::new(), false);
        for of in feeds {
            let provenance = of.created.as_ref().map(Created::provenance);
            found.push(match self.estate.adopt(&of.name, provenance.as_ref()).await {
                Ok(feed) => Some(feed),
                // Nothing is lost.
                Err(_) if of.next == 0 => None,
                Err(_) if self.drops(&of.name) => {
                    drops = true;
                    warn!(feed = of.name, "a feed of the old server is dropped with its history (--take-over-drop)");
                    None
                }
                Err(lack) => {
                    lacking.push((of.name.clone(), lack));
                    None
                }
            });
        }
        let mut continued = 0;
        for name in stored {
            let is_written = written.map(|written| written.contains(name));
            match self.estate.continues_stored(name, is_written).await {
                Ok(()) => continued += 1,
                Err(Lack::OtherKind) if self.drops(name) => lacking.push((name.clone(), Lack::Taken)),
                Err(_) if self.drops(name) => {
                    drops = true;
                    warn!(feed = name, "a feed of the old server stays on disk and is not served (--take-over-drop)");
                }
                Err(lack) => lacking.push((name.clone(), lack)),
            }
        }
        match (lacking.is_empty(), self.mixed.is_empty()) {
            (true, true) => Ok((found, continued, drops)),
            (true, false) => Err(Lacking::mixed(self.mixed)),
            (false, _) => Err(Lacking::Feeds(lacking)),
        }
    }

    fn drops(self, name: &str) -> bool {
        self.dropped.iter().any(|dropped| dropped.is(name))
    }
}

/// What becomes of the old server's feeds, in words.
fn continued((in_memory, chunks): (usize, usize), stored: usize, drops: bool) -> String {
    let feeds = |number: usize| many(number as u64, "feed");
    let in_memory = (in_memory > 0).then(|| format!("{} with {}", feeds(in_memory), many(chunks as u64, "chunk")));
    let stored = (stored > 0).then(|| format!("{} on disk", feeds(stored)));
    let all: Vec<_> = in_memory.into_iter().chain(stored).collect();
    match (all.is_empty(), drops) {
        (true, true) => "continuing none of its feeds".into(),
        (true, false) => "it had no feeds to continue".into(),
        (false, _) => format!("continuing {}", all.join(" and ")),
    }
}

async fn within<T>(time: Duration, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(time, done).await?
}

/// Whether no server listens at a socket: it was killed, or has just ended.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_continued_in_words() {
        for (feeds, words) in [
            ((0, 0, 0), "it had no feeds to continue"),
            ((2, 1, 0), "continuing 2 feeds with 1 chunk"),
            ((0, 0, 1), "continuing 1 feed on disk"),
            ((1, 5, 3), "continuing 1 feed with 5 chunks and 3 feeds on disk"),
        ] {
            assert_eq!(continued((feeds.0, feeds.1), feeds.2, false), words);
        }
        assert_eq!(continued((0, 0), 0, true), "continuing none of its feeds");
    }
}
