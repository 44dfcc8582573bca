//! How a server that was started again tells the clients of the one before: a stateless reset
//! (RFC 9000 §10.3), so that they notice with their next packet and not by a time-out.

use std::{sync::Arc, time::Duration};

use super::routing::{Routable, ServerId};
use crate::crypto::hmac;
use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;

/// Between two resets, so that they cannot be made a flood.
const INTERVAL: Duration = Duration::from_millis(1);

/// The configuration of an endpoint. Its keys come from a secret that stays over restarts.
pub(super) fn endpoint(secret: &[u8], server: Option<&ServerId>) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = |purpose: &[u8]| hmac::sign(&secret, purpose);
    let key = hmac::Key::new(hmac::HMAC_SHA256, tag(b"stateless reset").as_ref());
    let mut config = EndpointConfig::new(Arc::new(key));
    // By this key a packet of the server before is told from one that was never for it.
    let ids = tag(b"connection id").as_ref().iter().take(8).fold(0, |ids, byte| ids << 8 | u64::from(*byte));
    match server {
        None => config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids))),
        Some(server) => {
            let routable = Routable::new(server.clone(), hmac::Key::new(hmac::HMAC_SHA256, &ids.to_be_bytes()));
            config.cid_generator(move || Box::new(routable.clone()))
        }
    };
    config.min_reset_interval(INTERVAL);
    config
}
