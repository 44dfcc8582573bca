//! The token that a client shows, and where it gets another.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use http::HeaderValue;
use tokio::time::Instant;

/// How long a client whose token is refused tries again with what a renewed token has become, unless it was told how
/// long to try.
pub const RENEWAL_WAIT: Duration = Duration::from_secs(60);

type Source = dyn Fn() -> BoxFuture<'static, io::Result<String>> + Send + Sync;

/// What a client shows to be let in: it is asked for whenever the client connects, so that one that has ended is
/// replaced.
///
/// ```no_run
/// # fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use h3cast::client::{Token, Trust, Viewer};
///
/// let uri = "https://cast.example/stream/log".parse()?;
/// let viewer = Viewer::new(&uri, Trust::System)?.token_from(Token::file("/run/secrets/token"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Token(Kind);

#[derive(Clone)]
enum Kind {
    Fixed(String),
    File(PathBuf),
    By(Arc<Source>),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Fixed(_) => f.write_str("Token::fixed"),
            Kind::File(path) => f.debug_tuple("Token::file").field(path).finish(),
            Kind::By(_) => f.write_str("Token::by"),
        }
    }
}

/// Why there is no token to show.
#[derive(Debug, thiserror::Error)]
#[error("cannot get the token{}", file.as_ref().map(|file| format!(" from {}", file.display())).unwrap_or_default())]
pub struct NoToken {
    file: Option<PathBuf>,
    source: io::Error,
}

impl Token {
    /// The same token always.
    #[must_use]
    pub fn fixed(token: impl Into<String>) -> Self {
        Self(Kind::Fixed(token.into()))
    }

    /// What a file holds, without the white space around it. It is read again for every connection.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(path.into()))
    }

    /// What this returns. It is called for every connection, and not cancel-safe unless it is itself: a viewer that
    /// is dropped drops its future.
    #[must_use]
    pub fn by<F>(get: F) -> Self
    where
        F: Fn() -> BoxFuture<'static, io::Result<String>> + Send + Sync + 'static,
    {
        Self(Kind::By(Arc::new(get)))
    }

    /// Whether another one may come where this one has ended.
    pub(crate) fn is_renewed(&self) -> bool {
        !matches!(self.0, Kind::Fixed(_))
    }

    /// The value of `Authorization`, as it is now.
    pub(crate) async fn header(&self) -> Result<HeaderValue, NoToken> {
        let file = match &self.0 {
            Kind::File(path) => Some(path.clone()),
            _ => None,
        };
        let text = match &self.0 {
            Kind::Fixed(token) => Ok(token.clone()),
            Kind::File(path) => tokio::fs::read_to_string(path).await,
            Kind::By(get) => get().await,
        };
        let value = text.and_then(|text| {
            let bad = || io::Error::other("a token has one or more visible ASCII characters");
            let token = text.trim();
            let valid = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
            let mut value =
                valid.then(|| HeaderValue::from_str(&format!("Bearer {token}")).ok()).flatten().ok_or_else(bad)?;
            value.set_sensitive(true);
            Ok(value)
        });
        value.map_err(|source| NoToken { file, source })
    }
}

/// Since when tokens have been refused that may be renewed.
#[derive(Debug, Default)]
pub(super) struct Refused(Option<Instant>);

impl Refused {
    /// One was refused, or there was none: whether another one may still come. One that is renewed may come a moment
    /// later than it is needed; one that was withdrawn for good is not tried for ever.
    pub(super) fn may_change(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(*self.0.get_or_insert(now)) < RENEWAL_WAIT
    }

    /// One was accepted.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}
