//! Opening files. A store has regular ones only: a link would lead to files of others, and a FIFO or a device may have no
//! end, or nothing to read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    path::Path,
};

/// Something else has the name of a file.
#[derive(Debug, thiserror::Error)]
#[error("not a regular file")]
pub(crate) struct NotRegular;

/// Opens a file without following a link, and without waiting for a writer or reader.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        use rustix::fs::OFlags;

        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    }
    let opened = options.open(path);
    let is_regular = match &opened {
        Ok(file) if cfg!(unix) => file.metadata()?.is_file(),
        _ => fs::symlink_metadata(path).map_or(true, |found| found.is_file()),
    };
    if is_regular { opened } else { Err(io::Error::other(NotRegular)) }
}

/// Opens one to read it.
pub(crate) fn read(path: &Path) -> io::Result<File> {
    open(path, File::options().read(true))
}

/// Opens one to append to it.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    open(path, File::options().append(true))
}

/// Creates one in the place of what an earlier attempt left.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let create = || File::options().write(true).create_new(true).open(path);
    match create() {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            create()
        }
        created => created,
    }
}
