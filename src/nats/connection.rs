//! Connections to NATS, one for each system that feeds are on.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, jetstream, rustls::crypto::CryptoProvider};
use tokio::{
    sync::{Mutex, Semaphore, watch},
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{Address, Ensure, NatsError, counts::Counts};
use crate::{App, identity::provider};

/// How long a server may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// For how long NATS is tried when a feed is started.
const START: Duration = Duration::from_secs(10);
/// How many viewers read what is older than their ring at once; others wait.
const READS: usize = 32;

/// How NATS is reached, and what is made there.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NatsOptions {
    /// A file with a user's JWT and key, as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// Certificates of those who may vouch for the servers, in PEM; TLS is asked for then.
    pub ca: Option<PathBuf>,
    /// Make the streams that are missing, and see that those that are there are like this.
    pub ensure: Option<Ensure>,
}

/// One connection for each system.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    options: Arc<NatsOptions>,
    known: Arc<Mutex<HashMap<Vec<String>, Link>>>,
    counts: Counts,
}

/// A connection, which comes again by itself when it is lost.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    /// Whether it is there now, and how often it was lost.
    pub(super) state: watch::Receiver<LinkState>,
    /// Places for those who read what is old.
    pub(super) reads: Arc<Semaphore>,
    pub(super) counts: Counts,
}

/// See [`Link`].
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkState {
    pub(super) connected: bool,
    pub(super) losses: u64,
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

    /// The connection to the servers of an address.
    pub(super) async fn to(&self, address: &Address) -> Result<Link, NatsError> {
        let mut known = self.known.lock().await;
        if let Some(connection) = known.get(&address.servers) {
            return Ok(connection.clone());
        }
        let connection = self.connect(&address.servers).await?;
        known.insert(address.servers.clone(), connection.clone());
        Ok(connection)
    }

    async fn connect(&self, servers: &[String]) -> Result<Link, NatsError> {
        let addresses: Vec<ServerAddr> =
            servers.iter().map(|server| server.parse().map_err(NatsError::Server)).collect::<Result<_, _>>()?;
        let shown: Vec<_> = addresses.iter().map(|address| format!("{}:{}", address.host(), address.port())).collect();
        let shown = shown.join(", ");
        let until = Instant::now() + START;
        loop {
            let (sender, state) = watch::channel(LinkState { connected: true, losses: 0 });
            let error = match self
                .connect_options(sender, &addresses, shown.clone())
                .await?
                .connect(addresses.as_slice())
                .await
            {
                Ok(client) => {
                    let mut jetstream = jetstream::new(client.clone());
                    jetstream.set_timeout(ANSWER);
                    self.counts.add(state.clone());
                    let reads = Arc::new(Semaphore::new(READS));
                    return Ok(Link { client, jetstream, state, reads, counts: self.counts.clone() });
                }
                Err(error) => error,
            };
            if Instant::now() >= until {
                return Err(NatsError::Connect { servers: shown, source: error.into() });
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn connect_options(
        &self,
        state: watch::Sender<LinkState>,
        addresses: &[ServerAddr],
        servers: String,
    ) -> Result<ConnectOptions, NatsError> {
        let state = Arc::new(state);
        let servers: Arc<str> = servers.into();
        let mut options = ConnectOptions::new()
            .name("h3cast")
            .connection_timeout(ANSWER)
            .request_timeout(Some(ANSWER))
            .ping_interval(Duration::from_secs(5))
            .event_callback(move |event| {
                let (state, servers) = (state.clone(), servers.clone());
                async move {
                    match event {
                        Event::Connected => {
                            let before = *state.borrow();
                            state.send_replace(LinkState { connected: true, ..before });
                            if !before.connected {
                                info!(%servers, "connected to NATS again");
                            }
                        }
                        Event::Disconnected | Event::Closed => {
                            let before = *state.borrow();
                            state.send_replace(LinkState { connected: false, losses: before.losses + 1 });
                            if before.connected {
                                warn!(%servers, "the connection to NATS is lost: trying again");
                            }
                        }
                        event => warn!(%servers, "NATS: {event}"),
                    }
                }
            });
        // The client leaves them in the address.
        if let Some((user, password)) = addresses.iter().find_map(user) {
            options = options.user_and_password(user, password);
        }
        if let Some(path) = &self.options.credentials {
            let failed = |source| NatsError::Credentials { path: path.clone(), source };
            options = options.credentials_file(path).await.map_err(failed)?;
        }
        // The client asks rustls for the cryptography of the process, and that panics where there are two to
        // choose from.
        if CryptoProvider::get_default().is_none() {
            // An error means that another thread was first.
            let _ = (*provider()).clone().install_default();
        }
        if let Some(path) = &self.options.ca {
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        Ok(options)
    }
}

/// The user and the password in an address.
fn user(address: &ServerAddr) -> Option<(String, String)> {
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some((plain(address.username()?), plain(address.password().unwrap_or_default())))
}

impl Link {
    /// Waits until it is there. Cancel-safe.
    pub(super) async fn connected(&self) {
        // An error would mean that its client is gone, which `self` holds.
        let _ = self.state.clone().wait_for(|state| state.connected).await;
    }

    /// Whether it is there now.
    pub(super) fn is_connected(&self) -> bool {
        self.state.borrow().connected
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
