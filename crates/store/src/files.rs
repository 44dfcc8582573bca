//! The small files of a store: each is replaced as a whole, so that it is the old or the new one after a crash.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{StoreError, error::At};

/// What is known of a feed besides its chunks: `meta.json` in its folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    /// What checksums begin with.
    pub(crate) salt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created_by: Option<String>,
}

impl Meta {
    pub(crate) fn new(name: &str, epoch: u64, salt: u32) -> Self {
        Self { name: name.into(), epoch, salt, created_by: None }
    }
}

/// Which numbers of a feed are taken: `mark.json` in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Viewers may have seen any chunk before this number.
    pub(crate) reserved: u64,
    /// All chunks before this number are on the disk.
    pub(crate) synced: u64,
}

/// How many numbers are reserved ahead at least.
pub(crate) const AHEAD: u64 = 1 << 16;

impl Default for Mark {
    /// That of a feed without the file.
    fn default() -> Self {
        Self { reserved: AHEAD, synced: 0 }
    }
}

/// Whether the store was closed, and else when it was open: `state.json` in its folder.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) closed: bool,
    /// Whether everything that viewers have seen is on the disk.
    #[serde(default)]
    pub(crate) always: bool,
    /// Which run of the system that was, if the system tells.
    pub(crate) boot: Option<String>,
}

/// Tells this run of the system from earlier ones.
pub(crate) fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().into())
}

/// Replaces a file, or creates it; then it is on the disk.
pub(crate) fn replace<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    put(path, value, true)?;
    sync_folder(path.parent().unwrap_or(path))
}

/// Creates a file, which is on the disk once it is synced.
pub(crate) fn create<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    put(path, value, false)
}

fn put<T: Serialize>(path: &Path, value: &T, sync: bool) -> Result<(), StoreError> {
    let temporary = temporary(path);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // What was there before is still there.
        let _ = fs::remove_file(&temporary);
    }
    written.at(path)
}

pub(crate) fn temporary(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Reads a file, if it is there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => {
            let damaged = |_| StoreError::Damaged { file: path.into(), at: 0 };
            serde_json::from_slice(&bytes).map(Some).map_err(damaged)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at(path),
    }
}

/// Has what was created, renamed or removed in a folder survive a power loss, where a folder can be synced.
pub(crate) fn sync_folder(dir: &Path) -> Result<(), StoreError> {
    if cfg!(unix) { File::open(dir).and_then(|folder| folder.sync_all()).at(dir) } else { Ok(()) }
}

/// Has all that is in these feeds' folders reach the disk, and in the folder that they are in. Blocks.
pub(crate) fn sync_all(feeds: &Path) -> Result<(), StoreError> {
    let folder = File::open(feeds).at(feeds)?;
    if sync_file_system(&folder) {
        return Ok(());
    }
    for feed in fs::read_dir(feeds).at(feeds)? {
        let feed = feed.at(feeds)?.path();
        if !feed.is_dir() {
            continue;
        }
        for file in fs::read_dir(&feed).at(&feed)? {
            let file = file.at(&feed)?.path();
            File::options().write(true).open(&file).and_then(|file| file.sync_all()).at(&file)?;
        }
        sync_folder(&feed)?;
    }
    sync_folder(feeds)
}

/// Syncs the file system as a whole, where that can be done and its errors are reported.
#[cfg(target_os = "linux")]
pub(crate) fn sync_file_system(file: &File) -> bool {
    rustix::fs::syncfs(file).is_ok()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_file_system(_: &File) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_replaced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark.json");
        assert_eq!(read::<Mark>(&path).unwrap(), None);
        let mark = Mark { reserved: 7, synced: 3 };
        replace(&path, &mark).unwrap();
        assert_eq!(read(&path).unwrap(), Some(mark));
        // Nothing can be created there.
        fs::create_dir(temporary(&path)).unwrap();
        replace(&path, &Mark::default()).unwrap_err();
        assert_eq!(read(&path).unwrap(), Some(mark));
        fs::write(&path, "{").unwrap();
        assert!(matches!(read::<Mark>(&path), Err(StoreError::Damaged { .. })));
    }
}
