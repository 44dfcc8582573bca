//! The folder of a store: whose it is, and who has it open.
//!
//! ```text
//! DIR/h3cast-store.json   the format's number
//! DIR/lock                held by the process that has it open; its number
//! DIR/state.json          whether it was closed
//! DIR/feeds/ID/           a feed: meta.json, mark.json, and files of records, named for their first number
//! ```

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{StoreError, error::At, files};

/// What this version writes.
const FORMAT: u64 = 1;
const FORMAT_FILE: &str = "h3cast-store.json";
const LOCK_FILE: &str = "lock";
const FEEDS: &str = "feeds";
const REMOVED: &str = ".removed";
const LOST: &str = ".lost";

#[derive(Serialize, Deserialize)]
struct Format {
    format: u64,
}

/// A store's folder, which this process alone has open.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    /// Unlocked when it is dropped.
    lock: File,
}

impl Folder {
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).at(dir)?;
        let is_new = is_new(dir)?;
        let lock = lock(dir)?;
        if is_new {
            files::replace(&dir.join(FORMAT_FILE), &Format { format: FORMAT })?;
        }
        let feeds = dir.join(FEEDS);
        fs::create_dir_all(&feeds).at(&feeds)?;
        files::sync_folder(dir)?;
        Ok(Self { dir: dir.into(), lock })
    }

    /// Another process may open it from now on, though feeds of it may still be there.
    pub(crate) fn unlock(&self) {
        let _ = self.lock.unlock();
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    pub(crate) fn feed(&self, id: u64) -> PathBuf {
        self.dir.join(FEEDS).join(id.to_string())
    }

    pub(crate) fn all_feeds(&self) -> PathBuf {
        self.dir.join(FEEDS)
    }

    /// Its feeds' numbers, and the next one: that of no feed, nor of one that was lost. What was being removed is removed.
    pub(crate) fn feeds(&self) -> Result<(Vec<u64>, u64), StoreError> {
        let feeds = self.all_feeds();
        let (mut ids, mut next) = (Vec::new(), 0);
        for entry in fs::read_dir(&feeds).at(&feeds)? {
            let path = entry.at(&feeds)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let number = |suffix: &str| name.strip_suffix(suffix).and_then(|id| id.parse::<u64>().ok());
            if let Some(id) = number("").or(number(LOST)) {
                next = next.max(id.saturating_add(1));
            }
            match (number(""), number(REMOVED)) {
                (Some(id), _) if has_something(&path)? => ids.push(id),
                // One whose creation broke off has nothing yet.
                (Some(_), _) | (_, Some(_)) => fs::remove_dir_all(&path).at(&path)?,
                _ => {}
            }
        }
        ids.sort_unstable();
        Ok((ids, next))
    }

    /// Where the folder of a feed goes that cannot be read.
    pub(crate) fn lost(&self, id: u64) -> PathBuf {
        self.all_feeds().join(format!("{id}{LOST}"))
    }

    /// Where a feed's folder goes until it is removed.
    pub(crate) fn removed(&self, id: u64) -> PathBuf {
        self.dir.join(FEEDS).join(format!("{id}{REMOVED}"))
    }
}

/// Whether a feed's folder has more than a creation that broke off.
fn has_something(dir: &Path) -> Result<bool, StoreError> {
    let meta = dir.join("meta.json");
    if meta.try_exists().at(&meta)? {
        return Ok(true);
    }
    for entry in fs::read_dir(dir).at(dir)? {
        if entry.at(dir)?.path().extension().is_some_and(|extension| extension == "records") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether nothing is in the folder yet.
fn is_new(dir: &Path) -> Result<bool, StoreError> {
    match files::read::<Format>(&dir.join(FORMAT_FILE))? {
        Some(Format { format }) if format > FORMAT => return Err(StoreError::Newer { dir: dir.into(), format }),
        Some(_) => return Ok(false),
        None => {}
    }
    let temporary = files::temporary(Path::new(FORMAT_FILE));
    for entry in fs::read_dir(dir).at(dir)? {
        let found = entry.at(dir)?.file_name();
        // What an earlier attempt left, and what a new file system has.
        if found != LOCK_FILE && found != *temporary.as_os_str() && found != "lost+found" {
            return Err(StoreError::Foreign { dir: dir.into(), found: found.to_string_lossy().into() });
        }
    }
    Ok(true)
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK_FILE);
    let mut lock = File::options().create(true).truncate(false).read(true).write(true).open(&path).at(&path)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            return Err(StoreError::Locked { dir: dir.into(), pid });
        }
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
            tracing::warn!(dir = %dir.display(), "this file system has no locks: make sure that no other process uses the store");
        }
        Err(TryLockError::Error(error)) => return Err(error).at(&path),
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).at(&path)?;
    Ok(lock)
}
