//! Why something was not stored, or not found.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use h3cast_feed::{KeeperError, PublishError};

/// Why a store cannot be opened, written or read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full. Publishing works again, without a restart, once there is room.
    #[error("no room on the disk for {}: free some space, or keep less", .0.display())]
    Full(PathBuf),
    /// The folder, or its file system, cannot be written.
    #[error("{} cannot be written: give its owner the right to, or choose another folder", .0.display())]
    ReadOnly(PathBuf),
    /// The folder has other files, and nothing was changed in it.
    #[error("{} has files that are not a store's, such as `{found}`: choose an empty or a new folder", dir.display())]
    Foreign {
        /// The folder.
        dir: PathBuf,
        /// One of them.
        found: String,
    },
    /// A newer version wrote the store, and nothing was changed in it.
    #[error("{} was written by a newer version (format {format}): use that one", dir.display())]
    Newer {
        /// The folder.
        dir: PathBuf,
        /// Its format's number.
        format: u64,
    },
    /// Another process has the store open.
    #[error("{} is in use{}: stop that process, or choose another folder", dir.display(), pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// That process, if it is known.
        pid: Option<u32>,
    },
    /// Something that was stored is damaged, other than by a write that broke off. Nothing was changed.
    #[error("{} is damaged at byte {at}: restore it from a copy, or remove its folder to begin the feed again", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        at: u64,
    },
    /// A feed of that name has been stored already.
    #[error("the feed `{0}` is open already")]
    Open(String),
    /// The store was closed, or the feed removed.
    #[error("the store has been closed")]
    Closed,
    /// Something else.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system reports.
        #[source]
        error: Arc<io::Error>,
    },
}

impl StoreError {
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full(path.into())
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly(path.into()),
            _ => Self::Io { path: path.into(), error: Arc::new(error) },
        }
    }
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self::Full(KeeperError::new(error)),
            _ => Self::Keeper(KeeperError::new(error)),
        }
    }
}

/// Says what an error is about.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T, StoreError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::io(path, error))
    }
}
