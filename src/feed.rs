//! Feeds: named sequences of chunks, and who views them. All of it is the crate [`h3cast_feed`].

pub use h3cast_feed::{
    BadStart, Counted, DEFAULT, DEFAULT_HISTORY, End, Event, Family, Feed, FeedError, Feeds, Filler, From, Gap, Keeper,
    Lag, Past, PublishError, Publisher, Rate, Receipt, Status, Viewer,
};
