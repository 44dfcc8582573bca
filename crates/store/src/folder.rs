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

    /// Its feeds' numbers. What was being removed is removed.
    pub(crate) fn feeds(&self) -> Result<Vec<u64>, StoreError> {
        let feeds = self.dir.join(FEEDS);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&feeds).at(&feeds)? {
            let path = entry.at(&feeds)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            match (name.parse(), name.strip_suffix(REMOVED).map(str::parse::<u64>)) {
                (Ok(id), _) if path.join("meta.json").exists() => ids.push(id),
                // One whose creation broke off has nothing yet.
                (Ok(_), _) | (_, Some(Ok(_))) => fs::remove_dir_all(&path).at(&path)?,
                _ => {}
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Where a feed's folder goes until it is removed.
    pub(crate) fn removed(&self, id: u64) -> PathBuf {
        self.dir.join(FEEDS).join(format!("{id}{REMOVED}"))
    }
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
        // There are file systems without locks.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
        Err(TryLockError::Error(error)) => return Err(error).at(&path),
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).at(&path)?;
    Ok(lock)
}
