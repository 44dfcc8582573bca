//! Who is notified when a file changes.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::sync::Notify;

/// How many new names of one file are remembered until they are looked at.
const NAMES: usize = 16;

/// Followers of files, by the paths that they follow.
static FOLLOWED: Mutex<BTreeMap<PathBuf, Vec<Weak<Followed>>>> = Mutex::new(BTreeMap::new());
/// One for all files: a user may have few of them (128 of Linux's inotify, by default), and each has a thread.
static WATCHER: Mutex<Option<RecommendedWatcher>> = Mutex::new(None);

/// What a follower hears of its path.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// There may be more to read.
    pub(super) more: Notify,
    /// There may be another file.
    pub(super) another: Notify,
    /// What files that were at the path are called now.
    renamed: Mutex<Vec<PathBuf>>,
}

impl Followed {
    fn names(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.renamed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What files that were at the path are called now, the first one first; each is given once.
    pub(super) fn renamed(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.names())
    }

    fn notice(&self) {
        self.more.notify_one();
        self.another.notify_one();
    }
}

fn followed() -> MutexGuard<'static, BTreeMap<PathBuf, Vec<Weak<Followed>>>> {
    FOLLOWED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a follower notified of what happens at `path`, whichever file is there then. Once more when it may
/// have been forgotten: its folder may be another one by now. Not to be called on a worker.
///
/// # Errors
///
/// When the system notifies no one.
pub(super) fn watch(path: &Path, follower: &Arc<Followed>) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    // What a link leads to changes elsewhere.
    let real = std::fs::canonicalize(&path).ok().filter(|real| *real != path);
    for path in [path].into_iter().chain(real) {
        // The folder, since a rotated file is another one of the same name.
        let folder = path.parent().unwrap_or(&path).to_owned();
        {
            let mut followed = followed();
            followed.retain(|_, followers| {
                followers.retain(|other| other.strong_count() > 0);
                !followers.is_empty()
            });
            let followers = followed.entry(path).or_default();
            if !followers.iter().any(|other| other.as_ptr() == Arc::as_ptr(follower)) {
                followers.push(Arc::downgrade(follower));
            }
        }
        // Not under the lock above, which the watcher's own thread takes too.
        let mut watcher = WATCHER.lock().unwrap_or_else(PoisonError::into_inner);
        let watcher = match &mut *watcher {
            Some(watcher) => watcher,
            none => none.insert(notify::recommended_watcher(tell).map_err(io::Error::other)?),
        };
        watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
    }
    Ok(())
}

const CLOSED: AccessKind = AccessKind::Close(AccessMode::Write);
const RENAMED: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::Both));

fn tell(event: notify::Result<notify::Event>) {
    let followed = followed();
    let all = || followed.values().flatten().filter_map(Weak::upgrade);
    let of = |path: &PathBuf| followed.get(path).into_iter().flatten().filter_map(Weak::upgrade);
    match event {
        // To look at a file is no change of it, and we look at it ourselves.
        Ok(event) if matches!(event.kind, EventKind::Access(kind) if kind != CLOSED) => {}
        Ok(event) if !event.need_rescan() => {
            if let (RENAMED, [from, to]) = (event.kind, &event.paths[..]) {
                for follower in all() {
                    for name in follower.names().iter_mut().filter(|name| *name == from) {
                        name.clone_from(to);
                    }
                }
                for follower in of(from) {
                    let mut names = follower.names();
                    if names.len() < NAMES {
                        names.push(to.clone());
                    }
                }
            }
            event.paths.iter().flat_map(of).for_each(|follower| follower.notice());
        }
        // Some may have been missed.
        _ => all().for_each(|follower| follower.notice()),
    }
}
