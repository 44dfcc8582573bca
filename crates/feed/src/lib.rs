//! Live feeds in memory: one or more publishers, any number of viewers, and no transport.
//!
//! A [`Feed`] is a named sequence of numbered [`Chunk`]s. A live feed keeps the latest of them in a ring of
//! bounded size. A [`Viewer`] is a position in that ring and not a queue, so a slow viewer costs no more than
//! a fast one, and one that falls too far behind is told exactly what it missed: a [`Gap`]. A [`Cursor`]
//! names a position, so that a viewer can come back later and continue without loss or duplicates.
//!
//! ```text
//!  Publisher ──► Feed: a ring of the latest chunks ──► Viewer ──► format::Writer (raw, sse, frames)
//!                         ▲                     └────► Viewer, at another cursor
//!                  Keeper, if it is stored
//! ```
//!
//! # Feeds without HTTP
//!
//! ```
//! use futures_util::StreamExt;
//! use h3cast_feed::{End, Event, Feed, Lag, Start};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), h3cast_feed::PublishError> {
//! // Keeps up to 10 kB for viewers that are late.
//! let (feed, publisher) = Feed::live("news", 10_000, Lag::Skip);
//!
//! // A viewer gets what is published from now on, and remembers where it is.
//! let mut viewer = feed.view(Start::Now, None);
//! let cursor = publisher.publish("the first".into()).await?;
//! assert!(matches!(viewer.next().await, Some(Event::Chunk(chunk)) if chunk.bytes == "the first"));
//! drop(viewer);
//!
//! // While it is away, more is published than the feed keeps.
//! for number in 1..1000 {
//!     publisher.publish(format!("number {number}").into()).await?;
//! }
//! publisher.end(End::Clean);
//!
//! // It continues after its cursor, and is told exactly what it has missed.
//! let mut viewer = feed.view(Start::After(cursor), None);
//! let mut next = cursor.seq + 1;
//! while let Some(event) = viewer.next().await {
//!     match event {
//!         Event::Gap(gap) => {
//!             assert_eq!(gap.from, next);
//!             println!("{} chunks are missing", gap.missing);
//!             next += gap.missing;
//!         }
//!         Event::Chunk(chunk) => {
//!             assert_eq!(chunk.seq, next);
//!             next += 1;
//!         }
//!         Event::Stalled(_) => unreachable!("its publisher does not call `stall`"),
//!         Event::End(end) => assert_eq!(end, End::Clean),
//!     }
//! }
//! assert_eq!(next, 1000);
//! # Ok(())
//! # }
//! ```
//!
//! | item | what it is |
//! |---|---|
//! | [`Feed`], [`Publisher`], [`Viewer`], [`Event`] | live feeds, and feeds that start over for each viewer |
//! | [`Start`], [`Cursor`], [`EndCursor`], [`Gap`] | where viewers begin, and what they miss |
//! | [`Lag`] | what happens to a viewer that falls too far behind |
//! | [`Keeper`], [`Filler`] | feeds that are stored, with a ring of their latest chunks |
//! | [`Budget`], [`Pressure`] | a bound on memory, and what gives way near it |
//! | [`Feeds`], [`Family`], [`WrittenFeeds`] | the feeds of a program, by name; those that clients create |
//! | [`HeldFeeds`], [`History`] | feeds that another process takes over, where cursors stay valid |
//! | [`Account`], [`Shares`] | whom something is counted for, and how much each may have at once |
//! | [`format`](mod@format) | a feed as a stream of bytes: raw, server-sent events, binary frames |
//!
//! Needs a Tokio runtime with timers where something waits for time: heartbeats of a
//! [`format::Writer`], a publisher that is held up, retries of a [`Keeper`].

mod account;
mod attendance;
mod budget;
mod chunk;
mod cost;
mod delivery;
mod feed;
mod feeds;
pub mod format;
mod held;
mod input;
mod keeper;
mod kept;
mod log;
mod panics;
mod pattern;
mod publisher;
mod rate;
mod ring;
mod start;
mod status;
mod viewer;
mod written;

pub use account::{Account, Exhausted, Share, Shares};
pub use attendance::{Attendance, Elsewhere, Publishing};
pub use budget::{Budget, Charge, Pressure, Turn};
pub use chunk::Chunk;
pub use delivery::{Delivered, Deliveries, Delivery};
pub use feed::{BadVariant, DEFAULT_HISTORY, Feed, Trouble};
pub use feeds::{DEFAULT, Family, Feeds, OpenError};
pub use h3cast_proto::feed::{BadCursor, Cursor, End, EndCursor, Epoch, FeedError, Gap};
pub use held::{HeldFeeds, History, Hold, Provenance, RestoreError};
pub use input::{BoxInput, Input};
pub use keeper::{
    Keeper, KeeperError, NewChunk, Past, Progress, PublishError, PublishedAll, Receipt, Stored, TryPublishError,
};
pub use kept::Filler;
pub use pattern::{BadPattern, Pattern};
pub use publisher::Publisher;
pub use rate::Rate;
pub use ring::Lag;
pub use start::{BadStart, Start};
pub use status::{Behind, Counted, Status};
pub use viewer::{Event, Viewer};
pub use written::{FeedStore, WrittenFeeds, WrittenLimits};

// What public signatures name.
#[doc(no_inline)]
pub use bytes::{self, Bytes};
#[doc(no_inline)]
pub use futures_util::{Stream, future::BoxFuture};
