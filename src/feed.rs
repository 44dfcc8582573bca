//! Feeds: named sequences of chunks, and their viewers. This is the crate [`h3cast_feed`].

pub use h3cast_feed::{
    Account, Attendance, BadPattern, BadStart, BadVariant, Behind, BoxInput, Budget, Charge, Counted, DEFAULT,
    DEFAULT_HISTORY, Delivered, Deliveries, Delivery, Elsewhere, End, Event, Exhausted, Family, Feed, FeedError,
    FeedStore, Feeds, Filler, Gap, HeldFeeds, History, Hold, Input, Keeper, KeeperError, Lag, NewChunk, OpenError,
    Past, Pattern, Pressure, Progress, Provenance, PublishError, PublishedAll, Publisher, Publishing, Rate, Receipt,
    RestoreError, Share, Shares, Start, Status, Stored, Trouble, TryPublishError, Turn, Viewer, WrittenFeeds,
    WrittenLimits,
};

/// [`Start`] by its former name.
///
/// ```
/// # #![allow(deprecated)]
/// use h3cast::feed::{Feed, From, Lag};
///
/// let (feed, _publisher) = Feed::live("news", 1 << 20, Lag::Skip);
/// let viewer = feed.view(From::Now, None);
/// ```
#[deprecated(since = "0.1.0", note = "it shadowed the prelude's `From`: write `h3cast::feed::Start`")]
pub type From = Start;
