//! How far files have been published, as it is stored with their chunks: a later process goes on there.

use std::fs::File;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    checkpoint::Checkpoint,
    known::Known,
    open::{FileId, What},
};

/// The files that are followed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Places {
    /// The newest last.
    files: Vec<Place>,
    /// How far files had been read that were truncated or rewritten: a copy may have been made of them before.
    #[serde(default)]
    past: Vec<At>,
    /// Rotated files that are no part of the feed, or that have been published.
    #[serde(default)]
    pub(super) known: Known,
    /// Nothing was stored.
    #[serde(skip)]
    pub(super) are_new: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    device: u64,
    inode: u64,
    /// When it was created; 0, if that is not known.
    created: u64,
    #[serde(flatten)]
    at: At,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct At {
    at: u64,
    /// What was published last before that, as Base64.
    last: String,
}

impl Places {
    pub(super) fn of<'a>(
        files: impl Iterator<Item = (What, FileId, &'a Checkpoint)>,
        past: impl Iterator<Item = &'a Checkpoint>,
        known: Known,
    ) -> Self {
        let files = files.filter(|(what, ..)| *what == What::File);
        let files = files.map(|(_, (device, inode, created), at)| Place { device, inode, created, at: At::from(at) });
        Self { files: files.collect(), past: past.map(At::from).collect(), known, are_new: false }
    }

    /// What was stored; nothing, if it is not that.
    pub(super) fn read(bytes: &Bytes) -> Self {
        serde_json::from_slice(bytes).unwrap_or_else(|_| Self::none())
    }

    /// Nothing has been read before.
    pub(super) fn none() -> Self {
        Self { are_new: true, ..Self::default() }
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// How many files were followed.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn index(&self, of: FileId) -> Option<usize> {
        self.files.iter().position(|place| place.is_of(of))
    }

    /// How far a file has been published.
    pub(super) fn find(&self, of: FileId) -> Option<Checkpoint> {
        self.at(self.index(of)?)
    }

    /// How far the one at `index` has been published.
    pub(super) fn at(&self, index: usize) -> Option<Checkpoint> {
        self.files.get(index)?.at.checkpoint()
    }

    /// How far files had been read that were truncated or rewritten.
    pub(super) fn past(&self) -> impl Iterator<Item = Checkpoint> {
        self.past.iter().filter_map(At::checkpoint)
    }

    /// It is this file by now.
    pub(super) fn recognize(&mut self, index: usize, identity: FileId) {
        let place = &mut self.files[index];
        (place.device, place.inode, place.created) = identity;
    }
}

/// Whether what was read up to a place is in a file: another one may have its inode by now.
pub(super) fn is_in(place: &Checkpoint, mut file: &File) -> bool {
    let there = Checkpoint::in_file(&mut file, place.at);
    there.is_ok_and(|there| there.at == place.at && there.last().ends_with(place.last()))
}

impl Place {
    fn is_of(&self, (device, inode, created): FileId) -> bool {
        let is_known = self.created != 0 && created != 0;
        (self.device, self.inode) == (device, inode) && (!is_known || self.created == created)
    }
}

impl At {
    fn checkpoint(&self) -> Option<Checkpoint> {
        Checkpoint::new(self.at, STANDARD.decode(&self.last).ok()?)
    }
}

impl From<&Checkpoint> for At {
    fn from(place: &Checkpoint) -> Self {
        Self { at: place.at, last: STANDARD.encode(place.last()) }
    }
}
