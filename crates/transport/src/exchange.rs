//! Requests from their head to their end, for what writes access logs: what was answered, how much was sent, how it
//! ended, and the ids by which lines of logs are found.
//!
//! [`ServerBuilder::on_request`](crate::server::ServerBuilder::on_request) has the hook.

mod ids;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, StatusCode, request::Parts};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    connection::{ConnectionHandle, Protocol, Standing},
    panics,
};
use ids::X_REQUEST_ID;
pub use ids::{RequestId, TraceParent};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestKind {
    /// A response.
    Response,
    /// A WebTransport session.
    Session,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestEnd {
    /// The response is complete and has left: over HTTP/3, its client has acknowledged it. A session was closed by
    /// either side, without an error.
    Complete,
    /// This side broke it off: its body failed, it was cut, its client took nothing for too long, or the server stopped.
    Cut,
    /// The client no longer wanted it, or its connection was lost.
    Gone,
}

impl RequestEnd {
    /// One word for it: `complete`, `cut` or `gone`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Cut => "cut",
            Self::Gone => "gone",
        }
    }
}

/// What has come of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// What was answered; `None` if nothing was.
    pub status: Option<StatusCode>,
    /// Bytes of the response's body that were handed to the connection, without what frames it. Of a session, those of
    /// its streams and datagrams.
    pub sent: u64,
    /// Bytes of the request's body that were read. Of a session, those of its streams and datagrams.
    pub received: u64,
    /// The time from the request's head to its end.
    pub duration: Duration,
    /// How it ended.
    pub end: RequestEnd,
}

/// What is called at the end of a request.
pub type AtEnd = Box<dyn FnOnce(&Outcome) + Send>;

type Hook = dyn Fn(&mut Parts, RequestKind) -> Option<AtEnd> + Send + Sync;

/// An application's part in the life of requests.
#[derive(Clone, Default)]
pub(crate) struct Exchanges(Option<Arc<Hook>>);

impl fmt::Debug for Exchanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Exchanges").field(&self.0.is_some()).finish()
    }
}

impl Exchanges {
    pub(crate) fn new(hook: impl Fn(&mut Parts, RequestKind) -> Option<AtEnd> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    /// Begins to watch a request whose head has come on a connection.
    pub(crate) fn begin(&self, head: &mut Parts, kind: RequestKind, connection: &ConnectionHandle) -> Exchange {
        let Some(hook) = &self.0 else { return Exchange(None) };
        if head.extensions.get::<ConnectionHandle>().is_none() {
            // It is refused before it is looked at.
            head.extensions.insert(connection.clone());
        }
        let at_end = panics::caught(|| hook(head, kind)).unwrap_or_else(|panic| {
            error!("the hook of requests panicked: {panic}");
            None
        });
        let id = head.extensions.get().cloned();
        Exchange(at_end.map(|at_end| Arc::new(Live::new((connection.clone(), id), at_end))))
    }
}

/// A request while it lasts, for those who know something of its end. It has ended when the last clone is dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exchange(Option<Arc<Live>>);

struct Live {
    begun: Instant,
    connection: ConnectionHandle,
    id: Option<RequestId>,
    /// 0 before the head of the response.
    status: AtomicU16,
    sent: AtomicU64,
    received: Arc<AtomicU64>,
    /// The whole response has been handed over, sent or not.
    ended: AtomicBool,
    /// 0 while nothing is known of the end, then the first that is.
    end: AtomicU8,
    /// Cancelled when this side breaks it off.
    cuts: Mutex<Vec<CancellationToken>>,
    at_end: Mutex<Option<AtEnd>>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("connection", &self.connection.id()).finish_non_exhaustive()
    }
}

const COMPLETE: u8 = 1;
const CUT: u8 = 2;
const GONE: u8 = 3;

impl Exchange {
    /// Whether it is watched by anyone.
    pub(crate) fn is_watched(&self) -> bool {
        self.0.is_some()
    }

    /// Has a response of this server's own name the request, so that its client can tell which one it was.
    pub(crate) fn name(&self, headers: &mut HeaderMap) {
        let id = self.0.as_ref().and_then(|live| live.id.as_ref());
        if let Some(id) = id.and_then(|id| HeaderValue::try_from(id.to_string()).ok()) {
            headers.entry(X_REQUEST_ID).or_insert(id);
        }
    }

    /// The head of the response leaves.
    pub(crate) fn answered(&self, status: StatusCode) {
        if let Some(live) = &self.0 {
            live.status.store(status.as_u16(), Ordering::Relaxed);
        }
    }

    /// More of the response's body was handed to the connection.
    pub(crate) fn sent(&self, bytes: u64) {
        if let Some(live) = &self.0 {
            live.sent.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// What a session has carried.
    pub(crate) fn carried(&self, sent: u64, received: u64) {
        if let Some(live) = &self.0 {
            live.sent.store(sent, Ordering::Relaxed);
            live.received.store(received, Ordering::Relaxed);
        }
    }

    /// The response is written to its end. Has it left?
    pub(crate) fn ended(&self) {
        if let Some(live) = &self.0 {
            live.ended.store(true, Ordering::Relaxed);
        }
    }

    /// What was written has left.
    pub(crate) fn left(&self) {
        if let Some(live) = self.0.as_ref().filter(|live| live.ended.load(Ordering::Relaxed)) {
            live.mark(COMPLETE);
        }
    }

    /// The client has all of it.
    pub(crate) fn complete(&self) {
        self.mark(COMPLETE);
    }

    /// This side breaks it off.
    pub(crate) fn cut(&self) {
        self.mark(CUT);
    }

    /// The client does not want it any more.
    pub(crate) fn gone(&self) {
        self.mark(GONE);
    }

    fn mark(&self, end: u8) {
        if let Some(live) = &self.0 {
            live.mark(end);
        }
    }

    /// Once this is cancelled, an end of which nothing else is known is one by this side.
    pub(crate) fn cut_with(&self, token: impl FnOnce() -> CancellationToken) {
        if let Some(live) = &self.0 {
            live.cuts.lock().unwrap_or_else(PoisonError::into_inner).push(token());
        }
    }

    /// Counts what is read of the request's body; `None` if it is not needed.
    pub(crate) fn received(&self) -> Option<Arc<AtomicU64>> {
        self.0.as_ref().map(|live| live.received.clone())
    }
}

impl Live {
    fn new((connection, id): (ConnectionHandle, Option<RequestId>), at_end: AtEnd) -> Self {
        Self {
            begun: Instant::now(),
            connection,
            id,
            status: AtomicU16::new(0),
            sent: AtomicU64::new(0),
            received: Arc::default(),
            ended: AtomicBool::new(false),
            end: AtomicU8::new(0),
            cuts: Mutex::default(),
            at_end: Mutex::new(Some(at_end)),
        }
    }

    fn mark(&self, end: u8) {
        // The first one knows; what follows from it comes here as well.
        let _ = self.end.compare_exchange(0, end, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// How it ended, once the last clone is dropped.
    fn end(&mut self) -> RequestEnd {
        match *self.end.get_mut() {
            COMPLETE => RequestEnd::Complete,
            CUT => RequestEnd::Cut,
            GONE => RequestEnd::Gone,
            _ => {
                let cuts = self.cuts.get_mut().unwrap_or_else(PoisonError::into_inner);
                let by_this_side = match (self.connection.standing(), self.connection.protocol()) {
                    // Written, and not acknowledged yet.
                    (Standing::Open, Protocol::Quic) if *self.ended.get_mut() => return RequestEnd::Complete,
                    // Over TCP it may be lost without that having been noticed.
                    (Standing::Open, protocol) => protocol == Protocol::Quic,
                    (Standing::Closed, _) => true,
                    (Standing::Lost, _) => false,
                };
                match by_this_side || cuts.iter().any(CancellationToken::is_cancelled) {
                    true => RequestEnd::Cut,
                    false => RequestEnd::Gone,
                }
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let end = self.end();
        let Some(at_end) = self.at_end.get_mut().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let outcome = Outcome {
            status: StatusCode::from_u16(*self.status.get_mut()).ok(),
            sent: *self.sent.get_mut(),
            received: self.received.load(Ordering::Relaxed),
            duration: self.begun.elapsed(),
            end,
        };
        if let Err(panic) = panics::caught(|| at_end(&outcome)) {
            error!("the hook of a request's end panicked: {panic}");
        }
    }
}
