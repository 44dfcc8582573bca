//! Certificates that are created here: in a folder, where they are renewed and found again, or in memory.

mod access;
mod folder;
mod issue;
mod lack;
mod localhost;
mod lock;
mod part;
mod plan;

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Generations, Identity, IdentityError, Lifetimes, Mode, Origin};

pub(super) use localhost::Localhost;

/// The names that every certificate created here is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The certificates that are created in a folder.
#[derive(Debug)]
pub(super) struct Made {
    dir: PathBuf,
    names: Vec<String>,
    lifetimes: Lifetimes,
}

impl Made {
    /// Brings the folder to what it should be, and says why it could not be stored as it should be. Blocks.
    pub(super) fn brought(
        &self,
        known: Option<&Generations>,
        mode: Mode<'_>,
        now: SystemTime,
    ) -> Result<(Generations, Option<String>), IdentityError> {
        let settled = self.settle(known, mode, now)?;
        let trouble = settled.unsaved.map(|unsaved| unsaved.in_words(&settled.state, &self.names));
        Ok((settled.state, trouble))
    }

    pub(super) fn lifetimes(&self) -> &Lifetimes {
        &self.lifetimes
    }

    /// The file of the certificate, and that of the key.
    pub(super) fn paths(&self) -> [PathBuf; 2] {
        [folder::CERTIFICATES, folder::KEY].map(|name| self.dir.join(name))
    }

    /// The files that are looked after.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        folder::files(&self.dir)
    }

    /// Who else can read the key.
    pub(super) fn exposed(&self) -> Option<String> {
        folder::exposed(&self.dir)
    }
}

/// Why a server would not start with this folder.
pub(super) fn refused(dir: &Path) -> Option<IdentityError> {
    folder::FolderContents::read(dir).err()
}

impl Identity {
    /// The certificate for localhost (and `names` in addition) in `dir`, created there if there is
    /// none that can be used. Blocks.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read or written, or holds files that this program did not create
    /// where its own would be: they are never replaced.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use h3cast_transport::Identity;
    /// // Clients trust `certs/cert.pem`, and pages the hashes; both outlive a restart.
    /// let identity = Identity::self_signed("certs".as_ref(), &["cast.local".to_owned()], Default::default())?;
    /// # Ok::<(), h3cast_transport::identity::IdentityError>(())
    /// ```
    pub fn self_signed(dir: &Path, names: &[String], lifetimes: Lifetimes) -> Result<Self, IdentityError> {
        let identity = Self::planned(dir, names, lifetimes)?;
        identity.commit()?;
        Ok(identity)
    }

    /// The same, but nothing is created or changed in `dir` before [`commit`](Self::commit), which
    /// [`ServerBuilder::build`](crate::server::ServerBuilder::build) calls when all its sockets are
    /// bound: a server that does not start leaves no trace. Blocks.
    ///
    /// # Errors
    ///
    /// As for [`self_signed`](Self::self_signed).
    pub fn planned(dir: &Path, names: &[String], lifetimes: Lifetimes) -> Result<Self, IdentityError> {
        let mut all: Vec<String> = NAMES.map(String::from).into();
        all.extend(names.iter().filter(|name| !NAMES.contains(&name.as_str())).cloned());
        let made = Made { dir: dir.into(), names: all, lifetimes };
        let settled = made.settle(None, Mode::Look, SystemTime::now())?;
        Ok(Self::new(Origin::Made(made), settled.state))
    }
}
