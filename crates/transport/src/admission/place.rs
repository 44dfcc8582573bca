//! A connection's place, and its handshake.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Refusal,
    client::{Client, Kind, Open},
    idlers::{Idler, ListenerPlaces},
    places::Taken,
};

/// A connection's place, taken for as long as there is the connection, whoever has it.
#[derive(Debug)]
pub(crate) struct Place {
    open: Open,
    /// Over TCP.
    tcp: Option<OverTcp>,
    /// One of the server's. Over TCP a connection waits for it.
    one: OnceLock<Taken>,
    /// It is one of those that are kept for the server's status: beyond all limits, and not for anything else.
    is_reserved: bool,
}

/// What a connection over TCP takes besides.
#[derive(Debug)]
struct OverTcp {
    open: Open,
    /// Once its listener has a place for it.
    seat: Option<Seat>,
}

/// A place of a listener's.
#[derive(Debug)]
struct Seat {
    /// Whether the connection has a request.
    idler: Arc<Idler>,
    _permit: Taken,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.idler.gone();
    }
}

impl Place {
    pub(super) fn quic(client: &Client, validated: bool, one: Taken) -> Result<Self, Refusal> {
        let open = if validated { Open::of } else { Open::unclaimed };
        Ok(Self { open: open(client, Kind::Connections)?, tcp: None, one: one.into(), is_reserved: false })
    }

    /// One over TCP, before its listener has a place for it.
    pub(super) fn tcp(client: &Client) -> Result<Self, Refusal> {
        let (open, tcp) = (Open::of(client, Kind::Connections)?, Open::of(client, Kind::Tcp)?);
        Ok(Self { open, tcp: Some(OverTcp { open: tcp, seat: None }), one: OnceLock::new(), is_reserved: false })
    }

    /// One over TCP for the server's status.
    pub(super) fn reserved(client: &Client) -> Self {
        let (open, tcp) = (Open::uncounted(client, Kind::Connections), Open::uncounted(client, Kind::Tcp));
        Self { open, tcp: Some(OverTcp { open: tcp, seat: None }), one: OnceLock::new(), is_reserved: true }
    }

    /// Whether it is for the server's status and nothing else.
    pub(crate) fn is_reserved(&self) -> bool {
        self.is_reserved
    }

    /// Its listener has a place for it.
    pub(super) fn sit(&mut self, listener: &ListenerPlaces, permit: Taken) {
        let idler = Arc::new(Idler::new(listener.idlers(), self.client().key()));
        if let Some(tcp) = &mut self.tcp {
            tcp.seat = Some(Seat { idler, _permit: permit });
        }
    }

    /// Whether it has a request, over TCP.
    #[cfg(feature = "tcp")]
    pub(crate) fn idler(&self) -> Option<&Arc<Idler>> {
        Some(&self.tcp.as_ref()?.seat.as_ref()?.idler)
    }

    /// Waits for a place of the server's. Cancel-safe.
    pub(crate) async fn wait(&self) {
        if !self.is_reserved
            && self.one.get().is_none()
            && let Some(one) = self.client().admission().place().await
        {
            let _ = self.one.set(one);
        }
    }

    /// The connection counts for another client, which the proxy at its own address has announced.
    #[cfg(feature = "tcp")]
    pub(crate) fn count_for(&mut self, client: &Client) -> Result<(), Refusal> {
        let open = |kind| match self.is_reserved {
            true => Ok(Open::uncounted(client, kind)),
            false => Open::of(client, kind).map_err(|reason| client.refused(reason)),
        };
        self.open = open(Kind::Connections)?;
        if let Some(tcp) = &mut self.tcp {
            tcp.open = open(Kind::Tcp)?;
            if let Some(seat) = &tcp.seat {
                seat.idler.count_for(client.key());
            }
        }
        Ok(())
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

/// The handshakes in progress, the oldest first.
#[derive(Debug, Default)]
pub(super) struct InProgress([Mutex<Line>; 2]);

#[derive(Debug, Default)]
struct Line {
    next: u64,
    handshakes: BTreeMap<u64, Arc<Notify>>,
}

impl InProgress {
    fn line(&self, over: Over) -> MutexGuard<'_, Line> {
        self.0[over as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self, over: Over) -> usize {
        self.line(over).handshakes.len()
    }
}

/// A handshake in progress, until it is [complete](Self::complete), or this is dropped.
#[derive(Debug)]
pub(crate) struct Handshake {
    client: Client,
    over: Over,
    number: u64,
    /// `None` when it is complete.
    open: Mutex<Option<Open>>,
    /// Told when it has to make room.
    ousted: Arc<Notify>,
}

impl Handshake {
    /// One more than `limit` ends the oldest: a flood cannot keep others out then, who take a round trip or two and
    /// not until the time-out.
    pub(super) fn begin(client: &Client, over: Over, validated: bool, limit: usize) -> Result<Self, Refusal> {
        let open = if validated { Open::of } else { Open::unclaimed };
        let open = Mutex::new(Some(open(client, Kind::Handshakes)?));
        let ousted = Arc::new(Notify::new());
        let mut line = client.admission().in_progress.line(over);
        let number = line.next;
        line.next += 1;
        if line.handshakes.len() >= limit
            && let Some((_, oldest)) = line.handshakes.pop_first()
        {
            oldest.notify_one();
        }
        line.handshakes.insert(number, ousted.clone());
        drop(line);
        Ok(Self { client: client.clone(), over, number, open, ousted })
    }

    /// It counts for another client, which the proxy at its own address has announced.
    #[cfg(feature = "tcp")]
    pub(crate) fn count_for(&mut self, client: &Client) -> Result<(), Refusal> {
        let open = Open::of(client, Kind::Handshakes).map_err(|reason| client.refused(reason))?;
        // Not one that is complete.
        if let Some(before) = &mut *self.open() {
            *before = open;
        }
        self.client = client.clone();
        Ok(())
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is not in progress any more.
    pub(crate) fn complete(&self) {
        let open = self.open().take();
        if open.is_some() {
            self.client.admission().in_progress.line(self.over).handshakes.remove(&self.number);
        }
    }

    /// Waits until it has taken too long, or has to make room for another; that is counted, and given. Cancel-safe.
    pub(crate) async fn overdue(&self, deadline: Instant) -> Refusal {
        let reason = tokio::select! {
            () = tokio::time::sleep_until(deadline) => Refusal::HandshakeTimeout,
            () = self.ousted.notified() => Refusal::Handshakes,
        };
        self.client.refused(reason)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.complete();
    }
}
