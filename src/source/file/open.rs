//! Opening what a path names, and nothing that would make us wait.
//!
//! To open a named pipe waits for its other end, and to open it and go away kills whoever writes to it.
//! So a path is looked at first, and opened only if it is what is wanted.

use std::{
    fs::{File, Metadata},
    io,
    path::Path,
    sync::Arc,
};

use super::pieces::Pieces;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A file whose bytes stay where they are, or a disk.
    File,
    /// A pipe: what is read from it is gone.
    Pipe,
    /// A terminal, a serial line, `/dev/null` …
    Device,
    Folder,
    #[cfg_attr(not(unix), allow(dead_code, reason = "files alone are read there"))]
    Socket,
}

impl What {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt;
            let kind = metadata.file_type();
            if kind.is_fifo() {
                return Self::Pipe;
            }
            if kind.is_char_device() {
                return Self::Device;
            }
            if kind.is_socket() {
                return Self::Socket;
            }
        }
        if metadata.is_dir() { Self::Folder } else { Self::File }
    }

    /// Why it is not what was wanted.
    fn refused(self) -> io::Error {
        let (kind, text) = match self {
            Self::File => (io::ErrorKind::InvalidInput, "it is a file"),
            Self::Pipe => (
                io::ErrorKind::InvalidInput,
                "it is a pipe, which can be read only once: tail: reads it for all viewers",
            ),
            Self::Device => {
                (io::ErrorKind::InvalidInput, "it is a device: tail: reads it for all viewers, or exec: for each")
            }
            Self::Folder => (io::ErrorKind::IsADirectory, "it is a folder"),
            Self::Socket => (io::ErrorKind::InvalidInput, "it is a socket, which cannot be opened"),
        };
        io::Error::new(kind, text)
    }
}

/// What has been opened.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    pub(crate) file: File,
    pub(crate) metadata: Metadata,
    pub(crate) what: What,
}

impl OpenedFile {
    /// Its bytes, from its start.
    pub(crate) fn pieces(self) -> Pieces {
        Pieces::new(Arc::new(self.file), 0)
    }
}

/// Opens what is there, if it is one of those. Never waits for another process, but for the disk: not to
/// be called on a worker.
///
/// # Errors
///
/// When it is none of those, or cannot be read.
pub(crate) fn open(path: &Path, wanted: &[What]) -> io::Result<OpenedFile> {
    let wants = |metadata: &Metadata| match What::of(metadata) {
        what if wanted.contains(&what) => Ok(what),
        what => Err(what.refused()),
    };
    wants(&std::fs::metadata(path)?)?;
    let mut options = std::fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        // It may have become a pipe since; and a terminal is not to become the one that controls us.
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    }
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    let what = wants(&metadata)?;
    Ok(OpenedFile { file, metadata, what })
}

/// Opens a file, and nothing else, as [`open`] does.
///
/// # Errors
///
/// As there.
pub(crate) async fn file(path: &Path) -> io::Result<OpenedFile> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || open(&path, &[What::File])).await.map_err(io::Error::other)?
}

/// What tells a file from all others: its device, its inode, which another file may have later, and when it was created,
/// in nanoseconds since 1970; 0 where the file system does not know that.
pub(super) type FileId = (u64, u64, u64);

pub(super) fn identity(metadata: &Metadata) -> FileId {
    let created = metadata.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let created = created.unwrap_or_default().as_nanos() as u64;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev(), metadata.ino(), created)
    }
    #[cfg(not(unix))]
    (0, 0, created)
}

/// Whether a pipe has no name by which another writer could come.
#[cfg(unix)]
pub(super) fn is_anonymous(pipe: impl std::os::fd::AsFd, path: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        const PIPEFS: u64 = 0x5049_5045;
        let _ = path;
        rustix::fs::fstatfs(pipe).is_ok_and(|system| u64::try_from(system.f_type) == Ok(PIPEFS))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pipe;
        path.starts_with("/dev/fd") || path == Path::new("/dev/stdin")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn nothing_is_opened_that_is_not_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "x").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        // The system's call for it has another name on macOS.
        assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        assert_eq!(open(&path("file"), &[What::File]).unwrap().what, What::File);
        // Nobody is at its other end.
        assert_eq!(open(&path("pipe"), &[What::Pipe]).unwrap().what, What::Pipe);
        for (name, why) in [("pipe", "a pipe"), ("socket", "a socket"), (".", "a folder"), ("/dev/zero", "a device")] {
            let error = open(&path(name), &[What::File]).unwrap_err();
            assert!(error.to_string().contains(why), "{name}: {error}");
        }
    }
}
