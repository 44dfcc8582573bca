//! What makes a change of the folder necessary, for those who read the log.

use std::{path::PathBuf, time::SystemTime};

use super::{
    IdentityError, State,
    folder::{CERTIFICATES, Contents},
    plan::Mode,
};

/// What could not be stored.
#[derive(Debug)]
pub(super) struct Unsaved {
    pub(super) lack: Lack,
    pub(super) error: IdentityError,
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
    pub(super) fn of(contents: &Contents, known: Option<&State>, mode: Mode<'_>, now: SystemTime) -> Self {
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
pub(super) fn doubtful(contents: &Contents, known: Option<&State>, now: SystemTime) -> Option<&'static str> {
    let found = contents.certificates.value();
    let lacks = |known: &State| {
        found.is_some_and(|found| known.certificates().any(|one| one.is_valid(now) && !found.contains(one)))
    };
    contents.broken().or_else(|| known.is_some_and(lacks).then_some(CERTIFICATES))
}
