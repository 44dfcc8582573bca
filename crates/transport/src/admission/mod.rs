//! Who gets in, and what it may cost: one place that decides, for QUIC and TCP alike.
//!
//! [`Limits`] has the settings. What counts for an address (see [`Key`]) counts from its first packet to its end; a refusal is counted by its reason ([`Counters`]), logged at a bounded rate, and answered: with
//! CONNECTION_REFUSED over QUIC, a reset over TCP before any work for TLS, and 429 for requests and sessions.
//!
//! A QUIC client has to show that its address is its own (Retry,
//! [RFC 9000 §8.1.2](https://www.rfc-editor.org/rfc/rfc9000#section-8.1.2)) when many handshakes are in progress, when
//! many begin, and when three quarters of all places are taken. What has not been shown counts for no address, so
//! that forged packets cannot use up the share of the address that they name.

mod aside;
mod client;
mod idlers;
mod key;
mod log;
mod place;
mod places;
mod rate;
mod refusal;
mod room;

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

pub(crate) use self::{
    aside::Aside,
    client::{Client, Open},
    idlers::{Idler, ListenerPlaces},
    place::{Handshake, Place},
    room::AskRoom,
};
use self::{
    client::{Entry, Kind},
    idlers::Idlers,
    place::{InProgress, Over},
    places::{Places, Taken},
    rate::Rate,
};
pub use self::{
    key::Key,
    refusal::{Counters, Refusal, Snapshot},
    room::{Carrier, Room},
};
use crate::limits::Limits;

/// How long a connection may take to give its place up before another is asked for its own: it may have got a request
/// in the same moment.
const PAUSE: Duration = Duration::from_millis(500);

/// How many places of a plain listener are kept for the server's status.
const RESERVED: usize = 16;

/// Decides about the clients of one server.
pub(crate) struct Admission {
    limits: RwLock<Limits>,
    /// One for each connection.
    places: Arc<Places>,
    /// Every address that has something open. Those of a network that are exempt are apart from the others.
    clients: Mutex<HashMap<(Key, bool), Arc<Entry>>>,
    counters: Counters,
    /// First packets over QUIC, of clients that have not been asked for a Retry.
    initials: Rate,
    in_progress: InProgress,
    /// What each listener over TCP has: its connections without a request, and its places.
    listeners: Mutex<Vec<(Weak<Idlers>, Weak<Places>)>>,
    exempt: Exempt,
    room: AskRoom,
}

/// Which addresses no limit per address is for.
pub(crate) type Exempt = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("now", &self.counters.snapshot()).finish_non_exhaustive()
    }
}

/// What becomes of the first packet of a QUIC connection.
pub(crate) enum Verdict {
    Accept(Place, Handshake),
    /// The client has to show first that its address is its own.
    Retry,
    Refuse,
}

impl Admission {
    /// By these limits; the addresses that are `exempt` count in all, and not by address.
    pub(crate) fn new(limits: &Limits, counters: Counters, exempt: Exempt, room: AskRoom) -> Self {
        Self {
            limits: RwLock::new(*limits),
            places: Places::new(limits.connections),
            clients: Mutex::default(),
            counters,
            initials: Rate::default(),
            in_progress: InProgress::default(),
            listeners: Mutex::default(),
            exempt,
            room,
        }
    }

    /// The limits as they are now.
    pub(crate) fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps to these from now on. What has got in stays.
    pub(crate) fn set_limits(&self, limits: Limits) {
        let mut now = self.limits.write().unwrap_or_else(PoisonError::into_inner);
        self.places.resize(limits.connections);
        for (_, places) in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(places) = places.upgrade() {
                places.resize(limits.tcp_connections);
            }
        }
        *now = limits;
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, reason: Refusal, client: impl fmt::Display) {
        self.counters.refused(reason, client);
    }

    /// The client at an address.
    pub(crate) fn client(self: &Arc<Self>, address: IpAddr) -> Client {
        self.entry((Key::from(address), (self.exempt)(address)))
    }

    fn entry(self: &Arc<Self>, id: (Key, bool)) -> Client {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = clients.entry(id).or_insert_with(|| Arc::new(Entry::new(id)));
        Client::new(self.clone(), entry.clone())
    }

    /// Drops one handle of a client, and the client with the last.
    fn forget(&self, entry: Arc<Entry>) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let id = entry.id();
        drop(entry);
        if clients.get(&id).is_some_and(|left| Arc::strong_count(left) == 1) {
            clients.remove(&id);
        }
    }

    /// What becomes of a QUIC connection whose first packet has come.
    pub(crate) fn quic(self: &Arc<Self>, address: IpAddr, validated: bool) -> Verdict {
        self.counters.0.initials.fetch_add(1, Ordering::Relaxed);
        // A client that has been asked for a Retry comes twice, and counts once: what is counted ends with the flood.
        let many = !validated && self.initials.count() > self.limits().retry_initials;
        let room = self.room.ask(Carrier::Quic);
        if let Room::Full(reason) = room {
            self.refused(reason, address);
            return Verdict::Refuse;
        }
        if !validated && (many || room == Room::Little || self.is_pressed()) {
            self.counters.0.retries.fetch_add(1, Ordering::Relaxed);
            return Verdict::Retry;
        }
        let client = self.client(address);
        let admitted = self.admit(&client, validated);
        match admitted {
            Ok((place, handshake)) => Verdict::Accept(place, handshake),
            Err(reason) => {
                client.refused(reason);
                Verdict::Refuse
            }
        }
    }

    /// Whether what is left is for clients whose address is known to be their own.
    fn is_pressed(&self) -> bool {
        self.in_progress.now(Over::Quic) >= self.limits().retry_handshakes
            || self.places.free() <= self.places.all() / 4
    }

    fn admit(&self, client: &Client, validated: bool) -> Result<(Place, Handshake), Refusal> {
        let one = self.places.try_take().ok_or(Refusal::Connections)?;
        let place = Place::quic(client, validated, one)?;
        Ok((place, Handshake::begin(client, Over::Quic, validated, self.limits().all_handshakes())?))
    }

    /// The places of one more listener over TCP.
    pub(crate) fn listener(&self) -> ListenerPlaces {
        // As long as it is not among them, they do not change.
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner);
        let places = ListenerPlaces::new(limits.tcp_connections);
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|(idlers, _)| idlers.strong_count() > 0);
        listeners.push((Arc::downgrade(places.idlers()), Arc::downgrade(places.places())));
        places
    }

    /// The places of a listener that are kept for the server's status, in addition to the others.
    pub(crate) fn reserve() -> ListenerPlaces {
        ListenerPlaces::new(RESERVED)
    }

    /// Waits until the listener has a place for a connection over TCP, and the server; those that have waited longest
    /// for a request make room. When all have a request, that is counted, once for this connection, and it gets a
    /// place of the `reserve` if there is one. Cancel-safe.
    pub(crate) async fn seat(
        &self,
        place: &mut Place,
        (listener, reserve): (&ListenerPlaces, Option<&ListenerPlaces>),
        is_counted: &mut bool,
    ) {
        if !place.is_reserved() && self.seat_among(place, listener, reserve.is_some(), is_counted).await {
            return;
        }
        let Some(reserve) = reserve else { return };
        if let Some(permit) = reserve.next(self, || false).await {
            if !place.is_reserved() {
                *place = Place::reserved(&place.client().clone());
            }
            place.sit(reserve, permit);
        }
    }

    /// Whether there is a place among all; if there is none and it `may_leave`, it waits no longer.
    async fn seat_among(
        &self,
        place: &mut Place,
        listener: &ListenerPlaces,
        may_leave: bool,
        is_counted: &mut bool,
    ) -> bool {
        let key = place.client().key();
        let mut full = |reason| {
            if !std::mem::replace(is_counted, true) {
                self.refused(reason, key);
            }
            may_leave
        };
        let Some(permit) = listener.next(self, || full(Refusal::TcpConnections)).await else { return false };
        while self.places.free() == 0 {
            if !self.oust_new() && full(Refusal::Connections) {
                return false;
            }
            // Not for ever: another may be there meanwhile that can be ended.
            let _ = timeout(PAUSE, self.places.take()).await;
        }
        if self.places.free() <= self.places.all() / 8 {
            self.oust_new();
        }
        place.sit(listener, permit);
        true
    }

    /// Ends the connection over TCP that has been there longest without a first request. Whether there was one.
    fn oust_new(&self) -> bool {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let listeners: Vec<_> = listeners.iter().filter_map(|(idlers, _)| idlers.upgrade()).collect();
        let oldest = listeners.iter().filter_map(|idlers| Some((idlers.oldest_new()?, idlers)));
        if let Some((_, idlers)) = oldest.min_by_key(|(number, _)| *number)
            && let Some(key) = idlers.oust_new()
        {
            self.refused(Refusal::Connections, key);
            return true;
        }
        false
    }

    /// A TCP connection that was accepted; it still needs a [`seat`](Self::seat). `None` when it is refused. One that
    /// may be `reserved` is refused only when there are no file descriptors.
    pub(crate) fn tcp(self: &Arc<Self>, address: IpAddr, carrier: Carrier, reserved: bool) -> Option<Place> {
        let client = self.client(address);
        let admitted = match self.room.ask(carrier) {
            Room::Full(reason) => Err(reason),
            Room::Plenty | Room::Little => Place::tcp(&client),
        };
        match admitted.map_err(|reason| client.refused(reason)) {
            Ok(place) => Some(place),
            Err(reason) if reserved && reason != Refusal::Descriptors => Some(Place::reserved(&client)),
            Err(_) => None,
        }
    }

    /// Begins the TLS handshake of a TCP connection. `None` when it is refused.
    pub(crate) fn tls(&self, client: &Client) -> Option<Handshake> {
        let begun = Handshake::begin(client, Over::Tcp, true, self.limits().all_handshakes());
        begun.map_err(|reason| client.refused(reason)).ok()
    }

    /// Whether the application has little left for new connections.
    #[cfg(feature = "tcp")]
    pub(crate) fn is_short(&self) -> bool {
        // Which takes nothing that is counted.
        self.room.ask(Carrier::Quic) != Room::Plenty
    }

    /// Waits for a place of the server's. Cancel-safe.
    async fn place(&self) -> Option<Taken> {
        self.places.take().await
    }

    /// How many of a kind one address may have; `usize::MAX` for no limit.
    fn per_address(&self, kind: Kind) -> (usize, Refusal) {
        let limits = self.limits();
        let of_one = |limit| if limit == 0 { usize::MAX } else { limit };
        match kind {
            Kind::Connections => (limits.connections_of_one(), Refusal::ConnectionsPerAddress),
            Kind::Tcp => (limits.tcp_connections_of_one(), Refusal::ConnectionsPerAddress),
            Kind::Handshakes => (limits.handshakes_of_one(), Refusal::HandshakesPerAddress),
            Kind::Requests => (of_one(limits.requests_per_address), Refusal::RequestsPerAddress),
            Kind::Sessions => (of_one(limits.sessions_per_address), Refusal::SessionsPerAddress),
        }
    }

    fn gauge(&self, kind: Kind) -> Option<&AtomicU64> {
        let tally = &self.counters.0;
        match kind {
            Kind::Connections => Some(&tally.connections),
            // They are among those.
            Kind::Tcp => None,
            Kind::Handshakes => Some(&tally.handshakes),
            Kind::Requests => Some(&tally.requests),
            Kind::Sessions => Some(&tally.sessions),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy may be in the network of others, which count together.
    #[test]
    fn an_exemption_is_of_one_address() {
        let limits = Limits::default().requests_per_address(1);
        let [neighbour, other, proxy] = ["2001:db8::2", "2001:db8::3", "2001:db8::1"].map(|at| at.parse().unwrap());
        let exempt = Box::new(move |address| address == proxy);
        let admission = Arc::new(Admission::new(&limits, Counters::default(), exempt, AskRoom::default()));
        for [first, second] in [[neighbour, proxy], [proxy, neighbour]] {
            let _both = [admission.client(first), admission.client(second)];
            let ask = |address| admission.client(address).request();
            let open = [ask(proxy), ask(neighbour), ask(proxy)];
            assert!(open.iter().all(Result::is_ok), "{first} first: {open:?}");
            assert!(ask(neighbour).is_err() && ask(other).is_err(), "{first} first");
        }
        assert!(admission.clients.lock().unwrap().is_empty(), "all are forgotten");
    }

    #[tokio::test]
    async fn the_second_first_packet_of_a_client_does_not_count_as_one_more() {
        let begin = |initials| {
            let limits = Limits::default().retry_initials(initials);
            Arc::new(Admission::new(&limits, Counters::default(), Box::new(|_| false), AskRoom::default()))
        };
        let quic = |admission: &Arc<Admission>, validated| admission.quic([192, 0, 2, 1].into(), validated);
        let admission = begin(2);
        assert!(matches!(quic(&admission, false), Verdict::Accept(..)));
        for _ in 0..5 {
            // It has been asked for a Retry before, and has shown its address.
            assert!(matches!(quic(&admission, true), Verdict::Accept(..)));
        }
        assert!(matches!(quic(&admission, false), Verdict::Accept(..)));
        assert!(matches!(quic(&begin(0), false), Verdict::Retry));
    }
}
