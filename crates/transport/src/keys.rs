//! Where the secrets of connections are written that this process opens as a client.

use std::sync::{Arc, OnceLock};

static KEYS: OnceLock<Arc<dyn rustls::KeyLog>> = OnceLock::new();

/// Has them written from now on. The first one counts.
pub fn log_to(keys: Arc<dyn rustls::KeyLog>) {
    let _ = KEYS.set(keys);
}

/// Has a client write them.
#[cfg(feature = "client")]
pub(crate) fn apply(tls: &mut rustls::ClientConfig) {
    if let Some(keys) = KEYS.get() {
        tls.key_log = keys.clone();
    }
}
