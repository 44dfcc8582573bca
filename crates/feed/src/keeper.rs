//! What stores a feed: externally, or on this machine.

use std::{error::Error, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{Budget, Chunk, Cursor, Elsewhere, Epoch, FeedError};

/// Stores the chunks of a feed: for any number of servers (see [`Feed::kept`](crate::Feed::kept)), or for this one
/// alone (see [`Feed::stored`](crate::Feed::stored)).
pub trait Keeper: Send + Sync + 'static {
    /// Whether clients may write the feed.
    fn is_writable(&self) -> bool;

    /// Whether the feed's numbering has gaps, which do not mean lost chunks.
    fn is_sparse(&self) -> bool;

    /// Stores a chunk, and is ready once it is stored. A chunk whose `id` is stored already is not stored
    /// again.
    fn publish(&self, bytes: Bytes, id: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>>;

    /// Stores chunks in their order, and is ready once they are stored: those before a failure, at least. It may also
    /// stop without one, after the first chunk or later, and does after a chunk that was stored before and is of another
    /// size than the one given (see [`Receipt::size`]): the caller knows by the number of receipts which are left. By
    /// default the chunks are [published](Self::publish) one after another.
    fn publish_all(&self, chunks: Vec<NewChunk>) -> BoxFuture<'_, PublishedAll> {
        Box::pin(async move {
            let mut published = PublishedAll::default();
            for NewChunk { bytes, id } in chunks {
                let size = bytes.len();
                match self.publish(bytes, id).await {
                    Ok(receipt) => published.receipts.push(receipt),
                    Err(error) => published.error = Some(error),
                }
                if published.error.is_some() || published.receipts.last().is_some_and(|receipt| receipt.size != size) {
                    break;
                }
            }
            published
        })
    }

    /// Gives it the budget of its feed, called as soon as the feed has one: what it reads should stay within that. By
    /// default it does nothing, and what is read is charged when it is there.
    fn charge_to(&self, budget: &Budget) {
        let _ = budget;
    }

    /// How many view and write the feed at other servers, if that is known. By default it is not.
    fn elsewhere(&self) -> Option<Elsewhere> {
        None
    }

    /// Reads some of the chunks from the number `next` on, in their order. Dropping the future cancels the
    /// read.
    fn read(self: Arc<Self>, epoch: Epoch, next: u64) -> BoxFuture<'static, Result<Past, FeedError>>;

    /// Stores chunks of a source as [`publish_all`](Self::publish_all) does, and with the last of them, in one write, the
    /// source's `place` after it, in the place of an earlier one. By default no place is stored.
    fn publish_from(&self, chunks: Vec<NewChunk>, place: Bytes) -> BoxFuture<'_, PublishedAll> {
        drop(place);
        self.publish_all(chunks)
    }

    /// The place of the feed's source that was stored last, if one was. It must not block.
    fn place(&self) -> Option<Bytes> {
        None
    }

    /// How far a publication has come whose chunks have ids: that is its name, a slash, and the number of its bytes
    /// before the chunk. What is on its way is waited for. By default that is not known.
    fn progress<'a>(&'a self, publication: &'a str) -> BoxFuture<'a, Option<Progress>> {
        let _ = publication;
        Box::pin(std::future::ready(None))
    }

    /// The number of the first of the last `many` chunks before the number `before`, as far as numbers are concerned: it
    /// may be older than what is stored. It must not block. By default all numbers are those of chunks.
    fn last_before(&self, before: u64, many: u64) -> u64 {
        before.saturating_sub(many)
    }

    /// How many numbers before that of the next chunk are not those of chunks when the feed is
    /// [continued](crate::Feed::stored): they were left out after a power loss. It must not block. By default none are.
    fn left_out(&self) -> u64 {
        0
    }

    /// What is stored of the feed, if that is known without asking. It must not block. By default it is not known.
    fn stored(&self) -> Option<Stored> {
        None
    }
}

/// How much of a publication is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Its first chunk.
    pub first: Option<Cursor>,
    /// Its last one; those of other publishers may stand between.
    pub last: Option<Cursor>,
    /// How many chunks it has.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What is stored of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The bytes that it takes where it is stored.
    pub bytes: u64,
    /// The oldest number that is stored; that of the next chunk, if none is.
    pub first: u64,
}

/// A chunk that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChunk {
    /// Its bytes.
    pub bytes: Bytes,
    /// By what it is known if it is sent again: one whose id is stored already is not stored again.
    pub id: Option<String>,
}

/// What has become of chunks that were to be stored: see [`Keeper::publish_all`].
#[derive(Debug, Clone, Default)]
pub struct PublishedAll {
    /// Those of the chunks that are stored, from the first one on.
    pub receipts: Vec<Receipt>,
    /// Why the next one is not.
    pub error: Option<PublishError>,
}

/// Confirms that a chunk was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The chunk's cursor.
    pub cursor: Cursor,
    /// The size of the stored chunk, in bytes. It is not that of the one given if another chunk with the
    /// same id was stored before.
    pub size: usize,
}

/// Some of the stored chunks.
#[derive(Debug, Default)]
pub struct Past {
    /// The oldest number that is stored.
    pub first: u64,
    /// Chunks, the oldest first.
    pub chunks: Vec<Chunk>,
    /// The number to continue with: nothing before it is left out.
    pub next: u64,
}

impl Past {
    /// Up to this many bytes, chunks may share what they were read into: a [`Writer`](crate::format::Writer) copies them
    /// before it passes them on. A larger one is passed on as it is, and is to keep little more in memory than itself.
    pub const SHARED: usize = 8 << 10;
}

/// Why a chunk was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The feed has ended.
    #[error("the feed has ended")]
    Ended,
    /// It is too large for what stores the feed.
    #[error("a chunk of {size} bytes is longer than the {max} that the feed accepts")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// The largest size that is accepted, in bytes.
        max: usize,
    },
    /// What stores the feed does not respond. It may have stored the chunk all the same.
    #[error("the feed cannot be written now")]
    Keeper(#[source] KeeperError),
    /// What stores the feed has refused the chunk, and has not stored it. It may accept it later.
    #[error("the feed cannot be written now")]
    Refused(#[source] KeeperError),
    /// What stores the feed has no room left. The chunk is not stored; publishing works again once there is room.
    #[error("the feed cannot be written now")]
    Full(#[source] KeeperError),
    /// The same as `Keeper`, in words.
    #[deprecated(note = "write `Keeper(KeeperError::new(error))`, which keeps the error")]
    #[error("the feed cannot be written now: {0}")]
    Unavailable(String),
}

/// What a [`Keeper`] reports when what stores the feed does not respond: an error of its own. Clones share it, and only
/// clones of one error are equal.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct KeeperError(Arc<dyn Error + Send + Sync>);

impl KeeperError {
    /// Takes an error, or a text.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into().into())
    }

    /// That error.
    #[must_use]
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl PartialEq for KeeperError {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for KeeperError {}

/// Why [`Publisher::try_publish`](crate::Publisher::try_publish) did not publish a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryPublishError {
    /// A viewer would lose a chunk ([`Lag::Block`](crate::Lag::Block)), or another publisher is waiting for
    /// its turn.
    #[error("a viewer holds up the feed: try again later, or wait with publish")]
    Full,
    /// The feed has ended.
    #[error("the feed has ended")]
    Ended,
    /// The feed is stored, and storing a chunk takes time.
    #[error("the feed is stored: wait with publish")]
    External,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no answer")]
    struct Silent(#[from] std::num::ParseIntError);

    /// Has stored `held` before, under the id "held".
    struct Numbering(std::sync::atomic::AtomicU64);

    impl Keeper for Numbering {
        fn is_writable(&self) -> bool {
            true
        }

        fn is_sparse(&self) -> bool {
            false
        }

        fn publish(&self, bytes: Bytes, id: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>> {
            let size = if id.as_deref() == Some("held") { 1 } else { bytes.len() };
            let seq = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let receipt = Receipt { cursor: Cursor { epoch: Epoch(1), seq }, size };
            Box::pin(std::future::ready(if size == 3 { Err(PublishError::Ended) } else { Ok(receipt) }))
        }

        fn read(self: Arc<Self>, _: Epoch, _: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
            Box::pin(std::future::ready(Ok(Past::default())))
        }
    }

    #[tokio::test]
    async fn chunks_are_stored_together_up_to_what_needs_a_look() {
        let chunk = |bytes: &'static str, id: Option<&str>| NewChunk { bytes: bytes.into(), id: id.map(String::from) };
        let publish = async |chunks| {
            let published = Numbering(0.into()).publish_all(chunks).await;
            (published.receipts.iter().map(|receipt| receipt.cursor.seq).collect::<Vec<_>>(), published.error)
        };
        assert_eq!(
            publish(vec![chunk("a", None), chunk("b", Some("held")), chunk("c", None)]).await,
            (vec![0, 1, 2], None)
        );
        assert_eq!(publish(vec![chunk("ab", Some("held")), chunk("c", None)]).await, (vec![0], None));
        let failing = vec![chunk("a", None), chunk("abc", None), chunk("c", None)];
        assert_eq!(publish(failing).await, (vec![0], Some(PublishError::Ended)));
    }

    #[test]
    fn an_error_of_a_keeper_keeps_its_source() {
        let silent = || Silent("x".parse::<u8>().unwrap_err());
        let error = PublishError::Keeper(KeeperError::new(silent()));
        let words = "the feed cannot be written now: no answer: invalid digit found in string";
        assert_eq!(FeedError::of(&error).0, words);
        assert_eq!(error, error.clone());
        assert_ne!(error, PublishError::Keeper(KeeperError::new(silent())));
        let source = error.source().and_then(Error::source);
        assert!(source.is_some_and(|source| source.is::<std::num::ParseIntError>()), "{error:?}");
    }
}
