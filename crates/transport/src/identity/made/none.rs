//! No certificate is created here.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{IdentityError, Lifetimes, Mode, State};

/// There are none.
#[derive(Debug)]
pub(super) enum Made {}

impl Made {
    pub(super) fn brought(
        &self,
        _: Option<&State>,
        _: Mode<'_>,
        _: SystemTime,
    ) -> Result<(State, Option<String>), IdentityError> {
        match *self {}
    }

    pub(super) fn lifetimes(&self) -> &Lifetimes {
        match *self {}
    }

    pub(super) fn paths(&self) -> [PathBuf; 2] {
        match *self {}
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        match *self {}
    }

    pub(super) fn exposed(&self) -> Option<String> {
        match *self {}
    }
}

/// There is none.
#[derive(Debug)]
pub(super) enum Localhost {}

impl Localhost {
    pub(super) fn renewed(&self, _: &State, _: SystemTime) -> Result<State, IdentityError> {
        match *self {}
    }
}

pub(super) fn refused(_: &Path) -> Option<IdentityError> {
    None
}
