//! Why a request is refused.

use std::borrow::Cow;

/// Why a request is refused, whatever it asks for. The client is shown the text: nothing secret belongs there.
///
/// The status and the `WWW-Authenticate` of its answer follow RFC 6750 §3.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// 401: its credentials are not valid, or no longer.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// 400: its credentials cannot be read.
    #[error("{0}")]
    Malformed(Cow<'static, str>),
    /// 403: this client may do nothing here.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// 503: nothing can be decided now.
    #[error("{0}")]
    Unavailable(Cow<'static, str>),
}

impl Denied {
    /// Its credentials are not valid, or no longer (401).
    pub fn invalid(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(text.into())
    }

    /// Its credentials cannot be read (400).
    pub fn malformed(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed(text.into())
    }

    /// This client may do nothing here (403).
    pub fn forbidden(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Forbidden(text.into())
    }

    /// Nothing can be decided now (503).
    pub fn unavailable(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Unavailable(text.into())
    }
}
