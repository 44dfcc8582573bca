//! Who may read the files of the folder: its owner decides, up to a limit.

use std::{fs, io, path::Path};

/// Whom a new file is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    mode: u32,
    /// The owner and the group of the file that it replaces.
    #[cfg(unix)]
    like: Option<(u32, u32)>,
}

impl Access {
    pub(super) fn new(mode: u32) -> Self {
        Self {
            mode,
            #[cfg(unix)]
            like: None,
        }
    }

    /// That of the file at `path`, if it permits no more than `most`; otherwise, or where there is none, `usual`.
    #[cfg(unix)]
    pub(super) fn like(path: &Path, usual: u32, most: u32) -> Self {
        use std::os::unix::fs::MetadataExt;
        let Some(there) = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file) else {
            return Self::new(usual);
        };
        let mode = Some(there.mode() & 0o777).filter(|mode| mode & !most == 0 && mode & 0o400 != 0);
        Self { mode: mode.unwrap_or(usual), like: Some((there.uid(), there.gid())) }
    }

    #[cfg(not(unix))]
    pub(super) fn like(_: &Path, usual: u32, _: u32) -> Self {
        Self::new(usual)
    }

    /// Creates a file that nobody else can read before [`settle`](Self::settle).
    pub(super) fn create(self, path: &Path) -> io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            let mode = if self.like.is_some() { 0o600 } else { self.mode };
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        }
        options.open(path)
    }

    /// Gives a new file its owner, group and mode, as far as we may.
    pub(super) fn settle(self, file: &fs::File) -> io::Result<()> {
        #[cfg(unix)]
        if let Some((owner, group)) = self.like {
            use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
            let ours = file.metadata()?;
            // Only root can give a file to another user.
            if ours.uid() != owner {
                let _ = fchown(file, Some(owner), None);
            }
            let grouped = ours.gid() == group || fchown(file, None, Some(group)).is_ok();
            // What was for that group is not for another one.
            let mode = if grouped { self.mode } else { self.mode & !0o070 };
            if mode != ours.mode() & 0o777 {
                file.set_permissions(fs::Permissions::from_mode(mode))?;
            }
        }
        #[cfg(not(unix))]
        let _ = (self.mode, file);
        Ok(())
    }
}

/// Why a key may be known to others.
#[cfg(unix)]
pub(super) fn exposed(keys: &[std::path::PathBuf]) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    const ADVICE: &str = "anyone who has the key can pose as this server";
    keys.iter().find_map(|key| {
        let there = fs::symlink_metadata(key).ok().filter(fs::Metadata::is_file)?;
        let (path, uid, mode) = (key.display(), there.uid(), there.mode() & 0o777);
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            return Some(format!(
                "{path} belongs to another user (uid {uid}): {ADVICE}. Unless you trust that user, move the folder away, and h3cast creates a new key"
            ));
        }
        // That its group alone may read it is an owner's decision.
        (mode & 0o027 != 0).then(|| {
            format!(
                "{path} can be read or written by other users (mode {mode:04o}): {ADVICE}. If the folder was cloned or copied, delete it, and h3cast creates a new key; if the key is your own, `chmod 600 {path}`"
            )
        })
    })
}

#[cfg(not(unix))]
pub(super) fn exposed(_: &[std::path::PathBuf]) -> Option<String> {
    None
}
