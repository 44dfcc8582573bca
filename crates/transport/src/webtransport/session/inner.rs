//! The state of a session, which its handles, its CONNECT stream and its connection share.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use h3cast_proto::code;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::Closed;
use crate::{
    connection::ConnectionHandle,
    exchange::Exchange,
    guard::Begun,
    quic,
    webtransport::{
        capsule::MAX_REASON,
        registry::Seat,
        stream::{RecvStream, SendStream, SessionGone},
        unread::Unread,
    },
};

/// How many streams that the peer opened wait to be accepted. The next one is refused. Besides, as many that it
/// has reset already: those no longer count against what QUIC lets it open, and must not crowd out others.
const ACCEPT_QUEUE: usize = 128;

/// How many received datagrams wait to be read. The oldest is dropped for the next one.
const DATAGRAM_QUEUE: usize = 256;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct SessionInner {
    pub(super) id: u64,
    pub(super) conn: quic::Connection,
    pub(super) handle: ConnectionHandle,
    pub(super) protocol: Option<String>,
    pub(super) uni: Queue<RecvStream>,
    pub(super) bi: Queue<(SendStream, RecvStream)>,
    pub(super) datagrams: Queue<Bytes>,
    pub(super) opened: Instant,
    pub(super) unread: Arc<Unread>,
    /// The streams in the application's hands, to be reset when the session ends.
    streams: Mutex<Vec<Weak<dyn SessionGone>>>,
    /// The same once it has ended, until they are reset.
    ending: Mutex<Vec<Arc<dyn SessionGone>>>,
    asked: Mutex<Asked>,
    ask: Notify,
    pub(super) state: watch::Sender<SessionState>,
    pub(super) counters: Counters,
}

/// A queue that any number of tasks may take from.
#[derive(Debug)]
pub(super) struct Queue<T> {
    waiting: Mutex<VecDeque<T>>,
    capacity: usize,
    came: Notify,
}

impl<T> Queue<T> {
    fn new(capacity: usize) -> Self {
        Self { waiting: Mutex::default(), capacity, came: Notify::new() }
    }

    /// Gives the item back when there is no room for it beside those of its kind.
    fn push(&self, item: T, kind: impl Fn(&T) -> bool) -> Result<(), T> {
        let mut waiting = lock(&self.waiting);
        let of_kind = kind(&item);
        let full = |waiting: &VecDeque<T>| waiting.iter().filter(|item| kind(item) == of_kind).count() == self.capacity;
        if waiting.len() >= self.capacity && full(&waiting) {
            return Err(item);
        }
        waiting.push_back(item);
        drop(waiting);
        self.came.notify_one();
        Ok(())
    }

    /// Makes room for it when there is none: gives back the oldest one.
    fn push_new(&self, item: T) -> Option<T> {
        let mut waiting = lock(&self.waiting);
        let oldest = if waiting.len() == self.capacity { waiting.pop_front() } else { None };
        waiting.push_back(item);
        drop(waiting);
        self.came.notify_one();
        oldest
    }

    /// Waits for the oldest one. Cancel-safe.
    pub(super) async fn take(&self) -> T {
        loop {
            let came = self.came.notified();
            let oldest = lock(&self.waiting).pop_front();
            match oldest {
                Some(item) => {
                    // Whoever waits beside us may have slept through a notice of ours.
                    self.came.notify_one();
                    return item;
                }
                None => came.await,
            }
        }
    }

    /// Waits until there is one, and gives the lowest key. Cancel-safe.
    pub(super) async fn lowest(&self, key: impl Fn(&T) -> u64) -> u64 {
        loop {
            let came = self.came.notified();
            let lowest = lock(&self.waiting).iter().map(&key).min();
            match lowest {
                Some(lowest) => {
                    self.came.notify_one();
                    return lowest;
                }
                None => came.await,
            }
        }
    }

    /// Takes the one with the lowest key, if there is one.
    pub(super) fn take_lowest(&self, key: impl Fn(&T) -> u64) -> Option<T> {
        let mut waiting = lock(&self.waiting);
        let (at, _) = waiting.iter().enumerate().min_by_key(|(_, item)| key(item))?;
        waiting.remove(at)
    }

    fn clear(&self) {
        // Dropped outside the lock: streams have locks of their own.
        drop(std::mem::take(&mut *lock(&self.waiting)));
    }
}

impl SessionInner {
    pub(in crate::webtransport) fn new(
        seat: &Seat,
        conn: quic::Connection,
        handle: ConnectionHandle,
        protocol: Option<String>,
    ) -> Self {
        Self {
            id: seat.id(),
            conn,
            handle,
            protocol,
            uni: Queue::new(ACCEPT_QUEUE),
            bi: Queue::new(ACCEPT_QUEUE),
            datagrams: Queue::new(DATAGRAM_QUEUE),
            opened: Instant::now(),
            unread: seat.unread(),
            streams: Mutex::default(),
            ending: Mutex::default(),
            asked: Mutex::default(),
            ask: Notify::new(),
            state: watch::Sender::new(SessionState::Open { draining: false }),
            counters: Counters::default(),
        }
    }

    pub(in crate::webtransport) fn connection(&self) -> &quic::Connection {
        &self.conn
    }

    pub(in crate::webtransport) fn ask_close(&self, code: u32, reason: &str) {
        let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
        lock(&self.asked).close.get_or_insert_with(|| (code, reason.to_owned()));
        self.ask.notify_one();
    }

    pub(in crate::webtransport) fn ask_drain(&self) {
        lock(&self.asked).drain = true;
        self.ask.notify_one();
    }

    /// What the application asks next. Cancel-safe.
    pub(in crate::webtransport) async fn asked(&self) -> Ask {
        loop {
            {
                let mut asked = lock(&self.asked);
                if asked.drain && !asked.drained {
                    asked.drained = true;
                    return Ask::Drain;
                }
                if let Some((code, reason)) = &asked.close {
                    return Ask::Close { code: *code, reason: reason.clone() };
                }
            }
            self.ask.notified().await;
        }
    }

    pub(in crate::webtransport) fn peer_drains(&self) {
        self.state.send_if_modified(|state| {
            let change = *state == SessionState::Open { draining: false };
            if change {
                *state = SessionState::Open { draining: true };
            }
            change
        });
    }

    /// Ends the session: whoever waits learns why, and every stream is reset with SESSION_GONE.
    ///
    /// After a close by this side, only the application learns of it at first. The close must reach the peer
    /// before the resets do: they would wake QUIC between its capsule and its FIN, and Chromium then loses
    /// code and reason. When the driver has sent it and ends, it comes here again; only then are the streams
    /// reset, and the session closed.
    pub(in crate::webtransport) fn end(&self, closed: Closed) {
        let mut first = false;
        self.state.send_if_modified(|state| {
            *state = match state {
                SessionState::Open { .. } => {
                    first = true;
                    match closed {
                        Closed::Clean { by_peer: false, .. } => SessionState::Closing(closed),
                        _ => SessionState::Closed(closed),
                    }
                }
                SessionState::Closing(told) => SessionState::Closed(told.clone()),
                SessionState::Closed(_) => return false,
            };
            true
        });
        if first {
            let streams = std::mem::take(&mut *lock(&self.streams));
            let streams: Vec<_> = streams.iter().filter_map(Weak::upgrade).collect();
            streams.iter().for_each(|stream| stream.session_gone());
            *lock(&self.ending) = streams;
            // Streams that nobody accepted. Whoever is just taking one finds the session closed.
            self.uni.clear();
            self.bi.clear();
            self.datagrams.clear();
        }
        if matches!(*self.state.borrow(), SessionState::Closed(_)) {
            let ending = std::mem::take(&mut *lock(&self.ending));
            ending.iter().for_each(|stream| stream.break_off());
        }
    }

    /// Says what the session has carried, and how it has ended.
    pub(in crate::webtransport) fn report(&self, exchange: &Exchange) {
        if !exchange.is_watched() {
            return;
        }
        let tally = &self.counters.tally;
        exchange.carried(tally.sent.load(Ordering::Relaxed), tally.received.load(Ordering::Relaxed));
        match self.ended() {
            Some(Closed::Clean { by_peer: true, .. } | Closed::Clean { code: 0, .. }) => exchange.complete(),
            // Codes say what was wrong.
            Some(Closed::Clean { .. }) => exchange.cut(),
            Some(Closed::Abrupt { code }) if code != code::H3_INTERNAL_ERROR => exchange.gone(),
            // The connection knows more.
            Some(Closed::Abrupt { .. } | Closed::ConnectionLost(_)) | None => {}
        }
    }

    /// How the session has ended, if it has. The peer may not have taken it yet.
    pub(super) fn ended(&self) -> Option<Closed> {
        match &*self.state.borrow() {
            SessionState::Closing(closed) | SessionState::Closed(closed) => Some(closed.clone()),
            SessionState::Open { .. } => None,
        }
    }

    /// Waits for a state of the session's end. Cancel-safe.
    pub(super) async fn wait(&self, wanted: impl Fn(&SessionState) -> bool) -> Closed {
        let mut state = self.state.subscribe();
        match state.wait_for(|state| wanted(state)).await.as_deref() {
            Ok(SessionState::Closing(closed) | SessionState::Closed(closed)) => closed.clone(),
            // The sender lives in `self`.
            _ => unreachable!("the state outlives its session, and an open one has not ended"),
        }
    }

    /// Remembers a stream for the end of the session; resets it at once when that has come.
    fn track<S: SessionGone + 'static>(&self, stream: &Arc<S>) {
        let mut streams = lock(&self.streams);
        if streams.len() == streams.capacity() {
            streams.retain(|stream| stream.strong_count() > 0);
        }
        let weak: Weak<S> = Arc::downgrade(stream);
        streams.push(weak);
        drop(streams);
        if self.ended().is_some() {
            stream.session_gone();
            stream.break_off();
        }
    }

    pub(super) fn adopt_send(&self, stream: quic::SendStream) -> SendStream {
        let stream = SendStream::new(stream, self.counters.tally.clone());
        self.track(stream.cell());
        stream
    }

    pub(super) fn adopt_recv(&self, stream: quic::RecvStream, begun: Begun) -> RecvStream {
        let stream = RecvStream::new(stream, begun, self.id, self.counters.tally.clone());
        self.track(stream.cell());
        stream
    }

    pub(in crate::webtransport) fn deliver_uni(&self, recv: quic::RecvStream, begun: Begun) {
        self.counters.streams_accepted.fetch_add(1, Ordering::Relaxed);
        if let Err(recv) = self.uni.push(self.adopt_recv(recv, begun), RecvStream::came_reset) {
            self.refused(&recv);
        }
    }

    pub(in crate::webtransport) fn deliver_bi(&self, send: quic::SendStream, recv: quic::RecvStream, begun: Begun) {
        self.counters.streams_accepted.fetch_add(1, Ordering::Relaxed);
        let streams = (self.adopt_send(send), self.adopt_recv(recv, begun));
        if let Err((send, recv)) = self.bi.push(streams, |(_, recv)| recv.came_reset()) {
            send.refuse(code::WT_BUFFERED_STREAM_REJECTED);
            self.refused(&recv);
        }
    }

    fn refused(&self, recv: &RecvStream) {
        recv.refuse(code::WT_BUFFERED_STREAM_REJECTED);
        if recv.came_reset() {
            self.unreported();
        }
    }

    /// Counts a stream that was reset at once, and will not reach the application.
    pub(in crate::webtransport) fn unreported(&self) {
        self.counters.streams_unreported.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::webtransport) fn deliver_datagram(&self, payload: Bytes) {
        self.counters.datagrams_received.fetch_add(1, Ordering::Relaxed);
        self.counters.tally.received(payload.len());
        if self.datagrams.push_new(payload).is_some() {
            self.counters.datagrams_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The bytes that a session's streams and datagrams have carried, which its streams count.
#[derive(Debug, Default)]
pub(in crate::webtransport) struct Tally {
    pub(in crate::webtransport) sent: AtomicU64,
    pub(in crate::webtransport) received: AtomicU64,
}

impl Tally {
    pub(in crate::webtransport) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(in crate::webtransport) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) tally: Arc<Tally>,
    pub(super) streams_opened: AtomicU64,
    pub(super) streams_accepted: AtomicU64,
    pub(super) streams_unreported: AtomicU64,
    pub(super) datagrams_sent: AtomicU64,
    pub(super) datagrams_received: AtomicU64,
    pub(super) datagrams_dropped: AtomicU64,
}

/// Where a session is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::webtransport) enum SessionState {
    Open {
        draining: bool,
    },
    /// This side has closed it, and the peer has not yet taken that.
    Closing(Closed),
    Closed(Closed),
}

/// What the application asks of the session's CONNECT stream.
#[derive(Debug)]
pub(in crate::webtransport) enum Ask {
    Close { code: u32, reason: String },
    Drain,
}

#[derive(Debug, Default)]
struct Asked {
    close: Option<(u32, String)>,
    drain: bool,
    drained: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
