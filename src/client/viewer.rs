//! A feed of a server, to its end: a viewer that reconnects after a loss, and resumes where it was.

mod error;
mod event;
mod stream;

use std::{collections::VecDeque, fmt, pin::Pin, time::Duration};

use http::Uri;
use tokio::time::{Instant, Sleep, sleep};

pub use error::{BadUri, ViewError};
pub use event::{Event, Transport};
use stream::FeedStream;

use super::{
    Connection, Token, Trust,
    resume::{FeedUri, Place},
    retry::{self, Retry},
    token::Refused,
};
use crate::{chunk::Cursor, feed::End, format::frames::Frame};

/// A silence that counts as a loss: a server sends something every 15 s.
pub const SILENCE: Duration = Duration::from_secs(40);
/// The longest frame that is read, in bytes.
pub(super) const LONGEST_FRAME: u64 = 16 << 20;

/// Reads a feed to its end: it reconnects after a loss, with growing pauses and over the other
/// transport, and resumes after the last chunk. Chunks that it will not get are reported
/// ([`Event::Gap`]).
///
/// Before its first chunk it has no position to resume from, and starts over.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use h3cast::client::{Trust, Viewer, viewer::Event};
///
/// let uri = "https://localhost:4433/stream?from=start".parse()?;
/// let mut viewer = Viewer::new(&uri, Trust::Files(vec!["certs/cert.pem".into()]))?;
/// while let Some(event) = viewer.next().await? {
///     match event {
///         Event::Chunk { bytes, .. } => print!("{}", String::from_utf8_lossy(&bytes)),
///         Event::Gap(gap) => eprintln!("{} chunks are missing", gap.missing),
///         _ => {}
///     }
/// }
/// # Ok(()) }
/// ```
pub struct Viewer {
    uri: FeedUri,
    trust: Trust,
    token: Option<Token>,
    place: Place,
    retry: Retry,
    retry_for: Option<Duration>,
    transport: Transport,
    /// The one that it started with.
    first: Transport,
    /// Which transports have brought a chunk, and which the server has refused for good.
    brought: Vec<Transport>,
    refused: Option<Transport>,
    /// A token that let it in has ended.
    expired: bool,
    /// Tokens that were refused since one was accepted.
    refusals: Refused,
    state: Phase,
    events: VecDeque<Event>,
}

enum Phase {
    Waiting(Pin<Box<Sleep>>),
    /// To open, with a connection that is there already.
    Ready(Option<Box<Connection>>),
    Opening(Pin<Box<dyn Future<Output = Result<FeedStream, ViewError>> + Send>>),
    FeedStream(Box<FeedStream>),
    Ended(Option<Box<FeedStream>>),
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Viewer").field("place", &self.place).field("transport", &self.transport).finish_non_exhaustive()
    }
}

impl Viewer {
    /// A viewer of the feed at `uri`, whose query may have `from` and `limit`. Nothing happens
    /// before the first [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// When the query asks for what cannot be resumed.
    pub fn new(uri: &Uri, trust: Trust) -> Result<Self, BadUri> {
        let (uri, place) = FeedUri::parse(uri)?;
        Ok(Self {
            uri,
            trust,
            token: None,
            place,
            retry: Retry::default(),
            retry_for: None,
            transport: Transport::default(),
            first: Transport::default(),
            brought: Vec::new(),
            refused: None,
            expired: false,
            refusals: Refused::default(),
            state: Phase::Ready(None),
            events: VecDeque::new(),
        })
    }

    /// What carries the feed at first (default: GET).
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        (self.transport, self.first) = (transport, transport);
        self
    }

    /// How long to try to reach the feed, counted from its loss (default: forever, as with `None`). No attempt
    /// after the first failure lasts longer.
    #[must_use]
    pub fn retry_for(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.retry_for = limit.into();
        self.retry = Retry::new(self.retry_for);
        self
    }

    /// The token that the server wants (default: none). It is asked for again whenever the viewer connects; when it
    /// has ended, a viewer whose token can be renewed tries for [`RENEWAL_WAIT`](super::RENEWAL_WAIT) to get in with
    /// another one, or for as long as [`retry_for`](Self::retry_for) says, and resumes after its last chunk.
    #[must_use]
    pub fn token_from(mut self, token: impl Into<Option<Token>>) -> Self {
        self.token = token.into();
        self
    }

    /// A connection to the feed's server to begin with.
    #[must_use]
    pub fn connection(mut self, connection: Connection) -> Self {
        self.state = Phase::Ready(Some(Box::new(connection)));
        self
    }

    /// The last chunk that was received or is known to be missing: a later viewer may resume after it.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.place.cursor()
    }

    /// How many chunks are known to be missing so far.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.place.missing()
    }

    /// How often the feed was restarted. How much of it was lost then is not known.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.place.restarts()
    }

    /// Why the server can neither receive nor store new chunks, in its words, after [`Event::Stalled`]; `None` if it does
    /// not say that. Anyone who runs a server can put anything there.
    #[must_use]
    pub fn stalled_by(&self) -> Option<&str> {
        self.place.stalled_by()
    }

    /// Waits for the next event; `None` after the end.
    ///
    /// # Errors
    ///
    /// When trying again does not help, or the time for that is over. Nothing follows.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Event>, ViewError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                self.place.gives(&event);
                if matches!(event, Event::End(_)) {
                    self.end();
                }
                return Ok(Some(event));
            }
            match &mut self.state {
                Phase::Waiting(pause) => {
                    pause.as_mut().await;
                    self.state = Phase::Ready(None);
                }
                Phase::Ready(connection) => {
                    let uri = self.uri.behind(&self.place);
                    let (trust, token) = (self.trust.clone(), self.token.clone());
                    let again = self.retry.is_eager(Instant::now());
                    let opening = stream::open(connection.take(), uri.clone(), trust, token, self.transport, again);
                    let deadline = self.retry.deadline();
                    self.state = Phase::Opening(Box::pin(async move { retry::by(deadline, &uri, opening).await }));
                }
                Phase::Opening(opening) => match opening.as_mut().await {
                    Ok(reading) => {
                        self.place.reopened();
                        self.state = Phase::FeedStream(Box::new(reading));
                        let opened = Event::Opened { transport: self.transport, behind: self.place.cursor() };
                        self.events.push_back(opened);
                    }
                    Err(error) => self.failed(error)?,
                },
                Phase::FeedStream(reading) => match reading.next().await {
                    Ok(Some(bytes)) => self.take(&bytes)?,
                    Ok(None) if self.place.has_begun() => self.failed(ViewError::Short)?,
                    Ok(None) => self.failed(ViewError::NoFeed)?,
                    Err(error) => self.failed(error)?,
                },
                Phase::Ended(_) => return Ok(None),
            }
        }
    }

    /// Closes the connection, and waits a little for the server to learn of it. Dropping the viewer
    /// instead closes it at once.
    ///
    /// # Cancel safety
    ///
    /// When dropped, everything is closed at once.
    pub async fn close(self) {
        if let Phase::FeedStream(reading) | Phase::Ended(Some(reading)) = self.state {
            let FeedStream { carrier, connection, .. } = *reading;
            drop(carrier);
            connection.close().await;
        }
    }

    /// Reads what was received.
    fn take(&mut self, bytes: &[u8]) -> Result<(), ViewError> {
        let Phase::FeedStream(reading) = &mut self.state else { return Ok(()) };
        reading.decoder.push(bytes);
        loop {
            let frame = match reading.decoder.pop() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(()),
                Err(error) if self.place.has_begun() => return self.failed(error.into()),
                Err(_) => return self.failed(ViewError::NoFeed),
            };
            // Either says that the feed is alive; a server that fails at once says neither.
            if matches!(frame, Frame::Chunk { .. } | Frame::Heartbeat) {
                self.retry.works();
                self.refusals.clear();
            }
            if matches!(frame, Frame::Chunk { .. }) && !self.brought.contains(&self.transport) {
                self.brought.push(self.transport);
            }
            let last = matches!(frame, Frame::End(_));
            if let Err(error) = self.place.take(frame, &mut self.events) {
                return self.failed(error);
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Decides what happens after a failure.
    fn failed(&mut self, error: ViewError) -> Result<(), ViewError> {
        if self.place.is_complete() {
            // Only the end marker has been lost.
            self.events.push_back(Event::End(End::Clean));
            return Ok(());
        }
        let other = self.transport.other();
        self.expired |= matches!(error, ViewError::Expired);
        let renews = error.is_about_token()
            && self.token.as_ref().is_some_and(Token::is_renewed)
            && (!self.brought.is_empty() || self.expired)
            && (self.refusals.may_change(Instant::now()) || self.retry_for.is_some());
        if error.is_final() && !renews {
            // The other transport may still work: it has worked before, or was not refused for good. A token is the same
            // over both.
            let refusal =
                matches!(error, ViewError::Answered { .. }) && !error.is_about_token() && self.refused != Some(other);
            if !refusal || !(self.transport != self.first || self.brought.contains(&other)) {
                self.end();
                return Err(error);
            }
            self.refused = Some(self.transport);
        }
        // A connection that was not established says nothing about its transport.
        let unreached = matches!(&error, ViewError::Client(error) if error.is_unreached());
        if !unreached && !error.is_about_token() && self.refused != Some(other) {
            self.transport = other;
        }
        let Some(pause) = error.pause(&mut self.retry) else {
            self.end();
            return Err(ViewError::GaveUp { after: self.retry_for.unwrap_or_default(), last: Box::new(error) });
        };
        self.events.push_back(Event::Lost { error, pause, transport: self.transport });
        self.state = Phase::Waiting(Box::pin(sleep(pause)));
        Ok(())
    }

    fn end(&mut self) {
        let reading = match std::mem::replace(&mut self.state, Phase::Ended(None)) {
            Phase::FeedStream(reading) | Phase::Ended(Some(reading)) => Some(reading),
            _ => None,
        };
        self.state = Phase::Ended(reading);
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::{super::RENEWAL_WAIT, *};

    fn viewer(token: Token) -> Viewer {
        let uri = "https://localhost/stream".parse().unwrap();
        let mut viewer = Viewer::new(&uri, Trust::System).unwrap().token_from(token);
        viewer.brought.extend([Transport::Get, Transport::WebTransport]);
        viewer
    }

    fn refused() -> ViewError {
        ViewError::Answered { status: StatusCode::UNAUTHORIZED, detail: None, retry_after: None }
    }

    /// What was withdrawn for good is not asked for again and again.
    #[tokio::test(start_paused = true)]
    async fn a_token_that_stays_refused_ends_it() {
        let mut viewer = viewer(Token::file("none"));
        for _ in 0..2 {
            assert!(viewer.failed(ViewError::Expired).is_ok() && viewer.failed(refused()).is_ok());
            tokio::time::advance(RENEWAL_WAIT - Duration::from_secs(1)).await;
            assert!(viewer.failed(refused()).is_ok());
            viewer.refusals.clear();
        }
        assert!(viewer.failed(refused()).is_ok());
        tokio::time::advance(RENEWAL_WAIT).await;
        assert!(viewer.failed(refused()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_for_as_long_as_was_said() {
        let mut viewer = viewer(Token::file("none")).retry_for(2 * RENEWAL_WAIT);
        assert!(viewer.failed(refused()).is_ok());
        tokio::time::advance(RENEWAL_WAIT + Duration::from_secs(1)).await;
        assert!(viewer.failed(refused()).is_ok());
        let mut viewer = self::viewer(Token::fixed("it-stays-as-it-is"));
        assert!(viewer.failed(ViewError::Expired).is_ok() && viewer.failed(refused()).is_err());
    }
}
