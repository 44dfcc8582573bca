//! The commands of a server, and how many there may be.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::feed::{Account, Exhausted, Share, Shares};

/// The commands of a server: what they are started with, and who waits for their end. Clones are of the same.
#[derive(Clone, Default)]
pub struct Commands(pub(super) Arc<CommandSet>);

/// How many commands may run for viewers, in all and of one client, if nothing else was said.
const FOR_VIEWERS: (usize, usize) = (64, 16);

pub(super) struct CommandSet {
    pub(super) files: Option<u64>,
    /// Those that run for one viewer each.
    for_viewers: Shares,
    /// How many there are.
    pub(super) processes: Arc<AtomicUsize>,
    pub(super) running: TaskTracker,
    pub(super) stopping: CancellationToken,
}

impl Default for CommandSet {
    fn default() -> Self {
        Self {
            files: None,
            for_viewers: Shares::new(FOR_VIEWERS.0, FOR_VIEWERS.1),
            processes: Arc::default(),
            running: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands").field("running", &self.0.running.len()).finish_non_exhaustive()
    }
}

impl Commands {
    /// Commands that start with this soft limit of open files (RLIMIT_NOFILE), when this process has raised
    /// its own.
    #[must_use]
    pub fn with_open_files(soft: Option<u64>) -> Self {
        Self(Arc::new(CommandSet { files: soft, ..CommandSet::default() }))
    }

    /// The same with another number of commands that may run at once for one viewer each, in all and for one client.
    /// Commands that run for all viewers are not counted. Call it before any has started. Default 64 and 16.
    #[must_use]
    pub fn for_viewers(self, all: usize, each: usize) -> Self {
        let (files, stopping) = (self.0.files, self.0.stopping.clone());
        let for_viewers = Shares::new(all, each);
        Self(Arc::new(CommandSet { files, for_viewers, stopping, ..CommandSet::default() }))
    }

    /// Changes how many may run for one viewer each, in all and for one client. Those that run stay.
    pub fn set_for_viewers(&self, all: usize, each: usize) {
        self.0.for_viewers.resize(all, each);
    }

    /// How many commands there are, for all viewers or for one: each from its start until none of its processes is
    /// left.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.processes.load(Ordering::Relaxed)
    }

    /// A place for a command that runs for one viewer.
    pub(super) fn place(&self, account: &Account) -> Result<Share, Exhausted> {
        self.0.for_viewers.take(account)
    }

    /// Asks all commands to end, and kills those that have not ended after 2 s. None begins any more. What
    /// they still print is published.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// Waits until none is left. Without [`stop`](Self::stop) that is when they have ended by themselves.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn ended(&self) {
        self.0.running.close();
        self.0.running.wait().await;
    }

    /// Whether they are to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.0.stopping.is_cancelled()
    }

    pub(super) async fn stopping(&self) {
        self.0.stopping.cancelled().await;
    }
}

/// Counts as a command until it is dropped.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(super) fn one(of: &Arc<AtomicUsize>) -> Self {
        of.fetch_add(1, Ordering::Relaxed);
        Self(of.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
