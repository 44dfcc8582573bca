//! Whether files have changed, by what the system knows of them.

use std::{
    fs::{self, Metadata},
    path::PathBuf,
    time::SystemTime,
};

/// What the system knows of files and of the links to them. Two that are equal mean that nothing has
/// changed, whatever was exchanged on the way to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(Vec<[Option<FileFacts>; 2]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileFacts {
    modified: Option<SystemTime>,
    length: u64,
    /// The device, the file, and when it was changed in any way.
    place: (u64, u64, i64, i64),
}

impl Stamp {
    /// Blocks.
    pub(super) fn of(paths: &[PathBuf]) -> Self {
        let facts =
            |path: &PathBuf| [fs::symlink_metadata(path), fs::metadata(path)].map(|read| read.ok().map(FileFacts::of));
        Self(paths.iter().map(facts).collect())
    }
}

impl FileFacts {
    fn of(metadata: Metadata) -> Self {
        #[cfg(unix)]
        let place = {
            use std::os::unix::fs::MetadataExt;
            (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
        };
        #[cfg(not(unix))]
        let place = (0, 0, 0, 0);
        Self { modified: metadata.modified().ok(), length: metadata.len(), place }
    }
}
