//! What an app leaves to the process that takes over from it: the feeds that clients write, and how far each of their
//! publications has come.

use serde::{Deserialize, Serialize};

use super::{
    App,
    publish::{Known, Publications},
};
use crate::feed::{Feed, Feeds, HeldFeeds, History, OpenError, Provenance};

/// What an app has to leave. It stays the app's.
#[derive(Debug, Clone)]
pub(crate) struct Estate {
    feeds: Feeds,
    publications: Publications,
}

/// Publications, as another process is told of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct KnownPublications(Vec<Known>);

/// What nothing is added to, until it is dropped or given up.
#[must_use = "dropped, publishers publish on"]
pub(crate) struct HeldEstate {
    feeds: HeldFeeds,
    publications: Publications,
}

impl App {
    pub(crate) fn estate(&self) -> Estate {
        Estate { feeds: self.feeds.clone(), publications: self.publications.clone() }
    }
}

impl Estate {
    /// Has publishers wait.
    pub(crate) fn hold(&self) -> HeldEstate {
        HeldEstate { feeds: self.feeds.hold(), publications: self.publications.clone() }
    }

    /// The feeds on disk that have chunks, and those of them that clients write.
    pub(crate) fn stored(&self) -> (Vec<String>, Vec<String>) {
        let has_chunks = |feed: &&Feed| {
            let status = feed.status();
            status.stored.is_some() && (status.chunks > 0 || status.oldest.is_some())
        };
        let feeds = self.feeds.all();
        let name = |feed: &Feed| feed.name().to_owned();
        let stored = feeds.iter().filter(has_chunks);
        (stored.clone().map(name).collect(), stored.filter(|feed| feed.publisher().is_some()).map(name).collect())
    }

    /// Whether this process reads that feed of another one from the disk, and has it from a source of the same kind:
    /// clients write it, if that `is_written` is known, or none do.
    pub(crate) async fn continues_stored(&self, name: &str, is_written: Option<bool>) -> Result<(), Lack> {
        let is_same = |feed: &Feed| is_written.is_none_or(|is_written| is_written == feed.publisher().is_some());
        match self.feeds.adopt(name, None).await {
            Ok(Some(feed)) if feed.status().stored.is_none() => Err(Lack::OtherSource),
            Ok(Some(feed)) if is_same(&feed) => Ok(()),
            Ok(Some(_)) => Err(Lack::OtherKind),
            Ok(None) => Err(Lack::NoFeed),
            Err(error) => Err(Lack::Unknown(error)),
        }
    }

    /// Continues the publications of another process.
    pub(crate) fn restore_publications(&self, known: KnownPublications) {
        self.publications.restore(known.0);
    }

    /// The feed that can continue one of that name of another process. While it is kept, it is not removed.
    pub(crate) async fn adopt(&self, name: &str, provenance: Option<&Provenance>) -> Result<Feed, Lack> {
        match self.feeds.adopt(name, provenance).await {
            Ok(Some(feed)) if feed.can_restore() => Ok(feed),
            Ok(Some(_)) => Err(Lack::OtherSource),
            Ok(None) => Err(Lack::NoFeed),
            Err(error) => Err(Lack::Unknown(error)),
        }
    }
}

/// Why a feed of another process cannot be continued here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lack {
    /// There is none of that name.
    #[error("no such feed here")]
    NoFeed,
    /// Clients do not write it here, or it is stored: there it is continued without this.
    #[error("it has another source here")]
    OtherSource,
    /// It is on disk here as well, and would get chunks of another kind of source.
    #[error("it has another source here")]
    OtherKind,
    /// The same of one that is to be given up: it stays on disk, and would be continued.
    #[error("it stays on disk, and another source here has its name")]
    Taken,
    #[error("{0}")]
    Unknown(OpenError),
}

impl HeldEstate {
    pub(crate) fn histories(&self) -> Vec<(String, History)> {
        self.feeds.histories()
    }

    /// After [`histories`](Self::histories) or before: nothing is published meanwhile.
    pub(crate) fn publications(&self) -> KnownPublications {
        KnownPublications(self.publications.known())
    }

    /// Ends the feeds: this process is about to stop.
    pub(crate) fn stop(self) {
        self.feeds.stop();
    }

    /// Another process has it now.
    pub(crate) fn give_up(self) {
        // So that publishers learn why they end.
        self.publications.leave();
        self.feeds.stop();
    }
}
