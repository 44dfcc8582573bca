//! Files: from their beginning for each viewer, or followed as they grow.

mod checkpoint;
mod claim;
mod find;
mod follow;
mod gather;
#[cfg(unix)]
mod growing;
mod known;
mod last;
mod open;
mod pieces;
mod places;
mod reading;
mod rotated;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod watch;

use std::{io, path::PathBuf, time::Duration};

use futures_util::stream;

pub(super) use self::claim::Claim;
#[cfg(feature = "cli")]
pub(crate) use self::claim::Once;
use self::{
    find::{Back, Finder},
    follow::Follower,
    places::Places,
};
pub(crate) use self::{open::file, pieces::Pieces};
use super::{
    SourceError,
    chunker::{Chunker, Chunking},
};
use crate::feed::{End, Feed, FeedError, Publisher};

/// A file from its beginning, for each viewer.
pub(super) async fn on_demand(name: &str, path: PathBuf, chunking: Chunking) -> Result<Feed, SourceError> {
    check(name, &path).await?;
    let of_file = path.clone();
    let feed = Feed::on_demand(name, move || {
        let path = path.clone();
        stream::unfold(None, move |chunks| {
            let path = path.clone();
            async move {
                let mut chunks = match chunks {
                    Some(chunks) => chunks,
                    // It may be another one by now.
                    None => match file(&path).await {
                        Ok(opened) => Chunker::new(opened.pieces(), chunking),
                        Err(error) => return Some((Err(failed(&path, &error)), None)),
                    },
                };
                match chunks.next().await {
                    Ok(chunk) => Some((Ok(chunk?), Some(chunks))),
                    Err(error) => Some((Err(failed(&path, &error)), Some(chunks))),
                }
            }
        })
    });
    Ok(feed.of_file(of_file))
}

/// Whether a file can be read from its beginning.
pub(super) async fn check(name: &str, path: &std::path::Path) -> Result<(), SourceError> {
    let unread = |source| SourceError::File { feed: name.to_owned(), path: path.to_owned(), source };
    file(path).await.map(drop).map_err(unread)
}

fn failed(path: &std::path::Path, error: &io::Error) -> FeedError {
    FeedError(format!("cannot read {}: {error}", path.display()))
}

/// The last `lines` lines of a file (of its last `bytes`), and what is appended to it from now on; or all that has been
/// appended since an earlier process followed it, if the feed is stored. What the file has is published before this
/// completes, unless that takes longer than the `patience`.
pub(super) async fn follow(
    name: &str,
    path: PathBuf,
    chunking: Chunking,
    (lines, bytes): (u64, u64),
    publisher: Publisher,
    patience: Duration,
) -> Result<impl Future<Output = ()> + Send + use<>, SourceError> {
    let unserved = Unserved::new(&publisher);
    // Where an earlier process was.
    let places = publisher.place().map(|place| Places::read(&place)).unwrap_or_else(Places::none);
    let is_new = places.are_new;
    let mut finder = Finder::new(name, path.clone(), Back { lines, bytes }, places);
    let lost = |source| SourceError::Tail { feed: name.to_owned(), path: path.clone(), source };
    let found = finder.first().await.map_err(lost)?;
    // Before the first viewer comes, to whom it would be new. What was appended meanwhile is new.
    let follower = Follower::new(name, path, chunking, publisher, finder.known.clone());
    let mut beginning = Box::pin(follower.begin(found, is_new));
    let begun = tokio::time::timeout(patience, &mut beginning).await;
    unserved.served();
    Ok(async move {
        let follower = match begun {
            Ok(follower) => follower,
            // Where it is stored there is no room for it now, or another process has it: no reason not to serve.
            Err(_) => beginning.await,
        };
        follower.run(finder).await;
    })
}

/// How long a server waits at its start until what a file has is published.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Ends a feed if it is dropped before the feed is served: its server did not start, which is not a failure
/// of the feed.
struct Unserved(Option<Publisher>);

impl Unserved {
    fn new(publisher: &Publisher) -> Self {
        Self(Some(publisher.clone()))
    }

    /// From here on the feed ends by itself.
    fn served(mut self) {
        self.0 = None;
    }
}

impl Drop for Unserved {
    fn drop(&mut self) {
        if let Some(publisher) = &self.0 {
            publisher.end(End::Stopped);
        }
    }
}
