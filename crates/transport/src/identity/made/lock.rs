//! The lock on a folder of certificates: it keeps two servers from writing there at once.
//!
//! It saves work and is not needed: what two servers write without it comes to an agreement too,
//! since each file is replaced only while it is as it was read. So it is tried and never relied on:
//! any program could hold it, and some file systems have none.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::Path,
    time::{Duration, Instant},
};

use crate::fault;

/// How long to try. A server holds it for some milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(10);

/// Held until dropped.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "closing it lets go of the lock")] File);

impl Lock {
    /// Tries to lock the folder. Blocks for up to half a second.
    pub(super) fn of(dir: &Path) -> Option<Self> {
        let file = open(&dir.join(".lock"))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Some(Self(file)),
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => std::thread::sleep(AGAIN),
                Err(_) => return None,
            }
        }
    }
}

/// The lock's file, which only its owner can open, and so hold.
fn open(path: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match fs::symlink_metadata(path) {
        Err(_) => options.create_new(true).open(path).ok(),
        Ok(metadata) if is_lock(&metadata) => {
            fault::point("certs-lock");
            // A link or a pipe may have taken its place.
            #[cfg(unix)]
            {
                let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
                std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits().cast_signed());
            }
            let file = options.open(path).ok()?;
            let opened = file.metadata().ok().filter(is_lock)?;
            // Earlier versions let everyone read it, and so lock it.
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                if opened.permissions().mode() & 0o077 != 0 {
                    let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
                }
            }
            #[cfg(not(unix))]
            let _ = opened;
            Some(file)
        }
        Ok(_) => None,
    }
}

/// Whether it is a file like those we create. Anything else is not our lock.
fn is_lock(metadata: &fs::Metadata) -> bool {
    #[cfg(unix)]
    let names = std::os::unix::fs::MetadataExt::nlink(metadata);
    #[cfg(not(unix))]
    let names = 1;
    metadata.is_file() && metadata.len() == 0 && names <= 1
}
