//! Tokens as the program takes them: static ones from files, and JSON web tokens.

mod after;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use futures_util::future::{BoxFuture, join_all};
use http::request::Parts;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

#[cfg(feature = "jwt")]
use super::jwt::{self, KeyError, KeyKind, KeySet, Unverified};
use super::{
    Access, Authorize, BadTokens, Credential, DEFAULT_COOKIE, Denied, Pattern,
    exposed::Exposed,
    reload::{Place, Stamp},
    statics::{Hash, Statics},
};
use crate::units::many;

/// Lets clients read and write by their tokens.
///
/// Clones are the same. Files and what is served are read again when they change, while
/// [`keep`](Self::keep) runs; what cannot be read leaves what was there before.
///
/// ```no_run
/// # async fn doc(app: h3cast::App) -> Result<h3cast::App, Box<dyn std::error::Error>> {
/// use h3cast::auth::Tokens;
///
/// let tokens = Tokens::new().public(["news".parse()?]).file("tokens.txt").await?.keys("jwks.json").await?;
/// tokio::spawn(tokens.clone().keep());
/// let app = app.authorize(tokens);
/// # Ok(app) }
/// ```
#[derive(Clone)]
pub struct Tokens {
    sources: Vec<Arc<Source>>,
    public: Vec<Pattern>,
    audiences: Vec<String>,
    cookie: String,
    /// The sources of those whose place they are to take.
    earlier: Option<Vec<Arc<Source>>>,
    /// Ends what is read without a token, if that may end.
    open: Option<CancellationToken>,
}

/// A source of tokens or keys, and what it held when it was read last.
struct Source {
    place: Place,
    held: RwLock<Held>,
    /// What its file was like when it was read first.
    stamp: Stamp,
}

enum Held {
    Tokens(Arc<Statics>),
    #[cfg(feature = "jwt")]
    Keys(Arc<KeySet>, KeyKind),
    /// Nothing yet: it could not be reached at the start.
    #[cfg(feature = "jwt")]
    NoKeys,
}

/// Tokens or keys cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The file.
    #[error("cannot read {place}")]
    Read {
        /// Which.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// A line of it.
    #[error("{place}: {source}")]
    Tokens {
        /// Which.
        place: String,
        /// What is wrong.
        source: BadTokens,
    },
    /// Its keys.
    #[cfg(feature = "jwt")]
    #[error("{place}: {source}")]
    Keys {
        /// Which.
        place: String,
        /// What is wrong.
        source: KeyError,
    },
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            public: Vec::new(),
            audiences: Vec::new(),
            cookie: DEFAULT_COOKIE.into(),
            earlier: None,
            open: None,
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.sources.iter().map(|source| source.place.to_string());
        f.debug_struct("Tokens")
            .field("sources", &places.collect::<Vec<_>>())
            .field("public", &self.public)
            .field("audiences", &self.audiences)
            .field("cookie", &self.cookie)
            .finish()
    }
}

impl Tokens {
    /// No tokens: nothing may be read or written.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Feeds that everyone may read, also without a token.
    #[must_use]
    pub fn public(mut self, feeds: impl IntoIterator<Item = Pattern>) -> Self {
        self.public.extend(feeds);
        self
    }

    /// Who the server is to those who issue JSON web tokens. A token must be for one of these audiences; without any,
    /// it must name none.
    #[must_use]
    pub fn audiences(mut self, audiences: impl IntoIterator<Item = String>) -> Self {
        self.audiences.extend(audiences);
        self
    }

    /// The cookie in which tokens may be sent; by default [`DEFAULT_COOKIE`].
    #[must_use]
    pub fn cookie(mut self, name: impl Into<String>) -> Self {
        self.cookie = name.into();
        self
    }

    /// Static tokens in memory, as lines of a [file](Self::file).
    ///
    /// # Errors
    ///
    /// When a line is wrong.
    pub fn lines(mut self, text: &str) -> Result<Self, BadTokens> {
        let held = Held::Tokens(Arc::new(Statics::parse(text)?));
        let place = Place::File(PathBuf::new());
        self.sources.push(Arc::new(Source { place, held: RwLock::new(held), stamp: Stamp::default() }));
        Ok(self)
    }

    /// Static tokens from a file, one on each line: `read=chat.*,log publish=chat.a name=alice TOKEN`, with what the
    /// client may not do left out. In place of the token, a line may have [its hash](super::hashed). Lines that begin
    /// with `#` are comments.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a line of it is wrong.
    pub async fn file(mut self, path: impl Into<PathBuf>) -> Result<Self, TokensError> {
        let place = Place::File(path.into());
        if let Some(source) = self.kept(&place, |held| matches!(held, Held::Tokens(_))) {
            self.sources.push(source);
            return Ok(self);
        }
        let (stamp, bytes) = self.read(&place).await?;
        let tokens = statics(&bytes).map_err(|source| TokensError::Tokens { place: place.to_string(), source })?;
        if tokens.len() == 0 {
            warn!("{place} holds no tokens: until it does, no token is valid");
        }
        self.sources.push(Source::new(place, Held::Tokens(Arc::new(tokens)), stamp));
        Ok(self)
    }

    /// Keys that verify JSON web tokens, from a file: public keys (PEM) or a JWKS. Each key is for one algorithm
    /// (RS256, ES256, EdDSA, or HS256 of a JWKS), whatever a token's header says.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or holds no such keys.
    #[cfg(feature = "jwt")]
    pub async fn keys(self, path: impl Into<PathBuf>) -> Result<Self, TokensError> {
        self.key_file(path.into(), KeyKind::Keys).await
    }

    /// The secret of HS256, from a file: at least 32 bytes, of which a newline at the end is no part.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is too short, or holds a key of another kind.
    #[cfg(feature = "jwt")]
    pub async fn secret(self, path: impl Into<PathBuf>) -> Result<Self, TokensError> {
        self.key_file(path.into(), KeyKind::Secret).await
    }

    #[cfg(feature = "jwt")]
    async fn key_file(mut self, path: PathBuf, kind: KeyKind) -> Result<Self, TokensError> {
        let place = Place::File(path);
        let is_kept = |held: &Held| matches!(held, Held::Keys(_, known) if *known == kind);
        if let Some(source) = self.kept(&place, is_kept) {
            self.sources.push(source);
            return Ok(self);
        }
        let (stamp, bytes) = self.read(&place).await?;
        let keys = KeySet::parse(&bytes, kind);
        let keys = keys.map_err(|source| TokensError::Keys { place: place.to_string(), source })?;
        self.sources.push(Source::new(place, Held::Keys(Arc::new(keys), kind), stamp));
        Ok(self)
    }

    /// The same, by a function that asks for them: from a URL, say, which `name` is for messages. It is asked now,
    /// every 5 min, and when a token names a key that is not known, but at most every 10 s. Until there are keys,
    /// requests with tokens are answered with 503. Secrets (HS256) are not taken from there.
    #[cfg(feature = "jwt")]
    pub async fn keys_from<F>(mut self, name: impl Into<String>, fetch: F) -> Self
    where
        F: Fn() -> BoxFuture<'static, io::Result<Vec<u8>>> + Send + Sync + 'static,
    {
        let place = Place::served(name.into(), Arc::new(fetch));
        let kind = KeyKind::Served;
        let read = place.read().await.map_err(Unreadable::Read);
        let held = match read.and_then(|bytes| Ok(KeySet::parse(&bytes, kind)?)) {
            Ok(keys) => Held::Keys(Arc::new(keys), kind),
            Err(error) => {
                if let Some(source) = self.earlier_at(&place) {
                    warn!("cannot get the keys from {place} again, continuing with what was read before: {error}");
                    self.sources.push(source);
                    return self;
                }
                error!("no keys yet from {place}, so no token is valid: {error}; asking again every 10 s");
                Held::NoKeys
            }
        };
        self.sources.push(Source::new(place, held, Stamp::default()));
        self
    }

    /// The files that other users of this machine can read, though they hold secrets. Blocks.
    #[must_use]
    pub fn exposed(&self) -> Vec<PathBuf> {
        let exposed = self.sources.iter().filter(|source| source.exposed().read);
        exposed.filter_map(|source| source.file().map(Into::into)).collect()
    }

    /// What to warn of: files that other users of this machine can read, though they hold secrets, or can write.
    /// Blocks.
    #[cfg(feature = "cli")]
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.sources.iter().filter_map(|source| source.warning(source.exposed())).collect()
    }

    /// Reads files and what is served again when they change, for as long as it is polled. It does not end.
    pub async fn keep(self) {
        join_all(self.sources.iter().map(|source| source.keep())).await;
        std::future::pending().await
    }

    /// What a token allows.
    async fn allows(&self, token: &str) -> Result<Access, Denied> {
        for source in &self.sources {
            if let Held::Tokens(tokens) = &*source.held()
                && let Some(access) = tokens.access(token)
            {
                return Ok(access);
            }
        }
        #[cfg(feature = "jwt")]
        match self.verify(token) {
            Err(Unverified::UnknownKey) => {
                // The key may be newer than what is known here.
                let refreshed = join_all(self.sources.iter().map(|source| source.place.refreshed())).await;
                match refreshed.contains(&true).then(|| self.verify(token)) {
                    Some(Ok(access)) => Ok(access),
                    Some(Err(Unverified::Denied(denied))) => Err(denied),
                    Some(Err(Unverified::UnknownKey)) | None if self.lacks_keys() => {
                        Err(Denied::unavailable("the keys that verify tokens are not available now"))
                    }
                    Some(Err(Unverified::UnknownKey)) | None => {
                        Err(Denied::invalid("the token is not signed with a key of this server (by its kid and alg)"))
                    }
                }
            }
            Err(Unverified::Denied(denied)) => Err(denied),
            Ok(access) => Ok(access),
        }
        #[cfg(not(feature = "jwt"))]
        Err(Denied::invalid("the token is not known to this server"))
    }

    #[cfg(feature = "jwt")]
    fn verify(&self, token: &str) -> Result<Access, Unverified> {
        let sets: Vec<_> = self
            .sources
            .iter()
            .filter_map(|source| match &*source.held() {
                Held::Keys(keys, _) => Some(keys.clone()),
                _ => None,
            })
            .collect();
        if sets.is_empty() {
            return match self.lacks_keys() {
                true => Err(Unverified::UnknownKey),
                false => Err(Denied::invalid("the token is not known to this server").into()),
            };
        }
        jwt::verify(token, sets.iter().map(AsRef::as_ref), &self.audiences)
    }

    /// Whether some keys could not be had yet.
    #[cfg(feature = "jwt")]
    fn lacks_keys(&self) -> bool {
        self.sources.iter().any(|source| matches!(&*source.held(), Held::NoKeys))
    }
}

impl Authorize for Tokens {
    async fn authorize(&self, request: &Parts) -> Result<Access, Denied> {
        let access = match Credential::of(request, &self.cookie)? {
            Some(credential) => self.allows(credential.token()).await?.sent(credential.way()),
            None => self.open.iter().cloned().fold(Access::anonymous(), Access::revoked_by),
        };
        Ok(if self.public.is_empty() { access } else { access.read(self.public.iter().cloned()) })
    }

    /// While keys could not be had yet. Not when they are only old: tokens are verified with them.
    #[cfg(feature = "jwt")]
    fn unready(&self) -> Option<String> {
        self.lacks_keys().then(|| "the keys that verify them have not been fetched yet".to_owned())
    }
}

fn statics(bytes: &[u8]) -> Result<Statics, BadTokens> {
    let text = std::str::from_utf8(bytes);
    Statics::parse(text.map_err(|_| BadTokens { line: 1, what: "the file is not text in UTF-8".into() })?)
}

/// Why something could not be read again.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{0}")]
    Read(io::Error),
    #[error(transparent)]
    Tokens(#[from] BadTokens),
    #[cfg(feature = "jwt")]
    #[error(transparent)]
    Keys(#[from] KeyError),
}

impl Source {
    fn new(place: Place, held: Held, stamp: Stamp) -> Arc<Self> {
        Arc::new(Self { place, held: RwLock::new(held), stamp })
    }

    fn held(&self) -> impl std::ops::Deref<Target = Held> + '_ {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has that static token.
    fn has(&self, hash: &Hash) -> bool {
        matches!(&*self.held(), Held::Tokens(tokens) if tokens.has(hash))
    }

    /// Its file, if it has one.
    fn file(&self) -> Option<&Path> {
        match &self.place {
            Place::File(path) => Some(path.as_path()).filter(|path| !path.as_os_str().is_empty()),
            Place::Served { .. } => None,
        }
    }

    fn is_secret(&self) -> bool {
        match &*self.held() {
            Held::Tokens(_) => true,
            #[cfg(feature = "jwt")]
            Held::Keys(keys, _) => keys.is_secret(),
            #[cfg(feature = "jwt")]
            Held::NoKeys => false,
        }
    }

    /// What other users of this machine can do with its file, and should not. Blocks.
    fn exposed(&self) -> Exposed {
        let of = if self.is_secret() { Exposed::of } else { Exposed::of_public };
        self.file().map(of).unwrap_or_default()
    }

    /// The same, without blocking.
    async fn look(self: &Arc<Self>) -> Exposed {
        let source = self.clone();
        tokio::task::spawn_blocking(move || source.exposed()).await.unwrap_or_default()
    }

    fn warning(&self, exposed: Exposed) -> Option<String> {
        self.file().filter(|_| !exposed.is_none()).map(|file| exposed.warning(file).to_string())
    }

    /// Reads it again when it changes, until dropped.
    async fn keep(self: &Arc<Self>) {
        if matches!(&self.place, Place::File(path) if path.as_os_str().is_empty()) {
            return;
        }
        let mut stamp = self.stamp.clone();
        let mut failed = String::new();
        let mut exposed = self.look().await;
        loop {
            #[cfg(feature = "jwt")]
            let works = failed.is_empty() && !matches!(&*self.held(), Held::NoKeys);
            #[cfg(not(feature = "jwt"))]
            let works = true;
            self.place.changed(&mut stamp, works).await;
            let read = self.place.reread().await.map_err(Unreadable::Read);
            match read.and_then(|bytes| self.replace(&bytes)) {
                Ok(changed) => {
                    failed.clear();
                    match changed {
                        // All are withdrawn, which may be a mistake.
                        Some(_) if self.is_empty() => warn!("{} was read again, and holds no tokens now", self.place),
                        Some(what) => info!("{} was read again: {what}", self.place),
                        None => {}
                    }
                    let before = std::mem::replace(&mut exposed, self.look().await);
                    if let Some(warning) = self.warning(exposed).filter(|_| exposed != before) {
                        warn!("{warning}");
                    }
                }
                Err(error) => {
                    if matches!(error, Unreadable::Read(_)) {
                        // It may only be for the moment, as when there are too many open files: a token that is gone
                        // from it must not stay until the next change.
                        stamp = Stamp::default();
                    }
                    let text = error.to_string();
                    // Once, not for each attempt.
                    if text != failed {
                        warn!("cannot read {} again, continuing with what was read before: {text}", self.place);
                    }
                    failed = text;
                }
            }
            self.place.answered();
        }
    }

    /// Whether it is of static tokens, and holds none.
    fn is_empty(&self) -> bool {
        matches!(&*self.held(), Held::Tokens(tokens) if tokens.len() == 0)
    }

    /// What it holds from now on, in words if that is news.
    fn replace(&self, bytes: &[u8]) -> Result<Option<String>, Unreadable> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match &mut *held {
            Held::Tokens(tokens) => {
                let new = statics(bytes)?.replace(tokens);
                let words = many(new.len() as u64, "token");
                *tokens = Arc::new(new);
                Ok(Some(words))
            }
            #[cfg(feature = "jwt")]
            Held::Keys(keys, kind) => {
                let new = KeySet::parse(bytes, *kind)?;
                let (before, after) = (format!("{keys:?}"), format!("{new:?}"));
                let words = (before != after).then(|| many(new.len() as u64, "key"));
                *keys = Arc::new(new);
                Ok(words)
            }
            #[cfg(feature = "jwt")]
            none @ Held::NoKeys => {
                let new = KeySet::parse(bytes, KeyKind::Served)?;
                let words = many(new.len() as u64, "key");
                *none = Held::Keys(Arc::new(new), KeyKind::Served);
                Ok(Some(words))
            }
        }
    }
}
