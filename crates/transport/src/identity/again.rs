//! A certificate that its owner gives, read again when that is asked for.

use std::{
    path::{Path, PathBuf},
    sync::PoisonError,
    time::SystemTime,
};

use super::{
    Certificate, Generations, Identity, IdentityError, Origin, keeper::is_readable_again, key::Generation, own,
};

/// A certificate that can be served, and is not yet. See [`Identity::read_again`].
#[derive(Debug)]
#[must_use = "nothing changes before it is applied"]
pub struct Renewal {
    identity: Identity,
    files: (PathBuf, PathBuf),
    /// `None` if it can be read only once, as from a pipe.
    read: Option<(Generation, Vec<Certificate>)>,
}

impl Identity {
    /// Reads the certificate chain and its key again, from the files of [`from_pem`](Self::from_pem) or from others.
    /// Changed files are noticed without that, within a second or so; this shows at once whether they can be used.
    /// Nothing changes before [`Renewal::apply`]. Blocks.
    ///
    /// # Errors
    ///
    /// As for [`from_pem`](Self::from_pem), and when this identity was made in another way.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use h3cast_transport::Identity;
    /// # fn doc(identity: Identity) -> Result<(), h3cast_transport::identity::IdentityError> {
    /// identity.read_again("fullchain.pem".as_ref(), "privkey.pem".as_ref())?.apply();
    /// # Ok(()) }
    /// ```
    pub fn read_again(&self, certificate: &Path, key: &Path) -> Result<Renewal, IdentityError> {
        let files = (certificate.to_owned(), key.to_owned());
        let unusable = |path: &Path, reason: &str| IdentityError::Unusable { path: path.into(), reason: reason.into() };
        if !matches!(self.0.origin, Origin::Given { .. }) {
            return Err(unusable(certificate, "this server's certificate is not from files of its owner"));
        }
        let read = match [certificate, key].into_iter().find(|path| !is_readable_again(path)) {
            None => Some(own::load(certificate, key)?),
            Some(_) if self.paths() == [certificate, key] => None,
            // Nobody may ever write to it.
            Some(pipe) => return Err(unusable(pipe, "it is not a regular file")),
        };
        Ok(Renewal { identity: self.clone(), files, read })
    }
}

impl Renewal {
    /// Whether the files were read: those that can be read only once were not.
    #[doc(hidden)]
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.read.is_some()
    }

    /// Has clients that connect from now on get it. Whether it is another one than before.
    pub fn apply(self) -> bool {
        let Self { identity, files, read } = self;
        let Origin::Given { files: now, .. } = &identity.0.origin else { return false };
        let Some((current, chain)) = read else { return false };
        // Not while the files are looked at.
        let mut keeping = identity.0.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        *now.write().unwrap_or_else(PoisonError::into_inner) = files;
        let before = identity.state();
        let is_new = current.newest() != before.current.newest();
        identity.adopt(&before, Generations { current, next: None, previous: Vec::new() }, SystemTime::now());
        if is_new {
            identity.look_at_chain(&keeping, &chain);
        }
        keeping.look_at_dates(&identity.current());
        is_new
    }
}
