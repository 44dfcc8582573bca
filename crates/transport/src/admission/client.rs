//! One address, and what it has open.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::{Admission, Key, Refusal};

/// What is counted for each address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connections,
    /// Those of them that are over TCP.
    Tcp,
    Handshakes,
    Requests,
    Sessions,
}

/// An address that has something open here. Clones are the same one; it is forgotten with the last.
#[derive(Clone)]
pub(crate) struct Client {
    admission: Arc<Admission>,
    /// `None` only while it is being dropped.
    entry: Option<Arc<Entry>>,
}

pub(super) struct Entry {
    key: Key,
    /// Counts in all only, as what a trusted proxy carries.
    exempt: bool,
    open: [AtomicUsize; 5],
}

impl Entry {
    pub(super) fn new((key, exempt): (Key, bool)) -> Self {
        Self { key, exempt, open: [const { AtomicUsize::new(0) }; 5] }
    }

    pub(super) fn id(&self) -> (Key, bool) {
        (self.key, self.exempt)
    }
}

impl Client {
    pub(super) fn new(admission: Arc<Admission>, entry: Arc<Entry>) -> Self {
        Self { admission, entry: Some(entry) }
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    fn entry(&self) -> &Entry {
        self.entry.as_ref().expect("there until it is dropped")
    }

    /// The same address without the exemption of a trusted proxy: for what it does not forward for another client.
    pub(crate) fn itself(self) -> Self {
        if self.entry().exempt { self.admission.entry((self.key(), false)) } else { self }
    }

    /// Whom it counts as.
    pub(crate) fn key(&self) -> Key {
        self.entry().key
    }

    /// Begins a request.
    pub(crate) fn request(&self) -> Result<Open, Refusal> {
        Open::of(self, Kind::Requests).map_err(|reason| self.refused(reason))
    }

    /// Begins a request that came in early data, from an address that may be forged: the handshake is not complete.
    /// Once it is, the request has to [claim](Open::claim) its place.
    pub(crate) fn early_request(&self) -> Result<Open, Refusal> {
        Open::unclaimed(self, Kind::Requests).map_err(|reason| self.refused(reason))
    }

    /// Begins a session.
    pub(crate) fn session(&self) -> Result<Open, Refusal> {
        Open::of(self, Kind::Sessions).map_err(|reason| self.refused(reason))
    }

    /// Counts a refusal of this client.
    pub(crate) fn refused(&self, reason: Refusal) -> Refusal {
        self.admission.refused(reason, self.key());
        reason
    }

    /// One more of a kind, if the address may have it.
    fn take(&self, kind: Kind) -> Result<(), Refusal> {
        let (limit, reason) = self.admission.per_address(kind);
        let limit = if self.entry().exempt { usize::MAX } else { limit };
        let more = |open| (open < limit).then_some(open + 1);
        let taken = self.entry().open[kind as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_| reason)
    }

    /// Whether it could have one more of a kind.
    fn check(&self, kind: Kind) -> Result<(), Refusal> {
        let (limit, reason) = self.admission.per_address(kind);
        let open = self.entry().open[kind as usize].load(Ordering::Relaxed);
        if !self.entry().exempt && open >= limit { Err(reason) } else { Ok(()) }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.entry.as_ref().map(|entry| entry.key)).finish()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.admission.forget(entry);
        }
    }
}

/// Something that counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Open {
    client: Client,
    kind: Kind,
    /// Whether it counts for the address, and not only in all.
    is_claimed: AtomicBool,
}

impl Open {
    /// What counts for an address.
    pub(super) fn of(client: &Client, kind: Kind) -> Result<Self, Refusal> {
        client.take(kind)?;
        Ok(Self::new(client, kind, true))
    }

    /// What is not known to be of the address that it names: it does not count for it, and could.
    pub(super) fn unclaimed(client: &Client, kind: Kind) -> Result<Self, Refusal> {
        client.check(kind)?;
        Ok(Self::new(client, kind, false))
    }

    /// What counts for no address, and only in all.
    pub(super) fn uncounted(client: &Client, kind: Kind) -> Self {
        Self::new(client, kind, false)
    }

    fn new(client: &Client, kind: Kind, is_claimed: bool) -> Self {
        if let Some(gauge) = client.admission.gauge(kind) {
            gauge.fetch_add(1, Ordering::Relaxed);
        }
        Self { client: client.clone(), kind, is_claimed: is_claimed.into() }
    }

    /// Has it count for its address, which is now known. One task does this.
    pub(crate) fn claim(&self) -> Result<(), Refusal> {
        if !self.is_claimed.load(Ordering::Relaxed) {
            self.client.take(self.kind)?;
            self.is_claimed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(gauge) = self.client.admission.gauge(self.kind) {
            gauge.fetch_sub(1, Ordering::Relaxed);
        }
        if *self.is_claimed.get_mut() {
            self.client.entry().open[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{
        admission::{Admission, AskRoom, Counters, Refusal},
        limits::Limits,
    };

    #[test]
    fn early_requests_count_for_their_address_once_it_is_known() {
        let limits = Limits::default().requests_per_address(1);
        let admission = Admission::new(&limits, Counters::default(), Box::new(|_| false), AskRoom::default());
        let client = Arc::new(admission).client([192, 0, 2, 1].into());
        let early = [client.early_request().unwrap(), client.early_request().unwrap()];
        let request = client.request().unwrap();
        assert_eq!(client.early_request().unwrap_err(), Refusal::RequestsPerAddress);
        assert_eq!(early[0].claim().unwrap_err(), Refusal::RequestsPerAddress);
        drop(request);
        early[0].claim().unwrap();
        early[0].claim().unwrap();
        early[1].claim().unwrap_err();
        client.request().unwrap_err();
        drop(early);
        client.request().unwrap();
    }
}
