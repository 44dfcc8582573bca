//! Connections to NATS, one for each system that feeds are on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use async_nats::{ServerAddr, rustls::crypto::CryptoProvider};
use tokio::{
    sync::{OnceCell, Semaphore, watch},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Access, Address, Ensure, NatsError,
    allowed::Questions,
    cause::Denied,
    client::{Current, Denials, Making, Seen},
    counts::Counts,
    error::KeepError,
    leader::Leaders,
    overview::Overview,
    presence::{Presence, Teller},
    room::Room,
    servers::Servers,
};
use crate::{App, identity::provider};

/// How long a server may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(3);
/// For how long NATS is waited for when a feed is started, if nothing else is said.
const WAIT: Duration = Duration::from_secs(60);
/// How many different refusals are told until the connection is made again, or a feed is there.
pub(super) const TOLD: usize = 32;
/// How many viewers read what is older than their ring at once; others wait.
const READS: usize = 32;
/// How many of them have a consumer of their own, as long as they keep reading.
const READERS: usize = 8;
/// How many of this server's consumers are deleted at once.
const DELETIONS: usize = 8;
/// How many feeds of patterns are looked for at once that are not there yet; others wait.
const LOOKS: usize = 4;
/// How many messages of a subscription wait until they are taken. What arrives while there are as many is lost.
pub(super) const BUFFER: usize = 65_536;
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
    /// One that is being made holds up those who want the same, and no others.
    known: Arc<StdMutex<HashMap<System, Arc<OnceCell<Link>>>>>,
    counts: Counts,
    teller: Teller,
    pub(super) overview: Overview,
    /// Until when feeds that are started wait for NATS, if all of them are started now.
    until: Option<Instant>,
}

/// A connection, which comes again by itself when it is lost, also if its client is gone.
#[derive(Debug, Clone)]
pub(super) struct Link {
    current: watch::Receiver<Arc<Current>>,
    /// What replaces the client.
    _keeping: Arc<AbortOnDropHandle<()>>,
    /// Whether it is there now, and how often it was lost.
    pub(super) state: watch::Receiver<LinkState>,
    /// Its servers, as they are shown to people.
    shown: Arc<str>,
    denied: watch::Receiver<Denials>,
    /// Places for those who read what is old.
    pub(super) reads: Arc<Semaphore>,
    /// Places for those of them who have a consumer of their own.
    pub(super) readers: Arc<Semaphore>,
    /// The place for the one who looks whether there is room for a consumer, and makes it.
    pub(super) creating: Arc<Semaphore>,
    /// Places for those who delete one.
    pub(super) deleting: Arc<Semaphore>,
    /// Places for those who look for feeds.
    pub(super) looks: Arc<Semaphore>,
    /// Places for batches on their way.
    pub(super) batches: Arc<Semaphore>,
    /// The place for a large message on its way to a ring.
    pub(super) large: Arc<Semaphore>,
    pub(super) room: Room,
    /// Those who ask what the user may do.
    pub(super) questions: Questions,
    pub(super) counts: Counts,
    pub(super) servers: Servers,
    pub(super) leaders: Leaders,
    pub(super) presence: Presence,
}

/// See [`Link`].
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkState {
    pub(super) connected: bool,
    pub(super) losses: u64,
    /// How often it was made again.
    pub(super) returns: u64,
    /// How often its client was gone without having been closed: it panics at some messages.
    pub(super) deaths: u64,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(options: NatsOptions) -> Self {
        Self { options: Arc::new(options), ..Self::default() }
    }

    /// The same, where all feeds that are started wait for NATS until the same time, and not each for that long.
    #[must_use]
    pub fn starting_now(&self) -> Self {
        Self { until: Some(self.wait_until()), ..self.clone() }
    }

    /// Shows in the app's `/metrics` how these connections are, if there are any by now, and logs to which servers they
    /// are, and which feeds are read from where.
    #[must_use]
    pub fn install(&self, app: App) -> App {
        self.overview.tell();
        self.counts.install(app)
    }

    pub(super) fn ensure(&self) -> Option<&Ensure> {
        self.options.ensure.as_ref()
    }

    /// Until when a feed that is started now waits for NATS.
    pub(super) fn wait_until(&self) -> Instant {
        self.until.unwrap_or_else(|| Instant::now() + self.options.wait)
    }

    /// Notes that there will be connections.
    pub(super) fn expect(&self) {
        self.counts.expect();
    }

    /// The connection to the servers of an address.
    pub(super) async fn to(&self, address: &Address) -> Result<Link, NatsError> {
        let key = (address.servers.clone(), address.access.clone());
        let cell = self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        cell.get_or_try_init(|| self.connect(address)).await.cloned()
    }

    /// A connection that nothing else uses.
    pub(super) async fn apart(&self, address: &Address) -> Result<Link, NatsError> {
        self.connect(address).await
    }

    async fn connect(&self, address: &Address) -> Result<Link, NatsError> {
        let servers: Vec<ServerAddr> =
            address.servers.iter().map(|server| server.parse().map_err(NatsError::Server)).collect::<Result<_, _>>()?;
        // The client asks rustls for the cryptography of the process, and that panics where there are two to
        // choose from.
        if CryptoProvider::get_default().is_none() {
            // An error means that another thread was first.
            let _ = (*provider()).clone().install_default();
        }
        self.options.access.check().await?;
        let access = address.access.or(&self.options.access, servers.iter().any(ServerAddr::has_user_pass));
        let (making, Seen { state, denied, choice: servers, shown }) = Making::new(servers, access);
        let (current, keeping) = making.keep().await?;
        self.counts.add(state.clone());
        let [reads, readers, creating, deleting, looks, batches, large] =
            [READS, READERS, 1, DELETIONS, LOOKS, BATCHES, 1].map(|places| Arc::new(Semaphore::new(places)));
        let (counts, leaders) = (self.counts.clone(), Leaders::default());
        let presence = Presence::new(
            self.teller.connection(),
            self.options.ensure.as_ref().map(|ensure| ensure.replicas.unwrap_or(1)),
        );
        Ok(Link {
            current,
            _keeping: Arc::new(keeping),
            state,
            shown,
            denied,
            reads,
            readers,
            creating,
            deleting,
            looks,
            batches,
            large,
            room: Room::default(),
            questions: Questions::default(),
            counts,
            servers,
            leaders,
            presence,
        })
    }
}

impl Link {
    /// The client that it has now, which is to be asked for anew each time.
    pub(super) fn now(&self) -> Arc<Current> {
        self.current.borrow().clone()
    }

    /// The same, as it changes.
    pub(super) fn clients(&self) -> watch::Receiver<Arc<Current>> {
        self.current.clone()
    }

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
        let concerns = |(at, denied): &&(Instant, Denied)| *at >= since && denied.concerns(subject);
        let (_, Denied { what, subject, .. }) = all.iter().rev().find(concerns)?;
        Some(KeepError::Denied { what, subject: subject.clone() })
    }

    /// What the server denies, and when last.
    pub(super) fn denials(&self) -> watch::Receiver<Denials> {
        self.denied.clone()
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

    /// What is wrong while it is not there, in words.
    pub(super) fn unreachable(&self) -> String {
        format!("NATS at {} cannot be reached", self.shown)
    }

    /// How often it was lost.
    pub(super) fn losses(&self) -> u64 {
        self.state.borrow().losses
    }

    /// How often a client was gone before the one that it has now, as after a panic.
    pub(super) fn deaths(&self) -> u64 {
        self.state.borrow().deaths
    }

    /// Waits until it is lost, also for a moment. Cancel-safe.
    pub(super) fn lost(&self) -> impl Future<Output = ()> + use<> {
        self.lost_since(self.losses())
    }

    /// Waits until it is lost, if it was not since then. Cancel-safe.
    pub(super) fn lost_since(&self, before: u64) -> impl Future<Output = ()> + use<> {
        let mut state = self.state.clone();
        async move {
            let _ = state.wait_for(|state| !state.connected || state.losses != before).await;
        }
    }
}
