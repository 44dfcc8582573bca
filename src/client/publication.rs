//! Publishing to a feed of a server: a lost connection loses and doubles nothing.

mod answer;
mod error;
mod patience;
mod published;

use std::{
    fmt, io,
    pin::{Pin, pin},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Request, StatusCode, Uri, header};
use tokio::time::{Instant, sleep, timeout};

use answer::answer;
pub use error::{AnswerError, PublishError};
use patience::Patience;
pub use published::{PublishEvent, Published};

use super::{
    Connection, Token, Trust,
    replay::{HOLD, Replay},
    retry::{self, Retry},
    token::Refused as Refusals,
};
use crate::source::chunker::Chunking;

/// What is sent is acknowledged after that time, however little it is.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);
/// How long a server that stops reading may take to say why.
const WHY: Duration = Duration::from_secs(5);
/// A server that has taken all that was held after a failure works again, if no more input comes for that long to show
/// it.
const QUIET: Duration = Duration::from_secs(1);

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
    /// Since when the server has not answered, if it is waited for.
    waits: Option<Instant>,
    /// It has taken what was held after a failure, and perhaps takes no more.
    unproven: bool,
    /// Why it has failed, in the words of the server, since it worked last.
    said: Option<PublishError>,
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
            waits: None,
            unproven: false,
            said: None,
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

    /// How long to try to reach the server, and to have what it was sent confirmed (default: forever, as with `None`).
    /// It counts from the loss of the server, or from when it began not to answer. No attempt begins or lasts after
    /// that, except while what is sent is on its way, over a slow network.
    ///
    /// A server that has not failed is waited for half of that time, and a second at least, before the publication connects
    /// anew; with a limit of zero, as long as it takes. One that takes nothing since its viewers don't, with
    /// [`Lag::Block`](crate::feed::Lag::Block), does not answer either.
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
            self.unproven = false;
            if let Some(then) = self.waits.take() {
                self.retry.counts_from(then);
            }
            let is_silent = matches!(error, PublishError::Unanswered);
            let Some(pause) = error.pause(&mut self.retry) else {
                // That it does not answer in time again says less than what it has answered.
                let last = self.said.take().filter(|_| is_silent).unwrap_or(error);
                return Err(PublishError::gave_up(&self.retry, last));
            };
            if !is_silent {
                self.said = error.said();
            }
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
        let (mut patience, again) = (self.patience(), self.retry.is_eager(Instant::now()));
        self.waits = Some(patience.since);
        let opening = async {
            match again {
                true => Connection::open_again(&self.uri, &self.trust).await,
                false => Connection::open(&self.uri, &self.trust).await,
            }
        };
        let connection = retry::by(patience.until, &self.uri, opening).await?;
        // Reports at once if publishing is not allowed, and how much of what was sent before has been published.
        patience.wait(&connection, pin!(self.ask(&connection, tell))).await??;
        self.waits = None;
        self.opened = true;
        self.refusals.clear();
        tell(PublishEvent::Opened { published: self.replay.acknowledged() });
        loop {
            if self.replay.is_waiting() {
                // After a failure, the request as a whole has the rest of the time. Otherwise input may take as long as
                // it likes, and the time counts whenever the server is waited for.
                let mut patience = self.retry.deadline().map_or_else(|| Patience::new(None), Patience::by);
                let request = Box::pin(self.request(&connection, pieces.as_mut(), tell));
                patience.wait(&connection, request).await??;
            } else if self.unproven && !self.replay.is_finished() {
                // With more to come, the next request shows it.
                tokio::select! {
                    biased;
                    read = self.read(pieces.as_mut()) => read?,
                    () = sleep(QUIET) => self.works(tell),
                }
            } else if self.replay.is_finished() {
                if self.unproven {
                    self.works(tell);
                }
                connection.close().await;
                return Ok(());
            } else {
                // However long this takes, nothing has failed.
                self.works(tell);
                self.read(pieces.as_mut()).await?;
            }
        }
    }

    /// How long to wait for the server, from now on.
    fn patience(&self) -> Patience {
        self.retry.deadline().map_or_else(|| Patience::new(self.retry_for), Patience::by)
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
        // While the time runs, a request ends after what is held, so that it is known in time whether that is taken.
        let probes = self.retry.deadline().is_some();
        let opening = pin!(connection.send_request(self.head(Some(before))));
        let (mut body, mut response) = self.waiting(connection, opening).await??;
        self.waits = None;
        let mut time = pin!(sleep(ACKNOWLEDGE));
        let early = loop {
            if let Some(piece) = self.replay.send(self.longest) {
                let sending = pin!(async {
                    tokio::select! {
                        early = &mut response => Some(early),
                        sent = body.send(piece) => match sent {
                            Ok(()) => None,
                            // The answer says why, if there is one.
                            Err(error) => Some(timeout(WHY, &mut response).await.unwrap_or(Err(error))),
                        },
                    }
                });
                if let Some(early) = self.waiting(connection, sending).await? {
                    break Some(early);
                }
                self.waits = None;
                continue;
            }
            let unacknowledged = self.replay.end() - before;
            if probes || self.replay.is_finished() || self.replay.is_full() || unacknowledged >= self.longest {
                break None;
            }
            tokio::select! {
                biased;
                early = &mut response => break Some(early),
                () = &mut time => break None,
                read = self.read(pieces.as_mut()) => read?,
            }
        };
        let answering = pin!(async {
            let response = match early {
                Some(early) => early,
                None => {
                    // If this fails, the response says why.
                    let _ = body.finish().await;
                    response.await
                }
            };
            answer(response.map_err(|error| (error.into(), None))?).await
        });
        match self.waiting(connection, answering).await? {
            Ok(published) if published.bytes <= before => Err(AnswerError::Nothing { after: before }.into()),
            Ok(published) => {
                self.waits = None;
                self.acknowledge(published, tell)?;
                if probes {
                    self.retry.works();
                    (self.unproven, self.said) = (true, None);
                } else {
                    self.works(tell);
                }
                Ok(())
            }
            Err((error @ PublishError::Answered { status: StatusCode::PAYLOAD_TOO_LARGE, .. }, _)) => {
                // It was more than the server takes at once: what it took is what it takes.
                let mut patience = self.patience();
                patience.wait(connection, pin!(self.ask(connection, tell))).await??;
                self.waits = None;
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

    /// Waits for the server within a request, and notes since when. After a failure, the whole request is bounded.
    async fn waiting<T>(
        &mut self,
        connection: &Connection,
        event: impl Future<Output = T> + Unpin,
    ) -> Result<T, PublishError> {
        let mut patience = Patience::new(self.retry_for.filter(|_| !self.retry.is_failing()));
        let done = patience.wait(connection, event).await;
        self.waits.get_or_insert(patience.since);
        done
    }

    /// What failed before works again.
    fn works(&mut self, tell: &mut impl FnMut(PublishEvent)) {
        if self.retry.is_failing() || std::mem::take(&mut self.unproven) {
            tell(PublishEvent::Recovered { published: self.replay.acknowledged() });
        }
        self.retry.works();
        self.said = None;
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
