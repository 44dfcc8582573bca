//! Which feed a request is for, and which of them its client may see.

use std::borrow::Cow;

use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::{App, Problem, authorize::Decided};
use crate::{
    admission::Refusal,
    auth::Action,
    feed::{self, Account, Exhausted, Feed, OpenError},
    path,
    units::many,
};

impl App {
    /// The feeds that exist now and that this client may read.
    pub(super) fn feeds_of(&self, decided: &Decided) -> Vec<Feed> {
        let mut feeds = self.feeds.all();
        feeds.retain(|feed| decided.access().allows(Action::Read, feed.name()));
        feeds
    }

    /// The name of the feed at that path, which may have any of its letters percent-encoded, also a slash: it names no
    /// folder. `prefix` is where the app is.
    pub(super) fn feed_name<'a>(path: &'a str, prefix: &str) -> Result<Cow<'a, str>, Problem> {
        let path = path::normal(path);
        let nowhere = || {
            let text = format!("feeds are at {prefix}/stream and {prefix}/stream/NAME");
            Problem::new(StatusCode::NOT_FOUND, text)
        };
        match path.as_ref() {
            "/stream" => Ok(feed::DEFAULT.into()),
            path => {
                let name = path.strip_prefix("/stream/").filter(|name| !name.is_empty()).ok_or_else(nowhere)?;
                let name = percent_decode_str(name).decode_utf8().map_err(|_| nowhere())?;
                if name.contains(char::is_control) {
                    return Err(nowhere());
                }
                Ok(name.into_owned().into())
            }
        }
    }

    /// The feed at that path, for one who may do that with it. Whether they may is decided before the feed is looked
    /// for, so that nobody else learns of it, or has it created. If it is created now to be written, it counts for
    /// `account`.
    pub(super) async fn feed(
        &self,
        path: &str,
        prefix: &str,
        account: &Account,
        decided: &Decided,
        action: Action,
    ) -> Result<Feed, Problem> {
        self.feed_named(&Self::feed_name(path, prefix)?, prefix, account, decided, action).await
    }

    /// The feed of that name.
    pub(super) async fn feed_named(
        &self,
        name: &str,
        prefix: &str,
        account: &Account,
        decided: &Decided,
        action: Action,
    ) -> Result<Feed, Problem> {
        decided.require(action, name)?;
        if let Some(feed) = self.feeds.named(name) {
            return Ok(feed.clone());
        }
        let found = match action {
            // Takes nothing from those who write.
            Action::Read => self.feeds.view(name).await,
            Action::Publish => self.feeds.open(name, account).await,
        };
        let found = found.map_err(|error| match error {
            OpenError::Exhausted(Exhausted::Account(each)) => {
                self.refused(Refusal::FeedsPerClient, account);
                let text = format!(
                    "this client has created {}, the most that one client may have: write to one of them; \
                     each is removed when it has been neither read nor written for a while",
                    many(each as u64, "feed")
                );
                Problem::new(StatusCode::TOO_MANY_REQUESTS, text)
            }
            OpenError::Exhausted(Exhausted::All(all)) => {
                self.refused(Refusal::Feeds, account);
                let text = format!("all {all} feeds that clients may create are in use: try again later");
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
            }
            error => Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        })?;
        if let (Some(feed), Some(budget)) = (&found, &self.budget) {
            feed.charge_to(budget);
        }
        found.ok_or_else(|| {
            const SHOWN: usize = 20;
            let known = || self.feeds.names().filter(|name| decided.access().allows(Action::Read, name));
            let mut names: Vec<_> = known().take(SHOWN).collect();
            let more = format!("… ({prefix}/feeds has all)");
            if known().nth(SHOWN).is_some() {
                names.push(&more);
            }
            Problem::new(StatusCode::NOT_FOUND, format!("there is no feed `{name}`: there is {}", names.join(", ")))
        })
    }
}
