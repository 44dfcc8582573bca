//! Why a feed cannot be read.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use super::SILENCE;
use crate::{
    client::{
        ClientError, NoToken,
        retry::{self, Retry},
    },
    format::frames::FrameError,
    webtransport::{SessionError, StreamError},
};

/// Why a feed cannot be read, or was lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The connection or the stream failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The session ended.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The session's stream broke off.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The server answered with an error.
    #[error("the server answered {status}{}", detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Answered {
        /// Its status.
        status: StatusCode,
        /// Its explanation.
        detail: Option<String>,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// Nothing was received for [`SILENCE`].
    #[error("nothing arrived for {} s", SILENCE.as_secs())]
    Silent,
    /// The stream ended before its feed did.
    #[error("the stream ended before its feed did")]
    Short,
    /// What the server sends is not a feed.
    #[error("there is no feed at this URL")]
    NoFeed,
    /// An h3cast server has something else at this URL.
    #[error("{url} is {what}, not a feed: {}", to_read(feeds))]
    OtherResource {
        /// The URL.
        url: String,
        /// What it is, in words.
        what: String,
        /// The URLs of the server's feeds, the first ones, as far as they are known.
        feeds: Vec<String>,
    },
    /// The token under which the feed was read has expired, or was revoked. A viewer with another one resumes after its
    /// last chunk.
    #[error("the token is no longer valid: it has expired or was revoked")]
    Expired,
    /// There is no token to show.
    #[error(transparent)]
    Token(#[from] NoToken),
    /// What the server sends is not a feed: its frames are malformed.
    #[error("the server's response is not a feed: {0}")]
    Frames(#[from] FrameError),
    /// The time to retry is over.
    #[error("gave up after {} s: {last}", after.as_secs_f64())]
    GaveUp {
        /// For how long.
        after: Duration,
        /// What failed last.
        last: Box<ViewError>,
    },
}

impl ViewError {
    /// Whether trying again does not help.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Client(error) => error.is_final(),
            Self::Answered { status, .. } => retry::is_final(*status),
            Self::NoFeed | Self::OtherResource { .. } | Self::Frames(_) | Self::GaveUp { .. } | Self::Token(_) => true,
            Self::Session(_) | Self::Stream(_) | Self::Silent | Self::Short | Self::Expired => false,
        }
    }

    /// How long to wait before the next attempt, or `None` when there is no time for another one.
    pub(crate) fn pause(&self, retry: &mut Retry) -> Option<Duration> {
        let (asked, unanswered) = match self {
            Self::Answered { retry_after, .. } => (*retry_after, false),
            Self::Client(error) => (None, error.is_unanswered()),
            _ => (None, false),
        };
        retry.pause(asked, unanswered)
    }

    /// Whether another token may help.
    pub(crate) fn is_about_token(&self) -> bool {
        match self {
            Self::Answered { status, .. } => *status == StatusCode::UNAUTHORIZED,
            Self::Expired | Self::Token(_) => true,
            _ => false,
        }
    }

    pub(crate) fn answered(status: StatusCode, headers: &HeaderMap, detail: Option<String>) -> Self {
        Self::Answered { status, detail, retry_after: retry::retry_after(headers, SystemTime::now()) }
    }
}

/// What to read instead.
fn to_read(feeds: &[String]) -> String {
    match feeds {
        [] => "feeds are at /stream and /stream/NAME".into(),
        [one] => format!("read {one}"),
        several => format!("read one of {}", several.join(", ")),
    }
}

/// The URL of a feed that cannot be resumed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be in the URL of a feed that is resumed, which is read as frames: give from, limit or format=raw"
)]
pub struct BadUri(pub(in crate::client) String);
