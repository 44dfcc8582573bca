//! How far files have been published, as it is stored with their chunks: a later process goes on there.

use std::{
    ffi::OsStr,
    fs::{DirEntry, Metadata},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    checkpoint::Checkpoint,
    open::{FileId, OpenedFile, What, identity, open},
};

/// How much the clock of a file system may be behind that of the system.
const BEHIND: Duration = Duration::from_millis(20);
/// What compressed files end in.
const PACKED: [&str; 5] = ["gz", "xz", "zst", "bz2", "lz4"];

/// The files that are followed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Places {
    /// The newest last.
    files: Vec<Place>,
    /// When this was noted, in milliseconds since 1970.
    noted: u64,
}

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
        let files = files
            .map(|(_, (device, inode), at)| Place { device, inode, at: at.at, last: STANDARD.encode(at.last()) })
            .collect();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { files, noted: u64::try_from(now.as_millis()).unwrap_or_default() }
    }

    /// What was stored; nothing, if it is not that.
    pub(super) fn read(bytes: &Bytes) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// How far a file has been published.
    pub(super) fn find(&self, of: FileId) -> Option<Checkpoint> {
        self.files.iter().find(|place| place.identity() == of)?.checkpoint()
    }

    /// The same, of the files that are there: a copy has another inode, and a file system may have another device after a
    /// restart, or number its files in another way. If none of them is there, those are taken in which what was published
    /// is where it was. Not to be called on a worker.
    pub(super) fn recognized(&self, path: &Path) -> Self {
        let mut places = self.clone();
        let rotated = in_folder(path).filter(|entry| Rotated::of(path, &entry.file_name()) == Some(Rotated::Plain));
        let index = |metadata: io::Result<Metadata>| self.index(identity(&metadata.ok()?));
        // Another one may have the inode by now.
        let is_in = |at, path: &Path| open(path, &[What::File]).is_ok_and(|mut it| self.is_in(at, &mut it).is_some());
        let is_there = |entry: DirEntry| index(entry.metadata()).is_some_and(|at| is_in(at, &entry.path()));
        if index(std::fs::metadata(path)).is_some() || in_folder(path).any(is_there) {
            return places;
        }
        let mut left: Vec<_> = (0..self.files.len()).filter(|at| self.files[*at].at > 0).collect();
        for path in std::iter::once(path.to_owned()).chain(rotated.map(|entry| entry.path())) {
            let Ok(mut opened) = open(&path, &[What::File]) else { continue };
            // The newest one is at the path.
            if let Some(of) = left.iter().rposition(|at| self.is_in(*at, &mut opened).is_some()) {
                let place = &mut places.files[left.remove(of)];
                (place.device, place.inode) = identity(&opened.metadata);
            }
        }
        places
    }

    /// Opens those that are not at `path` any more, and what was rotated since then: a rotation gives a file another name
    /// in its folder. Not to be called on a worker.
    pub(super) fn moved(&self, path: &Path) -> Moved {
        let here = std::fs::metadata(path).ok().map(|found| identity(&found));
        let (mut known, mut later, mut packed) = (Vec::<(usize, _)>::new(), Vec::new(), None);
        for entry in in_folder(path) {
            // Of the name, not of what a link points to: that would be found as well.
            let Ok(metadata) = entry.metadata() else { continue };
            let rotated = Rotated::of(path, &entry.file_name()).filter(|_| self.is_later(&metadata));
            if Some(identity(&metadata)) == here || (self.index(identity(&metadata)).is_none() && rotated.is_none()) {
                continue;
            }
            if rotated == Some(Rotated::Packed) {
                packed = Some(entry.path());
                continue;
            }
            let Ok(mut opened) = open(&entry.path(), &[What::File]) else { continue };
            let of = identity(&opened.metadata);
            match self.index(of).and_then(|at| Some((at, self.is_in(at, &mut opened)?))) {
                // It may have two names.
                Some((at, place)) if known.iter().all(|(other, _)| *other != at) => known.push((at, (opened, place))),
                Some(_) => {}
                None if rotated.is_some() && of == identity(&metadata) => later.push(opened),
                None => {}
            }
        }
        let at_path = open(path, &[What::File]).ok().and_then(|mut opened| {
            let at = self.index(identity(&opened.metadata))?;
            self.is_in(at, &mut opened).map(|_| at)
        });
        // In the order in which they were written.
        later.sort_by_key(|opened| opened.metadata.modified().ok());
        let mut new = Vec::new();
        for mut opened in later {
            let copied = (0..self.files.len()).filter(|at| self.files.get(*at).is_some_and(|place| place.at > 0));
            match copied.rev().find_map(|at| Some((at, self.is_in(at, &mut opened)?))) {
                // Its own file is there as well.
                Some((at, _)) if at_path == Some(at) || known.iter().any(|(other, _)| *other == at) => {}
                // It was copied there, and emptied.
                Some((at, place)) => known.push((at, (opened, place))),
                None => new.push((opened, Checkpoint::default())),
            }
        }
        known.sort_by_key(|(at, _)| *at);
        let newest = self.files.len().checked_sub(1);
        let is_known = newest.is_none()
            || here.and_then(|here| self.index(here)) == newest
            || known.iter().any(|(at, _)| Some(*at) == newest);
        let files = known.into_iter().map(|(_, file)| file).chain(new).collect();
        Moved { files, is_lost: !is_known, packed }
    }

    /// Where to continue in a file, if what was published of the one at `at` is in it: another one may have its inode by
    /// now.
    fn is_in(&self, at: usize, opened: &mut OpenedFile) -> Option<Checkpoint> {
        let place = self.files.get(at)?.checkpoint()?;
        let there = Checkpoint::in_file(&mut opened.file, place.at).ok()?;
        (there.at == place.at && there.last().ends_with(place.last())).then_some(place)
    }

    /// Whether a file was begun, and written, after this was noted.
    fn is_later(&self, metadata: &Metadata) -> bool {
        let noted = SystemTime::UNIX_EPOCH + Duration::from_millis(self.noted).saturating_sub(BEHIND);
        [metadata.created(), metadata.modified()].into_iter().all(|time| time.is_ok_and(|time| time >= noted))
    }

    fn index(&self, of: FileId) -> Option<usize> {
        self.files.iter().position(|place| place.identity() == of)
    }
}

/// What is in the folder of a file.
fn in_folder(path: &Path) -> impl Iterator<Item = DirEntry> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::read_dir(folder).into_iter().flatten().flatten()
}

/// Files that have another name than before.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// The oldest first, and where to continue in each.
    pub(super) files: Vec<(OpenedFile, Checkpoint)>,
    /// The newest one that was followed is gone.
    pub(super) is_lost: bool,
    /// One that was rotated since then, and compressed.
    pub(super) packed: Option<PathBuf>,
}

/// What the name of a file tells of it.
#[derive(Debug, PartialEq, Eq)]
enum Rotated {
    Plain,
    Packed,
}

impl Rotated {
    /// With numbers after the name of the file at `path`: `app.log.1`, `app.log-20261127`, `app.log.2.gz`.
    fn of(path: &Path, name: &OsStr) -> Option<Self> {
        let after = name.to_str()?.strip_prefix(path.file_name()?.to_str()?)?.strip_prefix(['.', '-'])?;
        let (numbers, kind) = match after.rsplit_once('.') {
            Some((numbers, end)) if PACKED.contains(&end) => (numbers, Self::Packed),
            _ => (after, Self::Plain),
        };
        let is_one = numbers.starts_with(|first: char| first.is_ascii_digit())
            && numbers.chars().all(|one| one.is_ascii_digit() || "-_.:TZ".contains(one));
        is_one.then_some(kind)
    }
}

impl Place {
    fn identity(&self) -> FileId {
        (self.device, self.inode)
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        Checkpoint::new(self.at, STANDARD.decode(&self.last).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rotated_files() {
        let of = |name: &str| Rotated::of(Path::new("logs/app.log"), OsStr::new(name));
        for plain in ["app.log.1", "app.log-20261127", "app.log.2026-11-27T10:00:00Z"] {
            assert_eq!(of(plain), Some(Rotated::Plain), "{plain}");
        }
        assert_eq!(of("app.log.2.gz"), Some(Rotated::Packed));
        for other in ["app.log", "app.log.", "app.log.bak", "app.log1", "app.log.gz", "other.log.1", "app.log.1.bak"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
