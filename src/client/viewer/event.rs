//! What a viewer reports, and what carries its feed.

use std::{fmt, time::Duration};

use bytes::Bytes;

use super::ViewError;
use crate::{
    chunk::Cursor,
    feed::{End, Gap},
};

/// What carries a feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// The response to a GET.
    #[default]
    Get,
    /// A stream of a WebTransport session.
    WebTransport,
}

impl Transport {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Get => Self::WebTransport,
            Self::WebTransport => Self::Get,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::WebTransport => "WebTransport",
        })
    }
}

/// What a viewer reports.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The feed is being read.
    Opened {
        /// What carries it.
        transport: Transport,
        /// The chunk after which it resumes, if it does.
        behind: Option<Cursor>,
    },
    /// The next chunk.
    Chunk {
        /// Which it is.
        cursor: Cursor,
        /// When it was published, in microseconds since 1970.
        micros: u64,
        /// What it carries.
        bytes: Bytes,
    },
    /// Chunks that the viewer will not get.
    Gap(Gap),
    /// Whether the server cannot receive or store new chunks of the feed. What is stored is not lost by that. Why, the
    /// viewer has [`stalled_by`](super::Viewer::stalled_by).
    Stalled(bool),
    /// The feed was lost, or could not be reached. The viewer tries again.
    Lost {
        /// Why.
        error: ViewError,
        /// After that time.
        pause: Duration,
        /// Over this transport.
        transport: Transport,
    },
    /// The end. Nothing follows.
    End(End),
}
