//! The note that `h3cast serve` leaves for clients on this machine.

use std::{io, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    Identity, fault,
    note::{Left, Note},
    panics,
    server::Addresses,
};

/// How often to see that it is still there: folders at run time are removed at the user's logout.
const EVERY: Duration = Duration::from_secs(1);
/// How long the start waits for it: a home folder on a network may not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keeps a note up to date.
pub(super) struct NoteKeeper {
    addresses: Addresses,
    identity: Identity,
    left: Option<Left>,
}

impl NoteKeeper {
    /// Leaves a note. Without one the server is as good: its clients have to be told whom to trust.
    pub(super) async fn leave(addresses: &Addresses, identity: &Identity) -> Self {
        let note = Note::of(addresses, identity);
        let leaving = blocking(move || Left::leave(note));
        let left = match tokio::time::timeout(PATIENCE, leaving).await {
            Ok(Ok(left)) => {
                debug!(path = %left.path().display(), "left a note for clients on this machine");
                Some(left)
            }
            Ok(Err(error)) => {
                info!(%error, "cannot leave a note for clients on this machine: they need --certs or --cacert");
                None
            }
            Err(_) => {
                info!("the user's folder does not answer: clients on this machine need --certs or --cacert");
                None
            }
        };
        Self { addresses: addresses.clone(), identity: identity.clone(), left }
    }

    /// Brings it up to date until `stop`, and then removes it.
    pub(super) async fn keep(mut self, stop: CancellationToken) {
        if self.left.is_none() {
            return;
        }
        let mut changes = self.identity.changes();
        loop {
            // At once when the certificate changes: clients of the new one look here.
            let due = async {
                let _ = tokio::time::timeout(EVERY, changes.changed()).await;
            };
            let stopped = stop.run_until_cancelled(due).await.is_none();
            let left = self.left.take();
            if stopped {
                let removed = blocking(move || {
                    drop(left);
                    Ok(())
                });
                // What is left of it all the same counts for nothing once the process has ended.
                let _ = tokio::time::timeout(PATIENCE, removed).await;
                return;
            }
            let note = Note::of(&self.addresses, &self.identity);
            let mut updating = tokio::task::spawn_blocking(move || {
                fault::point("note");
                match left {
                    Some(mut left) => {
                        let updated = left.update(note).map(drop);
                        (Some(left), updated)
                    }
                    None => match Left::leave(note) {
                        Ok(left) => (Some(left), Ok(())),
                        Err(error) => (None, Err(error)),
                    },
                }
            });
            let too_late = async {
                stop.cancelled().await;
                tokio::time::sleep(PATIENCE).await;
            };
            // To its end, so that there is something to remove when the server stops meanwhile.
            let updated = tokio::select! {
                updated = &mut updating => updated,
                () = too_late => return,
            };
            // A panic takes the note with it; the next round leaves another one.
            let Some((left, updated)) = panics::report("what keeps the note for clients on this machine", updated)
            else {
                continue;
            };
            if let Err(error) = updated {
                debug!(%error, "cannot update the note for clients on this machine");
            }
            self.left = left;
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
