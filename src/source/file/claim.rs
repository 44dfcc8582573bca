//! Pipes and devices that are being read: what one source reads there, another does not get.

use std::{
    collections::BTreeSet,
    fs::Metadata,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What tells a pipe or a device from all others, by whichever name it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(unix), allow(dead_code, reason = "files alone are read there"))]
pub(crate) enum Once {
    /// By its device and inode.
    Pipe(u64, u64),
    /// By its own number: it may have several inodes.
    Device(u64),
}

impl Once {
    /// `None` where each reader gets everything.
    pub(crate) fn of(metadata: &Metadata) -> Option<Self> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::{FileTypeExt, MetadataExt};
            let kind = metadata.file_type();
            if kind.is_fifo() {
                return Some(Self::Pipe(metadata.dev(), metadata.ino()));
            }
            if kind.is_char_device() && is_terminal(metadata.rdev()) {
                return Some(Self::Device(metadata.rdev()));
            }
        }
        let _ = metadata;
        None
    }
}

/// Whether it is a terminal or a serial line, whose bytes go to one reader each. Of other devices, as `/dev/kmsg`
/// and those in `/dev/input`, each reader gets everything. Nothing is opened: that could raise a modem's lines.
#[cfg(target_os = "linux")]
fn is_terminal(device: u64) -> bool {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let listed = |line: &str| {
        // At the end: major, minor or a range of them, type.
        let mut words = line.split_whitespace().rev().skip(1);
        let (minors, of) = (words.next()?, words.next()?.parse::<u32>().ok()?);
        let (first, last) = minors.split_once('-').unwrap_or((minors, minors));
        Some(of == major && (first.parse().ok()?..=last.parse().ok()?).contains(&minor))
    };
    match std::fs::read_to_string("/proc/tty/drivers") {
        Ok(text) => text.lines().any(|line| listed(line) == Some(true)),
        // It may be.
        Err(_) => true,
    }
}

/// Elsewhere nothing tells.
#[cfg(all(unix, not(target_os = "linux")))]
fn is_terminal(_device: u64) -> bool {
    true
}

/// Those that sources of this process read.
static CLAIMED: Mutex<BTreeSet<Once>> = Mutex::new(BTreeSet::new());

fn claimed() -> MutexGuard<'static, BTreeSet<Once>> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to read something, until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim(Option<Once>);

impl Claim {
    /// Claims it, before it is opened: a reader that opens a pipe and leaves may kill its writer.
    ///
    /// # Errors
    ///
    /// When another source reads it.
    pub(crate) fn of(metadata: &Metadata) -> io::Result<Self> {
        let once = Once::of(metadata);
        match once {
            Some(once) if !claimed().insert(once) => {
                let text = "another feed reads this pipe or device, and each line would reach only one of them";
                Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
            }
            _ => Ok(Self(once)),
        }
    }

    /// Whether it is of that.
    pub(crate) fn is_of(&self, metadata: &Metadata) -> bool {
        self.0 == Once::of(metadata)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(once) = &self.0 {
            claimed().remove(once);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn devices_that_give_everyone_everything_are_not_claimed() {
        let of = |path: &str| Once::of(&std::fs::metadata(path).unwrap());
        for shared in ["/dev/null", "/dev/zero", "/dev/urandom", "."] {
            assert_eq!(of(shared), None, "{shared}");
        }
        for once in ["/dev/tty", "/dev/ptmx"] {
            assert!(matches!(of(once), Some(Once::Device(_))), "{once}");
        }
    }
}
