//! Files that lines are appended to, and that others rename or remove meanwhile.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::outlet::Tell;
use crate::cli::standard::write_all;

/// For the owner, and for those of the group that read logs, as nginx's packages have it.
#[cfg(unix)]
const MODE: u32 = 0o640;
/// How long to wait between two words about lines that are lost.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// A file that is opened again when another file, or none, is at its path: for logrotate, without a signal.
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    again: Arc<AtomicBool>,
}

/// Has a [`LogFile`] opened again with the next line.
#[derive(Debug, Clone, Default)]
pub(super) struct Again(Arc<AtomicBool>);

impl Again {
    pub(super) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl LogFile {
    /// Opens it, or creates it.
    pub(super) fn open(path: &Path, again: &Again) -> io::Result<Self> {
        // Wherever the process goes.
        let path = std::path::absolute(path)?;
        let file = append(&path)?;
        Ok(Self { path, file: Some(file), again: again.0.clone() })
    }

    /// The file that is at the path now.
    fn current(&mut self) -> io::Result<&mut File> {
        let again = self.again.swap(false, Ordering::Relaxed);
        let file = match self.file.take() {
            Some(file) if !again && is_at(&file, &self.path) => file,
            // What could not be opened is tried again with the next line.
            _ => append(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Asked to open it again.
        if bytes.is_empty() {
            return self.current().map(|_| 0);
        }
        let file = self.current()?;
        match write_all(file, bytes) {
            (Ok(()), at) => Ok(at),
            (Err(error), 0) => Err(error),
            // No part of a line stays, which no program could read.
            (Err(error), at) => match cut(file, at) {
                Ok(()) => Err(error),
                Err(_) => Ok(at),
            },
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes back what was appended last, so many bytes, if they are the last of a file.
fn cut(file: &mut File, bytes: usize) -> io::Result<()> {
    let (end, found) = (file.stream_position()?, file.metadata()?);
    match end.checked_sub(bytes as u64) {
        Some(begin) if found.is_file() && found.len() == end => file.set_len(begin),
        // Another process has appended to it too, or it is no file.
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Opens a file that is only ever appended to.
pub(super) fn append(path: &Path) -> io::Result<File> {
    options().create(true).open(path)
}

/// Whether that would do. Nothing is created.
pub(super) fn check(path: &Path) -> io::Result<()> {
    match options().open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = std::path::absolute(path)?;
            let folder = path.parent().map(std::fs::metadata).transpose()?;
            match folder.is_none_or(|folder| folder.is_dir()) {
                true => Ok(()),
                false => Err(io::ErrorKind::NotADirectory.into()),
            }
        }
        opened => opened.map(drop),
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A pipe that nobody reads is an error, and does not hold up the thread for ever.
        options.mode(MODE).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    options
}

/// Whether that file is the one at the path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(ours), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Says in the program's log that lines of another are lost: at once, then every 10 s, and at the end.
pub(in crate::cli) fn telling(what: String) -> Tell {
    let (mut lost, mut since) = (0_u64, None::<Instant>);
    let mut further = "";
    Box::new(move |lines, error| {
        lost += lines;
        let is_last = lines == 0;
        if lost == 0 || !is_last && since.is_some_and(|since| since.elapsed() < TOLD_EVERY) {
            return;
        }
        since = Some(Instant::now());
        let lines = if lost == 1 { "line" } else { "lines" };
        match error {
            Some(error) => warn!("cannot write {what}: {error}: {lost} {further}{lines} lost"),
            None if is_last => warn!("{what}: {lost} {further}{lines} lost"),
            None => warn!("{what} takes no more lines for now: {lost} {further}{lines} lost"),
        }
        (lost, further) = (0, "further ");
    })
}

/// Says that a file was opened again.
pub(super) fn reopened(what: &str) {
    info!("opening {what} again");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_renamed_or_removed_is_created_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        std::fs::write(&path, "before\n").unwrap();
        let mut file = LogFile::open(&path, &Again::default()).unwrap();
        file.write_all(b"one\n").unwrap();
        std::fs::rename(&path, dir.path().join("access.log.1")).unwrap();
        file.write_all(b"two\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(b"three\n").unwrap();
        // As logrotate's `create` does.
        std::fs::rename(&path, dir.path().join("access.log.2")).unwrap();
        std::fs::write(&path, "").unwrap();
        file.write_all(b"four\n").unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("access.log.1"), "before\none\n");
        assert_eq!(read("access.log.2"), "three\n");
        assert_eq!(read("access.log"), "four\n");
    }

    #[test]
    fn a_part_of_a_line_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut file = append(&path).unwrap();
        file.write_all(b"{}\n{\"a").unwrap();
        cut(&mut file, 3).unwrap();
        file.write_all(b"{}\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}\n{}\n");
        // Nothing of another process is.
        append(&path).unwrap().write_all(b"other\n").unwrap();
        assert!(cut(&mut file, 3).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}\n{}\nother\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_not_for_everyone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        append(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    }

    #[test]
    fn where_there_is_no_folder_any_more_it_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("log");
        std::fs::create_dir(&folder).unwrap();
        let mut file = LogFile::open(&folder.join("access.log"), &Again::default()).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(file.write_all(b"lost\n").is_err());
        std::fs::create_dir(&folder).unwrap();
        file.write_all(b"there\n").unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("access.log")).unwrap(), "there\n");
    }
}
