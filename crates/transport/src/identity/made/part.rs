//! Replacing and removing files of ours, and never what another program puts in their place meanwhile.
//!
//! A look before a rename leaves a moment in which the owner's file would be lost. So files are exchanged
//! in one step, where the system can, and exchanged back if what came out is not what was read before.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{access::Access, folder::bytes};
use crate::fault;

const BEGINS: &str = ".h3cast-";
const ENDS: &str = ".part";

/// A file of ours that has not taken its place yet.
pub(super) struct Part {
    path: PathBuf,
    /// What is in it. It is removed when dropped if it still holds that.
    text: Vec<u8>,
}

/// A free name.
fn fresh(dir: &Path) -> PathBuf {
    let mut random = [0; 8];
    let _ = crate::identity::provider().secure_random.fill(&mut random);
    dir.join(format!("{BEGINS}{:016x}{ENDS}", u64::from_be_bytes(random)))
}

pub(super) fn is_part(name: &str) -> bool {
    name.starts_with(BEGINS) && name.ends_with(ENDS)
}

/// Whether that is at a path: those bytes, or nothing.
fn holds(path: &Path, expected: Option<&[u8]>) -> bool {
    bytes(path).is_ok_and(|found| found.as_deref() == expected)
}

impl Part {
    pub(super) fn write(dir: &Path, text: &[u8], access: Access) -> io::Result<Self> {
        let path = fresh(dir);
        let mut file = access.create(&path)?;
        let written = io::Write::write_all(&mut file, text).and_then(|()| access.settle(&file));
        let written = written.and_then(|()| file.sync_all());
        if let Err(error) = written {
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(Self { path, text: text.into() })
    }

    /// Puts it in the place of the file that holds `expected`, or where nothing is. Leaves all as it is
    /// and gives `false` when something else is there.
    ///
    /// # Errors
    ///
    /// When it cannot be put there.
    pub(super) fn put(mut self, to: &Path, expected: Option<&[u8]>) -> io::Result<bool> {
        if !holds(to, expected) {
            return Ok(false);
        }
        meanwhile();
        let put = match expected {
            None => rename_new(&self.path, to).map(|()| true),
            Some(expected) => self.exchange(to, expected),
        };
        match put {
            // One of both is gone: another program tidies up.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => Ok(false),
            put => put,
        }
    }

    fn exchange(&mut self, to: &Path, expected: &[u8]) -> io::Result<bool> {
        match rename_with(&self.path, to, How::Exchange) {
            Err(error) if is_unsupported(&error) => return fs::rename(&self.path, to).map(|()| true),
            exchanged => exchanged?,
        }
        if holds(&self.path, Some(expected)) {
            self.text = expected.into();
            return Ok(true);
        }
        // It was its owner's.
        let back = match rename_with(&self.path, to, How::Exchange) {
            // What was ours has been removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => rename_new(&self.path, to),
            back => back,
        };
        if back.is_err() || bytes(&self.path).is_ok_and(|left| left.is_some_and(|left| left != self.text)) {
            stranded(&self.path, to);
        }
        back.map(|()| false)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if holds(&self.path, Some(&self.text)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a file that is `ours`. Leaves it and gives `false` when it is not.
///
/// # Errors
///
/// When it cannot be removed.
pub(super) fn remove(path: &Path, ours: impl Fn(&[u8]) -> bool) -> io::Result<bool> {
    let ours = |path: &Path| bytes(path).is_ok_and(|found| found.is_some_and(|found| ours(&found)));
    if !ours(path) {
        return Ok(false);
    }
    meanwhile();
    // Out of the way, where nobody puts another one in its place before it is looked at.
    let aside = fresh(path.parent().unwrap_or(Path::new("")));
    match fs::rename(path, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        moved => moved?,
    }
    if ours(&aside) {
        return fs::remove_file(aside).map(|()| true);
    }
    rename_new(&aside, path).inspect_err(|_| stranded(&aside, path)).map(|()| false)
}

fn stranded(at: &Path, of: &Path) {
    warn!("{} was changed by another program while h3cast replaced it: see {}", of.display(), at.display());
}

/// Renames a file where nothing is.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rename_with(from, to, How::New) {
        Err(error) if is_unsupported(&error) => {}
        renamed => return renamed,
    }
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => Err(error),
        // A file system without links.
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

#[derive(Debug, Clone, Copy)]
enum How {
    New,
    Exchange,
}

#[cfg(target_os = "linux")]
fn rename_with(from: &Path, to: &Path, how: How) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    #[cfg(test)]
    tests::supported()?;
    let flags = match how {
        How::New => RenameFlags::NOREPLACE,
        How::Exchange => RenameFlags::EXCHANGE,
    };
    Ok(renameat_with(CWD, from, CWD, to, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn rename_with(_: &Path, _: &Path, _: How) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the system (ENOSYS) or the file system (EINVAL) cannot do that.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}

/// Between the look and what follows from it, where tests have another program do something.
fn meanwhile() {
    fault::point("certs-replace");
    #[cfg(test)]
    tests::meanwhile();
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    thread_local! {
        static MEANWHILE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
        static UNSUPPORTED: Cell<bool> = const { Cell::new(false) };
    }

    /// Fails as a file system does that cannot exchange files.
    #[cfg(target_os = "linux")]
    pub(super) fn supported() -> io::Result<()> {
        if UNSUPPORTED.get() { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
    }

    pub(super) fn meanwhile() {
        if let Some(act) = MEANWHILE.take() {
            act();
        }
    }

    /// What is in a folder, parts apart from what another program has put there.
    fn files(dir: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        let shown = entries.map(|entry| {
            let text = match entry.file_type().unwrap() {
                kind if kind.is_symlink() => "a link".into(),
                _ => fs::read_to_string(entry.path()).unwrap_or_else(|_| "a folder".into()),
            };
            (entry.file_name().into_string().unwrap(), text)
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort();
        shown
    }

    /// Replaces `to` while that happens; what came of it, and what is there then.
    fn replaced(expected: Option<&str>, act: impl FnOnce(&Path) + 'static) -> (bool, Vec<(String, String)>) {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        if let Some(text) = expected {
            fs::write(&to, text).unwrap();
        }
        let part = Part::write(dir.path(), b"new", Access::new(0o600)).unwrap();
        let folder = dir.path().to_owned();
        MEANWHILE.set(Some(Box::new(move || act(&folder))));
        let put = part.put(&to, expected.map(str::as_bytes)).unwrap();
        (put, files(dir.path()))
    }

    fn only(text: &str) -> Vec<(String, String)> {
        vec![("to".into(), text.into())]
    }

    #[test]
    fn what_is_there_at_the_look_stays() {
        for unsupported in [true, false] {
            UNSUPPORTED.set(unsupported);
            for expected in [None, Some("old")] {
                let dir = tempfile::tempdir().unwrap();
                let to = dir.path().join("to");
                fs::write(&to, "theirs").unwrap();
                let part = Part::write(dir.path(), b"new", Access::new(0o600)).unwrap();
                assert!(!part.put(&to, expected.map(str::as_bytes)).unwrap());
                assert_eq!(files(dir.path()), only("theirs"));
            }
            // Nor what comes then where nothing was.
            assert_eq!(replaced(None, |dir| fs::write(dir.join("to"), "theirs").unwrap()), (false, only("theirs")));
        }
    }

    #[test]
    fn what_was_read_is_replaced() {
        for unsupported in [true, false] {
            UNSUPPORTED.set(unsupported);
            for expected in [None, Some("old")] {
                assert_eq!(replaced(expected, |_| {}), (true, only("new")));
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_another_program_puts_there_meanwhile_stays() {
        for expected in [None, Some("old")] {
            assert_eq!(replaced(expected, |dir| fs::write(dir.join("to"), "theirs").unwrap()), (false, only("theirs")));
            // As a rename puts it there, and what is no file.
            let renamed = |dir: &Path| {
                fs::write(dir.join("from"), "theirs").unwrap();
                fs::rename(dir.join("from"), dir.join("to")).unwrap();
            };
            assert_eq!(replaced(expected, renamed), (false, only("theirs")));
            let linked = |dir: &Path| {
                let _ = fs::remove_file(dir.join("to"));
                std::os::unix::fs::symlink("elsewhere", dir.join("to")).unwrap();
            };
            assert_eq!(replaced(expected, linked), (false, only("a link")));
            let folder = |dir: &Path| {
                let _ = fs::remove_file(dir.join("to"));
                fs::create_dir(dir.join("to")).unwrap();
            };
            assert_eq!(replaced(expected, folder), (false, only("a folder")));
        }
        assert_eq!(replaced(Some("old"), |dir| fs::remove_file(dir.join("to")).unwrap()), (false, vec![]));
    }

    #[test]
    fn a_part_that_another_program_removed_is_no_failure() {
        for expected in [None, Some("old")] {
            let left = expected.map_or_else(Vec::new, only);
            let tidied = |dir: &Path| {
                let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
                names.filter(|path| !path.ends_with("to")).for_each(|path| fs::remove_file(path).unwrap());
            };
            assert_eq!(replaced(expected, tidied), (false, left));
        }
    }

    #[test]
    fn only_what_is_ours_is_removed() {
        for (meanwhile, left) in [(None, vec![]), (Some("theirs"), only("theirs"))] {
            let dir = tempfile::tempdir().unwrap();
            let to = dir.path().join("to");
            fs::write(&to, "ours").unwrap();
            if let Some(text) = meanwhile {
                let to = to.clone();
                MEANWHILE.set(Some(Box::new(move || fs::write(to, text).unwrap())));
            }
            assert_eq!(remove(&to, |found| found == b"ours").unwrap(), meanwhile.is_none());
            assert_eq!(files(dir.path()), left);
        }
    }
}
