//! Why something cannot be published.

use std::{io, time::Duration};

use http::StatusCode;
use tokio::time::Instant;

use crate::{
    client::{
        ClientError, NoToken,
        retry::{self, Retry},
    },
    units::many,
};

/// Why something cannot be published, or was interrupted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The connection or the request failed.
    #[error(transparent)]
    Client(#[from] ClientError),
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
    /// The server was sent something, and has not answered while it was waited for.
    #[error("the server has not answered what it was sent")]
    Unanswered,
    /// The server's answer makes no sense.
    #[error("the server sent an invalid answer: {0}")]
    Answer(#[from] AnswerError),
    /// What is to be published cannot be read.
    #[error("cannot read what is to be published: {0}")]
    Read(#[from] io::Error),
    /// There is no token to show.
    #[error(transparent)]
    Token(#[from] NoToken),
    /// The time to retry is over.
    #[error("gave up after {} s: {last}", after.as_secs_f64())]
    GaveUp {
        /// For how long it was tried.
        after: Duration,
        /// What failed last.
        last: Box<PublishError>,
    },
}

/// What makes no sense in a server's answer to a publication.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// It cannot be read.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// None of the bytes sent were published.
    #[error("after {}, none were published", many(*after, "byte"))]
    Nothing {
        /// How many bytes were published before.
        after: u64,
    },
    /// More was published than there is.
    #[error("it has {} of {given}", many(*published, "byte"))]
    TooMuch {
        /// What the server has, in bytes.
        published: u64,
        /// What it was given.
        given: u64,
    },
}

impl PublishError {
    /// It was tried for that long.
    pub(crate) fn gave_up(retry: &Retry, last: Self) -> Self {
        // As exact as a person wants to know it.
        let hundredths = retry.tried(Instant::now()).as_millis() / 10;
        Self::GaveUp { after: Duration::from_millis(hundredths as u64 * 10), last: Box::new(last) }
    }

    /// What the server has said of it, if it has said anything that explains it.
    pub(super) fn said(&self) -> Option<Self> {
        match self {
            // That it still has an attempt of ours explains nothing.
            Self::Answered { status, detail, retry_after } if *status != StatusCode::CONFLICT => {
                Some(Self::Answered { status: *status, detail: detail.clone(), retry_after: *retry_after })
            }
            _ => None,
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
    pub(super) fn is_about_token(&self) -> bool {
        match self {
            Self::Answered { status, .. } => *status == StatusCode::UNAUTHORIZED,
            Self::Token(_) => true,
            _ => false,
        }
    }

    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Client(error) => error.is_final(),
            // A request of ours still runs there, as the server sees it, or it knows something else
            // than we do: it is asked again.
            Self::Answered { status, .. } => *status != StatusCode::CONFLICT && retry::is_final(*status),
            Self::Unanswered => false,
            Self::Answer(_) | Self::Read(_) | Self::Token(_) | Self::GaveUp { .. } => true,
        }
    }
}
