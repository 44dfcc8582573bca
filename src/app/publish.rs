//! Publishing: the body of a POST or PUT, and the streams that a client opens in a session, become
//! chunks as they arrive.

mod keys;
mod known;

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Body as _;
use serde_json::json;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::task::JoinSet;
use tokio_util::io::StreamReader;
use tracing::debug;

use super::{
    App, Problem, Quotas,
    asked::Query,
    authorize::{self, Decided},
    host::prefix_of,
    quotas::account,
};
use crate::{
    admission::{Counters, Refusal},
    auth::Action,
    feed::{Account, Exhausted, Feed, FeedError, PublishError, Publisher, Share, Shares},
    panics,
    source::chunker::{Chunker, Chunking},
    webtransport::{RecvStream, SendStream, Session},
};
use keys::KeyLimits;
use known::{Ledger, PublicationRequest, Said};

/// Streams of one session that are read at once; more wait.
const MAX_STREAMS: usize = 64;
/// How long the answer on a session's stream may wait to be taken.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Who may publish, how much, and what has been published.
#[derive(Debug, Clone)]
pub(super) struct Publications {
    /// The hash of the token, so that comparing it takes the same time whatever is compared.
    token: Option<[u8; 32]>,
    limit: Option<u64>,
    known: Arc<Ledger>,
    places: Shares,
    /// How long a publication may take for its first byte; zero for as long as it likes.
    wait: Duration,
    refusals: Option<Counters>,
}

impl Default for Publications {
    fn default() -> Self {
        Self::within(None, None, &Quotas::default())
    }
}

impl Publications {
    fn within(token: Option<[u8; 32]>, limit: Option<u64>, quotas: &Quotas) -> Self {
        let (all, each) = quotas.keys;
        let known = Arc::new(Ledger::new(KeyLimits { all, each }));
        let (all, each) = quotas.publications;
        let wait = quotas.publish_wait;
        Self { token, limit, known, places: Shares::new(all, each), wait, refusals: None }
    }

    pub(super) fn quotas(&mut self, quotas: &Quotas) {
        let refusals = self.refusals.take();
        *self = Self { refusals, ..Self::within(self.token, self.limit, quotas) };
    }

    /// Counts refusals there.
    pub(super) fn count_in(&mut self, refusals: &Counters) {
        self.refusals = Some(refusals.clone());
    }

    fn refused(&self, reason: Refusal, account: &Account) {
        if let Some(refusals) = &self.refusals {
            refusals.refused(reason, account);
        }
    }

    /// How many publications run, and how many keys are remembered.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.places.taken(), self.known.len())
    }

    pub(super) fn token(&mut self, token: Option<&str>) {
        self.token = token.map(|token| Sha256::digest(token).into());
    }

    pub(super) fn limit(&mut self, bytes: Option<u64>) {
        self.limit = bytes;
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether that is the token with which clients may publish.
    pub(super) fn is_token(&self, token: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(token).into();
        self.token.as_ref().is_some_and(|expected| bool::from(given.ct_eq(expected)))
    }

    /// The feed's publisher, if it has one and the client may use it.
    fn admit<'a>(&self, feed: &'a Feed, decided: &Decided) -> Result<&'a Publisher, Problem> {
        decided.require(Action::Publish, feed.name())?;
        feed.publisher().ok_or_else(|| {
            let text = format!(
                "clients do not publish to the feed `{0}`: start the server with `{0}=publish` for one that they write",
                feed.name()
            );
            Problem::new(StatusCode::FORBIDDEN, text)
        })
    }

    async fn begin(&self, said: Said<'_>) -> Result<PublicationRequest, Problem> {
        let account = said.account;
        let begun = self.known.begin(said).await;
        begun.inspect_err(|problem| {
            if problem.status == StatusCode::TOO_MANY_REQUESTS {
                self.refused(Refusal::PublishKeys, account);
            }
        })
    }

    fn place(&self, account: &Account) -> Result<Share, Problem> {
        self.places.take(account).map_err(|exhausted| match exhausted {
            Exhausted::Account(each) => {
                self.refused(Refusal::PublicationsPerClient, account);
                let text = format!(
                    "this client publishes {each} times at once, which is all that one may: end one of the \
                     publications first"
                );
                Problem::new(StatusCode::TOO_MANY_REQUESTS, text)
            }
            Exhausted::All(all) => {
                self.refused(Refusal::Publications, account);
                let text =
                    format!("{all} publications run, which is all that this server takes: try again in a moment");
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
            }
        })
    }

    fn too_long(&self, published: u64) -> Problem {
        let limit = self.limit.unwrap_or_default();
        let text =
            format!("one request may publish {limit} bytes: {published} of this publication have been published");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) enum ChunkBy {
    /// Wherever a piece of it ends.
    #[default]
    Bytes,
    /// Behind each newline.
    Lines,
}

impl From<ChunkBy> for Chunking {
    fn from(cut: ChunkBy) -> Self {
        match cut {
            ChunkBy::Bytes => Self::Bytes,
            ChunkBy::Lines => Self::Lines,
        }
    }
}

/// POST and PUT: publishes the body, and answers with what was written.
pub(super) async fn answer(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let publications = &app.publications;
    let (parts, body) = request.into_parts();
    let decided = app.decide(&parts).await?;
    let account = &account(&parts.extensions, decided.access());
    let prefix = prefix_of(&parts.extensions);
    let feed = &app.feed(parts.uri.path(), prefix, account, &decided, Action::Publish).await?;
    let headers = &parts.headers;
    let publisher = publications.admit(feed, &decided)?;
    let chunk = Query::of(&parts.uri)?.chunk.unwrap_or_default();
    let key = idempotency_key(headers)?;
    let offset = upload_offset(headers)?;
    if offset.is_some() && key.is_none() {
        return Err(Problem::bad("Upload-Offset is of a publication that is known by its Idempotency-Key".into()));
    }
    let length = body.size_hint().lower();
    if publications.limit.is_some_and(|limit| length > limit) {
        return Err(publications.too_long(0));
    }
    if headers.contains_key(header::CONTENT_RANGE) {
        // RFC 9110 §14.5: what is a part must not be taken for the whole.
        let text = "a part of a body is published with Idempotency-Key and Upload-Offset, not with Content-Range";
        return Err(Problem::bad(text.into()));
    }
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|encoding| !is_identity(encoding)) {
        let text = "publications are not decoded: send the bytes that viewers are to get, without Content-Encoding";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text.into()));
    }
    // The publication first: it may take the place of one that runs.
    let said = Said { feed: feed.name(), account, key, offset, shared: publisher.is_shared() };
    let mut publication = publications.begin(said).await?;
    let _place = publications.place(account)?;
    let pieces = body.into_data_stream().map(|piece| piece.map_err(io::Error::other));
    publish(publications, publisher, account, &mut publication, pieces, chunk.into(), &decided).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(written(feed, &publication))).into_response())
}

/// Whether a `Content-Encoding` leaves the body as it is.
fn is_identity(encoding: &HeaderValue) -> bool {
    let text = String::from_utf8_lossy(encoding.as_bytes());
    text.split(',').map(str::trim).all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity"))
}

/// What a publication has written so far.
fn written(feed: &Feed, publication: &PublicationRequest) -> serde_json::Value {
    let progress = publication.progress();
    json!({
        "feed": feed.name(),
        "epoch": feed.status().epoch.map(|epoch| epoch.to_string()),
        "first": progress.first.map(|cursor| cursor.to_string()),
        "last": progress.last.map(|cursor| cursor.to_string()),
        "chunks": progress.chunks,
        "bytes": progress.bytes,
    })
}

/// Publishes pieces as they come, to their end.
async fn publish(
    publications: &Publications,
    publisher: &Publisher,
    account: &Account,
    publication: &mut PublicationRequest,
    pieces: impl Stream<Item = io::Result<Bytes>>,
    chunking: Chunking,
    decided: &Decided,
) -> Result<(), Problem> {
    let mut skip = publication.skip();
    let mut left = publications.limit.unwrap_or(u64::MAX);
    // What came with earlier requests counts as well.
    let begun = AtomicBool::new(publication.progress().bytes > 0);
    let mut pieces = pin!(pieces.filter_map(|piece| {
        let piece = piece.and_then(|mut piece| {
            if !piece.is_empty() {
                begun.store(true, Ordering::Relaxed);
            }
            // What is behind a piece that was too much is too much as well.
            let more = left.checked_sub(piece.len() as u64);
            left = more.unwrap_or_default();
            more.ok_or(io::ErrorKind::FileTooLarge)?;
            let known = skip.min(piece.len() as u64);
            skip -= known;
            piece.advance(known as usize);
            Ok(piece)
        });
        // An empty piece would be taken for the end.
        std::future::ready(Some(piece).filter(|piece| !piece.as_ref().is_ok_and(Bytes::is_empty)))
    }));
    let mut chunks = Chunker::new(StreamReader::new(pieces.as_mut()), chunking);
    let replaced = publication.replaced();
    let feed_ended = publisher.ended();
    let right_ended = decided.until_ended();
    let published = async {
        // Bytes that are kept already: when they came before, the body was cut otherwise.
        let mut kept = 0;
        loop {
            let Some(mut chunk) = chunks.next().await? else { return Ok(()) };
            while kept < chunk.len() {
                chunk.advance(kept);
                let receipt = publisher.publish_as(chunk.clone(), || publication.id()).await?;
                publication.add(receipt.cursor, receipt.size);
                kept = receipt.size;
            }
            kept -= chunk.len();
        }
    };
    let silent = async {
        if publications.wait.is_zero() || begun.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        tokio::time::sleep(publications.wait).await;
        if begun.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    // None of them waits for a client that sends nothing, nor for room in the feed.
    let done = tokio::select! {
        biased;
        () = replaced.cancelled() => Err(Broken::Replaced),
        () = feed_ended => Err(Broken::Ended),
        () = silent => Err(Broken::Silent),
        () = right_ended => Err(Broken::Expired),
        done = published => done,
    };
    let Err(broken) = done else { return Ok(()) };
    // Who has a key comes again, and a line is not torn. Nobody comes for the rest of another one.
    if matches!(broken, Broken::Read(_)) && !publication.is_known() {
        let rest = chunks.rest();
        if !rest.is_empty() {
            let size = rest.len();
            if let Ok(cursor) = publisher.publish(rest).await {
                publication.add(cursor, size);
            }
        }
    }
    let so_far = publication.progress().bytes;
    Err(match broken {
        Broken::Replaced => {
            let text = "another request goes on with the publication of this Idempotency-Key";
            Problem::new(StatusCode::CONFLICT, text.into())
        }
        Broken::Silent => {
            publications.refused(Refusal::PublishWait, account);
            let text = format!(
                "nothing was sent for {}: open the request when there is something to publish",
                shown(publications.wait)
            );
            Problem::new(StatusCode::REQUEST_TIMEOUT, text)
        }
        Broken::Expired => authorize::expired(so_far),
        Broken::Ended => {
            let text = format!("the feed has ended: {so_far} bytes were published");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Broken::Unavailable(error) => {
            let text = format!("{}: {so_far} bytes were published", FeedError::of(&error));
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Broken::TooLarge(error) => {
            let text = format!("{error}: {so_far} bytes were published");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text)
        }
        Broken::Read(error) if error.kind() == io::ErrorKind::FileTooLarge => publications.too_long(so_far),
        Broken::Read(error) => {
            debug!(%error, "a publication broke off");
            Problem::bad(format!("the body broke off: {so_far} bytes were published"))
        }
    })
}

/// A time, for people.
fn shown(time: Duration) -> String {
    match time.subsec_nanos() {
        0 => format!("{} s", time.as_secs()),
        _ => format!("{time:?}"),
    }
}

/// Why a publication was not brought to its end.
enum Broken {
    /// The client left off, or sent too much.
    Read(io::Error),
    Replaced,
    Ended,
    /// Nothing has come in time.
    Silent,
    /// The client's right to publish has.
    Expired,
    Unavailable(PublishError),
    TooLarge(PublishError),
}

impl From<PublishError> for Broken {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Ended => Self::Ended,
            PublishError::TooLarge { .. } => Self::TooLarge(error),
            error => Self::Unavailable(error),
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Reads every stream that the client opens in its session; each is a publication. A bidirectional
/// one is answered on. Ends when the session does.
pub(super) async fn streams(
    app: &App,
    session: &Session,
    feed: &Feed,
    account: &Account,
    decided: &Decided,
    cut: ChunkBy,
) {
    let mut running = JoinSet::new();
    loop {
        let (reply, stream) = tokio::select! {
            Some(ended) = running.join_next() => {
                panics::report("the task of a publication", ended);
                continue;
            }
            stream = session.accept_uni(), if running.len() < MAX_STREAMS => match stream {
                Ok(stream) => (None, stream),
                Err(_) => return,
            },
            streams = session.accept_bi(), if running.len() < MAX_STREAMS => match streams {
                Ok((send, recv)) => (Some(send), recv),
                Err(_) => return,
            },
        };
        let (publications, feed, decided) = (app.publications.clone(), feed.clone(), decided.clone());
        let account = account.clone();
        running.spawn(async move {
            one_stream(&publications, &feed, &account, &decided, cut, stream, reply).await;
        });
    }
}

async fn one_stream(
    publications: &Publications,
    feed: &Feed,
    account: &Account,
    decided: &Decided,
    cut: ChunkBy,
    mut stream: RecvStream,
    reply: Option<SendStream>,
) {
    let done = async {
        let publisher = publications.admit(feed, decided)?;
        let _place = publications.place(account)?;
        let said = Said { feed: feed.name(), account, key: None, offset: None, shared: publisher.is_shared() };
        let mut publication = publications.begin(said).await?;
        let pieces = stream::unfold(&mut stream, |stream| async move {
            let piece = stream.read_bytes(usize::MAX).await.map_err(io::Error::other).transpose()?;
            Some((piece, stream))
        });
        publish(publications, publisher, account, &mut publication, pieces, cut.into(), decided).await?;
        Ok::<_, Problem>(written(feed, &publication))
    };
    let answer = match done.await {
        Ok(answer) => answer.to_string(),
        Err(problem) => {
            if let Some(refusal) = problem.refusal() {
                publications.refused(refusal, account);
            }
            stream.stop(problem.status.as_u16().into());
            problem.text()
        }
    };
    let Some(mut reply) = reply else { return };
    let sent = async {
        if reply.write_bytes(answer.into()).await.is_ok() && reply.finish().is_ok() {
            let _ = reply.stopped().await;
        }
    };
    let _ = tokio::time::timeout(ANSWER_WAIT, sent).await;
}

/// The key by which a publication is known when it comes again
/// (draft-ietf-httpapi-idempotency-key-header, which quotes it; most clients do not).
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    const LONGEST: usize = 200;
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().unwrap_or_default();
    let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    match key.len() {
        1..=LONGEST => Ok(Some(key.to_owned())),
        _ => Err(Problem::bad(format!("an Idempotency-Key has 1 to {LONGEST} visible ASCII characters"))),
    }
}

/// Where in its publication the body begins (draft-ietf-httpbis-resumable-upload).
fn upload_offset(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(offset) = headers.get("upload-offset") else { return Ok(None) };
    let parsed = offset.to_str().ok().and_then(|offset| offset.parse().ok());
    parsed.map(Some).ok_or_else(|| Problem::bad("Upload-Offset is a number of bytes".into()))
}
