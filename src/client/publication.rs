//! Publishing to a feed of a server: a lost connection loses and doubles nothing.

mod error;
mod published;

use std::{
    fmt, io,
    pin::{Pin, pin},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Request, StatusCode, Uri, header};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

pub use error::{AnswerError, PublishError};
pub use published::{PublishEvent, Published};

use super::{
    ClientResponse, Connection, Token, Trust,
    replay::{HOLD, Replay},
    retry::{self, Retry},
    token::Refused as Refusals,
};
use crate::source::chunker::Chunking;

/// What is sent is acknowledged after that time, however little it is.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);
/// How long a server that stops reading may take to say why.
const WHY: Duration = Duration::from_secs(5);

/// Publishes to a feed, over HTTP/3.
///
/// What was sent and is not yet confirmed is kept (4 MiB), and sent again after the connection was lost; the
/// server skips what it has. It is asked for an acknowledgement every 4 MiB, and every 10 s.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use bytes::Bytes;
/// use h3cast::client::{Publication, Trust};
///
/// let uri = "https://localhost:4433/stream/log".parse()?;
/// let mut publication = Publication::new(uri, Trust::Files(vec!["certs/cert.pem".into()]));
/// let lines = futures_util::stream::iter([Ok(Bytes::from("one\n")), Ok(Bytes::from("two\n"))]);
/// let published = publication.run(lines, |event| eprintln!("{event:?}")).await?;
/// println!("{} bytes", published.bytes);
/// # Ok(()) }
/// ```
pub struct Publication {
    uri: Uri,
    trust: Trust,
    token: Option<HeaderValue>,
    /// Where it comes from, if it is asked for again.
    token_from: Option<Token>,
    /// A token has let it in.
    opened: bool,
    /// Tokens that were refused since one was accepted.
    refusals: Refusals,
    retry: Retry,
    retry_for: Option<Duration>,
    key: HeaderValue,
    replay: Replay,
    /// How many bytes one request may have.
    longest: u64,
    /// What the server reported last.
    published: Published,
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication")
            // Not the query, which may hold a token.
            .field("host", &self.uri.authority())
            .field("path", &self.uri.path())
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}

/// A key that no other publication has.
fn new_key() -> HeaderValue {
    let key = format!("{:016x}{:016x}", retry::random(), retry::random());
    HeaderValue::from_str(&key).expect("digits are visible ASCII")
}

impl Publication {
    /// A publication to the feed at `uri`, by default each piece a chunk. Nothing happens before
    /// [`run`](Self::run).
    #[must_use]
    pub fn new(uri: Uri, trust: Trust) -> Self {
        Self {
            uri: with_chunk(uri, "bytes"),
            trust,
            token: None,
            token_from: None,
            opened: false,
            refusals: Refusals::default(),
            retry: Retry::default(),
            retry_for: None,
            key: new_key(),
            replay: Replay::new(false),
            longest: HOLD as u64,
            published: Published::default(),
        }
    }

    /// Where what is published is cut into chunks: wherever a piece ends (the default), or after
    /// each newline.
    #[must_use]
    pub fn chunking(mut self, chunking: Chunking) -> Self {
        let lines = matches!(chunking, Chunking::Lines);
        self.uri = with_chunk(self.uri, if lines { "lines" } else { "bytes" });
        self.replay = Replay::new(lines);
        self
    }

    /// The token that the server wants, as the value of `Authorization: Bearer`.
    #[must_use]
    pub fn token(mut self, token: impl Into<Option<HeaderValue>>) -> Self {
        self.token = token.into();
        self
    }

    /// The token that the server wants, asked for again whenever the publication connects. When it has ended, a
    /// publication whose token can be renewed tries for [`RENEWAL_WAIT`](super::RENEWAL_WAIT) to get in with another one,
    /// or for as long as [`retry_for`](Self::retry_for) says.
    #[must_use]
    pub fn token_from(mut self, token: impl Into<Option<Token>>) -> Self {
        self.token_from = token.into();
        self
    }

    /// How long to try to reach the server, counted from its loss (default: forever, as with `None`). No attempt
    /// after the first failure lasts longer.
    #[must_use]
    pub fn retry_for(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.retry_for = limit.into();
        self.retry = Retry::new(self.retry_for);
        self
    }

    /// How many bytes are known to have been published.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.replay.acknowledged()
    }

    /// Publishes `pieces` to their end, and returns what the server reports. They are read as fast
    /// as the server accepts them.
    ///
    /// # Errors
    ///
    /// When trying again does not help, or the time for that is over.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the request is reset; what was sent last may have been published or not.
    pub async fn run<S>(&mut self, pieces: S, mut tell: impl FnMut(PublishEvent)) -> Result<Published, PublishError>
    where
        S: Stream<Item = io::Result<Bytes>>,
    {
        let mut pieces = pin!(pieces);
        self.replay.resume();
        loop {
            let error = match self.connected(pieces.as_mut(), &mut tell).await {
                Ok(()) => return Ok(self.published.clone()),
                Err(error) if error.is_final() && !self.renews(&error) => return Err(error),
                Err(error) => error,
            };
            let Some(pause) = error.pause(&mut self.retry) else {
                return Err(PublishError::GaveUp { after: self.retry_for.unwrap_or_default(), last: Box::new(error) });
            };
            tell(PublishEvent::Lost { error, pause });
            sleep(pause).await;
        }
    }

    /// Whether another token may come, and help.
    fn renews(&mut self, error: &PublishError) -> bool {
        self.opened
            && error.is_about_token()
            && self.token_from.as_ref().is_some_and(Token::is_renewed)
            && (self.refusals.may_change(Instant::now()) || self.retry_for.is_some())
    }

    /// Publishes over one connection.
    async fn connected<S>(
        &mut self,
        mut pieces: Pin<&mut S>,
        tell: &mut impl FnMut(PublishEvent),
    ) -> Result<(), PublishError>
    where
        S: Stream<Item = io::Result<Bytes>>,
    {
        if let Some(token) = &self.token_from {
            self.token = Some(token.header().await?);
        }
        let (deadline, uri, again) = (self.retry.deadline(), self.uri.clone(), self.retry.is_eager(Instant::now()));
        let opening = async {
            let connection = match again {
                true => Connection::open_again(&self.uri, &self.trust).await?,
                false => Connection::open(&self.uri, &self.trust).await?,
            };
            // Reports at once if publishing is not allowed, and how much of what was sent before has been published.
            self.ask(&connection, tell).await?;
            Ok::<_, PublishError>(connection)
        };
        let connection = retry::by(deadline, &uri, opening).await?;
        self.opened = true;
        self.refusals.clear();
        tell(PublishEvent::Opened { published: self.replay.acknowledged() });
        loop {
            if self.replay.is_waiting() {
                self.request(&connection, pieces.as_mut(), tell).await?;
            } else if self.replay.is_finished() {
                connection.close().await;
                return Ok(());
            } else {
                // However long this takes, nothing has failed.
                self.works(tell);
                self.read(pieces.as_mut()).await?;
            }
        }
    }

    /// Takes the next piece of what is to be published. Cancel-safe.
    async fn read<S>(&mut self, mut pieces: Pin<&mut S>) -> Result<(), PublishError>
    where
        S: Stream<Item = io::Result<Bytes>>,
    {
        match pieces.next().await {
            Some(piece) => self.replay.push(piece?),
            None => self.replay.finish(),
        }
        Ok(())
    }

    fn head(&self, offset: Option<u64>) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert("idempotency-key", self.key.clone());
        headers.extend(offset.map(|offset| (header::HeaderName::from_static("upload-offset"), offset.into())));
        headers.extend(self.token.clone().map(|token| (header::AUTHORIZATION, token)));
        request
    }

    /// Asks how much has been published.
    async fn ask(&mut self, connection: &Connection, tell: &mut impl FnMut(PublishEvent)) -> Result<(), PublishError> {
        let response = connection.request(self.head(None)).await?;
        let published = answer(response).await.map_err(|(error, _)| error)?;
        self.acknowledge(published, tell)
    }

    /// One request: sends what there is and what comes, until it is time to have it acknowledged.
    async fn request<S>(
        &mut self,
        connection: &Connection,
        mut pieces: Pin<&mut S>,
        tell: &mut impl FnMut(PublishEvent),
    ) -> Result<(), PublishError>
    where
        S: Stream<Item = io::Result<Bytes>>,
    {
        self.replay.rewind();
        let before = self.replay.acknowledged();
        let (mut body, mut response) = connection.send_request(self.head(Some(before))).await?;
        let mut time = pin!(sleep(ACKNOWLEDGE));
        let early = loop {
            if let Some(piece) = self.replay.send(self.longest) {
                let sent = tokio::select! {
                    early = &mut response => break Some(early),
                    sent = body.send(piece) => sent,
                };
                if let Err(error) = sent {
                    // The answer says why, if there is one.
                    let answer = timeout(WHY, &mut response).await;
                    break Some(answer.unwrap_or(Err(error)));
                }
                continue;
            }
            let unacknowledged = self.replay.end() - before;
            if self.replay.is_finished() || self.replay.is_full() || unacknowledged >= self.longest {
                break None;
            }
            tokio::select! {
                biased;
                early = &mut response => break Some(early),
                () = &mut time => break None,
                read = self.read(pieces.as_mut()) => read?,
            }
        };
        let response = match early {
            Some(early) => early?,
            None => {
                // An error here is told by the response.
                let _ = body.finish().await;
                response.await?
            }
        };
        match answer(response).await {
            Ok(published) if published.bytes <= before => Err(AnswerError::Nothing { after: before }.into()),
            Ok(published) => {
                self.acknowledge(published, tell)?;
                self.works(tell);
                Ok(())
            }
            Err((error @ PublishError::Answered { status: StatusCode::PAYLOAD_TOO_LARGE, .. }, _)) => {
                // It was more than the server takes at once: what it took is what it takes.
                self.ask(connection, tell).await?;
                self.longest = self.replay.acknowledged().saturating_sub(before);
                if self.longest == 0 { Err(error) } else { Ok(()) }
            }
            Err((error, published)) => {
                if let Some(published) = published {
                    self.note(published, tell)?;
                }
                Err(error)
            }
        }
    }

    /// What failed before works again.
    fn works(&mut self, tell: &mut impl FnMut(PublishEvent)) {
        if self.retry.is_failing() {
            tell(PublishEvent::Recovered { published: self.replay.acknowledged() });
        }
        self.retry.works();
    }

    /// What the server has published of a request that it has ended with an error. Whatever else that may mean, it is
    /// asked before the next request.
    fn note(&mut self, published: Published, tell: &mut impl FnMut(PublishEvent)) -> Result<(), PublishError> {
        let (old, new) = (self.published.epoch(), published.epoch());
        let is_same = old.is_none() || old == new;
        match is_same && published.bytes > self.replay.acknowledged() {
            true => self.acknowledge(published, tell),
            false => Ok(()),
        }
    }

    /// The server has said what it has.
    fn acknowledge(&mut self, published: Published, tell: &mut impl FnMut(PublishEvent)) -> Result<(), PublishError> {
        let before = self.replay.acknowledged();
        if published.bytes > self.replay.end() {
            return Err(AnswerError::TooMuch { published: published.bytes, given: self.replay.end() }.into());
        }
        let (old, new) = (self.published.epoch(), published.epoch());
        let forgotten = published.bytes < before;
        // Another server of the same feed: chunks are known there by the key and their place.
        let elsewhere = forgotten && old.is_some() && old == new;
        if elsewhere {
            return Ok(());
        }
        // A run that has nothing of it may have given way to another feed: nothing was lost.
        let another = before > 0 && old.is_some() && new.is_some() && old != new;
        if forgotten || another {
            tell(PublishEvent::Restarted { published: before });
        }
        if forgotten {
            // The server takes this key for one whose publication has only begun.
            self.key = new_key();
        } else {
            self.replay.acknowledge(published.bytes);
            if published.bytes > before {
                tell(PublishEvent::Acknowledged(published.bytes));
            }
        }
        self.published = published;
        Ok(())
    }
}

/// What the server has published. With an error comes what it has published all the same, if it says so.
async fn answer(mut response: ClientResponse) -> Result<Published, (PublishError, Option<Published>)> {
    let status = response.status;
    if status == StatusCode::OK {
        let text = response.body.short().await.map_err(|error| (error.into(), None))?;
        return serde_json::from_slice(&text).map_err(|error| (AnswerError::Json(error).into(), None));
    }
    let problem = response.problem_as::<Refused>().await.unwrap_or_default();
    let retry_after = retry::retry_after(&response.headers, SystemTime::now());
    // Another server's may look different.
    let published = problem.published.and_then(|published| serde_json::from_value(published).ok());
    Err((PublishError::Answered { status, detail: problem.detail, retry_after }, published))
}

/// A problem that ends a publication.
#[derive(Debug, Default, Deserialize)]
struct Refused {
    detail: Option<String>,
    published: Option<serde_json::Value>,
}

/// The URI with `chunk=` in its query.
fn with_chunk(uri: Uri, chunk: &str) -> Uri {
    let pairs = uri.query().unwrap_or_default().split('&');
    let kept = pairs.filter(|pair| !pair.is_empty() && !pair.starts_with("chunk="));
    let query = kept.map(String::from).chain([format!("chunk={chunk}")]).collect::<Vec<_>>().join("&");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{}?{query}", uri.path()).parse().ok();
    // Made of parts that stood in one before.
    Uri::from_parts(parts).unwrap_or(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_says_where_chunks_end() {
        for (given, expected) in [
            ("https://h/stream", "https://h/stream?chunk=lines"),
            ("https://h", "https://h/?chunk=lines"),
            ("https://h/stream?a=b&chunk=bytes&&c", "https://h/stream?a=b&c&chunk=lines"),
        ] {
            assert_eq!(with_chunk(given.parse().unwrap(), "lines"), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_stays_refused_ends_it() {
        let uri: Uri = "https://localhost/stream".parse().unwrap();
        let refused =
            PublishError::Answered { status: http::StatusCode::UNAUTHORIZED, detail: None, retry_after: None };
        for (limit, may_come) in [(None, false), (Some(Duration::from_secs(600)), true)] {
            let publication = Publication::new(uri.clone(), Trust::System).token_from(Token::file("none"));
            let mut publication = publication.retry_for(limit);
            publication.opened = true;
            assert!(publication.renews(&refused));
            tokio::time::advance(super::super::RENEWAL_WAIT).await;
            assert_eq!(publication.renews(&refused), may_come);
        }
    }
}
