//! Feeds that start over for each viewer.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};

use super::{Backing, Feed};
use crate::{Account, BoxInput, End, Epoch, Exhausted, FeedError};

pub(super) type SourceStream = BoxStream<'static, Result<Bytes, End>>;

/// What a source gives, and where it takes what its viewer sends, if it does.
pub(super) type Opened = (SourceStream, Option<BoxInput>);

pub(crate) type OpenSource = dyn Fn(u64, &Account) -> Result<Opened, Exhausted> + Send + Sync;

/// A source that fails at once.
pub(super) fn failing(error: FeedError) -> SourceStream {
    stream::once(std::future::ready(Err(End::Failed(error)))).boxed()
}

impl Feed {
    /// A feed that starts over for each viewer, with what `open` returns. Dropping the stream that `open`
    /// returned ends its source.
    pub fn on_demand<S>(name: &str, open: impl Fn() -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes, FeedError>> + Send + 'static,
    {
        Self::on_demand_with_end(name, move || open().map(|chunk| chunk.map_err(End::Failed)))
    }

    /// Like [`on_demand`](Self::on_demand) for a source that may end in any way: the error of its stream is
    /// how it ended.
    pub fn on_demand_with_end<S>(name: &str, open: impl Fn() -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes, End>> + Send + 'static,
    {
        Self::of_source(name, None, false, move |_, _| Ok((open().boxed(), None)))
    }

    /// Like [`on_demand_with_end`](Self::on_demand_with_end) for a source of which there may be only so many at once,
    /// as a process is: `open` takes one of [`Shares`](crate::Shares) for the viewer's account, and its stream gives
    /// it back. Views of such a feed begin with [`view_as`](Self::view_as).
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// use h3cast_feed::{Account, End, Exhausted, Feed, Shares, Start};
    ///
    /// let shares = Shares::new(64, 1);
    /// let feed = Feed::on_demand_for("report", move |account| {
    ///     let share = shares.take(account)?;
    ///     // The stream owns the share.
    ///     Ok(futures_util::stream::once(async { Ok::<_, End>("a report".into()) }).inspect(move |_| _ = &share))
    /// });
    /// let account = Account::new("192.0.2.1");
    /// let viewer = feed.view_as(&account, Start::Now, None)?;
    /// assert_eq!(feed.view_as(&account, Start::Now, None).unwrap_err(), Exhausted::Account(1));
    /// # drop(viewer);
    /// # Ok::<(), Exhausted>(())
    /// ```
    pub fn on_demand_for<S>(name: &str, open: impl Fn(&Account) -> Result<S, Exhausted> + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes, End>> + Send + 'static,
    {
        Self::of_source(name, None, true, move |_, account| Ok((open(account)?.boxed(), None)))
    }

    /// Like [`on_demand_for`](Self::on_demand_for) for a source that takes input, as a process does: `open` returns its
    /// stream, and where what the viewer sends goes. That is [`Viewer::take_input`](crate::Viewer::take_input).
    ///
    /// ```
    /// use futures_util::stream;
    /// use h3cast_feed::{Account, End, Exhausted, Feed, Start};
    ///
    /// // What is sent here goes nowhere.
    /// let feed = Feed::interactive_for("shell", |_| {
    ///     let input: h3cast_feed::BoxInput = Box::pin(Vec::new());
    ///     Ok((stream::iter([Ok::<_, End>("hello".into())]), Some(input)))
    /// });
    /// assert!(feed.takes_input());
    /// let mut viewer = feed.view_as(&Account::new("192.0.2.1"), Start::Now, None)?;
    /// assert!(viewer.take_input().is_some());
    /// # Ok::<(), Exhausted>(())
    /// ```
    pub fn interactive_for<S>(
        name: &str,
        open: impl Fn(&Account) -> Result<(S, Option<BoxInput>), Exhausted> + Send + Sync + 'static,
    ) -> Self
    where
        S: Stream<Item = Result<Bytes, End>> + Send + 'static,
    {
        let mut feed = Self::of_source(name, None, true, move |_, account| {
            let (stream, input) = open(account)?;
            Ok((stream.boxed(), input))
        });
        if let Backing::OnDemand { interactive, .. } = &mut feed.backing {
            *interactive = true;
        }
        feed
    }

    fn of_source(
        name: &str,
        same: Option<Epoch>,
        costly: bool,
        open: impl Fn(u64, &Account) -> Result<Opened, Exhausted> + Send + Sync + 'static,
    ) -> Self {
        let backing = Backing::OnDemand { open: Arc::new(open), same, costly, interactive: false, variants: None };
        Self { name: name.into(), backing, file: None, counters: Arc::default() }
    }

    /// A feed that has the same chunks for each viewer. `open` returns them starting at a number, so that a
    /// viewer that reconnects continues where it was.
    pub fn replayable<S>(name: &str, open: impl Fn(u64) -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes, FeedError>> + Send + 'static,
    {
        Self::replayable_as(name, Epoch(0), open)
    }

    /// Like [`replayable`](Self::replayable) with an epoch that is not 0, which tells its cursors from those of feeds
    /// with other chunks.
    pub fn replayable_as<S>(name: &str, epoch: Epoch, open: impl Fn(u64) -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Bytes, FeedError>> + Send + 'static,
    {
        Self::of_source(name, Some(epoch), false, move |start, _| {
            Ok((open(start).map(|chunk| chunk.map_err(End::Failed)).boxed(), None))
        })
    }
}
