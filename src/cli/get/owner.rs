//! Whose a file is: what other users of this machine own, hold by another name or may write is never ours.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    path::Path,
};

use tempfile::NamedTempFile;

/// Opens a file that only we can write, if there is one.
///
/// # Errors
///
/// When something else is there.
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() => {}
        Ok(_) => return Err(foreign(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    {
        // A link or a pipe may have taken its place.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits().cast_signed());
    }
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(_) => return Err(foreign(path)),
    };
    let there = file.metadata()?;
    if !there.is_file() {
        return Err(foreign(path));
    }
    #[cfg(unix)]
    if let Some(why) = unix::shared(path, &there) {
        return Err(left_alone(path, &why));
    }
    Ok(Some(file))
}

/// Says that a file is not ours.
pub(super) fn foreign(path: &Path) -> io::Error {
    left_alone(path, "was not created by h3cast")
}

fn left_alone(path: &Path, why: &str) -> io::Error {
    let path = path.display();
    io::Error::other(format!("{path} {why} and is left alone: move or delete it, or choose another FILE"))
}

/// A new file in the folder of `path`, for us alone.
pub(super) fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // The name of a file that nobody has heard of explains nothing: only the system's error is of use.
    let mut cause = None;
    let open = |path: &Path| options.open(path).inspect_err(|error| cause = error.raw_os_error());
    let created = tempfile::Builder::new().prefix(&prefix).suffix(".new").make_in(folder, open);
    created.map_err(|error| cause.map_or(error, io::Error::from_raw_os_error))
}

/// Gives a file that takes the place of `target` its permissions, or those of a new file.
#[cfg(unix)]
pub(super) fn permit(file: &File, target: &Path) -> io::Result<()> {
    unix::permit(file, target)
}

#[cfg(not(unix))]
pub(super) fn permit(file: &File, target: &Path) -> io::Result<()> {
    match fs::metadata(target) {
        Ok(there) => file.set_permissions(there.permissions()),
        Err(_) => Ok(()),
    }
}

#[cfg(unix)]
mod unix {
    use std::{
        fs::{File, Metadata, Permissions, metadata},
        io,
        os::unix::fs::{MetadataExt, PermissionsExt},
        path::Path,
    };

    use rustix::{
        fs::Mode,
        process::{geteuid, umask},
    };

    /// Writable by the group or by all.
    const OTHERS: u32 = 0o022;

    /// Why a file is not ours alone.
    pub(super) fn shared(path: &Path, there: &Metadata) -> Option<String> {
        let why = why(there, geteuid().as_raw(), 0);
        match &why {
            None => None,
            // Some file systems (FAT, some network shares) have one owner and one mode for all files.
            Some(_) => match super::temporary(path).and_then(|fresh| fresh.as_file().metadata()) {
                Ok(fresh) => self::why(there, fresh.uid(), fresh.mode()),
                Err(_) => why,
            },
        }
    }

    fn why(there: &Metadata, owner: u32, usual: u32) -> Option<String> {
        if there.uid() != owner {
            Some(format!("belongs to another user (uid {})", there.uid()))
        } else if there.nlink() > 1 {
            Some("has more than one name (hard links)".into())
        } else if there.mode() & OTHERS & !usual != 0 {
            Some("can be written by other users".into())
        } else {
            None
        }
    }

    pub(super) fn permit(file: &File, target: &Path) -> io::Result<()> {
        let ours = file.metadata()?;
        let set = |mode| match mode == ours.mode() & 0o777 {
            true => Ok(()),
            false => file.set_permissions(Permissions::from_mode(mode)),
        };
        match metadata(target) {
            // Whoever might read or write the file may still.
            Ok(there) if there.uid() == ours.uid() => set(there.mode() & 0o777),
            // Unless that was another user's decision.
            Ok(there) => set(there.mode() & 0o777 & !OTHERS),
            Err(_) => {
                // It can only be read by setting it.
                let mask = umask(Mode::RWXG | Mode::RWXO);
                umask(mask);
                #[allow(clippy::useless_conversion, reason = "16 bits on some systems")]
                let mask = u32::from(mask.bits());
                // Not all file systems have modes.
                let _ = set(0o666 & !mask);
                Ok(())
            }
        }
    }
}
