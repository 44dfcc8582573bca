//! What the numbers of a server are counted by.

use http::{StatusCode, Version};
use rustls::AlertDescription;

use crate::{admission::Refusal, quic::Loss};

/// What clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1, and HTTP/1.0.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/3.
    Http3,
    /// WebTransport, in an HTTP/3 connection.
    WebTransport,
}

impl Protocol {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Http1, Self::Http2, Self::Http3, Self::WebTransport];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Http3 => "http3",
            Self::WebTransport => "webtransport",
        }
    }
}

/// What handshakes are part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// QUIC.
    Quic,
    /// TLS over TCP.
    Tls,
}

impl Carrier {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Quic, Self::Tls];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
        }
    }
}

/// Why a handshake was not completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// It took longer than [`Limits::handshake_timeout`](crate::Limits::handshake_timeout).
    Timeout,
    /// It made room for another, as too many were in progress.
    Ousted,
    /// The client rejected the certificate: an alert about it
    /// ([RFC 8446 §6.2](https://www.rfc-editor.org/rfc/rfc8446#section-6.2)).
    Certificate,
    /// TLS found nothing in common (a version, a protocol), or a message that was wrong.
    Tls,
    /// QUIC found something wrong, before or besides TLS.
    Quic,
    /// The client went away.
    Closed,
    /// The server was stopped.
    Stopped,
}

impl HandshakeFailure {
    /// All there are.
    pub const ALL: [Self; 7] =
        [Self::Timeout, Self::Ousted, Self::Certificate, Self::Tls, Self::Quic, Self::Closed, Self::Stopped];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Ousted => "ousted",
            Self::Certificate => "certificate",
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::Closed => "closed",
            Self::Stopped => "stopped",
        }
    }

    /// That of an alert of the client's.
    pub(crate) fn of_alert(alert: u8) -> Self {
        use AlertDescription::{
            BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown, DecryptError, UnknownCA,
            UnsupportedCertificate,
        };
        match AlertDescription::from(alert) {
            BadCertificate
            | UnsupportedCertificate
            | CertificateRevoked
            | CertificateExpired
            | CertificateUnknown
            | UnknownCA
            // A signature that another key should have made.
            | DecryptError => Self::Certificate,
            _ => Self::Tls,
        }
    }

    /// That of an error of TLS over TCP.
    #[cfg(feature = "tcp")]
    pub(crate) fn of_tls(error: &std::io::Error) -> Self {
        match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => Self::of_alert(u8::from(*alert)),
            Some(_) => Self::Tls,
            None => Self::Closed,
        }
    }

    /// That of a QUIC connection that was lost so.
    pub(crate) fn of_quic(lost: Option<Loss>) -> Self {
        match lost {
            Some(Loss::Alert { code, by_peer: true }) => Self::of_alert(code),
            Some(Loss::Alert { by_peer: false, .. }) => Self::Tls,
            Some(Loss::Engine) => Self::Quic,
            Some(Loss::Silence) => Self::Timeout,
            Some(Loss::Peer) => Self::Closed,
            None | Some(Loss::Here) => Self::Stopped,
        }
    }
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The client gave it up before there was an answer, or the server did.
    None,
    /// 2xx, and 101.
    Success,
    /// 3xx.
    Redirection,
    /// 4xx.
    ClientError,
    /// 5xx.
    ServerError,
}

impl Answer {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::None, Self::Success, Self::Redirection, Self::ClientError, Self::ServerError];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }

    /// That of a status.
    #[must_use]
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            0..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

impl From<Refusal> for HandshakeFailure {
    /// That of a handshake that was [overdue](crate::admission).
    fn from(reason: Refusal) -> Self {
        if reason == Refusal::Handshakes { Self::Ousted } else { Self::Timeout }
    }
}

impl From<Version> for Protocol {
    fn from(version: Version) -> Self {
        match version {
            Version::HTTP_2 => Self::Http2,
            Version::HTTP_3 => Self::Http3,
            _ => Self::Http1,
        }
    }
}
