//! Files that other users of this machine can read or write, and should not.

use std::{fmt, path::Path};

/// What other users can do with a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Exposed {
    pub(super) read: bool,
    pub(super) write: bool,
}

impl Exposed {
    /// Of the file there: nothing, if it is not there, or where that cannot be told. Blocks.
    #[cfg_attr(not(unix), allow(unused_variables, reason = "there are no such permissions"))]
    pub(crate) fn of(path: &Path) -> Self {
        #[cfg(unix)]
        if let Ok(file) = std::fs::metadata(path) {
            use std::os::unix::fs::PermissionsExt;
            let mode = file.permissions().mode();
            return Self { read: mode & 0o004 != 0, write: mode & 0o002 != 0 };
        }
        Self::default()
    }

    /// The same for a file that everyone may read.
    pub(crate) fn of_public(path: &Path) -> Self {
        Self { read: false, ..Self::of(path) }
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// What to say of it.
    pub(crate) fn warning(self, path: &Path) -> impl fmt::Display {
        let path = path.display();
        match self {
            Self { write: true, read } => {
                let mode = if read { "600" } else { "o-w" };
                format!("every user of this machine can replace what is in {path}: chmod {mode} {path}")
            }
            _ => format!("every user of this machine can read the secrets in {path}: chmod 600 {path}"),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_others_can_do_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, word, public) in [
            (0o600, None, None),
            (0o660, None, None),
            (0o644, Some("read the secrets"), None),
            (0o666, Some("chmod 600"), Some("chmod o-w")),
            (0o602, Some("replace what is in"), Some("chmod o-w")),
        ] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            for (exposed, word) in [(Exposed::of(file.path()), word), (Exposed::of_public(file.path()), public)] {
                let told = (!exposed.is_none()).then(|| exposed.warning(file.path()).to_string());
                assert_eq!(told.is_some(), word.is_some(), "{mode:o}: {told:?}");
                assert!(told.is_none_or(|told| told.contains(word.unwrap())), "{mode:o}");
            }
        }
        assert!(Exposed::of(Path::new("/none/such")).is_none());
    }
}
