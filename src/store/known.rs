//! How far the publications of a feed have come that may be continued. What is stored of that is in here as well, so that
//! nobody asks the disk.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use bytes::Bytes;

use crate::feed::Progress;

/// Of how many publications of one feed that is stored. Those that wrote last stay.
const MOST: usize = 4096;

/// The publications of one feed, by key.
#[derive(Debug, Default)]
pub(super) struct Known {
    by_key: HashMap<Bytes, Publication>,
    /// The keys, by when they were written; the one that was written last at the end.
    order: BTreeMap<u64, Bytes>,
    writes: u64,
}

#[derive(Debug)]
struct Publication {
    progress: Progress,
    expires: SystemTime,
    /// Where it is in the order.
    at: u64,
}

/// What is stored together with chunks of a publication, and becomes true with them.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) key: Bytes,
    pub(super) progress: Progress,
    pub(super) expires: SystemTime,
    /// Those that are forgotten for it, and where they are in the order.
    forgotten: Vec<(Bytes, u64)>,
}

impl Noted {
    /// The keys that are forgotten for it.
    pub(super) fn forgotten(&self) -> impl Iterator<Item = Bytes> {
        self.forgotten.iter().map(|(key, _)| key.clone())
    }
}

impl Known {
    /// How far a publication has come, if that is known and has not expired.
    pub(super) fn progress(&self, key: &Bytes) -> Option<Progress> {
        let publication = self.by_key.get(key)?;
        (publication.expires > SystemTime::now()).then_some(publication.progress)
    }

    /// What is to be stored of a publication. `is_busy` tells of others whether they are being stored: those stay.
    /// Nothing changes before that [was stored](Self::was_stored).
    pub(super) fn note(
        &self,
        key: &Bytes,
        progress: Progress,
        expires: SystemTime,
        is_busy: impl Fn(&Bytes) -> bool,
    ) -> Noted {
        let known = self.by_key.len() + usize::from(!self.by_key.contains_key(key));
        let others = self.order.iter().filter(|(_, other)| *other != key && !is_busy(other));
        let forgotten = others.take(known.saturating_sub(MOST)).map(|(at, other)| (other.clone(), *at)).collect();
        Noted { key: key.clone(), progress, expires, forgotten }
    }

    pub(super) fn was_stored(&mut self, noted: Noted) {
        let Noted { key, progress, expires, forgotten } = noted;
        for (other, at) in forgotten {
            // It may have been written since.
            if self.by_key.get(&other).is_some_and(|publication| publication.at == at) {
                self.by_key.remove(&other);
                self.order.remove(&at);
            }
        }
        let at = self.writes;
        self.writes += 1;
        if let Some(earlier) = self.by_key.insert(key.clone(), Publication { progress, expires, at }) {
            self.order.remove(&earlier.at);
        }
        self.order.insert(at, key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(number: usize) -> Bytes {
        number.to_string().into()
    }

    fn note(known: &Known, number: usize, busy: &[usize]) -> Noted {
        let progress = Progress { bytes: number as u64, ..Progress::default() };
        let expires = SystemTime::now() + Duration::from_secs(60);
        known.note(&key(number), progress, expires, |other| busy.iter().any(|busy| key(*busy) == *other))
    }

    fn full() -> Known {
        let mut known = Known::default();
        for number in 0..MOST {
            known.was_stored(note(&known, number, &[]));
        }
        known
    }

    #[test]
    fn those_that_wrote_last_stay() {
        let mut known = full();
        // The one that began first writes on.
        assert_eq!(note(&known, 0, &[]).forgotten().count(), 0);
        known.was_stored(note(&known, 0, &[]));
        for new in MOST..MOST + 10 {
            let noted = note(&known, new, &[]);
            assert_eq!(noted.forgotten().collect::<Vec<_>>(), [key(new - MOST + 1)]);
            known.was_stored(noted);
        }
        assert_eq!((known.progress(&key(0)).map(|progress| progress.bytes), known.progress(&key(1))), (Some(0), None));
        assert_eq!((known.by_key.len(), known.order.len()), (MOST, MOST));
    }

    #[test]
    fn what_was_not_stored_changes_nothing() {
        let mut known = full();
        drop(note(&known, MOST, &[]));
        assert!(known.progress(&key(MOST)).is_none() && known.progress(&key(0)).is_some());
        known.was_stored(note(&known, MOST, &[]));
        assert!(known.progress(&key(MOST)).is_some() && known.progress(&key(0)).is_none());
    }

    #[test]
    fn one_that_is_being_stored_is_not_forgotten() {
        let mut known = full();
        let noted = note(&known, MOST, &[0]);
        assert_eq!(noted.forgotten().collect::<Vec<_>>(), [key(1)]);
        // It is written before that is known to be stored.
        known.was_stored(note(&known, 1, &[]));
        known.was_stored(noted);
        assert!(known.progress(&key(0)).is_some() && known.progress(&key(1)).is_some());
        // One too many is there; the next write makes up for it.
        assert_eq!(note(&known, 5, &[]).forgotten().collect::<Vec<_>>(), [key(0)]);
    }

    #[test]
    fn publications_expire() {
        let mut known = Known::default();
        let expired = Noted { expires: SystemTime::now(), ..note(&known, 1, &[]) };
        known.was_stored(expired);
        assert_eq!(known.progress(&key(1)), None);
    }
}
