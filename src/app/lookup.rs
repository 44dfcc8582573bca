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
    units::{many, there_are},
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
        found.ok_or_else(|| self.unknown(name, prefix, decided))
    }

    /// The answer for a name without a feed: it lists the names that there are, and says so if the feed may still come.
    fn unknown(&self, name: &str, prefix: &str, decided: &Decided) -> Problem {
        const SHOWN: usize = 20;
        let may_read = |name: &str| decided.access().allows(Action::Read, name);
        let text = match self.feeds.pattern_of(name) {
            // A family that clients write has a feed for every such name.
            Some(pattern) => {
                let alike = self.feeds.alike(name, SHOWN, may_read);
                let alike: Vec<_> = alike.iter().map(Feed::name).collect();
                let others = if alike.is_empty() { String::new() } else { format!("; {}", there_are(&alike)) };
                format!(
                    "there is no feed `{name}` yet: the name matches {pattern}, but no message is stored for it. The \
                     feed is there from the first one on{others}"
                )
            }
            None => {
                let known = || self.feeds.names().filter(|name| may_read(name));
                let names: Vec<_> = known().take(SHOWN).collect();
                let more = match known().nth(SHOWN) {
                    Some(_) => format!(", … ({prefix}/feeds has all)"),
                    None => String::new(),
                };
                // A client that may read no other learns of none.
                let others = if names.is_empty() { String::new() } else { format!(": {}{more}", there_are(&names)) };
                format!("there is no feed `{name}`{others}")
            }
        };
        Problem::new(StatusCode::NOT_FOUND, text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::body::{Body, to_bytes};
    use futures_util::future::BoxFuture;
    use http::{Request, header, request::Parts};
    use tower::ServiceExt;

    use super::*;
    use crate::{
        auth::{Access, Authorize, Denied},
        feed::{Family, FeedError, Lag, WrittenFeeds, WrittenLimits},
    };

    /// A thousand feeds of a pattern like `logs.*`, and how often they were listed.
    struct Listed(&'static str, AtomicUsize);

    impl Family for Listed {
        fn pattern(&self) -> &'static str {
            self.0
        }

        fn get(&self, _: &str) -> BoxFuture<'_, Option<Result<Feed, FeedError>>> {
            Box::pin(std::future::ready(None))
        }

        fn feeds(&self) -> Vec<Feed> {
            self.1.fetch_add(1, Ordering::Relaxed);
            let prefix = self.0.trim_end_matches('*');
            (100..1100).map(|number| Feed::writable(&format!("{prefix}{number}"), 1000, Lag::Skip)).collect()
        }

        fn is_ready(&self) -> bool {
            true
        }
    }

    async fn answer(app: &App, path: &str) -> (u16, String) {
        let request = Request::get(path).header(header::HOST, "localhost").body(Body::empty()).unwrap();
        let response = app.router().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        (status, String::from_utf8(to_bytes(response.into_body(), 1 << 16).await.unwrap().into()).unwrap())
    }

    /// Clients may have created thousands, and an answer about one name is for anyone.
    #[tokio::test]
    async fn answers_about_one_name_do_not_look_at_each_feed() {
        let families = ["chat.*", "logs.*"].map(|pattern| Arc::new(Listed(pattern, AtomicUsize::new(0))));
        let written = WrittenFeeds::within("rooms.*", 1000, Lag::Skip, WrittenLimits::default()).unwrap();
        let app = App::without_identity([]).family(families[0].clone()).family(families[1].clone()).family(written);
        let take = || families.iter().map(|family| family.1.swap(0, Ordering::Relaxed)).sum::<usize>();
        for (path, status, lists) in [
            ("/stream/logs.none", 404, 1),
            ("/stream/logs.none.x", 404, 0),
            ("/stream/other", 404, 0),
            ("/stream", 404, 0),
            ("/readyz/other", 404, 0),
            ("/readyz/logs.none", 200, 1),
            ("/readyz/logs.100", 200, 1),
            // As /readyz names it.
            ("/readyz/logs.*", 200, 0),
            ("/readyz/logs.%2A", 200, 0),
            ("/readyz/rooms.*", 200, 0),
            ("/readyz/rooms.%2A", 200, 0),
            ("/readyz/rooms.*.*", 404, 0),
            ("/readyz", 200, 0),
        ] {
            let (got, text) = answer(&app, path).await;
            let listed = take();
            assert!(got == status && listed <= lists, "{path}: {got}, listed {listed} times: {text}");
        }
        let (_, text) = answer(&app, "/stream/logs.none").await;
        assert!(text.contains("; there are logs.100, logs.101, ") && text.contains("logs.119\""), "{text}");
    }

    #[tokio::test]
    async fn a_client_that_may_read_no_other_feed_gets_a_whole_sentence() {
        struct One;
        impl Authorize for One {
            async fn authorize(&self, _: &Parts) -> Result<Access, Denied> {
                Ok(Access::granted().read(["x".parse().unwrap()]))
            }
        }
        let secret = Feed::writable("secret", 1000, Lag::Skip);
        let app = App::without_identity([secret]).authorize(Arc::new(One));
        let (status, text) = answer(&app, "/stream/x").await;
        assert!(status == 404 && text.contains("\"there is no feed `x`\""), "{status}: {text}");
    }
}
