//! The small files of a store: each is replaced as a whole, so that it is the old or the new one after a crash.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{StoreError, error::At, regular};

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

/// A file or folder with such a number for its name is none of the store's.
pub(crate) const MOST: u64 = 1 << 62;
/// A feed gives no number from this one on, nor does a store to a feed. It is not reached by counting: a larger one is
/// damaged, or of others.
pub(crate) const NUMBERS: u64 = 1 << 61;

/// None of these files is larger, in bytes.
const LARGEST: u64 = 1 << 20;

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
    /// Tells the folder from copies of it.
    #[serde(default)]
    pub(crate) place: Option<String>,
}

impl State {
    /// Whether it was open in another run of the system: what that was given may not be on the disk.
    pub(crate) fn is_torn(&self) -> bool {
        !self.closed && (self.boot.is_none() || self.boot != boot())
    }
}

/// Tells this run of the system from earlier ones.
pub(crate) fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().into())
}

/// Which numbers of the feed in that folder are taken.
pub(crate) fn mark(dir: &Path) -> Result<Mark, StoreError> {
    let path = dir.join("mark.json");
    let mark: Mark = read(&path)?.unwrap_or_default();
    match mark.reserved.max(mark.synced) <= NUMBERS {
        true => Ok(mark),
        false => Err(StoreError::Damaged { file: path, at: 0 }),
    }
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
        let mut file = regular::create(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        is_replaceable(path)?;
        // What was there before is still there.
        let _ = fs::remove_file(&temporary);
    }
    written.at(path)
}

/// # Errors
///
/// If a folder is where the file is written before it gets its name.
pub(crate) fn is_replaceable(path: &Path) -> Result<(), StoreError> {
    let temporary = temporary(path);
    match fs::symlink_metadata(&temporary) {
        Ok(found) if found.is_dir() => Err(StoreError::InTheWay(temporary)),
        _ => Ok(()),
    }
}

pub(crate) fn temporary(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Reads a file, if it is there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let file = match regular::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.at(path)?,
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).at(path)?;
    let damaged = |at| StoreError::Damaged { file: path.into(), at };
    if bytes.len() as u64 > LARGEST {
        return Err(damaged(LARGEST));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|_| damaged(0))
}

/// Has what was created, renamed or removed in a folder survive a power loss, where a folder can be synced.
pub(crate) fn sync_folder(dir: &Path) -> Result<(), StoreError> {
    if cfg!(unix) { File::open(dir).and_then(|folder| folder.sync_all()).at(dir) } else { Ok(()) }
}

/// The bytes that are free for us where that folder is, if that is known.
pub(crate) fn free(dir: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let system = rustix::fs::statvfs(dir).ok()?;
        // Some file systems do not say.
        (system.f_blocks > 0).then(|| system.f_bavail.saturating_mul(system.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
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
            let file = file.at(&feed)?;
            if file.file_type().at(&feed)?.is_file() {
                let file = file.path();
                regular::append(&file).and_then(|file| file.sync_all()).at(&file)?;
            }
        }
        sync_folder(&feed)?;
    }
    sync_folder(feeds)
}

/// Syncs the file system as a whole, where that can be done and its errors are reported.
#[cfg(target_os = "linux")]
pub(crate) fn sync_file_system(file: &File) -> bool {
    static REPORTS: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
        fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| reports_errors(&release))
    });
    *REPORTS && rustix::fs::syncfs(file).is_ok()
}

/// Whether that Linux reports what a sync of a file system could not write: since 5.8.
#[cfg(target_os = "linux")]
fn reports_errors(release: &str) -> bool {
    let mut numbers = release.split(|other: char| !other.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
    (numbers.next().flatten(), numbers.next().flatten()) >= (Some(5), Some(8))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_file_system(_: &File) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn errors_of_a_file_system_are_reported_since_linux_5_8() {
        for release in ["5.8.0", "5.15.0-91-generic", "6.1", "10.0-rc1"] {
            assert!(reports_errors(release), "{release}");
        }
        for release in ["5.7.19", "4.19.0-26-amd64", "5", "", "odd"] {
            assert!(!reports_errors(release), "{release}");
        }
    }

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
