//! Rotated files that have been read, or that were there before the feed was.
//!
//! Whatever else is in the folder later has not been read. That is not decided by any clock: it may be set back.

use std::{
    collections::VecDeque,
    fs::Metadata,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::UNIX_EPOCH,
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};

use super::open::identity;

/// How many are remembered. It is stored with each write: 4 bytes for each.
const MOST: usize = 64;

/// What tells a file from all others that its folder has had: an inode is given to another file later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u32);

impl Mark {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let (_, inode, created) = identity(metadata);
        // Not the device, which may have another number after a restart. Where a file system knows no time of creation,
        // that of the last change has to do: a file that has been read does not change.
        let time = match (created, metadata.modified()) {
            (0, Ok(modified)) => modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64,
            _ => created,
        };
        // FNV-1a: later versions must know it too.
        let bytes = inode.to_le_bytes().into_iter().chain(time.to_le_bytes());
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self((hash >> 32) as u32 ^ hash as u32)
    }
}

/// The latest of them, the newest last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(super) struct Known(VecDeque<Mark>);

impl Known {
    pub(super) fn contains(&self, file: Mark) -> bool {
        self.0.contains(&file)
    }

    pub(super) fn add(&mut self, file: Mark) {
        if !self.contains(file) {
            self.0.push_back(file);
            self.0.drain(..self.0.len().saturating_sub(MOST));
        }
    }

    /// Forgets those that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(Mark) -> bool) {
        self.0.retain(|file| is_there(*file));
    }

    /// There may have been more.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() == MOST
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Known> for String {
    fn from(known: Known) -> Self {
        STANDARD_NO_PAD.encode(known.0.iter().flat_map(|mark| mark.0.to_le_bytes()).collect::<Vec<_>>())
    }
}

impl From<String> for Known {
    fn from(text: String) -> Self {
        let bytes = STANDARD_NO_PAD.decode(text).unwrap_or_default();
        Self(bytes.as_chunks().0.iter().map(|mark| Mark(u32::from_le_bytes(*mark))).collect())
    }
}

/// Shared by what finds files and what reads them.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Known>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered() {
        let mut known = Known::default();
        (0..100).for_each(|number| known.add(Mark(number)));
        known.add(Mark(99));
        assert!(known.is_full() && known.contains(Mark(36)) && !known.contains(Mark(35)));
        known.retain(|mark| mark.0 % 10 == 0);
        let text = String::from(known);
        let known = Known::from(text);
        assert_eq!(known.0, [40, 50, 60, 70, 80, 90].map(Mark));
        assert_eq!(Known::from("no such thing".to_owned()).0, []);
    }

    #[test]
    fn a_mark_is_of_one_file_by_whichever_name() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let mark = |path| Mark::of(&std::fs::metadata(path).unwrap());
        std::fs::write(&one, "x").unwrap();
        let first = mark(&one);
        std::fs::rename(&one, &two).unwrap();
        assert_eq!(mark(&two), first);
        std::fs::write(&one, "x").unwrap();
        assert_ne!(mark(&one), first);
    }
}
