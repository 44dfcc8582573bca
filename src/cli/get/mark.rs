//! Which files are ours: `FILE.part.json` is written first, and says what `FILE.part` is, and which file.
//! What the user or another program has put at these names is never touched, also where a mark of ours was
//! left behind.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::Path,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

/// The mark of a part that cannot be resumed.
#[derive(Debug, Serialize)]
pub(super) struct Mark<'a> {
    pub(super) url: &'a str,
}

/// What a mark may say besides the URL.
const KNOWN: [&str; 5] = ["url", "etag", "last_modified", "length", FILE];
const FILE: &str = "file";

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

/// The longest mark that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// Opens the part at `path`, or creates it with its mark. `None`: another run was faster.
///
/// # Errors
///
/// When something that is not ours is there.
pub(super) fn open(path: &Path, sidecar: &Path, url: &str) -> io::Result<Option<File>> {
    let mark = read(sidecar)?;
    // Nothing is lost with an empty one, which the mark may not name yet.
    let ours = |there: &fs::Metadata| match &mark {
        Some(id) => there.is_file() && (there.len() == 0 || *id == Some(Id::of(there))),
        None => false,
    };
    let mut created = false;
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match fs::symlink_metadata(path) {
        Ok(there) if ours(&there) => no_follow(&mut options),
        Ok(_) => return Err(foreign(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if mark.is_none() {
                write(sidecar, &Mark { url }, None)?;
            }
            created = true;
            options.create_new(true)
        }
        Err(error) => return Err(error),
    };
    match options.open(path) {
        // Another one took its place since.
        Ok(file) if !file.metadata().is_ok_and(|there| created || ours(&there)) => Err(foreign(path)),
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a mark of that part, whole or not at all.
pub(super) fn write(path: &Path, mark: &impl Serialize, part: Option<&File>) -> io::Result<()> {
    let mut mark = serde_json::to_value(mark)?;
    if let Some(part) = part {
        mark[FILE] = serde_json::to_value(Id::of(&part.metadata()?))?;
    }
    let new = path.with_extension(format!("json.{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
    let written = file.write_all(&serde_json::to_vec_pretty(&mark)?).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// The mark, if there is one: which file it is of.
fn read(path: &Path) -> io::Result<Option<Option<Id>>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(there) if there.is_file() && there.len() <= LONGEST => {}
        Ok(_) => return Err(foreign(path)),
        Err(error) => return Err(error),
    }
    let mark: serde_json::Map<_, _> = serde_json::from_slice(&fs::read(path)?).map_err(|_| foreign(path))?;
    let ours = mark.get("url").is_some_and(serde_json::Value::is_string)
        && mark.keys().all(|key| KNOWN.contains(&key.as_str()));
    let id = mark.get(FILE).map(|id| Id::deserialize(id).map_err(|_| foreign(path))).transpose()?;
    if ours { Ok(Some(id)) } else { Err(foreign(path)) }
}

fn foreign(path: &Path) -> io::Error {
    io::Error::other(format!(
        "{} was not created by h3cast and is left alone: move or delete it, or choose another FILE",
        path.display()
    ))
}

#[cfg(unix)]
fn no_follow(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
}

#[cfg(not(unix))]
fn no_follow(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}
