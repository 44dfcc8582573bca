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
    io::{self, ErrorKind, Read, Seek, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{StoreError, error::At, files, look::Found, record, regular};

/// What this version writes.
const FORMAT: u64 = 1;
const FORMAT_FILE: &str = "h3cast-store.json";
pub(crate) const LOCK_FILE: &str = "lock";
pub(crate) const STATE_FILE: &str = "state.json";
pub(crate) const FEEDS: &str = "feeds";
/// What ends the names of feeds' folders that are being removed, and of those that cannot be read.
pub(crate) const REMOVED: &str = ".removed";
pub(crate) const LOST: &str = ".lost";

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
    /// With what is there, of which nothing has changed if this fails.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Found), StoreError> {
        let created = fs::create_dir_all(dir).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => ErrorKind::NotADirectory.into(),
            _ => error,
        });
        created.at(dir)?;
        // Nothing is created where there are files of others.
        may_be_ours(dir)?;
        let path = dir.join(LOCK_FILE);
        let lock =
            regular::open(&path, File::options().create(true).truncate(false).read(true).write(true)).at(&path)?;
        take(dir, &lock)?;
        let is_new = may_be_ours(dir)?;
        is_ours(dir, &lock, is_new)?;
        let found = if is_new { Found::default() } else { Found::look(dir)? };
        if is_new {
            files::replace(&dir.join(FORMAT_FILE), &Format { format: FORMAT })?;
        }
        sign(dir, &lock)?;
        let feeds = dir.join(FEEDS);
        fs::create_dir_all(&feeds).at(&feeds)?;
        files::sync_folder(dir)?;
        Ok((Self { dir: dir.into(), lock }, found))
    }

    /// Another process may open it from now on, though feeds of it may still be there.
    pub(crate) fn unlock(&self) {
        let _ = self.lock.unlock();
    }

    /// Has it again, as long as no other process does.
    pub(crate) fn lock_again(&self) -> Result<(), StoreError> {
        self.still_there()?;
        take(&self.dir, &self.lock)?;
        sign(&self.dir, &self.lock)
    }

    /// # Errors
    ///
    /// If it was removed or moved, also if there is another one now. Nothing is to be written then.
    pub(crate) fn still_there(&self) -> Result<(), StoreError> {
        let is_there = match fs::symlink_metadata(self.dir.join(LOCK_FILE)) {
            #[cfg(unix)]
            Ok(found) => {
                use std::os::unix::fs::MetadataExt;
                let is_same = |lock: fs::Metadata| (lock.dev(), lock.ino()) == (found.dev(), found.ino());
                self.lock.metadata().is_ok_and(is_same)
            }
            Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
            #[cfg(not(unix))]
            Ok(_) => true,
        };
        if is_there { Ok(()) } else { Err(StoreError::Gone(self.dir.clone())) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Tells this folder from copies of it: they have other files.
    pub(crate) fn place(&self) -> Option<String> {
        let lock = self.lock.metadata().ok()?;
        let created = lock.created().ok().map(record::micros);
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(&lock);
        #[cfg(not(unix))]
        let number = 0;
        Some(format!("{number}-{}", created.unwrap_or_default()))
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join(STATE_FILE)
    }

    pub(crate) fn feed(&self, id: u64) -> PathBuf {
        self.dir.join(FEEDS).join(id.to_string())
    }

    pub(crate) fn all_feeds(&self) -> PathBuf {
        self.dir.join(FEEDS)
    }

    /// Where a feed's folder goes until it is removed.
    pub(crate) fn removed(&self, id: u64) -> PathBuf {
        self.dir.join(FEEDS).join(format!("{id}{REMOVED}"))
    }
}

/// The number of a feed, as its folder is named. It may be one that none is given.
pub(crate) fn number(name: &str) -> Option<u64> {
    name.parse().ok().filter(|id: &u64| *id < files::MOST && id.to_string() == name)
}

/// Whether a folder of the store's is there.
///
/// # Errors
///
/// If it is a link, or no folder: what is elsewhere is not the store's to write.
pub(crate) fn is_own(dir: &Path) -> Result<bool, StoreError> {
    match fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(_) => Err(StoreError::NotAFolder(dir.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at(dir),
    }
}

/// Whether a store is to begin there. Also while another process may have it open.
///
/// # Errors
///
/// If it can neither begin nor be opened there.
pub(crate) fn may_be_ours(dir: &Path) -> Result<bool, StoreError> {
    let is_new = is_new(dir)?;
    is_own(&dir.join(FEEDS))?;
    Ok(is_new)
}

/// Whether nothing is in the folder yet.
fn is_new(dir: &Path) -> Result<bool, StoreError> {
    match files::read::<Format>(&dir.join(FORMAT_FILE))? {
        Some(Format { format }) if format > FORMAT => return Err(StoreError::Newer { dir: dir.into(), format }),
        Some(_) => return Ok(false),
        None => {}
    }
    let temporary = files::temporary(&dir.join(FORMAT_FILE));
    for entry in fs::read_dir(dir).at(dir)? {
        let found = entry.at(dir)?;
        let (name, path) = (found.file_name(), found.path());
        // What an earlier attempt left, and what a new file system has.
        let is_ours = name == LOCK_FILE || name == "lost+found" || (path == temporary && is_begun(&path)?);
        if !is_ours {
            return Err(StoreError::Foreign { dir: dir.into(), found: name.to_string_lossy().into() });
        }
    }
    Ok(true)
}

fn take(dir: &Path, lock: &File) -> Result<(), StoreError> {
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { dir: dir.into(), pid: owner(lock) }),
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
            tracing::warn!(dir = %dir.display(), "this file system has no locks: make sure that no other process uses the store");
            Ok(())
        }
        Err(TryLockError::Error(error)) => Err(error).at(&dir.join(LOCK_FILE)),
    }
}

/// The process that has the store open, if it is known.
pub(crate) fn owner(lock: &File) -> Option<u32> {
    content(lock).ok().and_then(|text| str::from_utf8(&text).ok()?.trim().parse().ok())
}

/// Whether this is what an attempt left that broke off.
fn is_begun(path: &Path) -> Result<bool, StoreError> {
    let mut content = Vec::new();
    regular::read(path).and_then(|file| file.take(64).read_to_end(&mut content)).at(path)?;
    Ok(serde_json::to_vec(&Format { format: FORMAT }).is_ok_and(|whole| whole.starts_with(&content)))
}

/// What the file begins with that has the number of a process: more than such a number, if that is not all.
fn content(mut lock: &File) -> io::Result<Vec<u8>> {
    lock.rewind()?;
    let mut content = Vec::new();
    lock.take(32).read_to_end(&mut content)?;
    Ok(content)
}

/// # Errors
///
/// If the lock is a file of others: a store that is only begun has written no number to it yet.
pub(crate) fn is_ours(dir: &Path, lock: &File, is_new: bool) -> Result<(), StoreError> {
    let content = content(lock).at(&dir.join(LOCK_FILE))?;
    // After a power loss, zeros may be in the place of a number.
    let is_number = content.len() < 32 && content.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'\n' | 0));
    match is_number && (content.is_empty() || !is_new) {
        true => Ok(()),
        false => Err(StoreError::Foreign { dir: dir.into(), found: LOCK_FILE.into() }),
    }
}

/// Writes this process's number, unless the file has something else than one.
fn sign(dir: &Path, mut lock: &File) -> Result<(), StoreError> {
    is_ours(dir, lock, false)?;
    let number = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
    match number.at(&dir.join(LOCK_FILE)) {
        // It is for people: the lock itself needs no room.
        Err(StoreError::Full(_)) => Ok(()),
        signed => signed,
    }
}
