//! What listeners say of themselves in TLS.

use std::sync::Arc;

use rustls::server::ServerSessionMemoryCache;

use crate::identity::{Identity, provider};

/// Tickets that clients may come again with; each takes up to about 1 KiB.
const MAX_TICKETS: usize = 4096;

/// Where the tickets of a server are kept.
pub(super) fn tickets() -> Arc<ServerSessionMemoryCache> {
    ServerSessionMemoryCache::new(MAX_TICKETS)
}

/// What a listener at `host` says of itself.
pub(super) fn tls(identity: &Identity, host: &str, protocols: &[&[u8]]) -> Result<rustls::ServerConfig, rustls::Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(identity.resolver(host));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// The same for QUIC, with early data.
pub(super) fn early_tls(
    identity: &Identity,
    host: &str,
    tickets: Arc<ServerSessionMemoryCache>,
) -> Result<rustls::ServerConfig, rustls::Error> {
    let mut tls = tls(identity, host, &[b"h3"])?;
    // Each ticket can be used once: rustls keeps them here, in memory, and gives them out
    // no second time, so that a copy of early data is of no use (RFC 8446 §8.1).
    tls.max_early_data_size = u32::MAX;
    // A client comes again with one at a time, and gets a new one with each connection.
    tls.send_tls13_tickets = 1;
    tls.session_storage = tickets;
    Ok(tls)
}
