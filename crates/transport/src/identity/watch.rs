//! Hearing of changes of files, also by way of symbolic links and of folders that are exchanged.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;
use tracing::debug;

/// More symbolic links one behind the other than this are a loop.
const MOST_LINKS: usize = 40;

/// Hears of changes until its last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    changed: Arc<Notify>,
    /// Where a change is of interest: files, the links to them, and their folders.
    places: Arc<Mutex<BTreeSet<PathBuf>>>,
    watcher: Arc<Mutex<Watching>>,
}

#[derive(Debug)]
enum Watching {
    Not,
    By(RecommendedWatcher),
    /// The system does not let us.
    Never,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { changed: Arc::default(), places: Arc::default(), watcher: Arc::new(Mutex::new(Watching::Not)) }
    }

    /// Completes after `pause`, or `settle` after a change: then true. A change between two calls counts.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub(super) async fn wait(&self, pause: Duration, settle: Duration) -> bool {
        let changed = tokio::time::timeout(pause, self.changed.notified()).await.is_ok();
        if changed {
            tokio::time::sleep(settle).await;
        }
        changed
    }

    /// Watches whatever these paths lead through now, until the next call. Blocks. Whether changes are
    /// heard of.
    pub(super) fn follow(&self, paths: &[PathBuf]) -> bool {
        let places: BTreeSet<PathBuf> = paths.iter().flat_map(|path| places(path)).collect();
        let folders: BTreeSet<PathBuf> =
            places.iter().filter_map(|place| place.parent()).map(Path::to_path_buf).collect();
        // Before the watching begins, so that nothing is missed.
        places.clone_into(&mut self.places.lock().unwrap_or_else(PoisonError::into_inner));
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Watching::Not = *watcher {
            let (changed, places) = (self.changed.clone(), self.places.clone());
            *watcher = match notify::recommended_watcher(move |event| hear(&event, &changed, &places)) {
                Ok(started) => Watching::By(started),
                Err(error) => {
                    debug!(%error, "polling the certificate's files for changes");
                    Watching::Never
                }
            };
        }
        let Watching::By(watcher) = &mut *watcher else { return false };
        // Again each time: a folder of the same name may be another one.
        let watched = folders.iter().map(|folder| watcher.watch(folder, RecursiveMode::NonRecursive));
        watched.fold(true, |all, one| all & one.is_ok())
    }
}

/// The watcher's own thread comes here.
fn hear(event: &notify::Result<notify::Event>, changed: &Notify, places: &Mutex<BTreeSet<PathBuf>>) {
    const WRITTEN: AccessKind = AccessKind::Close(AccessMode::Write);
    let of_interest = match event {
        // We look at the files ourselves.
        Ok(event) if matches!(event.kind, EventKind::Access(kind) if kind != WRITTEN) => false,
        Ok(event) if !event.need_rescan() => {
            let places = places.lock().unwrap_or_else(PoisonError::into_inner);
            event.paths.iter().any(|path| places.contains(path))
        }
        // Some may have been missed.
        _ => true,
    };
    if of_interest {
        changed.notify_one();
    }
}

/// What can change where a path leads: the file, its folder, the symbolic links on the way; or the
/// first of its folders that is not there.
fn places(path: &Path) -> Vec<PathBuf> {
    let Ok(path) = std::path::absolute(path) else { return Vec::new() };
    let mut places = Vec::new();
    let mut links = 0;
    let mut rest: Vec<PathBuf> = components(&path);
    let mut at = PathBuf::new();
    while let Some(component) = rest.pop() {
        if component.as_os_str() == ".." {
            at.pop();
            continue;
        }
        at.push(component);
        match std::fs::read_link(&at) {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                places.push(at.clone());
                at.pop();
                rest.extend(components(&target));
            }
            _ if rest.is_empty() => {
                // The folder itself, which may be removed or exchanged.
                places.extend(at.parent().filter(|parent| parent.parent().is_some()).map(Path::to_path_buf));
                places.push(at.clone());
            }
            _ if !at.exists() => {
                places.push(at);
                break;
            }
            _ => {}
        }
    }
    places
}

/// The components of a path, the last one first.
fn components(path: &Path) -> Vec<PathBuf> {
    let mut components: Vec<_> = path
        .components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| PathBuf::from(component.as_os_str()))
        .collect();
    components.reverse();
    components
}
