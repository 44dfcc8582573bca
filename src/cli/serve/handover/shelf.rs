//! The store of feeds on disk, which one of the two servers has.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{process::Process, wire::Folder};
use crate::store::{Disk, StoreError};

/// How often to see whether the new server has let go of it.
const PAUSE: Duration = Duration::from_millis(20);
/// How often to try again what fails for another reason.
const TRYING: Duration = Duration::from_secs(1);
/// For how long it is nothing that a person has to do something about that another process has it.
const PASSING: Duration = Duration::from_secs(5);

/// The store of this server, if it has one.
#[derive(Clone, Default)]
pub(in crate::cli::serve) struct Shelf {
    disk: Option<Disk>,
    missing: Arc<Mutex<Option<Missing>>>,
}

/// Why it could not be taken back when that was last tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// A process has it, as far as is known which.
    Held(Option<u32>),
    Fails,
}

impl From<Option<Disk>> for Shelf {
    fn from(disk: Option<Disk>) -> Self {
        Self { disk, missing: Arc::default() }
    }
}

impl Shelf {
    pub(super) fn is_there(&self) -> bool {
        self.disk.is_some()
    }

    /// Has most of it reach the disk, for a server that is to use this folder.
    pub(super) async fn flush(&self, wanted: Folder) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        if folder(disk.dir()).await? != wanted {
            let dir = disk.dir().display();
            return Err(io::Error::other(format!(
                "its feeds are on disk in {dir}: give the new server that folder, with --store or H3CAST_STORE"
            )));
        }
        disk.flush().await.map_err(failed)
    }

    /// Gives it up. What would be written to it waits.
    pub(super) async fn release(&self) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        disk.release().await.map_err(failed)
    }

    /// Takes it back, as soon as the new server has let go of it. Whether that was before `stop`.
    pub(super) async fn reclaim(&self, stop: &CancellationToken) -> bool {
        let Some(disk) = &self.disk else { return true };
        let (begun, mut is_told, mut told) = (Instant::now(), false, None);
        loop {
            let reclaimed = disk.reclaim().await;
            *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = match &reclaimed {
                Ok(()) => None,
                Err(StoreError::Locked { pid, .. }) => Some(Missing::Held(*pid)),
                Err(_) => Some(Missing::Fails),
            };
            let Err(error) = reclaimed else { return true };
            let is_locked = matches!(error, StoreError::Locked { .. });
            let pause = if is_locked { PAUSE } else { TRYING };
            let error = error.to_string();
            if is_locked && begun.elapsed() < PASSING {
                if !is_told {
                    info!(
                        "waiting for the new server to release the store: publishers and sources are paused until then"
                    );
                }
                is_told = true;
            } else if told.as_ref() != Some(&error) {
                warn!("--store: {error}: publishers and sources are paused until this server has it again");
                told = Some(error);
            }
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return false;
            }
        }
    }

    /// Whether it is to be taken back, and that has failed so far: whether this process has it, as far as can be seen.
    pub(super) fn is_missing(&self, pid: i32) -> Option<bool> {
        let missing = (*self.missing.lock().unwrap_or_else(PoisonError::into_inner))?;
        // The lock has the number of whoever wrote it last, which may have ended.
        let runs = || Process::find(Some(pid)).runs().unwrap_or(false);
        Some(u32::try_from(pid).is_ok_and(|pid| missing == Missing::Held(Some(pid))) && runs())
    }

    /// It is the new server's for good.
    pub(super) async fn leave(&self) {
        if let Some(disk) = &self.disk
            && let Err(error) = disk.close().await
        {
            warn!("--store: {error}");
        }
    }
}

fn failed(error: StoreError) -> io::Error {
    io::Error::other(format!("--store: {error}"))
}

/// Which folder that is, whatever it is called.
pub(super) async fn folder(dir: &Path) -> io::Result<Folder> {
    let found = tokio::fs::metadata(dir).await?;
    use std::os::unix::fs::MetadataExt;
    Ok(Folder { device: found.dev(), inode: found.ino() })
}
