//! Whether a stream is full, as people were told.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::error::KeepError;

/// The shortest time between two warnings that a stream is full: where the oldest messages are dropped for their age, there
/// is room for a few now and then.
const QUIET: Duration = Duration::from_secs(60);

/// Of one stream.
#[derive(Debug)]
pub(super) struct Fullness {
    stream: String,
    /// People know that it is.
    is_full: AtomicBool,
    /// When they were told last.
    told: Mutex<Option<Instant>>,
}

impl Fullness {
    pub(super) fn of(stream: &str) -> Self {
        Self { stream: stream.to_owned(), is_full: AtomicBool::default(), told: Mutex::default() }
    }

    /// A publication to that subject was refused for that.
    pub(super) fn refused(&self, subject: &str, why: &KeepError) {
        if self.note_refused(Instant::now()) {
            warn!(stream = self.stream, subject, "publications are refused: {why}");
        }
    }

    /// Something was stored.
    pub(super) fn stored(&self) {
        if self.note_stored() {
            info!(stream = self.stream, "publications are stored again");
        }
    }

    /// Whether it is to be told.
    fn note_refused(&self, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news =
            !self.is_full.load(Ordering::Relaxed) && told.is_none_or(|last| now.duration_since(last) >= QUIET);
        if is_news {
            *told = Some(now);
            self.is_full.store(true, Ordering::Relaxed);
        }
        is_news
    }

    fn note_stored(&self) -> bool {
        // Each chunk that is stored comes here.
        self.is_full.load(Ordering::Relaxed) && self.is_full.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_stream_is_told_once_and_again_not_too_often() {
        let (stream, start) = (Fullness::of("s"), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!stream.note_stored());
        assert!(stream.note_refused(at(0)) && !stream.note_refused(at(1)) && !stream.note_refused(at(100)));
        assert!(stream.note_stored() && !stream.note_stored());
        assert!(stream.note_refused(at(101)) && stream.note_stored());
        // There is room for one now and then.
        assert!(!stream.note_refused(at(102)) && !stream.note_stored());
        assert!(stream.note_refused(at(161)));
    }
}
