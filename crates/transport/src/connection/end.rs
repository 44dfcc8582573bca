//! How a connection ended.

use std::{error::Error, fmt, io, sync::Arc};

use h3cast_proto::code;

use crate::quic;

/// How a connection ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConnectionEnd {
    /// One side closed it with a code and a reason: over QUIC in a CONNECTION_CLOSE frame
    /// ([RFC 9000 §19.19](https://www.rfc-editor.org/rfc/rfc9000#section-19.19)); over TCP, where neither travels,
    /// it was [`ConnectionHandle::close`](super::ConnectionHandle::close).
    Closed {
        /// The code: one of HTTP/3's ([`http3::code`](h3cast_proto::code)), or the application's own.
        code: u64,
        /// The reason, for people.
        reason: String,
        /// Whether the other side closed it.
        by_peer: bool,
    },
    /// A TCP connection came to its end: the client closed it, or this side did after the last response.
    Finished,
    /// Nothing came from the peer for too long.
    TimedOut,
    /// The peer reset it, or does not know of it any more.
    Reset,
    /// Something went wrong: TLS, QUIC, HTTP, or the network.
    Failed(Arc<dyn Error + Send + Sync>),
}

impl ConnectionEnd {
    /// The end of a QUIC connection. `closed` is what this side closed it with.
    pub(super) fn of_quic(lost: quic::ConnectionError, closed: Option<&(u64, String)>) -> Self {
        use quic::ConnectionError as Lost;
        match lost {
            Lost::ApplicationClosed(close) => Self::Closed {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
                by_peer: true,
            },
            // Without a code, its socket was closed: the server has stopped.
            Lost::LocallyClosed => {
                let (code, reason) = closed.cloned().unwrap_or((code::H3_NO_ERROR, String::new()));
                Self::Closed { code, reason, by_peer: false }
            }
            Lost::TimedOut => Self::TimedOut,
            Lost::Reset => Self::Reset,
            lost => Self::Failed(Arc::new(lost)),
        }
    }

    /// The end of a TCP connection by an error.
    pub(crate) fn of_tcp(error: Box<dyn Error + Send + Sync>) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
        while let Some(at) = cause {
            match at.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::TimedOut) => return Self::TimedOut,
                Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => return Self::Reset,
                _ => cause = at.source(),
            }
        }
        Self::Failed(error.into())
    }
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { code, reason, by_peer } => {
                let side = if *by_peer { "the peer" } else { "this side" };
                write!(f, "closed by {side} with {}", code::describe(*code))?;
                if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") }
            }
            Self::Finished => f.write_str("finished"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Reset => f.write_str("reset by the peer"),
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}
