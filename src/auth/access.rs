//! What a client may do, and until when.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{Pattern, Way};

/// What a client asks to do with a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Read it.
    Read,
    /// Publish to it.
    Publish,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Publish => "publish to",
        })
    }
}

/// What a client may do, and until when. Handlers of your own find it in the extensions of their requests.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use h3cast::auth::{Access, Action};
///
/// let access = Access::granted()
///     .read(["chat.*".parse()?])
///     .publish(["chat.lobby".parse()?])
///     .until(SystemTime::now() + Duration::from_secs(3600))
///     .subject("alice");
/// assert!(access.allows(Action::Read, "chat.garden"));
/// assert!(!access.allows(Action::Publish, "chat.garden"));
/// # Ok::<(), h3cast::auth::BadPattern>(())
/// ```
#[derive(Debug, Clone)]
pub struct Access {
    known: bool,
    read: Arc<[Pattern]>,
    publish: Arc<[Pattern]>,
    until: Option<SystemTime>,
    subject: Option<Arc<str>>,
    /// What says so.
    token: &'static str,
    revoked: Option<CancellationToken>,
    way: Option<Way>,
}

/// The clock is looked at again after that time: a machine that sleeps does not count it, and a clock may be set.
const LOOK: Duration = Duration::from_secs(30);

impl Access {
    /// Nothing, for a client that has shown no credentials: what it may not do is answered with 401, so that it asks
    /// again with some.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            known: false,
            read: Arc::default(),
            publish: Arc::default(),
            until: None,
            subject: None,
            token: "token",
            revoked: None,
            way: None,
        }
    }

    /// Nothing yet, for a client with valid credentials: what it may not do is answered with 403.
    #[must_use]
    pub fn granted() -> Self {
        Self { known: true, ..Self::anonymous() }
    }

    /// Everything, for everyone.
    #[must_use]
    pub fn everything() -> Self {
        Self::anonymous().read([Pattern::all()]).publish([Pattern::all()])
    }

    /// It may read these feeds, in addition to others.
    #[must_use]
    pub fn read(mut self, feeds: impl IntoIterator<Item = Pattern>) -> Self {
        self.read = self.read.iter().cloned().chain(feeds).collect();
        self
    }

    /// It may publish to these feeds, in addition to others.
    #[must_use]
    pub fn publish(mut self, feeds: impl IntoIterator<Item = Pattern>) -> Self {
        self.publish = self.publish.iter().cloned().chain(feeds).collect();
        self
    }

    /// It ends then: streams and sessions end with a code by which clients renew it. By default it does not.
    #[must_use]
    pub fn until(mut self, time: SystemTime) -> Self {
        self.until = Some(time);
        self
    }

    /// It ends when that is cancelled, as well.
    #[must_use]
    pub fn revoked_by(mut self, token: CancellationToken) -> Self {
        self.revoked = Some(token);
        self
    }

    /// Who the client is.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<Arc<str>>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// What kind of token says who the client is: one of another kind may name somebody else alike.
    pub(crate) fn by(self, token: &'static str) -> Self {
        Self { token, ..self }
    }

    /// Who the client is, and what says so.
    pub(crate) fn named_by(&self) -> Option<(&'static str, &str)> {
        Some((self.token, self.who()?))
    }

    /// The token that lets the client do this was sent in that way.
    pub(crate) fn sent(mut self, way: Way) -> Self {
        self.way = Some(way);
        self
    }

    /// How the token was sent, if that is known: a decider of the user's own may go by anything.
    pub(crate) fn way(&self) -> Option<Way> {
        self.way
    }

    /// The same without the right to publish.
    pub(crate) fn only_reading(mut self) -> Self {
        self.publish = Arc::default();
        self
    }

    /// What everyone may read, with the right to publish everything.
    pub(crate) fn into_publisher(self) -> Self {
        Self { known: true, ..self.publish([Pattern::all()]) }
    }

    /// Whether it is that of a client with credentials.
    #[must_use]
    pub fn is_granted(&self) -> bool {
        self.known
    }

    /// Whether it allows anything at all.
    #[must_use]
    pub fn allows_anything(&self) -> bool {
        !self.read.is_empty() || !self.publish.is_empty()
    }

    /// Whether it allows publishing to any feed.
    pub(crate) fn publishes(&self) -> bool {
        !self.publish.is_empty()
    }

    /// Whether it allows that with the feed of that name, which need not exist.
    #[must_use]
    pub fn allows(&self, action: Action, feed: &str) -> bool {
        let patterns = match action {
            Action::Read => &self.read,
            Action::Publish => &self.publish,
        };
        patterns.iter().any(|pattern| pattern.matches(feed))
    }

    /// Whether it allows reading every feed, and with it the server's own numbers.
    #[must_use]
    pub fn reads_all(&self) -> bool {
        self.read.iter().any(Pattern::is_all)
    }

    /// Who the client is, if that is known: the `sub` of a JSON web token, or the name of a static one.
    #[must_use]
    pub fn who(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// When it ends, if that is known.
    #[must_use]
    pub fn ends_at(&self) -> Option<SystemTime> {
        self.until
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.until.is_some_and(|until| SystemTime::now() >= until)
            || self.revoked.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// Whether it has ended before its time.
    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// Completes when it ends; `None` if it does not.
    #[must_use]
    pub fn ended(&self) -> Option<BoxFuture<'static, ()>> {
        if self.until.is_none() && self.revoked.is_none() {
            return None;
        }
        let (until, revoked) = (self.until, self.revoked.clone());
        Some(Box::pin(async move {
            let over = async {
                let Some(until) = until else { return std::future::pending().await };
                while let Ok(left) = until.duration_since(SystemTime::now()) {
                    // Not a moment too early: a client that asks again would be let in with what ends now.
                    tokio::time::sleep(left.min(LOOK) + Duration::from_millis(1)).await;
                }
            };
            let revoked = async {
                match revoked {
                    Some(revoked) => revoked.cancelled_owned().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => {}
                () = revoked => {}
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn ends_by_time_or_word() {
        assert!(Access::everything().ended().is_none());
        let now = SystemTime::now();
        let over = Access::granted().until(now);
        assert!(over.has_ended());
        over.ended().unwrap().await;
        let soon = Access::granted().until(now + Duration::from_millis(50));
        soon.ended().unwrap().await;
        assert!(soon.has_ended());
        let token = CancellationToken::new();
        let revocable = Access::granted().until(now + Duration::from_secs(1 << 40)).revoked_by(token.clone());
        let mut ended = revocable.ended().unwrap();
        assert!(ended.as_mut().now_or_never().is_none() && !revocable.has_ended());
        token.cancel();
        ended.await;
        assert!(revocable.has_ended());
    }
}
