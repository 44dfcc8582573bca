//! A feed of a server, to its end: a viewer that comes again when it was lost, and goes on where it
//! was.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri};
use tokio::time::{Instant, Sleep, sleep, timeout, timeout_at};

use super::{
    Body, ClientError, Connection, Trust, answer,
    resume::{FeedUri, Place},
    retry::{self, Retry},
};
use crate::{
    chunk::Cursor,
    feed::{End, Gap},
    format::frames::{Frame, FrameDecoder, FrameError},
    webtransport::{RecvStream, Session, SessionError, StreamError},
};

/// A silence that is taken for a loss: a server that is there says something each 15 s.
pub const SILENCE: Duration = Duration::from_secs(40);
/// The longest frame that is read, in bytes.
pub(super) const LONGEST_FRAME: u64 = 16 << 20;

/// What carries a feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// The response to a GET.
    #[default]
    Get,
    /// A stream of a WebTransport session.
    WebTransport,
}

impl Transport {
    fn other(self) -> Self {
        match self {
            Self::Get => Self::WebTransport,
            Self::WebTransport => Self::Get,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::WebTransport => "WebTransport",
        })
    }
}

/// What a viewer is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The feed is being read.
    Opened {
        /// What carries it.
        transport: Transport,
        /// Behind which chunk it goes on, if it does.
        behind: Option<Cursor>,
    },
    /// The next chunk.
    Chunk {
        /// Which it is.
        cursor: Cursor,
        /// When it was published, in microseconds since 1970.
        micros: u64,
        /// What it carries.
        bytes: Bytes,
    },
    /// Chunks that will not come.
    Gap(Gap),
    /// Nothing can come to the server now from where the feed is kept, or it can again.
    Stalled(bool),
    /// The feed was lost, or could not be reached. It is tried again.
    Lost {
        /// Why.
        error: ViewError,
        /// After that time.
        pause: Duration,
        /// That way.
        transport: Transport,
    },
    /// There is no more. Nothing follows.
    End(End),
}

/// Why a feed cannot be read, or was lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The connection or the stream failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The session ended.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The session's stream broke off.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The server answered with an error.
    #[error("the server answered {status}{}", detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Answered {
        /// Its status.
        status: StatusCode,
        /// What it says of it.
        detail: Option<String>,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// Nothing came for [`SILENCE`].
    #[error("nothing came for {} s", SILENCE.as_secs())]
    Silent,
    /// The stream ended, and the feed did not.
    #[error("the stream ended before its feed did")]
    Short,
    /// What the server sends is no feed.
    #[error("there is no feed at this URL")]
    NoFeed,
    /// An h3cast server has something else at this URL.
    #[error("{url} is {what}, not a feed: {}", to_read(feeds))]
    OtherResource {
        /// The URL.
        url: String,
        /// What it is, in words.
        what: String,
        /// The URLs of the server's feeds, the first ones, as far as they are known.
        feeds: Vec<String>,
    },
    /// What the server sends is no feed.
    #[error("what the server sends is no feed: {0}")]
    Frames(#[from] FrameError),
    /// It was tried for as long as it should be.
    #[error("gave up after {} s: {last}", after.as_secs_f64())]
    GaveUp {
        /// For how long.
        after: Duration,
        /// What failed last.
        last: Box<ViewError>,
    },
}

impl ViewError {
    /// Whether trying again does not help.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Client(error) => error.is_final(),
            Self::Answered { status, .. } => retry::is_final(*status),
            Self::NoFeed | Self::OtherResource { .. } | Self::Frames(_) | Self::GaveUp { .. } => true,
            Self::Session(_) | Self::Stream(_) | Self::Silent | Self::Short => false,
        }
    }

    pub(crate) fn answered(status: StatusCode, headers: &HeaderMap, detail: Option<String>) -> Self {
        Self::Answered { status, detail, retry_after: retry::retry_after(headers, SystemTime::now()) }
    }
}

/// What to read instead.
fn to_read(feeds: &[String]) -> String {
    match feeds {
        [] => "feeds are at /stream and /stream/NAME".into(),
        [one] => format!("read {one}"),
        several => format!("read one of {}", several.join(", ")),
    }
}

/// A URI is none of a feed that can be read again and again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be in the URL of a feed that is resumed, which is read as frames: give from, limit or format=raw"
)]
pub struct BadUri(pub(super) String);

/// Reads a feed to its end: comes again when it is lost, with growing pauses and by the other
/// transport, and goes on behind the last chunk. What is missing all the same is told
/// ([`Event::Gap`]).
///
/// Until its first chunk has come, it has no place to go on at, and begins anew.
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
    place: Place,
    retry: Retry,
    retry_for: Option<Duration>,
    transport: Transport,
    /// The one that it began with.
    first: Transport,
    /// Which transports have brought a chunk, and which the server has refused for good.
    brought: Vec<Transport>,
    refused: Option<Transport>,
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

/// A feed that is being read.
struct FeedStream {
    source: Carrier,
    connection: Connection,
    decoder: FrameDecoder,
    /// When something came last.
    heard: Instant,
}

enum Carrier {
    Response(Box<Body>),
    Session {
        stream: RecvStream,
        /// Keeps it open.
        _session: Session,
    },
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
            place,
            retry: Retry::default(),
            retry_for: None,
            transport: Transport::default(),
            first: Transport::default(),
            brought: Vec::new(),
            refused: None,
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

    /// How long it is tried to reach the feed, counted from its loss (default: for ever). No attempt
    /// after the first failure lasts longer.
    #[must_use]
    pub fn retry_for(mut self, limit: Option<Duration>) -> Self {
        self.retry = Retry::new(limit);
        self.retry_for = limit;
        self
    }

    /// A connection to the feed's server to begin with.
    #[must_use]
    pub fn connection(mut self, connection: Connection) -> Self {
        self.state = Phase::Ready(Some(Box::new(connection)));
        self
    }

    /// The last chunk that has come or is known to be missing: what a later viewer may go on
    /// behind.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.place.cursor()
    }

    /// How many chunks are known to be missing so far.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.place.missing()
    }

    /// How often the feed was started again. How much of it was lost then is not known.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.place.restarts()
    }

    /// Waits for the next event; `None` after the end.
    ///
    /// # Errors
    ///
    /// When trying again does not help, or it has been tried for long enough. Nothing follows.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Event>, ViewError> {
        loop {
            if let Some(event) = self.events.pop_front() {
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
                    let opening = open(connection.take(), uri.clone(), self.trust.clone(), self.transport);
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
            let FeedStream { source, connection, .. } = *reading;
            drop(source);
            connection.close().await;
        }
    }

    /// Reads what has come.
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

    /// Decides what becomes of a failure.
    fn failed(&mut self, error: ViewError) -> Result<(), ViewError> {
        if self.place.is_complete() {
            // Only the word that this was all has been lost.
            self.events.push_back(Event::End(End::Clean));
            return Ok(());
        }
        let other = self.transport.other();
        if error.is_final() {
            // The other transport may still do: it has done before, or was not refused for good.
            let refusal = matches!(error, ViewError::Answered { .. }) && self.refused != Some(other);
            if !refusal || !(self.transport != self.first || self.brought.contains(&other)) {
                self.end();
                return Err(error);
            }
            self.refused = Some(self.transport);
        }
        let asked = match &error {
            ViewError::Answered { retry_after, .. } => *retry_after,
            _ => None,
        };
        // A connection that does not come about says nothing of what it would have carried.
        let unreached = matches!(&error, ViewError::Client(error) if error.is_unreached());
        if !unreached && self.refused != Some(other) {
            self.transport = other;
        }
        let Some(pause) = self.retry.failed(Instant::now(), retry::random(), asked) else {
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

impl FeedStream {
    /// The next bytes. Cancel-safe.
    async fn next(&mut self) -> Result<Option<Bytes>, ViewError> {
        let source = &mut self.source;
        let piece = async {
            Ok(match source {
                Carrier::Response(body) => body.next().await?,
                Carrier::Session { stream, .. } => stream.read_bytes(usize::MAX).await?,
            })
        };
        let piece = timeout_at(self.heard + SILENCE, piece).await.unwrap_or(Err(ViewError::Silent));
        self.heard = Instant::now();
        piece
    }
}

async fn open(
    connection: Option<Box<Connection>>,
    uri: Uri,
    trust: Trust,
    transport: Transport,
) -> Result<FeedStream, ViewError> {
    let opened = async {
        let connection = match connection {
            Some(connection) => *connection,
            None => Connection::open(&uri, &trust).await?,
        };
        let source = match transport {
            Transport::Get => {
                let mut response = connection.get(&uri).await?;
                if !response.status.is_success() {
                    let detail = response.problem().await;
                    return Err(ViewError::answered(response.status, &response.headers, detail));
                }
                if let Some(error) = answer::no_feed(&connection, &uri, &response.headers).await {
                    return Err(error);
                }
                Carrier::Response(Box::new(response.body))
            }
            Transport::WebTransport => match connection.webtransport(&uri, HeaderMap::new(), &[]).await {
                Ok(session) => {
                    let stream = session.accept_uni().await?;
                    Carrier::Session { stream, _session: session }
                }
                Err(ClientError::Refused { status, headers }) => {
                    return Err(answer::refused(&connection, &uri, status, &headers).await);
                }
                Err(error) => return Err(error.into()),
            },
        };
        Ok(FeedStream { source, connection, decoder: FrameDecoder::new(LONGEST_FRAME), heard: Instant::now() })
    };
    timeout(SILENCE, opened).await.unwrap_or(Err(ViewError::Silent))
}
