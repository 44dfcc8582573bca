//! Connections to NATS, one for each system that feeds are on.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, ServerError, jetstream, rustls::crypto::CryptoProvider};
use tokio::{
    sync::{Mutex, Semaphore, watch},
    time::Instant,
};
use tracing::{debug, info, warn};

use super::{
    Access, Address, ConnectCause, Ensure, NatsError,
    cause::Denied,
    counts::Counts,
    error::KeepError,
    leader::Leaders,
    login,
    presence::{self, Presence},
    servers::Servers,
};
use crate::{App, identity::provider};

/// How long a server may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(3);
/// For how long NATS is waited for when a feed is started, if nothing else is said.
const WAIT: Duration = Duration::from_secs(60);
/// How many different refusals are told until the connection is made again.
const TOLD: usize = 32;
/// How many viewers read what is older than their ring at once; others wait.
const READS: usize = 32;
/// How many feeds of patterns are looked for at once that are not there yet; others wait.
const LOOKS: usize = 4;
/// How many batches are on their way at once. A stream takes 50, from all servers together.
const BATCHES: usize = 8;

/// How NATS is reached, and what is made there.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NatsOptions {
    /// The files with which systems are entered whose addresses name no others.
    pub access: Access,
    /// Make the streams that are missing, and see that those that are there are like this.
    pub ensure: Option<Ensure>,
    /// For how long a feed that is started waits for NATS: for a server, for JetStream, for the leader of its
    /// stream. By default 60 s. What no waiting helps is an error at once.
    pub wait: Duration,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self { access: Access::default(), ensure: None, wait: WAIT }
    }
}

/// The servers of a system, and the files of their address.
type System = (Vec<String>, Access);

/// One connection for each system.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    options: Arc<NatsOptions>,
    known: Arc<Mutex<HashMap<System, Link>>>,
    counts: Counts,
}

/// A connection, which comes again by itself when it is lost.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    /// Whether it is there now, and how often it was lost.
    pub(super) state: watch::Receiver<LinkState>,
    denied: watch::Receiver<Denials>,
    /// Places for those who read what is old.
    pub(super) reads: Arc<Semaphore>,
    /// Places for those who look for feeds.
    pub(super) looks: Arc<Semaphore>,
    /// Places for batches on their way.
    pub(super) batches: Arc<Semaphore>,
    pub(super) counts: Counts,
    pub(super) servers: Servers,
    pub(super) leaders: Leaders,
    pub(super) presence: Presence,
}

/// What the server has denied, and when last: the newest at the end.
type Denials = VecDeque<(Instant, Denied)>;

/// See [`Link`].
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkState {
    pub(super) connected: bool,
    pub(super) losses: u64,
    /// How often it was made again.
    pub(super) returns: u64,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(options: NatsOptions) -> Self {
        Self { options: Arc::new(options), known: Arc::default(), counts: Counts::default() }
    }

    /// Shows in the app's `/metrics` how these connections are, if there are any by now.
    #[must_use]
    pub fn install(&self, app: App) -> App {
        self.counts.install(app)
    }

    pub(super) fn ensure(&self) -> Option<&Ensure> {
        self.options.ensure.as_ref()
    }

    pub(super) fn wait(&self) -> Duration {
        self.options.wait
    }

    /// The connection to the servers of an address.
    pub(super) async fn to(&self, address: &Address) -> Result<Link, NatsError> {
        let key = (address.servers.clone(), address.access.clone());
        let mut known = self.known.lock().await;
        if let Some(connection) = known.get(&key) {
            return Ok(connection.clone());
        }
        let connection = self.connect(address).await?;
        known.insert(key, connection.clone());
        Ok(connection)
    }

    async fn connect(&self, address: &Address) -> Result<Link, NatsError> {
        let servers: Vec<ServerAddr> =
            address.servers.iter().map(|server| server.parse().map_err(NatsError::Server)).collect::<Result<_, _>>()?;
        let shown: Vec<_> = servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        let shown = shown.join(", ");
        // The client asks rustls for the cryptography of the process, and that panics where there are two to
        // choose from.
        if CryptoProvider::get_default().is_none() {
            // An error means that another thread was first.
            let _ = (*provider()).clone().install_default();
        }
        let (state_tx, state) = watch::channel(LinkState { connected: true, losses: 0, returns: 0 });
        let (denied_tx, denied) = watch::channel(Denials::new());
        let told = Told { servers: shown.clone().into(), told: StdMutex::default() };
        let chosen = Servers::default();
        let options = connect_options(Arc::new(told), state_tx, denied_tx, chosen.clone());
        let has_user = servers.iter().any(ServerAddr::has_user_pass);
        let access = address.access.or(&self.options.access, has_user);
        let options = access.apply(options, &servers).await?;
        let servers = servers.iter().map(login::without_user).collect::<Result<Vec<_>, _>>()?;
        let client = options
            .connect(servers.as_slice())
            .await
            .map_err(|error| NatsError::Connect { servers: shown, source: ConnectCause::of(&error.to_string()) })?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(ANSWER);
        self.counts.add(state.clone());
        let [reads, looks, batches] = [READS, LOOKS, BATCHES].map(|places| Arc::new(Semaphore::new(places)));
        let (counts, leaders) = (self.counts.clone(), Leaders::default());
        let presence = Presence::new(self.options.ensure.as_ref().map(|ensure| ensure.replicas.unwrap_or(1)));
        let servers = chosen;
        Ok(Link { client, jetstream, state, denied, reads, looks, batches, counts, servers, leaders, presence })
    }
}

/// What was told of a connection since it was made last.
struct Told {
    servers: Arc<str>,
    told: StdMutex<BTreeSet<String>>,
}

impl Told {
    /// Warns of it, unless that was done already.
    fn once(&self, what: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD && !told.contains(&what) {
            warn!(servers = %self.servers, "NATS: {what}");
            told.insert(what);
        }
    }

    fn anew(&self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn connect_options(
    told: Arc<Told>,
    state: watch::Sender<LinkState>,
    denied: watch::Sender<Denials>,
    choice: Servers,
) -> ConnectOptions {
    let (attempts, chosen) = (told.clone(), choice.clone());
    let common = Arc::new((told, state, denied, choice));
    ConnectOptions::new()
        .name("h3cast")
        .connection_timeout(ANSWER)
        .request_timeout(Some(ANSWER))
        .ping_interval(Duration::from_secs(5))
        // Only here the client says why the last attempts failed.
        .reconnect_to_server_callback(move |servers: Vec<async_nats::Server>, _| {
            for server in &servers {
                if let Some(error) = &server.last_error {
                    let at = format!("{}:{}", server.addr.host(), server.addr.port());
                    attempts.once(format!("cannot connect to {at}: {}", ConnectCause::of(error)));
                }
            }
            std::future::ready(chosen.choose(&servers))
        })
        .event_callback(move |event| {
            let common = common.clone();
            async move {
                let (told, state, denied, choice) = &*common;
                if event == Event::Connected {
                    choice.connected();
                }
                on_event(event, told, state, denied);
            }
        })
}

fn on_event(event: Event, told: &Told, state: &watch::Sender<LinkState>, denied: &watch::Sender<Denials>) {
    let servers = &told.servers;
    match event {
        Event::Connected => {
            let before = *state.borrow();
            let returns = before.returns + u64::from(!before.connected);
            state.send_replace(LinkState { connected: true, returns, ..before });
            if !before.connected {
                told.anew();
                info!(%servers, "connected to NATS again");
            }
        }
        Event::Disconnected | Event::Closed => {
            let before = *state.borrow();
            state.send_replace(LinkState { connected: false, losses: before.losses + 1, ..before });
            if before.connected {
                warn!(%servers, "the connection to NATS is lost: trying again");
            }
        }
        // What fails is told by the callback above, with its cause, once.
        Event::ClientError(error) => debug!(%servers, "NATS: {error}"),
        Event::ServerError(ServerError::Other(text)) => match Denied::of(&text) {
            Some(what) if presence::is_about(&what.subject) => debug!(%servers, "NATS: {text}"),
            Some(what) => {
                // Answers come to a subject of their own each.
                let stem = what.subject.split(".").take(2).collect::<Vec<_>>().join(".");
                let subject = if stem.starts_with("_INBOX.") { "_INBOX.>" } else { &what.subject };
                told.once(format!("permission denied: the user may not {} `{subject}`", what.what));
                denied.send_modify(|all| {
                    all.retain(|(_, before)| *before != what);
                    if all.len() == TOLD {
                        all.pop_front();
                    }
                    all.push_back((Instant::now(), what));
                });
            }
            None => told.once(text),
        },
        event => told.once(event.to_string()),
    }
}

impl Link {
    /// What a start gives, or what the server denies of it meanwhile: it does not answer such a request.
    pub(super) async fn unless_denied<T>(
        &self,
        start: impl Future<Output = Result<T, NatsError>>,
    ) -> Result<T, NatsError> {
        let (began, mut denied) = (Instant::now(), self.denied.clone());
        let of_start = |(at, denied): &&(Instant, Denied)| *at >= began && denied.is_of_start();
        let mut first = None;
        tokio::select! {
            biased;
            result = start => result,
            Ok(_) = denied.wait_for(|all| {
                first = all.iter().find(of_start).map(|(_, denied)| denied.clone());
                first.is_some()
            }) => Err(match first {
                Some(denied) => denied.into(),
                None => NatsError::JetStream("the connection is gone".into()),
            }),
        }
    }

    /// What the server has denied of publishing to a subject since then: it does not answer that, it says so apart.
    pub(super) fn denied(&self, subject: &str, since: Instant) -> Option<KeepError> {
        let all = self.denied.borrow();
        let concerns = |denied: &Denied| denied.subject == subject || denied.subject.starts_with("_INBOX.");
        let (_, Denied { what, subject }) = all.iter().rev().find(|(at, denied)| *at >= since && concerns(denied))?;
        Some(KeepError::Denied { what, subject: subject.clone() })
    }

    /// Counts a publication that is given up.
    pub(super) fn refused(&self, why: KeepError) -> KeepError {
        self.counts.refused(why.refusal());
        why
    }

    /// Waits until it is there. Cancel-safe.
    pub(super) async fn connected(&self) {
        // An error would mean that its client is gone, which `self` holds.
        let _ = self.state.clone().wait_for(|state| state.connected).await;
    }

    /// Whether it is there now.
    pub(super) fn is_connected(&self) -> bool {
        self.state.borrow().connected
    }

    /// How often it was lost.
    pub(super) fn losses(&self) -> u64 {
        self.state.borrow().losses
    }

    /// Waits until it is lost, also for a moment. Cancel-safe.
    pub(super) fn lost(&self) -> impl Future<Output = ()> + use<> {
        let mut state = self.state.clone();
        let before = state.borrow_and_update().losses;
        async move {
            let _ = state.wait_for(|state| !state.connected || state.losses != before).await;
        }
    }
}
