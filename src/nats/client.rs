//! The client of a connection to NATS, and the next one once it is gone.
//!
//! The client library keeps a connection in a task of its own, which makes it again when it is lost. If that task panics,
//! as it does at a carriage return in the value of a header, or ends otherwise, all handles of the client are useless
//! for good. The library does not give the task away, but what it calls with the client's events is dropped with it.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, ServerError, jetstream};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};
use tracing::{debug, error, info, warn};

use super::{
    Access, ConnectCause, NatsError, allowed,
    cause::Denied,
    connection::{ANSWER, BUFFER, LinkState, TOLD},
    greeting,
    keeper::AGAIN,
    login, presence,
    servers::Servers,
};
use crate::{fault, feed::FeedError, panics};

/// A client that has lived for that long is replaced at once; otherwise after a pause, which doubles up to this one.
const STEADY: Duration = Duration::from_secs(10);
const LONGEST_AGAIN: Duration = Duration::from_secs(5);

/// What the server has denied, and when last: the newest at the end.
pub(super) type Denials = VecDeque<(Instant, Denied)>;

/// A client, which may be replaced by another at any time.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
}

/// What makes the clients of a connection.
pub(super) struct Making {
    pub(super) servers: Vec<ServerAddr>,
    pub(super) access: Access,
    common: Arc<Common>,
}

/// What all clients of a connection share.
struct Common {
    told: Told,
    state: watch::Sender<LinkState>,
    denied: watch::Sender<Denials>,
    choice: Servers,
}

/// What a connection has of that.
pub(super) struct Seen {
    pub(super) state: watch::Receiver<LinkState>,
    pub(super) denied: watch::Receiver<Denials>,
    pub(super) choice: Servers,
    /// The servers, as they are shown to people.
    pub(super) shown: Arc<str>,
}

/// One client, for the one who replaces it.
struct Life {
    began: Instant,
    heard: Arc<StdMutex<Heard>>,
    gone: CancellationToken,
}

/// What one client has told.
struct Heard {
    /// It is the connection's, which follows it.
    is_current: bool,
    is_connected: bool,
    is_closed: bool,
}

fn lock<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Making {
    pub(super) fn new(servers: Vec<ServerAddr>, access: Access) -> (Self, Seen) {
        let (state_tx, state) = watch::channel(LinkState { connected: true, losses: 0, returns: 0, deaths: 0 });
        let (denied_tx, denied) = watch::channel(Denials::new());
        let shown: Vec<_> = servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        let shown: Arc<str> = shown.join(", ").into();
        let told = Told { servers: shown.clone(), inbox: access.inbox().into(), told: StdMutex::default() };
        let choice = Servers::default();
        let common = Arc::new(Common { told, state: state_tx, denied: denied_tx, choice: choice.clone() });
        (Self { servers, access, common }, Seen { state, denied, choice, shown })
    }

    async fn make(&self) -> Result<(Current, Life), NatsError> {
        let heard = Arc::new(StdMutex::new(Heard { is_current: false, is_connected: true, is_closed: false }));
        let gone = CancellationToken::new();
        let own = Own { common: self.common.clone(), heard: heard.clone(), _gone: gone.clone().drop_guard() };
        let options = self.access.apply(connect_options(own), &self.servers).await?;
        let servers = self.servers.iter().map(login::without_user).collect::<Result<Vec<_>, _>>()?;
        let client = match options.connect(servers.as_slice()).await {
            Ok(client) => client,
            Err(error) => {
                let (shown, mut source) = (self.common.told.servers.to_string(), ConnectCause::of(&error.to_string()));
                if source == ConnectCause::NoTls && !greeting::none_offers_tls(&servers).await {
                    // Another server may, once it is there.
                    source = ConnectCause::Other("the server that was tried last answers without TLS: it does not offer it, or takes no more connections".into());
                }
                return Err(NatsError::Connect { servers: shown, source });
            }
        };
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(ANSWER);
        Ok((Current { client, jetstream }, Life { began: Instant::now(), heard, gone }))
    }

    /// The first client, which is replaced until the task is dropped.
    pub(super) async fn keep(self) -> Result<(watch::Receiver<Arc<Current>>, AbortOnDropHandle<()>), NatsError> {
        let (current, life) = self.make().await?;
        let mut heard = lock(&life.heard);
        heard.is_current = true;
        if !heard.is_connected {
            self.common.lost("trying again");
        }
        drop(heard);
        let (current, now) = watch::channel(Arc::new(current));
        let mut keeping = Keeping { making: self, current, life, pause: Duration::ZERO };
        let keeping = tokio::spawn(async move {
            loop {
                if let Err(panic) = panics::caught_async(keeping.once()).await {
                    error!("the task that replaces clients of NATS panicked: {panic}");
                    sleep(AGAIN).await;
                }
            }
        });
        Ok((now, AbortOnDropHandle::new(keeping)))
    }
}

/// See [`Making::keep`].
struct Keeping {
    making: Making,
    current: watch::Sender<Arc<Current>>,
    life: Life,
    pause: Duration,
}

impl Keeping {
    /// Waits until the client is gone, and replaces it.
    async fn once(&mut self) {
        self.life.gone.cancelled().await;
        let common = self.making.common.clone();
        let is_steady = self.life.began.elapsed() >= STEADY;
        self.pause = if is_steady { Duration::ZERO } else { (self.pause * 2).clamp(AGAIN / 2, LONGEST_AGAIN) };
        common.gone(&lock(&self.life.heard));
        sleep(self.pause).await;
        let (current, life) = loop {
            match self.making.make().await {
                Ok(made) => break made,
                Err(error) => common.told.once(FeedError::of(&error).0),
            }
            self.pause = (self.pause * 2).clamp(AGAIN, LONGEST_AGAIN);
            sleep(self.pause).await;
        };
        // Whoever sees that the connection is there takes the client after that.
        self.current.send_replace(Arc::new(current));
        let mut heard = lock(&life.heard);
        heard.is_current = true;
        if heard.is_connected {
            common.connected();
        }
        drop(heard);
        self.life = life;
    }
}

/// What was told of a connection since it was made last.
struct Told {
    servers: Arc<str>,
    /// What the subjects of answers begin with.
    inbox: Box<str>,
    told: StdMutex<BTreeSet<String>>,
}

impl Told {
    /// Warns of it, unless that was done already.
    fn once(&self, what: String) {
        let mut told = lock(&self.told);
        if told.len() < TOLD && !told.contains(&what) {
            warn!(servers = %self.servers, "NATS: {what}");
            told.insert(what);
        }
    }

    fn anew(&self) {
        lock(&self.told).clear();
    }
}

/// What a client's events are told to. It is dropped as soon as the client is gone.
struct Own {
    common: Arc<Common>,
    heard: Arc<StdMutex<Heard>>,
    _gone: DropGuard,
}

fn connect_options(own: Own) -> ConnectOptions {
    let (common, own) = (own.common.clone(), Arc::new(own));
    ConnectOptions::new()
        .name("h3cast")
        .connection_timeout(ANSWER)
        .request_timeout(Some(ANSWER))
        .ping_interval(Duration::from_secs(5))
        .subscription_capacity(BUFFER)
        // Only here the client says why the last attempts failed.
        .reconnect_to_server_callback(move |servers: Vec<async_nats::Server>, _| {
            fault::point("nats-client");
            for server in &servers {
                if let Some(error) = &server.last_error {
                    let at = format!("{}:{}", server.addr.host(), server.addr.port());
                    common.told.once(format!("cannot connect to {at}: {}", ConnectCause::of(error)));
                }
            }
            std::future::ready(common.choice.choose(&servers))
        })
        .event_callback(move |event| {
            let own = own.clone();
            async move { own.hear(event) }
        })
}

impl Own {
    fn hear(&self, event: Event) {
        let Common { told, choice, .. } = &*self.common;
        let servers = &told.servers;
        match event {
            Event::Connected => {
                choice.connected();
                let mut heard = lock(&self.heard);
                heard.is_connected = true;
                if heard.is_current {
                    self.common.connected();
                }
            }
            Event::Disconnected | Event::Closed => {
                let mut heard = lock(&self.heard);
                heard.is_closed |= event == Event::Closed;
                if std::mem::replace(&mut heard.is_connected, false) && heard.is_current && event != Event::Closed {
                    self.common.lost("trying again");
                }
            }
            // What fails is told by the callback above, with its cause, once.
            Event::ClientError(error) => debug!(%servers, "NATS: {error}"),
            // For each message; what is missing is counted and told where it is missed.
            Event::SlowConsumer(_) => {}
            Event::ServerError(ServerError::Other(text)) => match Denied::of(&text, &told.inbox) {
                Some(what) if presence::is_about(&what.subject) => debug!(%servers, "NATS: {text}"),
                Some(what) => {
                    // That is how a server answers that more is allowed.
                    if !allowed::is_answer(&what.subject) {
                        told.once(format!("permission denied: the user may not {} `{}`", what.what, what.subject));
                    }
                    self.common.denied.send_modify(|all| {
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
}

impl Common {
    /// The connection is there.
    fn connected(&self) {
        let mut was_connected = true;
        self.state.send_modify(|state| {
            was_connected = std::mem::replace(&mut state.connected, true);
            state.returns += u64::from(!was_connected);
        });
        if !was_connected {
            self.told.anew();
            info!(servers = %self.told.servers, "connected to NATS again");
        }
    }

    /// It is there no more.
    fn lost(&self, what: &str) {
        let mut was_connected = false;
        self.state.send_modify(|state| {
            was_connected = std::mem::replace(&mut state.connected, false);
            state.losses += 1;
        });
        if was_connected {
            warn!(servers = %self.told.servers, "the connection to NATS is lost: {what}");
        }
    }

    /// The client is gone.
    fn gone(&self, heard: &Heard) {
        // Why its task has ended shows only in what it told before.
        let why = match heard {
            Heard { is_closed: true, .. } => "its client was closed",
            Heard { is_connected: true, .. } => "its client panicked",
            _ => "its client panicked, or gave up, while it was reconnecting",
        };
        // It may have been connected again without having told it yet.
        self.state.send_modify(|state| state.deaths += u64::from(!heard.is_closed));
        if self.state.borrow().connected {
            self.lost(&format!("{why}; connecting with a new one"));
        } else {
            warn!(servers = %self.told.servers, "NATS is not connected, and {why}; connecting with a new one");
        }
    }
}
