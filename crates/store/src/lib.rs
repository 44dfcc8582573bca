//! Live feeds on disk: what is published is there after a restart, a crash or, as far as it was synced, a power loss,
//! with the same cursors.
//!
//! A [`Store`] is a folder, and a [`StoredFeed`] a feed in it: the [`Keeper`](h3cast_feed::Keeper) of a
//! [`Feed::stored`](h3cast_feed::Feed::stored). Viewers are given the latest chunks from memory, and older ones from the
//! disk.
//!
//! ```
//! use std::sync::Arc;
//!
//! use futures_util::StreamExt;
//! use h3cast_feed::{Event, Feed, Start};
//! use h3cast_store::{Store, StoreOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let open = |store: &Store| -> Result<_, h3cast_store::StoreError> {
//!     let stored = store.feed("news")?;
//!     let (epoch, next) = (stored.epoch(), stored.next());
//!     let (feed, filler, publisher) = Feed::stored("news", Arc::new(stored.clone()), 1 << 20, epoch, next);
//!     stored.fill(filler);
//!     Ok((feed, publisher))
//! };
//! let store = Store::open(folder.path(), StoreOptions::default())?;
//! let (feed, publisher) = open(&store)?;
//! let first = publisher.publish("the first".into()).await?;
//! publisher.publish("the second".into()).await?;
//! feed.stop();
//! store.close()?;
//!
//! // In the next process: a viewer continues after its cursor.
//! let store = Store::open(folder.path(), StoreOptions::default())?;
//! let (feed, publisher) = open(&store)?;
//! let mut viewer = feed.view(Start::After(first), None);
//! assert!(matches!(viewer.next().await, Some(Event::Chunk(chunk)) if chunk.bytes == "the second"));
//! # drop(publisher);
//! # Ok(())
//! # }
//! ```

mod again;
mod ahead;
mod append;
mod check;
mod clock;
mod error;
mod feed;
mod files;
mod folder;
mod left_out;
mod look;
mod notes;
mod past;
mod record;
mod regular;
mod segment;
mod shared;
mod store;
mod trim;
mod work;

pub use check::Checked;
pub use error::StoreError;
pub use feed::StoredFeed;
pub use notes::Note;
pub use store::{FeedInfo, Fsync, Retain, Store, StoreOptions};
