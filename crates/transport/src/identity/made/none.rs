//! No certificate is created here.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Generations, IdentityError, Lifetimes, Mode};

/// There are none.
#[derive(Debug)]
pub(super) enum Made {}

impl Made {
    pub(super) fn brought(
        &self,
        _: Option<&Generations>,
        _: Mode<'_>,
        _: SystemTime,
    ) -> Result<(Generations, Option<String>), IdentityError> {
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
    pub(super) fn renewed(&self, _: &Generations, _: SystemTime) -> Result<Generations, IdentityError> {
        match *self {}
    }
}

pub(super) fn refused(_: &Path) -> Option<IdentityError> {
    None
}
