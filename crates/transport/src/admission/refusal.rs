//! Why clients are refused, and how often they were.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::log::Reports;

macro_rules! refusals {
    ($($(#[$doc:meta])+ $name:ident = $text:literal: $advice:literal,)+) => {
        /// Why a client, or something that it asked for, was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[$doc])+ $name,)+
        }

        impl Refusal {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name for logs and metrics; where a limit is the reason, that limit's.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// What it means, for logs and answers.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self {
                    $(Self::$name => $advice,)+
                }
            }
        }
    };
}

refusals! {
    /// The server has as many connections as [`Limits::connections`](crate::Limits::connections) allow, or nearly as
    /// many, and one over TCP had not had a request yet, or had to wait.
    Connections = "connections": "the server has no room for more connections",
    /// The address has as many as [`Limits::connections_per_address`](crate::Limits::connections_per_address) allow.
    ConnectionsPerAddress = "connections_per_address": "this address has too many connections open",
    /// A listener over TCP had as many connections as [`Limits::tcp_connections`](crate::Limits::tcp_connections)
    /// allow: one without a request was ended to make room for another, or, if each had a request, one had to wait.
    TcpConnections = "tcp_connections": "a listener has no more places: one without a request is closed, or a new one waits",
    /// A handshake was ended to make room for another: as many were in progress as
    /// [`Limits::handshakes`](crate::Limits::handshakes) allow.
    Handshakes = "handshakes": "too many handshakes are in progress",
    /// The address has as many handshakes in progress as
    /// [`Limits::handshakes_per_address`](crate::Limits::handshakes_per_address) allow.
    HandshakesPerAddress = "handshakes_per_address": "this address has too many handshakes in progress",
    /// A handshake took longer than [`Limits::handshake_timeout`](crate::Limits::handshake_timeout).
    HandshakeTimeout = "handshake_timeout": "the handshake took too long",
    /// The address has as many requests open as
    /// [`Limits::requests_per_address`](crate::Limits::requests_per_address) allow.
    RequestsPerAddress = "requests_per_address": "this address has too many requests open",
    /// The address has as many sessions open as
    /// [`Limits::sessions_per_address`](crate::Limits::sessions_per_address) allow.
    SessionsPerAddress = "sessions_per_address": "this address has too many sessions open",
    /// The connection has as many sessions open as [`Limits::sessions`](crate::Limits::sessions) allow.
    Sessions = "sessions": "this connection has too many sessions open",
    /// An application has as many publications as it takes at once.
    Publications = "publications": "the server accepts no more publications at a time",
    /// The client has as many publications as one may have at once.
    PublicationsPerClient = "publications_per_client": "this client has too many publications at a time",
    /// A publication brought nothing for too long.
    PublishWait = "publish_wait": "a publication sent nothing for too long",
    /// The client's publications that run use all keys that one client may have.
    PublishKeys = "publish_keys": "all keys that this client may use are in use",
    /// An application runs as many commands for viewers as it may.
    Processes = "processes": "the server runs no more commands for viewers",
    /// As many commands run for the client as may for one.
    ProcessesPerClient = "processes_per_client": "this client has too many commands running",
    /// An application has as many feeds that clients created as it takes, and each is in use.
    Feeds = "feeds": "the server has no room for feeds that clients create",
    /// The client has created as many feeds as one may.
    FeedsPerClient = "feeds_per_client": "this client has created too many feeds",
    /// A page of an origin that is not allowed asked for a session, for something that changes what is here, or, as a
    /// prefetch did, for what would start a command.
    Origin = "origin": "a page of another origin may not do this",
    /// A request needs a token, or its token is not valid (401).
    Unauthorized = "unauthorized": "no valid token was sent",
    /// The token does not allow what was asked for, or no token does (403).
    Forbidden = "forbidden": "this client may not do this",
    /// It could not be decided what the client may do (503).
    Undecided = "undecided": "what this client may do could not be decided",
    /// A request named a host that is not this server (421).
    Misdirected = "misdirected": "the request is for another host",
    /// The client took nothing of what there was for it, for [`Limits::send_timeout`](crate::Limits::send_timeout).
    SendTimeout = "send_timeout": "this client does not read what is sent to it",
    /// The client sent more frames that bring nothing than
    /// [`Limits::control_frames`](crate::Limits::control_frames) allow, or, over HTTP/2, more small frames of bodies
    /// that were not read yet than h2 keeps.
    ControlFrames = "control_frames": "this client sends too many frames that carry nothing, or small ones that are not read yet",
    /// The process is near the limit of its memory, as [`ServerBuilder::room`](crate::server::ServerBuilder::room)
    /// reports it.
    Memory = "memory": "the server is short of memory",
    /// The process has nearly as many files open as it may, as
    /// [`ServerBuilder::room`](crate::server::ServerBuilder::room) reports it.
    Descriptors = "descriptors": "the server has no file descriptors left for more connections",
    /// The [application's hook](crate::server::ServerBuilder::on_accept) refused the client.
    Application = "application": "the application does not accept this client",
}

/// What a server has admitted and refused, at one point in time.
///
/// ```
/// # fn doc(server: &h3cast_transport::Server) {
/// use h3cast_transport::admission::Refusal;
///
/// let now = server.admission().snapshot();
/// println!("{} connections, {} refused", now.connections, now.refused(Refusal::ConnectionsPerAddress));
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Connections now, those with a handshake in progress included.
    pub connections: u64,
    /// Handshakes in progress now (half-open connections).
    pub handshakes: u64,
    /// Requests open now.
    pub requests: u64,
    /// WebTransport sessions open now.
    pub sessions: u64,
    /// Bytes of memory that connections over QUIC have set aside for streams which their clients may open, beyond what
    /// they do with the default of [`Limits::streams`](crate::Limits::streams): up to 8.4 MiB each. They count as soon as
    /// a connection is allowed these streams. The application may charge them when it is asked for
    /// [`room`](crate::server::ServerBuilder::room).
    pub set_aside: u64,
    /// First packets of QUIC connections so far.
    pub initials: u64,
    /// Those of them that were answered with a Retry
    /// ([RFC 9000 §8.1.2](https://www.rfc-editor.org/rfc/rfc9000#section-8.1.2)).
    pub retries: u64,
    refused: [u64; Refusal::ALL.len()],
}

impl Snapshot {
    /// How often that was the reason so far.
    #[must_use]
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refused[reason as usize]
    }
}

/// The counters of a server's admission. Clones are handles of the same ones.
#[derive(Debug, Clone, Default)]
pub struct Counters(pub(super) Arc<Tally>);

#[derive(Debug)]
pub(super) struct Tally {
    pub(super) connections: AtomicU64,
    pub(super) handshakes: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) sessions: AtomicU64,
    pub(super) set_aside: AtomicU64,
    pub(super) initials: AtomicU64,
    pub(super) retries: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    reports: Reports,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            connections: AtomicU64::default(),
            handshakes: AtomicU64::default(),
            requests: AtomicU64::default(),
            sessions: AtomicU64::default(),
            set_aside: AtomicU64::default(),
            initials: AtomicU64::default(),
            retries: AtomicU64::default(),
            refused: [const { AtomicU64::new(0) }; Refusal::ALL.len()],
            reports: Reports::default(),
        }
    }
}

impl Counters {
    /// What they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &self.0;
        Snapshot {
            connections: get(&tally.connections),
            handshakes: get(&tally.handshakes),
            requests: get(&tally.requests),
            sessions: get(&tally.sessions),
            set_aside: get(&tally.set_aside),
            initials: get(&tally.initials),
            retries: get(&tally.retries),
            refused: std::array::from_fn(|reason| get(&tally.refused[reason])),
        }
    }

    /// Counts a refusal of `client` (an address or a name, for the log). The log has one line for each reason in
    /// 10 s, with how many there were.
    pub fn refused(&self, reason: Refusal, client: impl std::fmt::Display) {
        let all = self.0.refused[reason as usize].fetch_add(1, Ordering::Relaxed) + 1;
        self.0.reports.refused(reason, all, &client);
    }
}
