//! Which files are ours: `FILE.part.json` is written first, and says what `FILE.part` is. What the
//! user or another program has put at these names is never touched.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::Path,
};

use serde::Serialize;

/// The mark of a part that cannot be resumed.
#[derive(Debug, Serialize)]
pub(super) struct Mark<'a> {
    pub(super) url: &'a str,
}

/// What a mark may say besides the URL.
const KNOWN: [&str; 4] = ["url", "etag", "last_modified", "length"];

/// The longest mark that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// Opens the part at `path`, or creates it with its mark. `None`: another run was faster.
///
/// # Errors
///
/// When something that is not ours is there.
pub(super) fn open(path: &Path, sidecar: &Path, url: &str) -> io::Result<Option<File>> {
    let marked = is_marked(sidecar)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match fs::symlink_metadata(path) {
        Ok(there) if marked && there.is_file() => no_follow(&mut options),
        Ok(_) => return Err(foreign(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if !marked {
                write(sidecar, &Mark { url })?;
            }
            options.create_new(true)
        }
        Err(error) => return Err(error),
    };
    match options.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a mark, whole or not at all.
pub(super) fn write(path: &Path, mark: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension(format!("json.{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
    let written = file.write_all(&serde_json::to_vec_pretty(mark)?).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// Whether there is a mark.
fn is_marked(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Ok(there) if there.is_file() && there.len() <= LONGEST => {}
        Ok(_) => return Err(foreign(path)),
        Err(error) => return Err(error),
    }
    let mark: serde_json::Map<_, _> = serde_json::from_slice(&fs::read(path)?).map_err(|_| foreign(path))?;
    let ours = mark.get("url").is_some_and(serde_json::Value::is_string)
        && mark.keys().all(|key| KNOWN.contains(&key.as_str()));
    if ours { Ok(true) } else { Err(foreign(path)) }
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
