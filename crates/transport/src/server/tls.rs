//! What listeners use for TLS: ours, and what the application makes of it.

use std::{fmt, sync::Arc};

use rustls::{
    ServerConfig,
    quic::{ServerConnection, Version},
    server::{ServerSessionMemoryCache, danger::ClientCertVerifier},
};

use super::StartError;
use crate::identity::{CHALLENGE, Identity, provider};

/// Tickets that clients may come back with; each takes up to about 1 KiB.
const MAX_TICKETS: usize = 4096;

const OVER_QUIC: &[&[u8]] = &[b"h3"];
const OVER_TCP: &[&[u8]] = &[b"h2", b"http/1.1", b"http/1.0", CHALLENGE];

type Change = Box<dyn Fn(&mut ServerConfig) + Send + Sync>;

/// How the listeners of a server do TLS.
#[derive(Default)]
pub(super) struct Tls {
    pub(super) change: Option<Change>,
    pub(super) clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("clients", &self.clients).finish_non_exhaustive()
    }
}

/// Where the tickets of a server are kept.
pub(super) fn tickets() -> Arc<ServerSessionMemoryCache> {
    ServerSessionMemoryCache::new(MAX_TICKETS)
}

impl Tls {
    /// For a TCP listener at `host`.
    pub(super) fn over_tcp(&self, identity: &Identity, host: &str) -> Result<ServerConfig, StartError> {
        let tls = self.ours(identity, host, OVER_TCP)?;
        Ok(self.changed(tls, OVER_TCP))
    }

    /// For a QUIC listener at `host`, with early data.
    pub(super) fn over_quic(
        &self,
        identity: &Identity,
        host: &str,
        tickets: Arc<ServerSessionMemoryCache>,
    ) -> Result<ServerConfig, StartError> {
        let mut tls = self.ours(identity, host, OVER_QUIC)?;
        // Each ticket can be used once: rustls keeps them here, in memory, and gives them out
        // no second time, so that a copy of early data is of no use (RFC 8446 §8.1).
        tls.max_early_data_size = u32::MAX;
        // A client comes back with one at a time, and gets a new one with each connection.
        tls.send_tls13_tickets = 1;
        tls.session_storage = tickets;
        let mut tls = self.changed(tls, OVER_QUIC);
        // Whatever a client chose of other protocols, it would get HTTP/3.
        tls.alpn_protocols.retain(|protocol| protocol == OVER_QUIC[0]);
        if tls.alpn_protocols.is_empty() {
            return Err(StartError::Alpn { host: host.into() });
        }
        // The engine takes for granted that this works for every client.
        ServerConnection::new(Arc::new(tls.clone()), Version::V1, Vec::new())?;
        Ok(tls)
    }

    fn ours(&self, identity: &Identity, host: &str, protocols: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
        let tls = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let tls = match &self.clients {
            Some(clients) => tls.with_client_cert_verifier(clients.clone()),
            None => tls.with_no_client_auth(),
        };
        let mut tls = tls.with_cert_resolver(identity.resolver(host));
        tls.alpn_protocols = names(protocols);
        Ok(tls)
    }

    /// What the application makes of it. One that it has replaced altogether has no protocols.
    fn changed(&self, mut tls: ServerConfig, protocols: &[&[u8]]) -> ServerConfig {
        if let Some(change) = &self.change {
            change(&mut tls);
        }
        if tls.alpn_protocols.is_empty() {
            tls.alpn_protocols = names(protocols);
        }
        tls
    }
}

fn names(protocols: &[&[u8]]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.to_vec()).collect()
}
