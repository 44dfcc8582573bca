//! What is in a store's folder, found without changing anything there: by a start before it changes something, and by a
//! check.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use tracing::warn;

use crate::{
    StoreError,
    error::At,
    files::{self, Meta, NUMBERS, State},
    folder::{self, FEEDS, LOST, REMOVED, STATE_FILE},
};

/// Feeds that are there, by name, each with its number.
pub(crate) type StoredByName = BTreeMap<String, (u64, Meta)>;

/// What a store's folder has.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// How the last process left it.
    pub(crate) state: Option<State>,
    pub(crate) feeds: Feeds,
}

impl Found {
    /// # Errors
    ///
    /// If a store cannot be opened there.
    pub(crate) fn look(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(STATE_FILE);
        let state: Option<State> = files::read(&path)?;
        files::is_replaceable(&path)?;
        let torn = state.as_ref().is_some_and(State::is_torn);
        Ok(Self { feeds: Feeds::look(dir, torn)?, state })
    }
}

/// What is where the feeds are.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    pub(crate) stored: StoredByName,
    /// The number of the next feed: that of none, nor of one that was lost.
    pub(crate) next: u64,
    /// They were created shortly before the system stopped, and cannot be read.
    lost: Vec<u64>,
    /// They have nothing but what a creation that broke off has written.
    begun: Vec<Begun>,
    /// They were being removed.
    removed: Vec<PathBuf>,
}

/// A folder, and the files in it.
#[derive(Debug)]
struct Begun {
    dir: PathBuf,
    files: Vec<PathBuf>,
}

impl Feeds {
    /// Of a store that may be `torn`, those that cannot be read are lost.
    pub(crate) fn look(dir: &Path, torn: bool) -> Result<Self, StoreError> {
        let (mut found, all) = (Self::default(), dir.join(FEEDS));
        if !folder::is_own(&all)? {
            return Ok(found);
        }
        let mut ids = Vec::new();
        for entry in fs::read_dir(&all).at(&all)? {
            let path = entry.at(&all)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            // Another name is none that a feed's folder was given.
            let number = |suffix: &str| name.strip_suffix(suffix).and_then(folder::number);
            if let Some(id) = number("").or(number(LOST)) {
                if id >= NUMBERS {
                    return Err(StoreError::Foreign { dir: all, found: name.into() });
                }
                found.next = found.next.max(id + 1);
            }
            match (number(""), number(REMOVED)) {
                (Some(id), _) => {
                    folder::is_own(&path)?;
                    match has_something(&path)? {
                        true => ids.push(id),
                        false => found.begun.push(Begun::look(path)?),
                    }
                }
                (_, Some(_)) => {
                    folder::is_own(&path)?;
                    found.removed.push(path);
                }
                _ => {}
            }
        }
        ids.sort_unstable();
        ids.into_iter().try_for_each(|id| found.read(&all, id, torn))?;
        Ok(found)
    }

    fn read(&mut self, all: &Path, id: u64, torn: bool) -> Result<(), StoreError> {
        let dir = |id: u64| all.join(id.to_string());
        let path = dir(id).join("meta.json");
        match files::read::<Meta>(&path).and_then(|meta| meta.ok_or(StoreError::Damaged { file: path, at: 0 })) {
            Ok(meta) => match self.stored.insert(meta.name.clone(), (id, meta)) {
                Some((other, meta)) => Err(StoreError::Twice { feed: meta.name, dirs: [dir(other), dir(id)] }),
                None => Ok(()),
            },
            Err(StoreError::Damaged { .. }) if torn => {
                self.lost.push(id);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The folders in which something is written or removed.
    pub(crate) fn folders(&self, dir: &Path) -> impl Iterator<Item = PathBuf> {
        let ids = self.stored.values().map(|(id, _)| id).chain(&self.lost);
        let feeds = ids.map(|id| dir.join(FEEDS).join(id.to_string()));
        feeds.chain(self.begun.iter().map(|begun| begun.dir.clone())).chain(self.removed.iter().cloned())
    }

    /// Removes what was begun and what was being removed, and moves aside what is lost.
    pub(crate) fn tidy(&mut self, dir: &Path) -> Result<(), StoreError> {
        for begun in self.begun.drain(..) {
            begun.files.iter().try_for_each(|path| fs::remove_file(path).at(path))?;
            fs::remove_dir(&begun.dir).at(&begun.dir)?;
        }
        self.removed.drain(..).try_for_each(|path| fs::remove_dir_all(&path).at(&path))?;
        for id in self.lost.drain(..) {
            let [from, to] = ["", LOST].map(|suffix| dir.join(FEEDS).join(format!("{id}{suffix}")));
            warn!(dir = %to.display(), "a feed that was created shortly before the crash is incomplete: moved its folder aside");
            fs::rename(&from, &to).at(&from)?;
        }
        Ok(())
    }
}

/// Whether a feed's folder has more than a creation that broke off.
fn has_something(dir: &Path) -> Result<bool, StoreError> {
    let meta = dir.join("meta.json");
    match fs::symlink_metadata(&meta) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        found => return found.map(|_| true).at(&meta),
    }
    for entry in fs::read_dir(dir).at(dir)? {
        if entry.at(dir)?.path().extension().is_some_and(|extension| extension == "records") {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Begun {
    /// # Errors
    ///
    /// If the folder has anything else.
    fn look(dir: PathBuf) -> Result<Self, StoreError> {
        // `meta.json` and `mark.json` before they had their names, and a file of records.
        let is_begun = |name: &str| {
            let stem = name.strip_suffix(".new").unwrap_or_default();
            matches!(name, "meta.new" | "mark.new" | "mark.json")
                || (stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(&dir).at(&dir)? {
            let found = entry.at(&dir)?;
            let path = found.path();
            let is_ours = found.file_name().to_str().is_some_and(is_begun) && found.file_type().at(&path)?.is_file();
            if !is_ours {
                return Err(StoreError::Foreign { dir, found: found.file_name().to_string_lossy().into() });
            }
            files.push(path);
        }
        Ok(Self { dir, files })
    }
}
