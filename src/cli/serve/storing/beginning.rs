//! Whether a store can begin where nothing is yet, before anything is created there.

use std::path::Path;

#[cfg(target_os = "linux")]
use crate::store::StoreError;
use crate::store::{Checked, Store};

/// So much must be free, in bytes: a store begins with a few files, each in a block of its own.
#[cfg(target_os = "linux")]
const ROOM: usize = 16 << 10;

/// Why no store can begin in this folder, if it is a new one. Nothing is created that has a name, so that nothing is left.
/// Blocks.
pub(super) fn fails(dir: &Path) -> Option<String> {
    match Store::check(dir) {
        Ok(Checked::New) => cannot_begin(dir),
        // What else is wrong, opening it says.
        _ => None,
    }
}

#[cfg(target_os = "linux")]
fn cannot_begin(dir: &Path) -> Option<String> {
    use rustix::{
        fs::{Mode, OFlags, PROC_SUPER_MAGIC},
        io::Errno,
    };

    const SYSFS_MAGIC: u64 = 0x6265_6572;

    let whole = std::path::absolute(dir).ok()?;
    let there = whole.ancestors().find(|above| above.is_dir())?;
    let full = || Some(StoreError::Full(dir.into()).to_string());
    match rustix::fs::open(there, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR) {
        Ok(file) => match std::io::Write::write_all(&mut std::fs::File::from(file), &[0; ROOM]) {
            Err(error) if is_full(&error) => full(),
            _ => None,
        },
        Err(Errno::NOSPC | Errno::DQUOT) => full(),
        // Not every file system has files without names.
        Err(_) => {
            let system = rustix::fs::statfs(there).ok()?;
            if [PROC_SUPER_MAGIC as u64, SYSFS_MAGIC].contains(&(system.f_type as u64)) {
                let (dir, there) = (dir.display(), there.display());
                return Some(format!(
                    "no folder can be created at {dir}, since {there} is the system's: choose one on a disk"
                ));
            }
            if system.f_blocks > 0 && system.f_bavail == 0 { full() } else { None }
        }
    }
}

#[cfg(target_os = "linux")]
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// It shows when it begins.
#[cfg(not(target_os = "linux"))]
fn cannot_begin(_: &Path) -> Option<String> {
    None
}
