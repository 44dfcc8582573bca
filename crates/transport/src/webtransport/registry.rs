//! Which sessions a connection has, and the way of streams and datagrams to them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h3cast_proto::{Violation, code, datagram};
use tokio::sync::Notify;
use tracing::debug;

use super::{session::SessionInner, unread::Unread};
use crate::{
    guard::{Begun, Delivery, Sessions},
    quic::{RecvStream, SendStream},
};

/// How long a stream may wait for its session, whose CONNECT may be on its way or still be
/// answered (draft-ietf-webtrans-http3 §4.6 asks for a bound and names none).
const STREAM_WAIT: Duration = Duration::from_secs(5);

/// How many streams of one connection may wait at once.
const STREAMS_WAITING: usize = 64;

/// How many datagrams of one connection may wait for their session.
const DATAGRAMS_WAITING: usize = 64;

/// How many sessions that have ended are remembered, so that their late streams are told apart
/// from early ones.
const ENDED_REMEMBERED: usize = 64;

/// The sessions of one connection.
#[derive(Debug)]
pub(crate) struct Registry {
    state: Mutex<RegistryState>,
    /// Wakes the streams that wait when a session comes or goes.
    changed: Notify,
    waiting: AtomicUsize,
    max_sessions: usize,
    unread: Arc<Unread>,
}

#[derive(Debug, Default)]
struct RegistryState {
    sessions: HashMap<u64, Entry>,
    ended: VecDeque<u64>,
    early_datagrams: VecDeque<(u64, Bytes)>,
    /// Sessions are asked to end soon, also those that open from now on.
    draining: bool,
}

#[derive(Debug)]
enum Entry {
    /// Its CONNECT has come and is being answered.
    Asked,
    Open(Arc<SessionInner>),
}

/// Where a stream belongs.
enum StreamOwner {
    Session(Arc<SessionInner>),
    Gone,
    NotYet,
}

/// A place among a connection's sessions; given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    registry: Arc<Registry>,
    id: u64,
}

impl Seat {
    /// Takes a place for the session `id`, or says that there is none left.
    pub(crate) fn take(registry: &Arc<Registry>, id: u64) -> Option<Self> {
        let mut state = registry.state();
        if state.sessions.len() >= registry.max_sessions {
            return None;
        }
        state.sessions.insert(id, Entry::Asked);
        drop(state);
        Some(Self { registry: registry.clone(), id })
    }

    /// The id of its session.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The connection's streams whose beginning has not been read.
    pub(super) fn unread(&self) -> Arc<Unread> {
        self.registry.unread.clone()
    }

    /// Opens the session: streams and datagrams that waited for it reach it now.
    pub(super) fn open(&self, session: &Arc<SessionInner>) {
        let registry = &self.registry;
        let mut state = registry.state();
        state.sessions.insert(self.id, Entry::Open(session.clone()));
        if state.draining {
            session.ask_drain();
        }
        let id = self.id;
        state.early_datagrams.retain(|(of, payload)| {
            if *of == id {
                session.deliver_datagram(payload.clone());
            }
            *of != id
        });
        drop(state);
        registry.changed.notify_waiters();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.registry.ended(self.id);
    }
}

impl Registry {
    pub(crate) fn new(max_sessions: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            waiting: AtomicUsize::new(0),
            max_sessions,
            unread: Arc::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, RegistryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the session `id` has ended, or will never be.
    pub(crate) fn ended(&self, id: u64) {
        let mut state = self.state();
        state.sessions.remove(&id);
        if state.ended.len() == ENDED_REMEMBERED {
            state.ended.pop_front();
        }
        state.ended.push_back(id);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Asks every session to end soon.
    pub(crate) fn drain(&self) {
        let mut state = self.state();
        state.draining = true;
        for entry in state.sessions.values() {
            if let Entry::Open(session) = entry {
                session.ask_drain();
            }
        }
    }

    /// Closes every session with code 0.
    pub(crate) fn close_all(&self) {
        for entry in self.state().sessions.values() {
            if let Entry::Open(session) = entry {
                session.ask_close(0, "");
            }
        }
    }

    fn place(&self, id: u64) -> StreamOwner {
        let state = self.state();
        match state.sessions.get(&id) {
            Some(Entry::Open(session)) => StreamOwner::Session(session.clone()),
            Some(Entry::Asked) => StreamOwner::NotYet,
            None if state.ended.contains(&id) => StreamOwner::Gone,
            None => StreamOwner::NotYet,
        }
    }

    /// Finds the session of a stream, waiting for it within the bounds; an error is the code to
    /// refuse the stream with.
    async fn find(&self, id: u64) -> Result<Arc<SessionInner>, u64> {
        let rejected = || code::WT_BUFFERED_STREAM_REJECTED;
        match self.place(id) {
            StreamOwner::Session(session) => return Ok(session),
            StreamOwner::Gone => return Err(code::WT_SESSION_GONE),
            StreamOwner::NotYet => {}
        }
        let _waiting = Waiting::take(&self.waiting).ok_or_else(rejected)?;
        let found = async {
            loop {
                let changed = self.changed.notified();
                match self.place(id) {
                    StreamOwner::Session(session) => return Ok(session),
                    StreamOwner::Gone => return Err(code::WT_SESSION_GONE),
                    StreamOwner::NotYet => changed.await,
                }
            }
        };
        tokio::time::timeout(STREAM_WAIT, found).await.unwrap_or_else(|_| Err(rejected()))
    }

    /// Takes a QUIC datagram ([RFC 9297 §2.1](https://www.rfc-editor.org/rfc/rfc9297#section-2.1)).
    pub(crate) fn deliver_datagram(&self, datagram: &[u8]) -> Result<(), Violation> {
        let (id, payload) = datagram::parse(datagram)?;
        // Copied: it may wait for long, and QUIC's buffer would keep all of the packets that came with it.
        let payload = Bytes::copy_from_slice(payload);
        let mut state = self.state();
        match state.sessions.get(&id) {
            Some(Entry::Open(session)) => session.deliver_datagram(payload),
            None if state.ended.contains(&id) => {}
            // RFC 9297 §2.1: one for a stream that is not yet known may be kept for a while.
            Some(Entry::Asked) | None => {
                if state.early_datagrams.len() == DATAGRAMS_WAITING {
                    state.early_datagrams.pop_front();
                }
                state.early_datagrams.push_back((id, payload));
            }
        }
        Ok(())
    }
}

impl Sessions for Registry {
    fn deliver_bi(&self, id: u64, mut send: SendStream, mut recv: RecvStream, begun: Begun) -> Delivery<'_> {
        Box::pin(async move {
            match self.find(id).await {
                Ok(session) => session.deliver_bi(send, recv, begun),
                Err(error) => {
                    debug!(session = id, "refusing a stream: {}", code::describe(error));
                    recv.stop(error);
                    send.reset(error);
                }
            }
        })
    }

    fn deliver_uni(&self, id: u64, mut recv: RecvStream, begun: Begun) -> Delivery<'_> {
        Box::pin(async move {
            match self.find(id).await {
                Ok(session) => session.deliver_uni(recv, begun),
                Err(error) => {
                    debug!(session = id, "refusing a stream: {}", code::describe(error));
                    recv.stop(error);
                }
            }
        })
    }

    fn only(&self, stream: u64) -> Option<u64> {
        let state = self.state();
        let mut ids = state.sessions.keys();
        match (ids.next(), ids.next()) {
            // A client's bidirectional stream of a session has a higher id than the session.
            (Some(&id), None) if !stream.is_multiple_of(4) || stream > id => Some(id),
            _ => None,
        }
    }

    fn bi_came(&self, stream: u64) {
        self.unread.came(stream);
    }

    fn bi_read(&self, stream: u64) {
        self.unread.read(stream);
    }

    fn unreported(&self) {
        for entry in self.state().sessions.values() {
            if let Entry::Open(session) = entry {
                session.unreported();
            }
        }
    }
}

/// Counts one waiting stream.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn take(count: &'a AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        // Counted even when refused; the guard counts it off again.
        (waiting.0.fetch_add(1, Ordering::Relaxed) < STREAMS_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
