//! What kind of source a feed on disk has its chunks from.

use bytes::Bytes;
use h3cast_store::{Note, StoredFeed};

use super::StoreError;
use crate::source::{Kind, SourceError};

/// The key of its note, which is stored with chunks.
const KEY: &[u8] = b"source";

/// A kind of source whose feed can be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Publish,
    Stdin,
    Exec,
    Tail,
}

impl Origin {
    const ALL: [Self; 4] = [Self::Publish, Self::Stdin, Self::Exec, Self::Tail];

    /// That of a source, if its feed can be on disk.
    pub(crate) fn of(kind: &Kind) -> Option<Self> {
        match kind {
            Kind::Publish => Some(Self::Publish),
            Kind::Stdin => Some(Self::Stdin),
            Kind::Exec(_) => Some(Self::Exec),
            Kind::Tail(_) => Some(Self::Tail),
            _ => None,
        }
    }

    /// As a source begins.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Stdin => "-",
            Self::Exec => "exec:",
            Self::Tail => "tail:",
        }
    }

    /// That of the chunks that are stored of a feed. Earlier versions have not noted it, and later ones may know others.
    pub(super) fn noted(feed: &StoredFeed) -> Option<Self> {
        let value = feed.notes(KEY).into_iter().find(|note| note.key == KEY)?.value?;
        Self::ALL.into_iter().find(|origin| origin.word().as_bytes() == value)
    }

    pub(super) fn note(self) -> Note {
        Note { key: KEY.into(), value: Some(Bytes::from_static(self.word().as_bytes())), expires: None }
    }

    /// Whether a feed would have chunks of clients as well as of a source of the server. Of the latter, one may follow
    /// another: the same lines may come from a file instead of a command.
    pub(super) fn mixes(self, other: Self) -> bool {
        (self == Self::Publish) != (other == Self::Publish)
    }
}

/// Why a feed on disk cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It would be mixed.
    #[error("its stored chunks are from `{}`, and `{}` would continue them", stored.word(), here.word())]
    Mixed { feed: String, stored: Origin, here: Origin },
}

impl OpenError {
    /// Why the source of that name cannot be started.
    pub(crate) fn of_source(self, name: &str) -> SourceError {
        match self {
            Self::Store(source) => SourceError::Store { feed: name.to_owned(), source },
            Self::Mixed { feed, stored, here } => {
                SourceError::OtherKind { feed, stored: stored.word(), here: here.word() }
            }
        }
    }
}
