//! File descriptors: how many the process may have open, and how many it has.

use std::sync::atomic::{AtomicU64, Ordering};

/// For what is not a connection: commands (two pipes each), files, certificates.
const RESERVE: u64 = 32;

/// The file descriptors of the process.
#[derive(Debug)]
pub(super) struct Files {
    limit: Option<u64>,
    /// When it was looked last, and the connections since.
    used: AtomicU64,
}

impl Files {
    pub(super) fn find() -> Self {
        let files = Self { limit: limit(), used: AtomicU64::new(0) };
        files.look();
        files
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts those that are open.
    pub(super) fn look(&self) {
        if let Some(open) = open() {
            self.used.store(open, Ordering::Relaxed);
        }
    }

    /// Counts one more, for a connection; `false` when the rest is for other things. Half of the reserve is for
    /// connections of this machine (`inside`), so that it can be asked what is wrong.
    pub(super) fn take(&self, inside: bool) -> bool {
        let Some(limit) = self.limit else { return true };
        let reserve = (limit / 20).clamp(RESERVE, 32 * RESERVE);
        let most = limit.saturating_sub(if inside { reserve / 2 } else { reserve });
        let used = self.used.load(Ordering::Relaxed);
        if used < most {
            self.used.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        // Some may have been closed since.
        self.look();
        self.used.load(Ordering::Relaxed) < most
    }
}

fn limit() -> Option<u64> {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    None
}

/// How many are open, if that can be found out.
fn open() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        // Since Linux 6.2, without a look at each of them.
        let size = std::fs::metadata("/proc/self/fd").ok()?.len();
        if size > 0 {
            return Some(size);
        }
        // One of them is that of the folder.
        Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
    }
    #[cfg(all(unix, not(target_os = "linux")))]
    return Some((std::fs::read_dir("/dev/fd").ok()?.count() as u64).saturating_sub(1));
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_stays() {
        let files = Files { limit: Some(1 << 40), used: AtomicU64::new(0) };
        files.look();
        #[cfg(target_os = "linux")]
        {
            let before = files.used();
            assert!(before > 2, "{before}");
            let _more: Vec<_> = (0..5).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
            files.look();
            // Other tests open and close files too.
            assert!(files.used() > 2);
        }
        let full = |used, inside| Files { limit: Some(1000), used: AtomicU64::new(used) }.take(inside);
        assert!(full(949, false));
        // What is open now is counted again, and is far less than 1000.
        assert!(cfg!(not(target_os = "linux")) || full(950, false));
        let none = Files { limit: Some(2), used: AtomicU64::new(2) };
        assert!(!none.take(false) && !none.take(true));
        assert!(Files { limit: None, used: AtomicU64::new(1 << 40) }.take(false));
    }
}
