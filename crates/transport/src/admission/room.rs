//! What a server has left for new connections, as the application knows it.

use std::{fmt, sync::Arc};

use super::Refusal;

/// What a new connection comes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carrier {
    /// QUIC: no file descriptor of its own.
    Quic,
    /// TCP, with TLS.
    Tls,
    /// TCP without TLS.
    Plain,
}

/// What a server has left for a new connection: what the hook of
/// [`ServerBuilder::room`](crate::server::ServerBuilder::room) answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Room {
    /// Enough.
    #[default]
    Plenty,
    /// Little: clients over QUIC must show first that their address is their own (Retry).
    Little,
    /// None, for this reason: the connection is refused.
    Full(Refusal),
}

/// Asks the application.
#[derive(Clone)]
pub(crate) struct AskRoom(Arc<dyn Fn(Carrier) -> Room + Send + Sync>);

impl AskRoom {
    pub(crate) fn new(ask: impl Fn(Carrier) -> Room + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(super) fn ask(&self, carrier: Carrier) -> Room {
        (self.0)(carrier)
    }
}

impl Default for AskRoom {
    fn default() -> Self {
        Self::new(|_| Room::Plenty)
    }
}

impl fmt::Debug for AskRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskRoom").finish_non_exhaustive()
    }
}
