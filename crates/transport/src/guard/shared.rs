//! What the parts of one connection share.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use h3cast_proto::{Role, Violation, code};
use http::StatusCode;
use tokio::sync::SetOnce;
use tracing::debug;

use super::send::lock;
#[cfg(feature = "server")]
use crate::{
    admission::Aside,
    counts::{Counts, Protocol},
};
use crate::{
    calm::Allowance,
    limits::Limits,
    quic::{Connection, FEW_UNI_STREAMS, OWN_STREAMS, RecvStream, SOME_BI_STREAMS, SendStream},
};

/// Where the streams of a connection's sessions go.
pub(crate) trait Sessions: std::fmt::Debug + Send + Sync {
    /// Takes a bidirectional stream of session `id` from the peer.
    fn deliver_bi(&self, id: u64, send: SendStream, recv: RecvStream, begun: Begun) -> Delivery<'_>;
    /// Takes a unidirectional one.
    fn deliver_uni(&self, id: u64, recv: RecvStream, begun: Begun) -> Delivery<'_>;
    /// The session that a stream of the peer's belongs to if it is one of a session at all, when there is but one.
    fn only(&self, stream: u64) -> Option<u64>;
    /// Says that the peer opened a bidirectional stream, whose beginning will be read.
    fn bi_came(&self, stream: u64);
    /// Says that a bidirectional stream has been delivered, or is none of a session.
    fn bi_read(&self, stream: u64);
    /// Counts a stream of a session that was reset before it named its session, and is not reported.
    fn unreported(&self);
}

/// How far a stream of a session had come when it was delivered.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Its header has been read, and these bytes after it.
    Named(Bytes),
    /// The peer has reset it, with this code.
    Reset(u64),
    /// The peer has stopped the other half. Of its header only this has come, and the rest may still.
    Unnamed(Bytes),
}

/// Ends when the stream has its session, or was refused.
pub(crate) type Delivery<'a> = Pin<Box<dyn Future<Output = ()> + Send + Sync + 'a>>;

/// What the parts of one connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) conn: Connection,
    pub(crate) role: Role,
    pub(crate) limits: Limits,
    pub(crate) sessions: Arc<dyn Sessions>,
    /// Set when the peer's SETTINGS have come.
    settings: SetOnce<()>,
    /// Set when the handshake is complete: what comes after cannot be another's copy.
    handshaken: Arc<SetOnce<()>>,
    violation: OnceLock<Violation>,
    /// What the peer may send that brings nothing.
    allowance: Mutex<Allowance>,
    flooded: AtomicBool,
    pub(super) qpack_encoder_seen: AtomicBool,
    pub(super) qpack_decoder_seen: AtomicBool,
    /// One more than the index of the latest bidirectional stream of the peer's, 0 for none.
    bi_streams: AtomicU64,
    /// The same of the request that h3 took last, which need not be the latest.
    last_request: AtomicU64,
    /// The index of the first request that is refused, once GOAWAY has been sent.
    refused_from: AtomicU64,
    /// Where requests count that are answered here.
    #[cfg(feature = "server")]
    counts: Option<Counts>,
    /// What the connection sets aside for streams.
    #[cfg(feature = "server")]
    aside: Option<Aside>,
}

impl Shared {
    pub(crate) fn new(conn: Connection, role: Role, limits: Limits, sessions: Arc<dyn Sessions>) -> Self {
        Self {
            conn,
            role,
            limits,
            sessions,
            settings: SetOnce::new(),
            handshaken: Arc::default(),
            violation: OnceLock::new(),
            // A client believes its server.
            allowance: Mutex::new(Allowance::new(if role == Role::Server { limits.control_frames } else { 0 })),
            flooded: AtomicBool::new(false),
            qpack_encoder_seen: AtomicBool::new(false),
            qpack_decoder_seen: AtomicBool::new(false),
            bi_streams: AtomicU64::new(0),
            last_request: AtomicU64::new(0),
            refused_from: AtomicU64::new(u64::MAX),
            #[cfg(feature = "server")]
            counts: None,
            #[cfg(feature = "server")]
            aside: None,
        }
    }

    /// Counts requests that are answered before h3 sees them, and what is set aside for streams.
    #[cfg(feature = "server")]
    pub(crate) fn counting(mut self, counts: Counts, aside: Aside) -> Self {
        (self.counts, self.aside) = (Some(counts), Some(aside));
        self
    }

    /// A request is answered so before h3 sees it.
    pub(super) fn answered(&self, status: StatusCode) {
        #[cfg(feature = "server")]
        if let Some(counts) = &self.counts {
            counts.request(Protocol::Http3).answered(status);
        }
        #[cfg(not(feature = "server"))]
        let _ = status;
    }

    /// Allows the peer as many streams as one may have. Pages expect that of a session from its
    /// beginning: Chromium fails what it opens beyond, and does not wait.
    pub(crate) fn allow_many_streams(&self) {
        self.allow_bi_streams();
        self.allow_uni_streams();
    }

    fn allow_bi_streams(&self) {
        #[cfg(feature = "server")]
        if let Some(aside) = &self.aside {
            aside.bi(self.limits.streams);
        }
        self.conn.allow_bi_streams(self.limits.streams);
    }

    fn allow_uni_streams(&self) {
        let streams = self.limits.streams.max(OWN_STREAMS);
        #[cfg(feature = "server")]
        if let Some(aside) = &self.aside {
            aside.uni(streams);
        }
        self.conn.allow_uni_streams(streams);
    }

    /// Says that the peer opened a bidirectional stream.
    pub(super) fn bi_came(&self, id: u64) {
        self.bi_streams.fetch_max(id / 4 + 1, Ordering::Relaxed);
        self.sessions.bi_came(id);
        if id / 4 + 1 == u64::from(SOME_BI_STREAMS) {
            self.allow_bi_streams();
        }
    }

    /// The same of a unidirectional one.
    pub(super) fn uni_came(&self, id: u64) {
        if id / 4 + 1 == u64::from(FEW_UNI_STREAMS) {
            self.allow_uni_streams();
        }
    }

    /// Says that h3 takes a request.
    pub(super) fn request_accepted(&self, id: u64) {
        self.last_request.store(id / 4 + 1, Ordering::Relaxed);
    }

    /// Refuses the requests that have not come yet. Gives what h3's `shutdown` wants: how many more
    /// than the last one that it took are still to be answered, so that GOAWAY names the first that
    /// will not be (RFC 9114 §5.2), and none that is already being read.
    pub(crate) fn refuse_new(&self) -> usize {
        let (came, last) = (self.bi_streams.load(Ordering::Relaxed), self.last_request.load(Ordering::Relaxed));
        if last == 0 {
            // h3 then names the very first.
            self.refused_from.store(0, Ordering::Relaxed);
            return 0;
        }
        self.refused_from.store(came, Ordering::Relaxed);
        usize::try_from(came + 1 - last).unwrap_or(usize::MAX)
    }

    /// Whether GOAWAY has said that this request will not be handled.
    pub(super) fn is_refused(&self, id: u64) -> bool {
        id / 4 >= self.refused_from.load(Ordering::Relaxed)
    }

    /// Says that the peer's SETTINGS have come.
    pub(super) fn settings_came(&self) {
        // Said each time that something comes after them.
        let _ = self.settings.set(());
    }

    /// Waits for the peer's SETTINGS; whether they came in time.
    pub(crate) async fn settings(&self) -> bool {
        tokio::time::timeout(self.limits.head_timeout, self.settings.wait()).await.is_ok()
    }

    /// Says that the handshake is complete.
    pub(crate) fn handshaken(&self) {
        let _ = self.handshaken.set(());
    }

    /// Set when the handshake is complete.
    pub(crate) fn handshake_seen(&self) -> &Arc<SetOnce<()>> {
        &self.handshaken
    }

    /// Waits until the handshake is complete. For ever when it fails; the connection is lost then.
    pub(crate) async fn handshake(&self) {
        self.handshaken.wait().await;
    }

    /// Counts frames and streams of the peer's that bring nothing: an error when there are too many.
    pub(crate) fn spend(&self, count: u32) -> Result<(), Violation> {
        if count == 0 || lock(&self.allowance).take(count) {
            return Ok(());
        }
        self.flooded.store(true, Ordering::Relaxed);
        Err(Violation { code: code::H3_EXCESSIVE_LOAD, reason: "too many frames or streams that bring nothing" })
    }

    /// A request was given up before it was answered.
    pub(crate) fn given_up(&self) {
        if let Err(flood) = self.spend(1) {
            self.violated(flood);
        }
    }

    /// A request was answered: the peer may give up as many again.
    pub(crate) fn earn(&self) {
        lock(&self.allowance).add(2);
    }

    /// Whether it has ended the connection that there were too many.
    pub(crate) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// Ends the connection for what the peer did.
    pub(crate) fn violated(&self, violation: Violation) {
        debug!(code = %code::describe(violation.code), reason = violation.reason, "closing the connection");
        // The first one counts.
        let _ = self.violation.set(violation);
        self.conn.close(violation.code, violation.reason.as_bytes());
    }

    /// What the peer did that ended the connection, if that is how it ended.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.get().copied()
    }
}
