//! Whether a store can be written.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::spawn_blocking, time::sleep};
use tracing::{error, info};

use crate::{App, feed::PublishError};

/// How often to look whether the store can be written again.
const LOOK: Duration = Duration::from_secs(1);
/// So much must be written then, in bytes, so that it does not fail again at once.
const ROOM: usize = 1 << 20;

/// Whether what is published can be stored. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    dir: PathBuf,
    errors: AtomicU64,
    is_bad: AtomicBool,
    failed: Notify,
}

impl Health {
    pub(super) fn new(dir: &Path) -> Self {
        let state =
            State { dir: dir.into(), errors: AtomicU64::new(0), is_bad: AtomicBool::new(false), failed: Notify::new() };
        Self(Arc::new(state))
    }

    pub(super) fn is_good(&self) -> bool {
        !self.0.is_bad.load(Ordering::Relaxed)
    }

    /// Something could not be stored. The log has it once.
    pub(super) fn fails(&self, error: &PublishError) {
        self.0.errors.fetch_add(1, Ordering::Relaxed);
        if !self.0.is_bad.swap(true, Ordering::Relaxed) {
            let error = crate::feed::FeedError::of(error);
            error!(store = %self.0.dir.display(), "{error}: publishers are refused and sources wait, until it can be written again");
        }
        self.0.failed.notify_one();
    }

    /// Waits until the store could not be written and can be again, and `works`, which may block.
    pub(super) async fn recovered(&self, works: impl Fn() -> bool + Clone + Send + 'static) {
        while self.is_good() {
            self.0.failed.notified().await;
        }
        loop {
            sleep(LOOK).await;
            let (dir, works) = (self.0.dir.clone(), works.clone());
            if spawn_blocking(move || probe(&dir).is_ok() && works()).await.unwrap_or_default() {
                break;
            }
        }
        self.0.is_bad.store(false, Ordering::Relaxed);
        info!(store = %self.0.dir.display(), "the store can be written again");
    }

    pub(super) fn install(&self, app: App) -> App {
        let errors = self.clone();
        let app = app.counter("h3cast_store_errors_total", "Writes of chunks that the store refused.", move || {
            errors.0.errors.load(Ordering::Relaxed) as f64
        });
        let good = self.clone();
        let app = app.gauge("h3cast_store_writable", "1 while the store can be written.", move || {
            f64::from(u8::from(good.is_good()))
        });
        let dir = self.0.dir.clone();
        app.gauge("h3cast_store_free_bytes", "Free space on the file system of the store.", move || {
            free(&dir).map_or(f64::NAN, |free| free as f64)
        })
    }
}

/// Whether some room is left.
fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(".room");
    let written = (|| {
        let mut file = File::create(&path)?;
        file.write_all(&vec![0; ROOM])?;
        file.sync_all()
    })();
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// The bytes that are free for us on a file system.
fn free(dir: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let system = rustix::fs::statvfs(dir).ok()?;
        Some(system.f_bavail.saturating_mul(system.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_good_again_once_all_of_it_works() {
        let folder = tempfile::tempdir().unwrap();
        let health = Health::new(folder.path());
        health.fails(&PublishError::Keeper(crate::feed::KeeperError::new(super::super::StoreError::Closed)));
        let looks = Arc::new(AtomicU64::new(0));
        let counted = looks.clone();
        health.recovered(move || counted.fetch_add(1, Ordering::Relaxed) == 2).await;
        assert!(health.is_good());
        assert_eq!(looks.load(Ordering::Relaxed), 3);
    }
}
