//! Whether a store can be written.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::spawn_blocking, time::sleep};
use tracing::{error, info};

use super::{StoreError, lock};
use crate::{App, feed::PublishError};

/// How often to look whether the store can be written again.
const LOOK: Duration = Duration::from_secs(1);
/// So much must be written then, in bytes, so that it does not fail again at once.
const ROOM: usize = 1 << 20;

/// Why a store cannot be written, for anyone: without its place.
const FULL: &str = "the disk that stores it is full";
const READ_ONLY: &str = "the file system that stores it is read-only";
const DENIED: &str = "the server may not write to the folder that stores it";
const GONE: &str = "the folder that stores it was removed or moved";
const FAILING: &str = "the disk that stores it cannot be written";

/// Whether what is published can be stored. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    dir: PathBuf,
    errors: AtomicU64,
    /// Why it cannot be written, if so.
    cause: Mutex<Option<&'static str>>,
    failed: Notify,
}

impl Health {
    pub(super) fn new(dir: &Path) -> Self {
        let state =
            State { dir: dir.into(), errors: AtomicU64::new(0), cause: Mutex::default(), failed: Notify::new() };
        Self(Arc::new(state))
    }

    /// The folder from the root on: who reads the log may not know where the server was started.
    fn place(&self) -> PathBuf {
        std::path::absolute(&self.0.dir).unwrap_or_else(|_| self.0.dir.clone())
    }

    pub(super) fn is_good(&self) -> bool {
        self.cause().is_none()
    }

    /// Why it cannot be written, if so.
    pub(super) fn cause(&self) -> Option<&'static str> {
        *lock(&self.0.cause)
    }

    /// Something could not be stored. Whether that is new.
    pub(super) fn fails(&self, error: &PublishError) -> bool {
        self.0.errors.fetch_add(1, Ordering::Relaxed);
        self.cannot(error)
    }

    /// Nothing can be stored. The log has it once. Whether that is new.
    pub(super) fn cannot(&self, error: &PublishError) -> bool {
        let mut known = lock(&self.0.cause);
        let is_new = known.is_none();
        // Another one is noted when it is tried again.
        known.get_or_insert_with(|| of_refusal(error));
        drop(known);
        if is_new {
            let error = crate::feed::FeedError::of(error);
            error!(store = %self.place().display(), "{error}: publishers are refused and sources wait, until it can be written again");
        }
        self.0.failed.notify_one();
        is_new
    }

    /// Waits until the store cannot be written, and then until it can be again and `works`; or until the cause is
    /// another one. Nothing is written unless it `can_be_written`. Both may block.
    pub(super) async fn changed(
        &self,
        can_be_written: impl Fn() -> Result<(), StoreError> + Clone + Send + 'static,
        works: impl Fn() -> bool + Clone + Send + 'static,
    ) {
        while self.is_good() {
            self.0.failed.notified().await;
        }
        loop {
            sleep(LOOK).await;
            let (dir, can_be_written, works) = (self.0.dir.clone(), can_be_written.clone(), works.clone());
            let look = move || {
                can_be_written().map_err(|error| of_store(&error))?;
                probe(&dir).map_err(|error| of_system(&error))?;
                if works() { Ok(()) } else { Err(FAILING) }
            };
            let now = match spawn_blocking(look).await {
                Ok(Ok(())) => break,
                Ok(Err(cause)) => Some(cause),
                Err(_) => Some(FAILING),
            };
            if std::mem::replace(&mut *lock(&self.0.cause), now) != now {
                return;
            }
        }
        *lock(&self.0.cause) = None;
        info!(store = %self.place().display(), "the store can be written again");
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

/// Why a chunk was refused.
fn of_refusal(error: &PublishError) -> &'static str {
    let (PublishError::Full(error) | PublishError::Keeper(error)) = error else { return FAILING };
    error.get_ref().downcast_ref().map_or(FAILING, of_store)
}

fn of_store(error: &StoreError) -> &'static str {
    match error {
        StoreError::Full(_) => FULL,
        StoreError::ReadOnly(_) => READ_ONLY,
        StoreError::Denied(_) => DENIED,
        StoreError::Gone(_) => GONE,
        _ => FAILING,
    }
}

/// Why something could not be written there.
fn of_system(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => FULL,
        ErrorKind::ReadOnlyFilesystem => READ_ONLY,
        ErrorKind::PermissionDenied => DENIED,
        ErrorKind::NotFound | ErrorKind::NotADirectory => GONE,
        _ => FAILING,
    }
}

/// Whether some room is left.
fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(".room");
    let written = (|| {
        // Without following a link of that name.
        let _ = fs::remove_file(&path);
        let mut file = File::options().write(true).create_new(true).open(&path)?;
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
        health.changed(|| Ok(()), move || counted.fetch_add(1, Ordering::Relaxed) == 2).await;
        assert!(health.is_good());
        assert_eq!(looks.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_cause_is_the_latest() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("store");
        let health = Health::new(&dir);
        let full = StoreError::Full(dir.clone());
        assert!(health.fails(&PublishError::Full(crate::feed::KeeperError::new(full.clone()))));
        assert!(!health.fails(&PublishError::Full(crate::feed::KeeperError::new(full))));
        assert_eq!(health.cause(), Some(FULL));
        health.changed(|| Ok(()), || true).await;
        assert_eq!(health.cause(), Some(GONE));
        fs::create_dir(&dir).unwrap();
        // There is room again, and something else is wrong.
        health.changed(|| Ok(()), || false).await;
        assert_eq!(health.cause(), Some(FAILING));
        health.changed(|| Ok(()), || true).await;
        assert_eq!(health.cause(), None);
    }

    /// What is at that place may be someone else's.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_written_to_another_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".room"), "not ours").unwrap();
        let health = Health::new(folder.path());
        let gone = StoreError::Gone(folder.path().into());
        health.fails(&PublishError::Keeper(crate::feed::KeeperError::new(StoreError::Closed)));
        health.changed(move || Err(gone.clone()), || true).await;
        assert_eq!(health.cause(), Some(GONE));
        assert_eq!(fs::read(folder.path().join(".room")).unwrap(), b"not ours");
    }
}
