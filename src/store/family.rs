//! Feeds on disk that clients create.

use std::{collections::HashMap, sync::Mutex};

use futures_util::future::BoxFuture;
use h3cast_store::FeedInfo;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::warn;

use super::{Disk, OpenError, failed, lock};
use crate::feed::{Account, Feed, FeedError, FeedStore, Provenance, Trouble};

/// The feeds of a pattern.
pub(super) struct OfPattern {
    disk: Disk,
    pattern: String,
    history: usize,
    /// Those that are being removed.
    removing: Mutex<HashMap<String, JoinHandle<()>>>,
}

impl OfPattern {
    pub(super) fn new(disk: Disk, pattern: &str, history: usize) -> Self {
        Self { disk, pattern: pattern.to_owned(), history, removing: Mutex::default() }
    }

    /// A feed of an earlier process.
    pub(super) async fn restored(&self, info: &FeedInfo) -> Result<(Feed, Provenance), OpenError> {
        let feed = self.disk.written(&self.pattern, &info.name, self.history).await?;
        let account = info.created_by.as_deref().map_or_else(Account::unknown, Account::new);
        let unused = feed.status().newest.unwrap_or_default();
        Ok((feed, Provenance::new(account, unused)))
    }
}

impl FeedStore for OfPattern {
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Feed, FeedError>> {
        Box::pin(async move {
            let removing = lock(&self.removing).remove(name);
            if let Some(removing) = removing {
                let _ = removing.await;
            }
            self.disk.written(&self.pattern, name, self.history).await.map_err(|error| {
                warn!(feed = name, %error, "cannot open a feed on disk");
                failed(&error)
            })
        })
    }

    fn created(&self, name: &str, account: &Account) {
        let open = lock(&self.disk.0.open).get(name).and_then(|(_, open)| open.upgrade());
        if let (Some(open), Some(account)) = (open, account.name()) {
            open.set_created_by(account);
        }
    }

    fn remove(&self, name: &str) {
        let (disk, gone) = (self.disk.clone(), name.to_owned());
        if let Some(open) = lock(&disk.0.open).remove(name).and_then(|(_, open)| open.upgrade()) {
            open.goes();
        }
        let removing = spawn_blocking(move || {
            if let Err(error) = disk.0.store.remove(&gone) {
                warn!(feed = gone, %error, "cannot remove a feed from the disk");
            }
        });
        let mut all = lock(&self.removing);
        all.retain(|_, removing| !removing.is_finished());
        all.insert(name.to_owned(), removing);
    }

    fn is_ready(&self) -> bool {
        self.disk.0.health.is_good()
    }

    fn trouble(&self) -> Option<Trouble> {
        self.disk.0.health.cause().map(Trouble::Disk)
    }
}
