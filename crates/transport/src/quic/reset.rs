//! How a server that was started again tells the clients of the one before: a stateless reset
//! (RFC 9000 §10.3), so that they notice with their next packet and not by a time-out.

use std::{sync::Arc, time::Duration};

use super::routing::Ids;
use crate::crypto::hmac;
use quinn::EndpointConfig;

/// Between two resets, so that they cannot be made a flood.
const INTERVAL: Duration = Duration::from_millis(1);

/// What an endpoint has from a secret that stays over restarts: a key for one purpose.
fn derived(secret: &[u8], purpose: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), purpose)
}

/// Tells a packet for the server that ran before from one that was never for it.
pub(super) fn secret_of_ids(secret: &[u8]) -> [u8; 32] {
    let mut own = [0; 32];
    own.copy_from_slice(derived(secret, b"connection id").as_ref());
    own
}

/// The configuration of an endpoint with these connection ids.
pub(super) fn endpoint(secret: &[u8], ids: &Ids) -> EndpointConfig {
    let key = hmac::Key::new(hmac::HMAC_SHA256, derived(secret, b"stateless reset").as_ref());
    let mut config = EndpointConfig::new(Arc::new(key));
    let ids = ids.clone();
    config.cid_generator(move || Box::new(ids.clone()));
    config.min_reset_interval(INTERVAL);
    config
}
