//! What an app leaves to the process that takes over from it: the feeds that clients write, and how far each of their
//! publications has come.

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{
    App,
    publish::{Known, Publications},
};
use crate::feed::{Account, Feeds, HeldFeeds, History};

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

    /// Continues the publications of another process.
    pub(crate) fn restore_publications(&self, known: KnownPublications) {
        self.publications.restore(known.0);
    }

    /// Continues a feed of another process. Whether there is one of that name which can.
    pub(crate) async fn restore_feed(&self, name: &str, history: History) -> bool {
        let feed = match self.feeds.open(name, &Account::unknown()).await {
            Ok(Some(feed)) => feed,
            Ok(None) => return false,
            Err(error) => {
                warn!(feed = name, %error, "a feed of the old server is lost");
                return false;
            }
        };
        feed.publisher().is_some() && feed.restore(history).is_ok()
    }
}

impl HeldEstate {
    pub(crate) fn histories(&self) -> Vec<(String, History)> {
        self.feeds.histories()
    }

    /// After [`histories`](Self::histories) or before: nothing is published meanwhile.
    pub(crate) fn publications(&self) -> KnownPublications {
        KnownPublications(self.publications.known())
    }

    /// Another process has it now.
    pub(crate) fn give_up(self) {
        self.feeds.stop();
    }
}
