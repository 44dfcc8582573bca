//! Why something was not stored, or not found.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use h3cast_feed::{KeeperError, PublishError};

use crate::regular::NotRegular;

/// Why a store cannot be opened, written or read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full. Publishing works again, without a restart, once there is room.
    #[error("no room on the disk for {}: free some space, or keep less (--retain)", .0.display())]
    Full(PathBuf),
    /// The file system is read-only.
    #[error("{} is on a read-only file system: mount that for writing, or choose a folder on another one", .0.display())]
    ReadOnly(PathBuf),
    /// This user may not read or write it.
    #[error("this user may not read and write {}: give it the right to (chown, chmod), or choose another folder", .0.display())]
    Denied(PathBuf),
    /// Something else is where a folder should be.
    #[error("{} is not a folder: choose one, or a path where nothing is yet", .0.display())]
    NotAFolder(PathBuf),
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
    /// A link, a folder, a FIFO or a device has the name of a file of the store. It was not opened.
    #[error("{} is not a regular file, as those of a store are: put its file back, or choose another folder", .0.display())]
    NotRegular(PathBuf),
    /// A folder is where a file of the store is to be written.
    #[error("{} is a folder, and a file of that name is to be written: move it elsewhere", .0.display())]
    InTheWay(PathBuf),
    /// Two folders are of the same feed, as when one was copied. Nothing was changed.
    #[error("{} and {} are both of the feed `{feed}`: move the one that is a copy elsewhere", dirs[0].display(), dirs[1].display())]
    Twice {
        /// The feed's name.
        feed: String,
        /// The folders.
        dirs: [PathBuf; 2],
    },
    /// The folder is not where it was any more. Nothing is created in its place; once it is back, publishing works again.
    #[error("{} was removed or moved, and nothing is stored any more: put it back (a restart begins an empty store)", .0.display())]
    Gone(PathBuf),
    /// The feed of that name has given all numbers that there are. None is given twice.
    #[error("the feed `{0}` has used up its numbers: remove its folder, while no server runs, to begin it again")]
    UsedUp(String),
    /// A feed of that name has been stored already.
    #[error("the feed `{0}` is open already")]
    Open(String),
    /// The store was closed, or the feed removed.
    #[error("the store has been closed")]
    Closed,
    /// The store was released, and is another process's.
    #[error("another process has the store now")]
    Moved,
    /// Something else.
    #[error("{}: {}", path.display(), plain(error))]
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
        if error.get_ref().is_some_and(|inner| inner.is::<NotRegular>()) {
            return Self::NotRegular(path.into());
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full(path.into())
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(path.into()),
            io::ErrorKind::PermissionDenied => Self::Denied(path.into()),
            io::ErrorKind::NotADirectory => Self::NotAFolder(not_a_folder(path).into()),
            _ => Self::Io { path: path.into(), error: Arc::new(error) },
        }
    }
}

/// The nearest place on a path that is something else than a folder.
fn not_a_folder(path: &Path) -> &Path {
    let is_other = |above: &&Path| above.symlink_metadata().is_ok() && !above.is_dir();
    path.ancestors().find(is_other).unwrap_or(path)
}

/// What the system reports, without its number for that, and what helps where its words do not.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let Some(number) = error.raw_os_error() else { return text };
    let words = text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text);
    #[cfg(unix)]
    if number == rustix::io::Errno::MFILE.raw_os_error() {
        return format!("{words} (raise the limit of open files, such as LimitNOFILE= of systemd or `ulimit -n`)");
    }
    words.into()
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Moved => Self::Ended,
            StoreError::Full(_) => Self::Full(KeeperError::new(error)),
            // Other feeds can be written.
            StoreError::UsedUp(_) => Self::Refused(KeeperError::new(error)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_system_are_whole() {
        let said = |error| StoreError::io(Path::new("x"), error).to_string();
        let inner = io::Error::other("y: Input/output error (os error 5): while it was read");
        assert_eq!(said(inner), "x: y: Input/output error (os error 5): while it was read");
        #[cfg(unix)]
        for (errno, expected) in [
            (rustix::io::Errno::IO, "x: Input/output error"),
            (rustix::io::Errno::MFILE, "x: Too many open files (raise the limit of open files, such as"),
        ] {
            let text = said(errno.into());
            assert!(text.starts_with(expected) && !text.contains("os error"), "{text}");
        }
    }
}
