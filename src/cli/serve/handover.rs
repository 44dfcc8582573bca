//! `--take-over`: a new server continues an old one of the same user, without losing a chunk.
//!
//! | who | what |
//! |---|---|
//! | old | offers its sockets (`SCM_RIGHTS`), and keeps serving |
//! | new | prepares everything with them; if it fails, nothing has happened. Then it is *ready* |
//! | old | has publishers wait, and sends the feeds that clients write: epoch, history, how far publications have come |
//! | new | has *taken* them |
//! | old | stops reading UDP, says *go*, and drains: its feeds end as those of a server that stops |
//! | new | serves. Viewers and publishers resume there, by cursor and by key |
//!
//! A chunk is published by one of them only, as publishers of the old one do not get on between its state and *go*, and
//! those of the new one begin after that. If the old server is not told that its feeds were taken, it publishes on.

mod new;
mod old;
mod wire;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{new::Predecessor, old::Yielding};
use super::{
    args::ServeArgs,
    control::{self, Control, Where},
};
use crate::{
    Listen, Server,
    app::estate::Estate,
    cli::Failure,
    server::{Inherited, ServerBuilder},
};

/// What a new server asks the old one for, in a line.
pub(super) const TAKE_OVER: &str = "take-over";

/// What the arguments say of it.
pub(super) struct Changing {
    take_over: bool,
    control: Option<Where>,
    grace: Duration,
    listen: Vec<Listen>,
    handed: Vec<SocketAddr>,
}

impl Changing {
    pub(super) fn of(args: &ServeArgs) -> Self {
        Self {
            take_over: args.take_over,
            control: args.control().cloned(),
            grace: args.grace,
            listen: args.listen.clone(),
            handed: args.handed.clone(),
        }
    }
}

/// The change from an old server to this one, and later from this one to a new one.
pub(super) struct Changeover {
    estate: Estate,
    control: Option<Where>,
    grace: Duration,
    old: Option<(Predecessor, Option<Inherited>)>,
}

impl Changeover {
    /// Finds the server that is to be taken over, if one is.
    pub(super) async fn find(args: &Changing, estate: Estate) -> Result<Self, Failure> {
        let mut found = Self { estate, control: args.control.clone(), grace: args.grace, old: None };
        if !args.take_over {
            return Ok(found);
        }
        let (sockets, is_any) = match &args.control {
            Some(Where::At(path)) => (vec![path.clone()], true),
            Some(Where::Off) => {
                let text = "--take-over finds the old server by --control: give the socket that the old one has";
                return Err(Failure::usage(anyhow::anyhow!(text)));
            }
            None => (tokio::task::spawn_blocking(others).await.map_err(Failure::running)?, false),
        };
        let wanted = |at| is_any || args.handed.contains(&at) || args.listen.iter().any(|listen| is_at(listen, at));
        match Predecessor::find(sockets, wanted).await? {
            Some((old, inherited)) => found.old = Some((old, Some(inherited))),
            None => info!("--take-over: no server of this user listens there: starting from scratch"),
        }
        Ok(found)
    }

    /// Has a server use the sockets of the old one.
    pub(super) fn inherit(&mut self, builder: ServerBuilder) -> ServerBuilder {
        let inherited = self.old.as_mut().and_then(|(_, inherited)| inherited.take());
        inherited.into_iter().fold(builder, ServerBuilder::inherit)
    }

    /// Takes the feeds over, for a server that could serve now. When it has failed, the old one keeps serving.
    pub(super) async fn complete(&mut self, server: &Server) -> Result<bool, Failure> {
        let Some((old, _)) = self.old.take() else { return Ok(false) };
        Box::pin(old.hand_over(&self.estate, &server.addresses().udp)).await?;
        Ok(true)
    }

    /// The socket where this server is reached from now on.
    pub(super) async fn listen(&self, has_taken_over: bool) -> Result<Option<Control>, Failure> {
        Control::listen(self.control.as_ref(), has_taken_over).await
    }

    /// Hands over to a server that asks for it; then cancels `stop`, and `ending` at once.
    pub(super) fn yielding(
        self,
        server: &Server,
        stop: CancellationToken,
        ending: CancellationToken,
    ) -> Option<Yields> {
        let Ok(handover) = server.handover() else {
            warn!("no file descriptors are left: another server cannot take over from this one");
            return None;
        };
        let yielding = Yielding { handover, estate: self.estate };
        Some(Yields { yielding, grace: self.grace, stop, ending })
    }
}

/// A server that another one may take over.
pub(super) struct Yields {
    yielding: Yielding,
    grace: Duration,
    stop: CancellationToken,
    ending: CancellationToken,
}

impl Yields {
    pub(super) async fn to(&self, stream: UnixStream) {
        let successor = match Box::pin(self.yielding.to(stream)).await {
            Ok(successor) => successor,
            Err(error) => return warn!("a new server did not take over, this one keeps serving: {error}"),
        };
        if let Err(error) = successor.serve(self.grace).await {
            return warn!("the new server ended before it served, this one keeps serving: {error}");
        }
        // No longer for load balancers: the ports are served.
        self.stop.cancel();
        self.ending.cancel();
    }
}

/// The sockets of other servers of this user.
fn others() -> Vec<PathBuf> {
    let found = control::folders().into_iter().flat_map(|folder| control::sockets(&folder));
    found.filter(|(pid, _)| *pid != std::process::id()).map(|(_, path)| path).collect()
}

/// Whether an address is one to listen on. Of a name, that it is the server of --control must be said.
fn is_at(listen: &Listen, at: SocketAddr) -> bool {
    let is_host = match listen.host() {
        "localhost" => at.ip().is_loopback(),
        host => host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip == at.ip()),
    };
    is_host && listen.port() == at.port()
}
