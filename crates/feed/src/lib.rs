//! Live feeds in memory: one or more publishers, any number of viewers, and no transport.
//!
//! A [`Feed`] is a named sequence of numbered [`Chunk`]s. A live feed keeps the latest of them in a ring of
//! bounded size. A [`Viewer`] is a position in that ring and not a queue, so a slow viewer costs no more than
//! a fast one, and one that falls too far behind is told exactly what it missed: a [`Gap`]. A [`Cursor`]
//! names a position, so that a viewer can come back later and continue without loss or duplicates.
//!
//! # Feeds without HTTP
//!
//! ```
//! use futures_util::StreamExt;
//! use h3cast_feed::{End, Event, Feed, Lag, Start};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), h3cast_feed::PublishError> {
//! // Keeps up to 1 MiB for viewers that are late.
//! let (feed, publisher) = Feed::live("news", 1 << 20, Lag::Skip);
//! let first = publisher.publish("first".into()).await?;
//! publisher.publish("second".into()).await?;
//!
//! // A viewer that has received the first chunk continues after it.
//! let mut viewer = feed.view(Start::After(first), None);
//! publisher.end(End::Clean);
//! while let Some(event) = viewer.next().await {
//!     match event {
//!         Event::Chunk(chunk) => assert_eq!((chunk.seq, &chunk.bytes[..]), (1, &b"second"[..])),
//!         Event::Gap(gap) => println!("{} chunks are gone", gap.missing),
//!         Event::Stalled(stalled) => println!("the feed {}", if stalled { "waits" } else { "continues" }),
//!         Event::End(end) => assert_eq!(end, End::Clean),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | item | what it is |
//! |---|---|
//! | [`Feed`], [`Publisher`], [`Viewer`], [`Event`] | live feeds, and feeds that start over for each viewer |
//! | [`Start`], [`Cursor`], [`EndCursor`], [`Gap`] | where viewers begin, and what they miss |
//! | [`Lag`] | what happens to a viewer that falls too far behind |
//! | [`Keeper`], [`Filler`] | feeds stored externally, with a ring of their latest chunks |
//! | [`Feeds`], [`Family`] | the feeds of a program, by name |
//! | [`format`](mod@format) | a feed as a stream of bytes: raw, server-sent events, binary frames |
//!
//! Needs a Tokio runtime with timers where something waits for time: heartbeats of a
//! [`format::Writer`], a publisher that is held up, retries of a [`Keeper`].

mod chunk;
mod feed;
mod feeds;
pub mod format;
mod keeper;
mod kept;
mod log;
mod panics;
mod publisher;
mod rate;
mod ring;
mod start;
mod status;
mod viewer;

pub use chunk::Chunk;
pub use feed::{DEFAULT_HISTORY, Feed};
pub use feeds::{DEFAULT, Family, Feeds};
pub use h3cast_proto::feed::{BadCursor, Cursor, End, EndCursor, Epoch, FeedError, Gap};
pub use keeper::{Keeper, Past, PublishError, Receipt, TryPublishError};
pub use kept::Filler;
pub use publisher::Publisher;
pub use rate::Rate;
pub use ring::Lag;
pub use start::{BadStart, Start};
pub use status::{Counted, Status};
pub use viewer::{Event, Viewer};
