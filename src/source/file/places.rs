//! How far files have been published, as it is stored with their chunks: a later process goes on there.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    checkpoint::Checkpoint,
    open::{FileId, OpenedFile, What, identity, open},
};

/// The files that are followed, the newest last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Places(Vec<Place>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    device: u64,
    inode: u64,
    at: u64,
    /// What was published last of it, as Base64.
    last: String,
}

impl Places {
    pub(super) fn of<'a>(files: impl Iterator<Item = (What, FileId, &'a Checkpoint)>) -> Self {
        let files = files.filter(|(what, ..)| *what == What::File);
        Self(
            files
                .map(|(_, (device, inode), at)| Place { device, inode, at: at.at, last: STANDARD.encode(at.last()) })
                .collect(),
        )
    }

    /// What was stored; nothing, if it is not that.
    pub(super) fn read(bytes: &Bytes) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How far a file has been published.
    pub(super) fn find(&self, of: FileId) -> Option<Checkpoint> {
        let place = self.0.iter().find(|place| place.identity() == of)?;
        Checkpoint::new(place.at, STANDARD.decode(&place.last).ok()?)
    }

    /// Opens those that are not at `path` any more, the oldest first: a rotation gives a file another name in its folder.
    /// And whether the newest one is neither there nor here. Not to be called on a worker.
    pub(super) fn moved(&self, path: &Path) -> (Vec<OpenedFile>, bool) {
        let here = std::fs::metadata(path).ok().map(|found| identity(&found));
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            // Of the name, not of what a link points to: that would be found as well.
            let Some(at) = entry.metadata().ok().and_then(|found| self.index(identity(&found))) else { continue };
            if let Ok(mut opened) = open(&entry.path(), &[What::File])
                && self.index(identity(&opened.metadata)) == Some(at)
                && self.is_in(&mut opened)
                && Some(identity(&opened.metadata)) != here
                && files.iter().all(|(other, _)| *other != at)
            {
                files.push((at, opened));
            }
        }
        files.sort_by_key(|(at, _)| *at);
        let newest = self.0.len().checked_sub(1);
        let is_known = newest.is_none()
            || here.and_then(|here| self.index(here)) == newest
            || files.iter().any(|(at, _)| Some(*at) == newest);
        (files.into_iter().map(|(_, opened)| opened).collect(), !is_known)
    }

    /// Whether what was published of a file is there: another one may have its inode by now.
    fn is_in(&self, opened: &mut OpenedFile) -> bool {
        let Some(place) = self.find(identity(&opened.metadata)) else { return false };
        let there = Checkpoint::in_file(&mut opened.file, place.at);
        there.is_ok_and(|there| there.at == place.at && there.last().ends_with(place.last()))
    }

    fn index(&self, of: FileId) -> Option<usize> {
        self.0.iter().position(|place| place.identity() == of)
    }
}

impl Place {
    fn identity(&self) -> FileId {
        (self.device, self.inode)
    }
}
