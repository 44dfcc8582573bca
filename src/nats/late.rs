//! A feed, or those of a pattern, whose stream is missing or cannot be reached when the server starts: clients get 503
//! until it can be served.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{NatsError, connection::TOLD, error::KeepError, names::Names};
use crate::{
    chunk::Epoch,
    feed::{
        Account, Family, Feed, FeedError, Filler, Keeper, KeeperError, OpenError, Past, PublishError, Receipt, Trouble,
        WrittenLimits,
    },
    source::Started,
};

/// The time between two tries.
const AGAIN: Duration = Duration::from_secs(2);

/// Which feeds there will be.
pub(super) enum Which {
    One(String),
    Many(Names),
}

impl Which {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(names) => names.subject_of(name).is_some(),
        }
    }

    fn pattern(&self) -> &str {
        match self {
            Self::One(name) => name,
            Self::Many(names) => &names.pattern,
        }
    }
}

/// What `start` gives as soon as it succeeds. It is tried until then for as long as the feeding is polled. People were
/// told why it cannot be started now: `why`. A feed `is_writable` if clients write it.
pub(super) fn start(
    which: Which,
    is_writable: bool,
    why: String,
    start: impl Fn() -> BoxFuture<'static, Result<Started, NatsError>> + Send + Sync + 'static,
) -> Started {
    let listed = match &which {
        Which::One(name) => Some(Listed::new(name, is_writable)),
        Which::Many(_) => None,
    };
    let late = Arc::new(Late { which, state: Mutex::new(State::of(why, listed)) });
    let family = late.clone();
    let feeding = async move {
        let started = loop {
            sleep(AGAIN).await;
            match start().await {
                Ok(started) => break started,
                Err(error) => late.failed(&error),
            }
        };
        let Started { feed, family, feeding } = started;
        let mut feeding = pin!(feeding);
        // Dropped before what fills it: a feed that nothing fills has failed.
        let _stop = feed.clone().map(Stop);
        late.is_there(feed.map(There::One).or(family.map(There::Many)));
        info!("the feed `{}` is served now", late.pattern());
        if let Some(feeding) = feeding.as_mut().as_pin_mut() {
            feeding.await;
        }
    };
    Started { feed: None, family: Some(family), feeding: Some(Box::pin(feeding)) }
}

/// Stops a feed when it is dropped.
struct Stop(Feed);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What a feed is listed with until it is there: it has nothing, and clients don't get it.
struct Listed {
    feed: Feed,
    _filler: Filler,
}

impl Listed {
    fn new(name: &str, is_writable: bool) -> Self {
        let (feed, filler) = Feed::kept(name, Arc::new(Missing { is_writable }), 0, Epoch(0), 0, 0);
        filler.stall(true);
        Self { feed, _filler: filler }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // Otherwise it would have failed.
        self.feed.stop();
    }
}

/// What stores a feed that is not there.
struct Missing {
    is_writable: bool,
}

impl Keeper for Missing {
    fn is_writable(&self) -> bool {
        self.is_writable
    }

    fn is_sparse(&self) -> bool {
        false
    }

    fn publish(&self, _: Bytes, _: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        let refused = PublishError::Refused(KeeperError::new(KeepError::NoStream));
        Box::pin(std::future::ready(Err(refused)))
    }

    fn read(self: Arc<Self>, _: Epoch, _: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
        Box::pin(std::future::ready(Err(KeepError::NoStream.into())))
    }
}

struct Late {
    which: Which,
    state: Mutex<State>,
}

struct State {
    /// Why it is not there, as was seen last.
    why: String,
    /// What people were told. Where there are several addresses, one cause may alternate with another.
    told: BTreeSet<String>,
    /// What its feeds may come to, if that was changed.
    limits: Option<WrittenLimits>,
    /// One feed, as it is listed as long as it is not there.
    listed: Option<Listed>,
    there: Option<There>,
}

impl State {
    fn of(why: String, listed: Option<Listed>) -> Self {
        Self { told: BTreeSet::from([why.clone()]), why, limits: None, listed, there: None }
    }

    /// Notes why it is not there. Whether people are to be told.
    fn is_news(&mut self, why: &str) -> bool {
        why.clone_into(&mut self.why);
        self.told.len() < TOLD && self.told.insert(why.to_owned())
    }
}

#[derive(Clone)]
enum There {
    One(Feed),
    Many(Arc<dyn Family>),
}

impl Late {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn there(&self) -> Option<There> {
        self.lock().there.clone()
    }

    /// One feed, as it is listed, whether it is there or not.
    fn one(&self) -> Option<Feed> {
        let state = self.lock();
        match &state.there {
            None => state.listed.as_ref().map(|listed| listed.feed.for_list()),
            Some(There::One(feed)) => Some(feed.for_list()),
            Some(There::Many(_)) => None,
        }
    }

    /// Tells people why it cannot be served yet, unless they know.
    fn failed(&self, error: &NatsError) {
        let why = FeedError::of(error).0;
        let is_news = self.lock().is_news(&why);
        if is_news {
            warn!("the feed `{}` cannot be served yet: {why}", self.pattern());
        }
    }

    fn is_there(&self, there: Option<There>) {
        let mut state = self.lock();
        if let (Some(There::Many(family)), Some(limits)) = (&there, state.limits) {
            family.set_limits(limits);
        }
        state.there = there;
        let listed = state.listed.take();
        drop(state);
        drop(listed);
    }

    fn missing(&self) -> FeedError {
        KeepError::Late(self.lock().why.clone()).into()
    }
}

impl Family for Late {
    fn pattern(&self) -> &str {
        self.which.pattern()
    }

    fn get(&self, name: &str) -> BoxFuture<'_, Option<Result<Feed, FeedError>>> {
        let (name, there) = (name.to_owned(), self.which.is(name).then(|| self.there()));
        Box::pin(async move {
            match there? {
                None => Some(Err(self.missing())),
                Some(There::One(feed)) => Some(Ok(feed)),
                Some(There::Many(family)) => family.get(&name).await,
            }
        })
    }

    fn open<'a>(&'a self, name: &'a str, account: &'a Account) -> BoxFuture<'a, Option<Result<Feed, OpenError>>> {
        let there = self.which.is(name).then(|| self.there());
        Box::pin(async move {
            match there? {
                None => Some(Err(OpenError::Unavailable(self.missing()))),
                Some(There::One(feed)) => Some(Ok(feed)),
                Some(There::Many(family)) => family.open(name, account).await,
            }
        })
    }

    fn set_limits(&self, limits: WrittenLimits) {
        let mut state = self.lock();
        state.limits = Some(limits);
        if let Some(There::Many(family)) = &state.there {
            family.set_limits(limits);
        }
    }

    fn is_ready(&self) -> bool {
        match self.there() {
            None => false,
            Some(There::One(feed)) => feed.is_ready(),
            Some(There::Many(family)) => family.is_ready(),
        }
    }

    fn is_ready_for(&self, name: &str) -> Option<bool> {
        match self.there() {
            Some(There::Many(family)) => family.is_ready_for(name),
            _ => self.which.is(name).then(|| self.is_ready()),
        }
    }

    fn trouble(&self) -> Option<Trouble> {
        match self.there() {
            None => Some(Trouble::Other(self.lock().why.clone())),
            Some(There::One(feed)) => feed.trouble(),
            Some(There::Many(family)) => family.trouble(),
        }
    }

    fn feeds(&self) -> Vec<Feed> {
        match self.there() {
            Some(There::Many(family)) => family.feeds(),
            _ => self.one().into_iter().collect(),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.which.is(name)
    }

    fn existing(&self, name: &str) -> Option<Feed> {
        match self.there() {
            Some(There::Many(family)) => family.existing(name),
            _ => self.one().filter(|feed| feed.name() == name),
        }
    }

    fn some(&self, most: usize, wanted: &dyn Fn(&str) -> bool) -> Vec<Feed> {
        match self.there() {
            Some(There::Many(family)) => family.some(most, wanted),
            _ => self.feeds().into_iter().filter(|feed| wanted(feed.name())).take(most).collect(),
        }
    }

    fn evicted(&self) -> u64 {
        match self.there() {
            Some(There::Many(family)) => family.evicted(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        let mut state = State::of("the first".into(), None);
        let told: Vec<_> = ["the first", "a", "b", "a", "b", "the first", "c"].map(|why| state.is_news(why)).into();
        assert_eq!(told, [false, true, true, false, false, false, true]);
        assert_eq!(state.why, "c");
        assert!((0..1000).filter(|number| state.is_news(&number.to_string())).count() < TOLD);
    }
}
