//! The key of the certificate that its owner gives: whether others can read it.

use std::{convert::Infallible, path::Path};

use tracing::warn;

use crate::{Identity, auth::Exposed};

/// What to say of a key that others can read or replace. Blocks.
pub(super) fn warning(key: &Path) -> Option<String> {
    let exposed = Exposed::of(key);
    (!exposed.is_none()).then(|| exposed.warning(key).to_string())
}

/// Warns of such a key now, and again whenever it has become one: its files may be others by then, and its permissions.
pub(super) async fn watch(identity: &Identity) -> Option<Infallible> {
    let mut changes = identity.changes();
    let mut told = None;
    loop {
        let looked = identity.clone();
        // A panic there is logged by itself.
        let found = tokio::task::spawn_blocking(move || warning(&looked.key_path())).await.ok().flatten();
        if let Some(text) = &found
            && told.as_ref() != Some(text)
        {
            warn!("{text}");
        }
        told = found;
        changes.changed().await.ok()?;
    }
}
