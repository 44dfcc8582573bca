//! Which server of a NATS system is connected to.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{ReconnectToServer, Server};
use tokio::time::Instant;

/// For how long a server that was left is only tried after others.
const LEFT: Duration = Duration::from_secs(60);
/// A server is not left sooner: others of its streams may have found that it does not reach their leaders, too.
const STAY: Duration = Duration::from_secs(3);

/// The servers of one system.
#[derive(Debug, Clone, Default)]
pub(super) struct Servers(Arc<Mutex<Choice>>);

#[derive(Debug, Default)]
struct Choice {
    chosen: Option<String>,
    /// The chosen one is to be left.
    leaves: bool,
    /// How often each has been tried since there was a connection.
    tried: HashMap<String, u32>,
    left: HashMap<String, Instant>,
    last_left: Option<Instant>,
}

impl Servers {
    fn lock(&self) -> MutexGuard<'_, Choice> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one to try next, of those that the client knows: of those tried least, one by chance. One that was left
    /// counts as tried twice. The client itself chooses the first one to connect to, since it then tries all.
    pub(super) fn choose(&self, pool: &[Server]) -> Option<ReconnectToServer> {
        let first = pool.iter().find(|server| server.did_connect)?.addr.as_url_str();
        let mut choice = self.lock();
        if std::mem::take(&mut choice.leaves) {
            let chosen = choice.chosen.clone().unwrap_or_else(|| first.to_owned());
            choice.left.insert(chosen, Instant::now());
        }
        choice.left.retain(|_, since| since.elapsed() < LEFT);
        let chance = RandomState::new();
        let cost = |server: &&Server| {
            let url = server.addr.as_url_str();
            let tried = choice.tried.get(url).copied().unwrap_or_default();
            let left = choice.left.get(url).copied();
            (tried + 2 * u32::from(left.is_some()), left, chance.hash_one(url))
        };
        let addr = pool.iter().min_by_key(cost)?.addr.clone();
        let url = addr.as_url_str().to_owned();
        *choice.tried.entry(url.clone()).or_default() += 1;
        choice.chosen = Some(url);
        Some(ReconnectToServer { addr, delay: None })
    }

    /// There is a connection to the chosen one.
    pub(super) fn connected(&self) {
        self.lock().tried.clear();
    }

    /// Notes that it is left for another, if it is time.
    pub(super) fn leave(&self) -> bool {
        let mut choice = self.lock();
        let leaves = choice.last_left.is_none_or(|last| last.elapsed() >= STAY);
        if leaves {
            (choice.leaves, choice.last_left) = (true, Some(Instant::now()));
        }
        leaves
    }
}
