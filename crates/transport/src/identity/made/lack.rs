//! What makes a change of the folder necessary, for those who read the log.

use std::{path::PathBuf, time::SystemTime};

use super::folder::{CERTIFICATES, FolderContents};
use crate::identity::{Generations, IdentityError, Mode, rfc3339};

/// What could not be stored.
#[derive(Debug)]
pub(super) struct Unsaved {
    pub(super) lack: Lack,
    pub(super) error: IdentityError,
}

impl Unsaved {
    /// What that means for clients.
    pub(super) fn in_words(&self, state: &Generations, names: &[String]) -> String {
        let Self { lack, error } = self;
        let end = rfc3339(state.current.newest().not_after());
        let lacks = |name: &&String| !state.current.certificates().any(|one| one.names_host(name));
        let missing: Vec<_> = names.iter().filter(lacks).map(String::as_str).collect();
        let refused = match missing.is_empty() {
            true => String::new(),
            false => {
                format!(". It is not valid for {}: clients that connect by that name refuse it", missing.join(", "))
            }
        };
        let what = match lack {
            Lack::Damaged(path) => format!("{} is damaged and cannot be restored", path.display()),
            Lack::Missing(path) => format!("{} is missing and cannot be restored", path.display()),
            Lack::Renewal => {
                format!("the certificate, which is valid until {end}, should be renewed, but that is not possible")
            }
        };
        format!("{what}: {error}{refused}")
    }
}

/// What makes a change of the folder necessary.
#[derive(Debug)]
pub(super) enum Lack {
    /// A file is not complete or does not fit.
    Damaged(PathBuf),
    /// A file was removed.
    Missing(PathBuf),
    /// A certificate with more time or more names.
    Renewal,
}

impl Lack {
    pub(super) fn of(contents: &FolderContents, known: Option<&Generations>, mode: Mode<'_>, now: SystemTime) -> Self {
        let missing = match mode.runs() {
            true => contents.missing(),
            false => None,
        };
        match (doubtful(contents, known.filter(|_| mode.runs()), now), missing) {
            (Some(name), _) => Self::Damaged(contents.path(name)),
            (None, Some(name)) => Self::Missing(contents.path(name)),
            (None, None) => Self::Renewal,
        }
    }
}

/// The file that may be in the middle of being written by the folder's owner.
pub(super) fn doubtful(
    contents: &FolderContents,
    known: Option<&Generations>,
    now: SystemTime,
) -> Option<&'static str> {
    let found = contents.certificates.value();
    let lacks = |known: &Generations| {
        found.is_some_and(|found| known.certificates().any(|one| one.is_valid(now) && !found.contains(one)))
    };
    contents.broken().or_else(|| known.is_some_and(lacks).then_some(CERTIFICATES))
}
