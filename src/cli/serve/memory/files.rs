//! File descriptors: how many the process may have open, and how many it has.

use std::{
    sync::{
        Mutex, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// For what is neither a connection nor a request: followed files, certificates.
const RESERVE: u64 = 32;

/// How often they are counted at most for connections at the limit: before Linux 6.2, and elsewhere, that is a list of
/// all of them.
const PAUSE: Duration = Duration::from_millis(100);
/// The same for requests, which need many more of them, and for a shorter time.
const SHORT_PAUSE: Duration = Duration::from_millis(20);

/// The file descriptors of the process.
#[derive(Debug)]
pub(super) struct Files {
    limit: Option<u64>,
    /// How many are open, if that can be found out.
    open: fn() -> Option<u64>,
    looked: Mutex<Option<Instant>>,
    /// When it was looked last, and the connections since.
    used: AtomicU64,
}

impl Files {
    pub(super) fn find() -> Self {
        let files = Self::of(limit(), open);
        files.look();
        files
    }

    fn of(limit: Option<u64>, open: fn() -> Option<u64>) -> Self {
        Self { limit, open, looked: Mutex::default(), used: AtomicU64::new(0) }
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts those that are open.
    pub(super) fn look(&self) {
        self.look_if(Instant::now(), |_| true);
    }

    /// Does so if that is `due` after the last time.
    fn look_if(&self, now: Instant, due: impl FnOnce(Instant) -> bool) {
        let mut looked = match self.looked.try_lock() {
            Ok(looked) => looked,
            Err(TryLockError::Poisoned(looked)) => looked.into_inner(),
            // They are being counted.
            Err(TryLockError::WouldBlock) => return,
        };
        if looked.is_some_and(|last| !due(last)) {
            return;
        }
        *looked = Some(now);
        if let Some(open) = (self.open)() {
            self.used.store(open, Ordering::Relaxed);
        }
    }

    /// Counts one more, for a connection; `false` when the rest is for other things. Half of the reserve is for
    /// connections of this machine (`inside`), so that it can be asked what is wrong.
    pub(super) fn take(&self, inside: bool) -> bool {
        self.take_at(Instant::now(), inside)
    }

    /// Counts so many more, for a request; `false` when the rest is for connections, and for what they have a reserve
    /// for: few connections with many requests would keep all others out.
    pub(super) fn take_for_request(&self, many: u64) -> bool {
        let most = |limit: u64, reserve: u64| limit - (2 * reserve).min(limit / 2);
        self.take_up_to(most, many, Instant::now(), SHORT_PAUSE)
    }

    fn take_at(&self, now: Instant, inside: bool) -> bool {
        let most = |limit: u64, reserve| limit.saturating_sub(if inside { reserve / 2 } else { reserve });
        self.take_up_to(most, 1, now, PAUSE)
    }

    fn take_up_to(&self, most: impl Fn(u64, u64) -> u64, many: u64, now: Instant, pause: Duration) -> bool {
        let Some(limit) = self.limit else { return true };
        let most = most(limit, (limit / 20).clamp(RESERVE, 32 * RESERVE));
        let more = |used: u64| (used + many <= most).then_some(used + many);
        let take = || self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if take() {
            return true;
        }
        // Some may have been closed since. A flood of connections is no reason to count them for each.
        self.look_if(now, |last| now.saturating_duration_since(last) >= pause);
        take()
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
        let files = Files::of(Some(1 << 40), open);
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
        let takes = |limit, open, inside| {
            let files = Files::of(limit, open);
            files.look();
            files.take(inside)
        };
        assert!(takes(Some(1000), || Some(949), false));
        assert!(!takes(Some(1000), || Some(950), false) && takes(Some(1000), || Some(950), true));
        assert!(!takes(Some(2), || Some(2), false) && !takes(Some(2), || Some(2), true));
        assert!(takes(None, || Some(1 << 40), false));
        // Connections find some when requests get no more.
        let files = Files::of(Some(1000), || Some(895));
        files.look();
        assert!(files.take_for_request(4) && files.take_for_request(1) && !files.take_for_request(1));
        assert!(files.take(false));
        let full = Files::of(Some(1000), || Some(900));
        full.look();
        assert!(!full.take_for_request(1) && full.take(false));
        assert!(Files::of(None, || Some(1 << 40)).take_for_request(4));
    }

    #[test]
    fn a_flood_at_the_limit_has_them_counted_ten_times_a_second() {
        static LOOKS: AtomicU64 = AtomicU64::new(0);
        static OPEN: AtomicU64 = AtomicU64::new(950);
        let files = Files::of(Some(1000), || {
            LOOKS.fetch_add(1, Ordering::Relaxed);
            Some(OPEN.load(Ordering::Relaxed))
        });
        files.look();
        let start = files.looked.lock().unwrap().unwrap();
        let take = |ms: u64| files.take_at(start + Duration::from_millis(ms), false);
        // One each millisecond.
        assert!((0..1000).all(|ms| !take(ms)));
        assert_eq!(LOOKS.load(Ordering::Relaxed), 10);
        // Ten were closed: so many are taken until the next look, and no more.
        OPEN.store(940, Ordering::Relaxed);
        assert_eq!((1000..1100).filter(|ms| take(*ms)).count(), 10);
        assert_eq!(LOOKS.load(Ordering::Relaxed), 11);
    }
}
