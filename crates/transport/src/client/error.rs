//! Why requests and sessions fail.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use h3::error::StreamError;
use h3cast_proto::code;
use http::{HeaderMap, StatusCode};

use super::{BadUrl, Refusal, retry};
use crate::{guard::Shared, identity::PemError, quic};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request or session failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URI is not one that this client can open.
    #[error(transparent)]
    Uri(#[from] BadUrl),
    /// The host name is not known.
    #[error("cannot find the address of `{host}`: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the system reported.
        source: io::Error,
    },
    /// A file of certificates cannot be used.
    #[error("cannot use the certificates in {}: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        reason: PemError,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A socket cannot be created.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] io::Error),
    /// No answer.
    #[error("no answer from {authority} over UDP: is the server running, and does the network let UDP through?")]
    Unreachable {
        /// Host and port.
        authority: String,
    },
    /// The server answered, but no connection was established.
    #[error("cannot connect to {authority}: {reason}")]
    Connect {
        /// Host and port.
        authority: String,
        /// What went wrong.
        #[source]
        reason: ConnectError,
        /// Whether it is about certificates in another way than [`Untrusted`](Self::Untrusted): trying
        /// again does not help.
        untrusted: bool,
    },
    /// The server is not trusted: trying again does not help.
    #[error("cannot connect to {authority}: {refusal}")]
    Untrusted {
        /// Host and port.
        authority: String,
        /// Why, what the server has, and what was expected.
        refusal: Box<Refusal>,
    },
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    Connection(#[from] quic::ConnectionError),
    /// The server reset the response, with this error code of HTTP/3.
    #[error("the server broke the stream off: {}", code::describe(*.0))]
    Reset(u64),
    /// The server reads no more of the request, with this error code of HTTP/3. Its response says why.
    #[error("the server stopped reading the request: {}", code::describe(*.0))]
    Stopped(u64),
    /// The server broke the protocol, or this side did.
    #[error("HTTP/3 failed: {0}")]
    Protocol(#[from] ProtocolError),
    /// The head of the response is malformed (H3_MESSAGE_ERROR).
    #[error("the server sent a malformed response: {0}")]
    Malformed(#[from] MalformedResponse),
    /// The body of the response is malformed (H3_MESSAGE_ERROR): it is not as long as its `content-length`.
    #[error("the server sent a malformed response: content-length: {length}, but {received} bytes arrived")]
    Length {
        /// What the head says, in bytes.
        length: u64,
        /// What was received: all of a body that is shorter, a part of one that is longer.
        received: u64,
    },
    /// The body of the request failed while it was sent; the request was cancelled.
    #[error("the body of the request failed: {0}")]
    RequestBody(#[source] BoxError),
    /// The `content-length` of the request, given here, is not a number, or there are two different ones; nothing
    /// was sent.
    #[error("the request's content-length is not a valid length in bytes: {0}")]
    InvalidRequestLength(String),
    /// The body of the request is not as long as its `content-length`; the request was cancelled.
    #[error("the request's content-length is {length}, and its body has {}", match sent {
        Some(sent) => format!("{sent} bytes"),
        None => "more bytes".to_owned(),
    })]
    RequestLength {
        /// What the head says, in bytes.
        length: u64,
        /// The body's bytes; `None` for more than the head says.
        sent: Option<u64>,
    },
    /// The server refused a session.
    #[error("the server refused the session: {status}")]
    Refused {
        /// The status it answered.
        status: StatusCode,
        /// Its headers.
        headers: HeaderMap,
    },
}

/// Why no connection was established with a server that answered.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// TLS failed for the server's certificate or its signature, or the server wants one of the client.
    #[error("the server's certificate is not trusted ({alert})")]
    Certificate {
        /// The TLS alert, as the side reports it that ended the handshake.
        alert: String,
    },
    /// The handshake failed.
    #[error("{address}: {source}")]
    Handshake {
        /// The address that was tried.
        address: SocketAddr,
        /// How.
        source: quic::ConnectionError,
    },
    /// The connection could not be begun.
    #[error("{address}: {source}")]
    Begin {
        /// The address that was tried.
        address: SocketAddr,
        /// Why.
        source: quic::ConnectError,
    },
    /// No socket could be opened for it.
    #[error("{address}: {source}")]
    Socket {
        /// The address that was tried.
        address: SocketAddr,
        /// Why.
        source: Arc<io::Error>,
    },
}

/// How HTTP/3 failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The server broke the protocol, and the connection was closed with the code that the specification names.
    #[error("{reason} ({})", code::describe(*.code))]
    Violation {
        /// The error code of HTTP/3.
        code: u64,
        /// What the server did.
        reason: &'static str,
    },
    /// The server is shutting down and accepts no more requests on this connection (GOAWAY,
    /// [RFC 9114 §5.2](https://www.rfc-editor.org/rfc/rfc9114#section-5.2)). The request was not sent.
    #[error("the server is shutting down and accepts no more requests on this connection")]
    GoAway,
    /// A head or trailers are larger than the receiver accepts
    /// ([RFC 9114 §4.2.2](https://www.rfc-editor.org/rfc/rfc9114#section-4.2.2)).
    #[error("a field section of {size} bytes is larger than the {max} that the receiver accepts")]
    FieldsTooLarge {
        /// Its size, in bytes as the specification counts them.
        size: u64,
        /// What the receiver accepts.
        max: u64,
    },
    /// The request's `host` differs from its URI
    /// ([RFC 9114 §4.3.1](https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1)).
    #[error("the request's `host` differs from the host of its URI: leave it out")]
    Host,
    /// The server answered 101, which HTTP/3 does not have
    /// ([RFC 9114 §4.5](https://www.rfc-editor.org/rfc/rfc9114#section-4.5)).
    #[error("the server answered 101, which HTTP/3 does not have")]
    SwitchingProtocols,
    /// More interim responses came than any server has reason to send.
    #[error("more than {0} interim responses arrived")]
    TooManyInterim(usize),
    /// The server sent no SETTINGS in time.
    #[error("the server sent no SETTINGS")]
    NoSettings,
    /// The connection has as many sessions as one may have.
    #[error("there are {0} sessions already")]
    TooManySessions(usize),
    /// The session ended before it was opened.
    #[error("the session was not opened")]
    SessionLost,
    /// A piece of the request's body was given up halfway, so that the body cannot continue.
    #[error("a piece of the request's body was given up halfway")]
    Torn,
    /// A body that is to be read whole is longer than this many bytes.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// Anything else, as the HTTP/3 engine reports it.
    #[error("{0}")]
    Engine(#[source] BoxError),
}

/// What is wrong with the head of a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedResponse {
    /// Its `content-length`, given here, is not a number, or there are two different ones.
    #[error("content-length: {0}")]
    ContentLength(String),
}

impl ClientError {
    /// Whether trying again does not help: it is not the network's fault, nor the moment's.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Uri(_)
            | Self::Certificate { .. }
            | Self::Tls(_)
            | Self::Malformed(_)
            | Self::Untrusted { .. }
            | Self::Connect { untrusted: true, .. }
            | Self::RequestBody(_)
            | Self::InvalidRequestLength(_)
            | Self::RequestLength { .. }
            | Self::Protocol(ProtocolError::Host | ProtocolError::TooLong(_)) => true,
            Self::Refused { status, .. } => retry::is_final(*status),
            _ => false,
        }
    }

    /// Whether there was no connection.
    #[must_use]
    pub fn is_unreached(&self) -> bool {
        matches!(
            self,
            Self::Resolve { .. }
                | Self::Socket(_)
                | Self::Unreachable { .. }
                | Self::Untrusted { .. }
                | Self::Connect { .. }
        )
    }

    /// Whether the server has sent nothing at all: it may be about to start.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether the server has certainly not processed the request, so that any request can be sent again,
    /// also one that must not take effect twice: there was no connection, or the server refused it with
    /// GOAWAY or H3_REQUEST_REJECTED ([RFC 9114 §4.1.1](https://www.rfc-editor.org/rfc/rfc9114#section-4.1.1)).
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        match self {
            Self::Protocol(ProtocolError::GoAway) => true,
            Self::Reset(code) | Self::Stopped(code) => *code == code::H3_REQUEST_REJECTED,
            other => other.is_unreached(),
        }
    }

    /// The same, for another one who waits. Sources that cannot be cloned are given as text.
    pub(super) fn copied(&self) -> Self {
        match self {
            Self::Uri(error) => Self::Uri(error.clone()),
            Self::Resolve { host, source } => Self::Resolve { host: host.clone(), source: copied(source) },
            Self::Certificate { path, reason } => Self::Certificate { path: path.clone(), reason: reason.clone() },
            Self::Tls(error) => Self::Tls(error.clone()),
            Self::Socket(error) => Self::Socket(copied(error)),
            Self::Unreachable { authority } => Self::Unreachable { authority: authority.clone() },
            Self::Connect { authority, reason, untrusted } => {
                Self::Connect { authority: authority.clone(), reason: reason.clone(), untrusted: *untrusted }
            }
            Self::Untrusted { authority, refusal } => {
                Self::Untrusted { authority: authority.clone(), refusal: refusal.clone() }
            }
            Self::Connection(error) => Self::Connection(error.clone()),
            Self::Reset(code) => Self::Reset(*code),
            Self::Stopped(code) => Self::Stopped(*code),
            Self::Protocol(error) => Self::Protocol(error.copied()),
            Self::Malformed(error) => Self::Malformed(error.clone()),
            Self::Length { length, received } => Self::Length { length: *length, received: *received },
            Self::RequestBody(error) => Self::RequestBody(error.to_string().into()),
            Self::InvalidRequestLength(fields) => Self::InvalidRequestLength(fields.clone()),
            Self::RequestLength { length, sent } => Self::RequestLength { length: *length, sent: *sent },
            Self::Refused { status, headers } => Self::Refused { status: *status, headers: headers.clone() },
        }
    }

    /// The error of a stream of h3's, or what ended its connection.
    #[allow(clippy::unneeded_struct_pattern, reason = "with some features of h3, the name of the variant is private")]
    pub(super) fn of_stream(shared: &Shared, error: StreamError) -> Self {
        if let Some(violation) = shared.violation() {
            return ProtocolError::Violation { code: violation.code, reason: violation.reason }.into();
        }
        match (error, shared.conn.close_reason()) {
            (StreamError::RemoteTerminate { code, .. }, _) => Self::Reset(code.value()),
            (_, Some(reason)) => reason.into(),
            (StreamError::RemoteClosing { .. }, None) => ProtocolError::GoAway.into(),
            (StreamError::HeaderTooBig { actual_size: size, max_size: max, .. }, None) => {
                ProtocolError::FieldsTooLarge { size, max }.into()
            }
            (error, None) => ProtocolError::Engine(error.into()).into(),
        }
    }
}

impl ProtocolError {
    fn copied(&self) -> Self {
        match *self {
            Self::Violation { code, reason } => Self::Violation { code, reason },
            Self::GoAway => Self::GoAway,
            Self::FieldsTooLarge { size, max } => Self::FieldsTooLarge { size, max },
            Self::Host => Self::Host,
            Self::SwitchingProtocols => Self::SwitchingProtocols,
            Self::TooManyInterim(count) => Self::TooManyInterim(count),
            Self::NoSettings => Self::NoSettings,
            Self::TooManySessions(count) => Self::TooManySessions(count),
            Self::SessionLost => Self::SessionLost,
            Self::Torn => Self::Torn,
            Self::TooLong(bytes) => Self::TooLong(bytes),
            Self::Engine(ref error) => Self::Engine(error.to_string().into()),
        }
    }
}

fn copied(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
