//! `--take-over`: a new server takes over from an old one of the same user, without losing a chunk.
//!
//! | who | what |
//! |---|---|
//! | old | offers its sockets (`SCM_RIGHTS`), and keeps serving |
//! | new | with `--store`: is about to prepare its feeds on disk, and wants the store *released* |
//! | old | flushes the store, pauses publishers and the sources of its feeds on disk, and releases it |
//! | new | prepares everything with them; if it fails, nothing changes. Then it is *ready* |
//! | old | pauses publishers, and says which feeds clients write, and how far publications have come |
//! | new | *fails* if it does not have one of those feeds, or has it *sent* |
//! | old | sends the history of each, in parts |
//! | new | has *taken* them |
//! | old | stops reading UDP, says *go*, and drains: its feeds end as those of a server that stops |
//! | new | serves. Viewers and publishers resume there, by cursor and by key |
//!
//! A chunk is published by one of them only: the old server's publishers stay paused between its state and *go*, and
//! those of the new one begin after that. If the old server is not told that its feeds were taken, it publishes on. So it
//! is with a store, which the new server opens, and changes no feed in it until *go*: the old one reclaims it if the new
//! one fails.
//!
//! Until the new server has *taken* the feeds, either may give up, and says so: the old one with *refused* (it keeps
//! serving) or *stops*, the new one with *fails*. After that the new one waits for the old one's word, even if it is told to
//! stop: otherwise both could end. A connection that ends without a word may be that of a server that was killed, or that
//! stops: the new one asks at its socket, and serves once it has ended.
//!
//! An old server that ends before it has offered its sockets no longer counts as one: the new one waits until its ports are free.
//!
//! A server that is told to stop while it hands over does that first. What can fail at the new one comes before *ready*,
//! except for feeds that it lacks.

mod dropped;
mod leaving;
mod new;
mod old;
mod process;
#[cfg_attr(not(feature = "store"), path = "handover/no_shelf.rs")]
mod shelf;
mod taking;
mod wire;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(super) use self::{dropped::Dropped, old::Yielding, shelf::Shelf};
use self::{
    new::{Heir, Predecessor, Report},
    taking::Taking,
};
use super::{
    args::ServeArgs,
    control::{self, Control, Where},
    systemd::Manager,
};
use crate::{
    Listen, Server,
    app::estate::Estate,
    cli::Failure,
    server::{DEFAULT_PORT, Handover, Inherited, ServerBuilder},
};

/// What a new server asks the old one for, in a line.
pub(super) const TAKE_OVER: &str = "take-over";

/// What to do about a new server without the old one's feeds on disk.
const SAME_STORE: &str = "give the new server the same folder, with --store or H3CAST_STORE";

/// How much longer the end of a server may take, if another one is about to take over from it.
pub(super) const LONGER: Duration = old::HURRY.saturating_add(old::TELLING);

/// What the arguments say of it.
pub(super) struct TakeOverSettings {
    take_over: bool,
    control: Option<Where>,
    grace: Duration,
    listen: Vec<Listen>,
    handed: Vec<SocketAddr>,
    dropped: Vec<Dropped>,
}

impl TakeOverSettings {
    pub(super) fn of(args: &ServeArgs) -> Self {
        let (mut listen, handed) = (args.listen.clone(), args.handed.clone());
        if listen.is_empty() && handed.is_empty() {
            listen.push(Listen::localhost(DEFAULT_PORT));
        }
        let (control, dropped) = (args.control().cloned(), args.take_over_drop.clone());
        Self { take_over: args.take_over, control, grace: args.grace, listen, handed, dropped }
    }

    /// Whether a server that listens there is the old one.
    fn wants(&self, at: SocketAddr) -> bool {
        self.handed.contains(&at) || self.listen.iter().any(|listen| is_at(listen, at))
    }
}

/// The change from an old server to this one, and later from this one to a new one.
pub(super) struct Changeover {
    settings: TakeOverSettings,
    old: Option<Predecessor>,
    inherited: Option<Inherited>,
    /// The old server has been looked for.
    is_looked_for: bool,
    /// Other servers of this user by their process ids, and where they listen.
    others: Vec<(u32, Vec<SocketAddr>)>,
    /// Held while a server takes over from this one.
    changing: Arc<Mutex<()>>,
    /// Whether this server's socket is another's now.
    left: Arc<AtomicBool>,
    /// Told when this one waits for the old server.
    manager: Manager,
}

impl Changeover {
    pub(super) fn new(settings: TakeOverSettings, manager: &Manager) -> Self {
        Self {
            settings,
            old: None,
            inherited: None,
            is_looked_for: false,
            others: Vec::new(),
            changing: Arc::default(),
            left: Arc::default(),
            manager: manager.clone(),
        }
    }

    /// Finds the server that is to be taken over, if one is and it was not looked for before.
    pub(super) async fn find(&mut self) -> Result<(), Failure> {
        let args = &self.settings;
        if !args.take_over || std::mem::replace(&mut self.is_looked_for, true) {
            return Ok(());
        }
        let (sockets, named) = match &args.control {
            Some(Where::At(path)) => (vec![path.clone()], true),
            Some(Where::Off) => {
                let text = "--take-over finds the old server by --control: give the socket that the old one has";
                return Err(Failure::usage(anyhow::anyhow!(text)));
            }
            None => (tokio::task::spawn_blocking(others).await.map_err(Failure::running)?, false),
        };
        match Predecessor::find(sockets, named, |at| named || args.wants(at), &mut self.others).await? {
            Some((old, inherited)) => (self.old, self.inherited) = (Some(old), Some(inherited)),
            None => {
                let leaving = leaving::wait(&args.listen, &args.handed);
                self.manager.waiting("waiting for the ports", leaving).await;
                info!("--take-over: found no running server of this user to take over from: starting without one");
            }
        }
        Ok(())
    }

    /// Has the old server release the store in that folder, if it has one. Whether it may still reclaim it. An error if it
    /// has none, and this one is to store what `clients` write.
    #[cfg(feature = "store")]
    pub(super) async fn claim(&mut self, dir: &std::path::Path, clients: bool) -> Result<bool, Failure> {
        self.find().await?;
        let Some(old) = self.old.as_mut() else { return Ok(false) };
        if !old.stores() {
            return match clients && self.settings.dropped.is_empty() {
                true => Err(old.refuse_to_store().await),
                false => Ok(false),
            };
        }
        let status = format!("taking over the store of process {}", old.pid());
        let is_released = self.manager.waiting(&status, old.release(dir)).await?;
        if !is_released {
            warn!("process {} ended before it had handed over", old.pid());
            self.old = None;
        }
        Ok(is_released)
    }

    /// Where a process listens that is a server of this user and is not taken over, as far as that is known.
    #[cfg(feature = "store")]
    pub(super) fn listens(&self, process: Option<u32>) -> Vec<SocketAddr> {
        let found = self.others.iter().find(|(pid, _)| Some(*pid) == process);
        found.map(|(_, listens)| listens.clone()).unwrap_or_default()
    }

    /// Has a server use the sockets of the old one.
    pub(super) fn inherit(&mut self, builder: ServerBuilder) -> ServerBuilder {
        self.inherited.take().into_iter().fold(builder, ServerBuilder::inherit)
    }

    /// The socket where this server is reached, which is not yet in the place of the old one's.
    pub(super) async fn listen(&self) -> Result<Option<Control>, Failure> {
        Control::listen(self.settings.control.as_ref(), self.old.is_some(), self.left.clone()).await
    }

    /// Takes the feeds over, for a server that could serve now. When it has failed, the old one keeps serving. After it,
    /// nothing may fail. Gives what to report of it once this server has begun; `None` if `stop` came before the old server
    /// may have stopped serving for this one.
    pub(super) async fn complete(
        &mut self,
        server: &Server,
        estate: &Estate,
        mixed: &[String],
        stop: &CancellationToken,
    ) -> Result<Option<Report>, Failure> {
        let Some(old) = self.old.take() else { return Ok((!stop.is_cancelled()).then_some(Report::Nothing)) };
        let status = format!("taking over from process {}", old.pid());
        let heir = Heir { estate, dropped: &self.settings.dropped, mixed };
        let taken = Box::pin(old.hand_over(heir, &server.addresses().udp, stop));
        // It may be until the end of the old one.
        self.manager.waiting(&status, taken).await
    }

    /// Waits while a server takes over from this one. No other begins to while what this gives is kept.
    pub(super) fn settled(&self) -> impl Future<Output = Settled> + use<> {
        self.changing.clone().lock_owned()
    }

    /// Hands over to a server that asks for it; then cancels `stop`, and `ending` at once.
    pub(super) fn yielding(
        self,
        server: &Server,
        (estate, shelf): (Estate, Shelf),
        stop: CancellationToken,
        ending: CancellationToken,
    ) -> Option<Yielding> {
        let found = server.handover().and_then(|handover| Ok((listens(&handover)?, handover)));
        let Ok((listens, handover)) = found else {
            warn!("no file descriptors are left: another server cannot take over from this one");
            return None;
        };
        let Self { settings: TakeOverSettings { grace, .. }, changing, left, .. } = self;
        let taking = Taking::default();
        Some(Yielding { handover, listens, estate, shelf, grace, changing, taking, left, stop, ending })
    }
}

/// No server takes over from this one.
pub(super) type Settled = tokio::sync::OwnedMutexGuard<()>;

/// Where a server listens that does not run yet.
fn listens(handover: &Handover) -> io::Result<Vec<SocketAddr>> {
    let (_offer, inherited) = handover.offer()?;
    let udp = inherited.udp.iter().map(|udp| udp.socket.local_addr());
    udp.chain(inherited.tcp.iter().map(TcpListener::local_addr)).collect()
}

/// The sockets of other servers of this user.
fn others() -> Vec<PathBuf> {
    // This one has none yet. A container may have given the same process id to another server.
    let found = control::folders().into_iter().flat_map(|folder| control::sockets(&folder));
    found.map(|(_, path)| path).collect()
}

/// Whether an address is one to listen on. Of a name, that it is the server of --control must be said.
fn is_at(listen: &Listen, at: SocketAddr) -> bool {
    let is_host = match listen.host() {
        "" => at.ip().is_unspecified(),
        "localhost" => at.ip().is_loopback(),
        host => host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip == at.ip()),
    };
    is_host && listen.port() == at.port()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Given {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn wants(args: &[&str], at: &str) -> bool {
        let given = Given::try_parse_from(std::iter::once(&"serve").chain(args)).unwrap();
        TakeOverSettings::of(&given.serve).wants(at.parse().unwrap())
    }

    #[test]
    fn the_old_server_is_known_by_its_addresses() {
        assert!(wants(&[], "127.0.0.1:4433") && wants(&[], "[::1]:4433"));
        assert!(!wants(&[], "127.0.0.1:4434") && !wants(&[], "192.0.2.1:4433"));
        let args = ["--listen=0.0.0.0:443"];
        assert!(wants(&args, "0.0.0.0:443"));
        assert!(!wants(&args, "127.0.0.1:4433"));
        let args = ["--listen=:443"];
        assert!(wants(&args, "0.0.0.0:443") && wants(&args, "[::]:443") && !wants(&args, "127.0.0.1:443"));
    }
}
