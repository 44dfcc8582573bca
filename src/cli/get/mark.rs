//! Which files are ours: `FILE.part.json` is there before `FILE.part`, and records what `FILE.part` is, and
//! which file. The run that holds the lock on it writes and removes both. What the user, another user or
//! another program has put at these names is never touched, not even when a mark of ours was left behind.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Seek, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use super::owner::{self, foreign};
use crate::fault;

/// What a mark records of a part that cannot be resumed.
#[derive(Debug, Serialize)]
pub(super) struct Of<'a> {
    pub(super) url: &'a str,
}

/// What a mark may record besides the URL.
const KNOWN: [&str; 6] = ["url", "etag", "last_modified", "length", FILE, CREATED_BY];
const FILE: &str = "file";
/// No file of the user has this by chance.
const CREATED_BY: &str = "created_by";
const US: &str = "h3cast get";

/// Which file is meant, whatever its name. Numbers are used again soon after a file was removed, so that the
/// time of its creation tells them apart where the file system knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Id {
    inode: u64,
    /// In nanoseconds since 1970.
    created: Option<u64>,
}

impl Id {
    fn of(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        let created = metadata.created().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        Self { inode, created: created.and_then(|since| since.as_nanos().try_into().ok()) }
    }
}

/// Whether that very file is at a path.
pub(super) fn is_at(path: &Path, file: &File) -> bool {
    let at_path = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file);
    at_path.zip(file.metadata().ok()).is_some_and(|(there, ours)| Id::of(&there) == Id::of(&ours))
}

/// Says that another program has put a file where ours was.
pub(super) fn replaced(path: &Path) -> io::Error {
    io::Error::other(format!("{} was replaced by another program", path.display()))
}

/// The longest mark that is read, in bytes.
const LONGEST: u64 = 64 * 1024;
/// How often to look again when other runs come and go at the same time.
const ROUNDS: usize = 100;

/// The mark of a part. No other run takes it before it is dropped.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    /// Locked, where the file system has locks.
    file: File,
    recorded: Map<String, Value>,
    /// There was none.
    created: bool,
}

/// Opens the part at `path`, or creates it, with its mark.
///
/// # Errors
///
/// When something that is not ours is there, or another run writes it.
pub(super) fn open(path: &Path, url: &str) -> io::Result<(Mark, File)> {
    let mark = Mark::take(path, url)?;
    fault::point("get-marked");
    match open_part(path, &mark) {
        Ok(part) => Ok((mark, part)),
        Err(error) => {
            if mark.created {
                mark.remove();
            }
            Err(error)
        }
    }
}

fn open_part(path: &Path, mark: &Mark) -> io::Result<File> {
    match owner::open(path)? {
        Some(part) => {
            let there = part.metadata()?;
            // Nothing is lost with an empty one, which the mark may not name yet.
            let marked = !mark.created && (there.len() == 0 || mark.part()? == Some(Id::of(&there)));
            if marked { Ok(part) } else { Err(foreign(path)) }
        }
        None => {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true);
            // For others when it is complete.
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(path).map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => foreign(path),
                _ => error,
            })
        }
    }
}

impl Mark {
    /// Takes the mark of the part at that path, or creates one.
    fn take(part: &Path, url: &str) -> io::Result<Self> {
        let path = with_suffix(part, ".json");
        for _ in 0..ROUNDS {
            let found = owner::open(&path)?;
            fault::point("get-mark");
            let Some(file) = found else {
                match Self::create(&path, url)? {
                    Some(mark) => return Ok(mark),
                    None => continue,
                }
            };
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                return Err(io::Error::other(format!("another program is writing {}", part.display())));
            }
            // The one who had the lock may have replaced or removed it in between.
            if is_at(&path, &file) {
                let recorded = read(&file).ok_or_else(|| foreign(&path))?;
                return Ok(Self { path, file, recorded, created: false });
            }
        }
        Err(replaced(&path))
    }

    /// `None`: another run was faster.
    fn create(path: &Path, url: &str) -> io::Result<Option<Self>> {
        let recorded = content(&Of { url }, None)?;
        let created = match written(path, &recorded)?.persist_noclobber(path) {
            Ok(file) => Ok(file),
            Err(failed) => match fs::symlink_metadata(path) {
                // A file system that can only replace.
                Err(error) if error.kind() == ErrorKind::NotFound => failed.file.persist(path).map_err(|f| f.error),
                _ if failed.error.kind() == ErrorKind::AlreadyExists => return Ok(None),
                _ => Err(failed.error),
            },
        };
        Ok(Some(Self { path: path.into(), file: created?, recorded, created: true }))
    }

    /// Whether a later run can ask for the rest of the part.
    pub(super) fn can_be_resumed(&self) -> bool {
        ["etag", "last_modified"].iter().any(|validator| self.recorded.contains_key(*validator))
    }

    /// Whether the part is of that URL.
    pub(super) fn is_of(&self, url: &str) -> bool {
        self.recorded.get("url").is_some_and(|recorded| recorded == url)
    }

    /// What it records.
    pub(super) fn recorded(&self) -> Value {
        Value::Object(self.recorded.clone())
    }

    /// Records that of the part, whole or not at all.
    pub(super) fn record(&mut self, of: &impl Serialize, part: &File) -> io::Result<()> {
        let recorded = content(of, Some(part))?;
        if !is_at(&self.path, &self.file) {
            return Err(replaced(&self.path));
        }
        // Locked when it takes its place, so that there is no moment without a lock.
        self.file = written(&self.path, &recorded)?.persist(&self.path).map_err(|failed| failed.error)?;
        self.recorded = recorded;
        Ok(())
    }

    /// Removes it, when its part has gone.
    pub(super) fn remove(self) {
        if is_at(&self.path, &self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Which file it is of.
    fn part(&self) -> io::Result<Option<Id>> {
        self.recorded.get(FILE).map(|id| Id::deserialize(id).map_err(|_| foreign(&self.path))).transpose()
    }
}

fn content(of: &impl Serialize, part: Option<&File>) -> io::Result<Map<String, Value>> {
    let Value::Object(mut content) = serde_json::to_value(of)? else { return Err(ErrorKind::InvalidInput.into()) };
    content.insert(CREATED_BY.into(), US.into());
    if let Some(part) = part {
        content.insert(FILE.into(), serde_json::to_value(Id::of(&part.metadata()?))?);
    }
    Ok(content)
}

/// A mark that has not taken its place yet, locked.
fn written(path: &Path, content: &Map<String, Value>) -> io::Result<NamedTempFile> {
    let mut new = owner::temporary(path)?;
    new.write_all(&serde_json::to_vec_pretty(content)?)?;
    // There may be no locks here.
    let _ = new.as_file().try_lock();
    Ok(new)
}

/// What a mark of ours records.
fn read(mut file: &File) -> Option<Map<String, Value>> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.take(LONGEST).read_to_end(&mut bytes)).ok()?;
    let mark: Map<String, Value> = serde_json::from_slice(&bytes).ok()?;
    let ours = mark.get(CREATED_BY).is_some_and(|by| by == US)
        && mark.get("url").is_some_and(Value::is_string)
        && mark.keys().all(|key| KNOWN.contains(&key.as_str()));
    ours.then_some(mark)
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
