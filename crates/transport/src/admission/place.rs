//! A connection's place, and its handshake.

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    Refusal,
    client::{Client, Kind, Open},
};

/// A connection's place, taken for as long as there is the connection, whoever has it.
#[derive(Debug)]
pub(crate) struct Place {
    open: Open,
    /// One of the listener's, over TCP.
    _listener: Option<OwnedSemaphorePermit>,
    /// One of the server's. Over TCP a connection waits for it.
    one: OnceLock<OwnedSemaphorePermit>,
}

impl Place {
    pub(super) fn quic(client: &Client, validated: bool, one: OwnedSemaphorePermit) -> Result<Self, Refusal> {
        let open = if validated { Open::of } else { Open::unclaimed };
        Ok(Self { open: open(client, Kind::Connections)?, _listener: None, one: one.into() })
    }

    pub(super) fn tcp(client: &Client, listener: OwnedSemaphorePermit) -> Result<Self, Refusal> {
        let open = Open::of(client, Kind::Connections)?;
        Ok(Self { open, _listener: Some(listener), one: OnceLock::new() })
    }

    /// Waits for a place of the server's. Cancel-safe.
    pub(crate) async fn wait(&self) {
        if self.one.get().is_none()
            && let Some(one) = self.client().admission().place().await
        {
            let _ = self.one.set(one);
        }
    }

    /// The connection counts for its address, whose handshake shows that it is the client's own.
    pub(crate) fn claim(&self) -> Result<(), Refusal> {
        self.open.claim().map_err(|reason| self.client().refused(reason))
    }

    /// The address that it counts for.
    pub(crate) fn client(&self) -> &Client {
        self.open.client()
    }
}

/// What connections come over: each kind has handshakes of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Over {
    Quic,
    Tcp,
}

/// How many handshakes are in progress.
#[derive(Debug, Default)]
pub(super) struct InProgress([AtomicUsize; 2]);

impl InProgress {
    pub(super) fn now(&self, over: Over) -> usize {
        self.0[over as usize].load(Ordering::Relaxed)
    }

    fn begin(&self, over: Over, limit: usize) -> Result<(), Refusal> {
        let more = |open| (open < limit).then_some(open + 1);
        let begun = self.0[over as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        begun.map(drop).map_err(|_| Refusal::Handshakes)
    }

    fn end(&self, over: Over) {
        self.0[over as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A handshake in progress, until this is dropped.
#[derive(Debug)]
pub(crate) struct Handshake {
    open: Open,
    over: Over,
}

impl Handshake {
    pub(super) fn begin(client: &Client, over: Over, validated: bool, limit: usize) -> Result<Self, Refusal> {
        let open = if validated { Open::of } else { Open::unclaimed };
        let open = open(client, Kind::Handshakes)?;
        client.admission().in_progress.begin(over, limit)?;
        Ok(Self { open, over })
    }

    /// It took too long.
    pub(crate) fn is_late(&self) {
        self.open.client().refused(Refusal::HandshakeTimeout);
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.open.client().admission().in_progress.end(self.over);
    }
}
