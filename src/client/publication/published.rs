//! What a publication reports.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PublishError;
use crate::chunk::{Cursor, Epoch};

/// What a publication has written, as the server reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Published {
    /// The feed's name.
    pub feed: String,
    /// The run of numbers that it has now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The cursor of its first chunk, if there is one.
    pub first: Option<String>,
    /// The cursor of its last one; chunks of other publishers may be in between.
    pub last: Option<String>,
    /// How many chunks it has, as far as the server has seen: another server with the same feeds may have
    /// published some.
    pub chunks: u64,
    /// How many bytes, from its beginning.
    pub bytes: u64,
}

/// What is reported while something is published.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishEvent {
    /// The server answers: what follows goes to it.
    Opened {
        /// How much it has of this publication already, in bytes.
        published: u64,
    },
    /// So much has been published, in bytes.
    Acknowledged(u64),
    /// The feed was restarted, with its server or alone, and what was published is gone. What follows goes to a new run
    /// of it.
    Restarted {
        /// How much was published before, in bytes.
        published: u64,
    },
    /// After one or more losses, the server takes what is sent.
    Recovered {
        /// How much has been published, in bytes.
        published: u64,
    },
    /// The connection was lost, the server could not be reached, or it cannot take more now. The publication tries again.
    Lost {
        /// Why.
        error: PublishError,
        /// After that time.
        pause: Duration,
    },
}

impl Published {
    /// The feed's run of numbers, also of a server that reports it only in cursors.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        let last = || self.last.as_ref()?.parse::<Cursor>().ok().map(|cursor| cursor.epoch);
        self.epoch.as_ref().and_then(|epoch| u64::from_str_radix(epoch, 16).ok()).map(Epoch).or_else(last)
    }
}
