//! Mending files where a write broke off, or a power loss tore them. It may take room, so that it may have to wait for
//! that: until then the files stay as they are, and what is whole is read.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use tracing::warn;

use crate::{StoreError, error::At, files, regular};

/// What has to be done to a file.
#[derive(Debug)]
pub(crate) enum Mend {
    /// It is to end there. What follows goes to another file, if that is to be `kept`.
    Cut { file: PathBuf, end: u64, kept: bool },
    /// It was written after what is lost.
    Aside(PathBuf),
    /// Nothing of it is left.
    Remove(PathBuf),
}

/// In this order.
pub(crate) type Mends = VecDeque<Mend>;

/// Does all of it. What is done is not among it any more, also after an error. Blocks.
pub(crate) fn mend(dir: &Path, mends: &mut Mends) -> Result<(), StoreError> {
    while let Some(mend) = mends.front() {
        mend.apply(dir)?;
        mends.pop_front();
    }
    Ok(())
}

impl Mend {
    fn apply(&self, dir: &Path) -> Result<(), StoreError> {
        match self {
            Self::Cut { file, end, kept } => {
                let open = regular::open(file, File::options().read(true).write(true)).at(file)?;
                let len = open.metadata().at(file)?.len();
                let bytes = len.saturating_sub(*end);
                let end = *end;
                match *kept && bytes > 0 {
                    true => {
                        // A copy that breaks off would take the room of others.
                        if files::free(dir).is_some_and(|free| free < bytes) {
                            return Err(StoreError::Full(file.clone()));
                        }
                        let to = keep(file, &open, end)?;
                        files::sync_folder(dir)?;
                        warn!(file = %file.display(), at = end, bytes, to = %to.display(), "the end of a file is incomplete, as after a crash: moved it to another file");
                    }
                    false => {
                        warn!(file = %file.display(), at = end, bytes, "the end of a file is empty, as after a crash: cut it off");
                    }
                }
                open.set_len(end).and_then(|()| open.sync_all()).at(file)?;
            }
            Self::Aside(file) => fs::rename(file, aside(file)).at(file)?,
            Self::Remove(file) => fs::remove_file(file).at(file)?,
        }
        files::sync_folder(dir)
    }
}

/// Copies what follows in a file to another one, and syncs that. Where it is.
fn keep(file: &Path, mut open: &File, end: u64) -> Result<PathBuf, StoreError> {
    let torn = aside(file);
    let temporary = files::temporary(&torn);
    let kept = (|| {
        let mut to = regular::create(&temporary)?;
        open.seek(SeekFrom::Start(end))?;
        io::copy(&mut open, &mut to)?;
        to.sync_all()?;
        fs::rename(&temporary, &torn)
    })();
    if kept.is_err() {
        // It is still where it was.
        let _ = fs::remove_file(&temporary);
    }
    kept.at(&torn)?;
    Ok(torn)
}

/// An unused name for the part of a file that is no longer read.
fn aside(file: &Path) -> PathBuf {
    let numbered = |number: u32| match number {
        1 => file.with_extension("torn"),
        number => file.with_extension(format!("{number}.torn")),
    };
    // A link in its place is replaced, and not followed.
    let is_free = |path: &PathBuf| path.symlink_metadata().map_or(true, |found| found.is_symlink());
    (1..).map(numbered).find(is_free).unwrap_or_else(|| numbered(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_moved_aside_before_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("7.records");
        // Neither is it someone else's folder.
        fs::create_dir(folder.path().join("7.4.torn")).unwrap();
        fs::write(folder.path().join("7.new"), "an attempt that broke off").unwrap();
        for round in ["one", "two", "three", "four"] {
            fs::write(&file, format!("whole{round}")).unwrap();
            let mut mends = Mends::from([Mend::Cut { file: file.clone(), end: 5, kept: true }]);
            mend(folder.path(), &mut mends).unwrap();
            assert_eq!((fs::read_to_string(&file).unwrap(), mends.len()), ("whole".into(), 0));
        }
        let moved = ["7.torn", "7.2.torn", "7.3.torn", "7.5.torn"]
            .map(|name| fs::read_to_string(folder.path().join(name)).unwrap());
        assert_eq!(moved, ["one", "two", "three", "four"]);
        assert!(!folder.path().join("7.new").exists());
    }
}
