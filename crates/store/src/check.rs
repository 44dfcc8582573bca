//! Whether a folder could be opened as a store, without changing anything there.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::Path,
};

use crate::{
    Store, StoreError,
    error::At,
    folder::{self, FEEDS, LOCK_FILE},
    look::Found,
    regular,
};

/// What [`Store::check`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checked {
    /// Nothing yet: a store could begin there.
    New,
    /// A store, which could be opened.
    Stored,
    /// A store that another process has open.
    InUse {
        /// That process, if it is known.
        pid: Option<u32>,
    },
}

impl Store {
    /// Whether the folder could be opened as a store by this user. Nothing is created, written or removed. The files
    /// of feeds' chunks are not looked at. This blocks for a disk.
    ///
    /// Where a store is, its lock is taken for a moment, in a way that others can share.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), if that would fail; but a store that is in use is not an error.
    pub fn check(dir: impl AsRef<Path>) -> Result<Checked, StoreError> {
        let dir = dir.as_ref();
        match fs::metadata(dir) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(io::Error::from(ErrorKind::NotADirectory)).at(dir),
            Err(error) if error.kind() == ErrorKind::NotFound => return creatable(dir).map(|()| Checked::New),
            Err(error) => return Err(error).at(dir),
        }
        usable(dir)?;
        let is_new = folder::may_be_ours(dir)?;
        let path = dir.join(LOCK_FILE);
        let lock = match regular::open(&path, File::options().read(true).write(true)) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).at(&path),
        };
        if let Some(lock) = &lock {
            folder::is_ours(dir, lock, is_new)?;
            // Not as `open` takes it: a server that starts at this moment is not to fail.
            match lock.try_lock_shared() {
                Err(fs::TryLockError::WouldBlock) => return Ok(Checked::InUse { pid: folder::owner(lock) }),
                Err(fs::TryLockError::Error(error)) if error.kind() != ErrorKind::Unsupported => {
                    return Err(error).at(&path);
                }
                _ => {}
            }
        }
        if is_new {
            return Ok(Checked::New);
        }
        let found = Found::look(dir)?;
        if folder::is_own(&dir.join(FEEDS))? {
            usable(&dir.join(FEEDS))?;
        }
        found.feeds.folders(dir).try_for_each(|feed| usable(&feed))?;
        Ok(Checked::Stored)
    }
}

/// Whether a folder that is not there can be created: in the nearest one that is.
fn creatable(dir: &Path) -> Result<(), StoreError> {
    let whole = std::path::absolute(dir).at(dir)?;
    for above in whole.ancestors().skip(1) {
        match fs::metadata(above) {
            Ok(found) if found.is_dir() => return usable(above),
            Ok(_) => return Err(io::Error::from(ErrorKind::NotADirectory)).at(above),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).at(above),
        }
    }
    Err(io::Error::from(ErrorKind::NotFound)).at(dir)
}

/// Whether this user may read a folder, and create files in it.
fn usable(dir: &Path) -> Result<(), StoreError> {
    #[cfg(unix)]
    {
        use rustix::fs::{Access, access};

        access(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from).at(dir)
    }
    #[cfg(not(unix))]
    match fs::metadata(dir).at(dir)?.permissions().readonly() {
        true => Err(StoreError::Denied(dir.into())),
        false => Ok(()),
    }
}
