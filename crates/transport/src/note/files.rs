//! The files of notes: where they are, who may have written them, and whether their server runs.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use super::Note;

/// No note is larger, in bytes.
const LARGEST: u64 = 64 << 10;
/// No folder has more that count.
const MOST: usize = 256;
/// How often a note that is locked is looked at, and the time between that.
#[cfg(windows)]
const LOOKS: u32 = 3;
#[cfg(windows)]
const AGAIN: std::time::Duration = std::time::Duration::from_millis(5);
const PREFIX: &str = "serve-";
const SUFFIX: &str = ".json";
const PARTIAL: &str = ".part";

/// Where this user's notes are, the preferred folder first: that for files of running programs, and one that stays.
/// A server that was started where the first is not known (by cron, say) uses the second.
#[must_use]
pub fn folders() -> Vec<PathBuf> {
    let Some(dirs) = directories::ProjectDirs::from("", "", "h3cast") else { return Vec::new() };
    let lasting = dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir());
    dirs.runtime_dir().into_iter().chain([lasting]).map(Path::to_path_buf).collect()
}

/// Where notes are looked for.
pub(super) fn found() -> Vec<PathBuf> {
    #[cfg_attr(not(target_os = "linux"), expect(unused_mut, reason = "there is one folder more on Linux"))]
    let mut found = folders();
    #[cfg(target_os = "linux")]
    {
        // For a client that was started where `XDG_RUNTIME_DIR` is not set.
        let usual = Path::new("/run/user").join(rustix::process::geteuid().as_raw().to_string()).join("h3cast");
        if !found.contains(&usual) {
            found.push(usual);
        }
    }
    found
}

/// Creates the folder, for this user alone.
pub(super) fn prepare(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    check(&fs::symlink_metadata(folder)?, fs::Metadata::is_dir)
}

/// Whether that is what it should be, and this user's alone to write.
fn check(meta: &fs::Metadata, kind: fn(&fs::Metadata) -> bool) -> io::Result<()> {
    let denied = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if !kind(meta) {
        return denied("it is not what it should be: a symbolic link, perhaps");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return denied("it belongs to another user");
        }
        if meta.mode() & 0o022 != 0 {
            return denied("other users can write to it");
        }
    }
    Ok(())
}

/// A name that no other note has.
pub(super) fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Two servers may have the same number: in containers that share the folder.
    format!("{PREFIX}{}-{count}-{:08x}{SUFFIX}", std::process::id(), crate::identity::random() as u32)
}

/// Writes a note whole or not at all, and holds its lock.
pub(super) fn write(path: &Path, note: &Note) -> io::Result<File> {
    let partial = path.with_extension(&PARTIAL[1..]);
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&partial)?;
    // A file system without locks is as good, save that what a killed server leaves stays there.
    match hold(&file) {
        Ok(()) | Err(TryLockError::Error(_)) => {}
        // Another server is cleaning up, and takes this for something left behind.
        Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
    }
    file.write_all(&serde_json::to_vec_pretty(note)?)?;
    fs::rename(&partial, path)?;
    Ok(file)
}

/// Whether that file is still at that path.
pub(super) fn is_same(path: &Path, file: &File) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let at_path = fs::symlink_metadata(path);
        at_path.ok().zip(file.metadata().ok()).is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

/// Opens a file that could be anything: nothing is followed, and nothing is waited for.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // To write too: some network file systems lock nothing else.
    options.read(true).write(true);
    #[cfg(unix)]
    {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits() as i32);
    }
    // Where nothing can be written, what others have left can still be read.
    let file = options.open(path).or_else(|_| options.write(false).open(path))?;
    check(&file.metadata()?, fs::Metadata::is_file)?;
    Ok(file)
}

/// Holds a note, as a server does while it runs. Whoever looks whether it is held takes a shared lock: two who
/// look at once do not take each other for its server.
#[cfg(not(windows))]
fn hold(file: &File) -> Result<(), TryLockError> {
    file.try_lock()
}

#[cfg(not(windows))]
fn look(file: &File) -> Result<(), TryLockError> {
    file.try_lock_shared()
}

/// On Windows nobody else could read what is locked so, so that it is the other way round.
#[cfg(windows)]
fn hold(file: &File) -> Result<(), TryLockError> {
    file.try_lock_shared()
}

#[cfg(windows)]
fn look(file: &File) -> Result<(), TryLockError> {
    // For those that others look at now.
    for _ in 0..LOOKS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(AGAIN),
            looked => return looked,
        }
    }
    Err(TryLockError::WouldBlock)
}

/// Whether a server holds that note.
fn is_held(file: &File) -> bool {
    match look(file) {
        Ok(()) => {
            let _ = file.unlock();
            false
        }
        // Without locks nobody can tell, and it is taken for held.
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => true,
    }
}

/// The files in a folder of this user's that have such a name.
fn entries(folder: &Path, suffixes: &[&str]) -> Vec<PathBuf> {
    let ours = fs::symlink_metadata(folder).and_then(|meta| check(&meta, fs::Metadata::is_dir));
    let Ok(entries) = ours.and_then(|()| fs::read_dir(folder)) else { return Vec::new() };
    let named = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(PREFIX) && suffixes.iter().any(|suffix| name.ends_with(suffix))
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(named).take(MOST).collect()
}

/// The notes of servers that run.
pub(super) fn running(folder: &Path) -> Vec<Note> {
    let read = |path: PathBuf| {
        let file = open(&path).ok()?;
        if !is_held(&file) {
            return None;
        }
        let mut text = Vec::new();
        file.take(LARGEST).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    };
    entries(folder, &[SUFFIX]).into_iter().filter_map(read).collect()
}

/// Removes what servers that no longer run have left.
pub(super) fn clean(folder: &Path) {
    for path in entries(folder, &[SUFFIX, PARTIAL]) {
        let Ok(file) = open(&path) else { continue };
        // The lock is kept until it is removed: its writer, if it has only begun, notices.
        if look(&file).is_ok() {
            let _ = fs::remove_file(&path);
        }
    }
}
