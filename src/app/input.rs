//! Input: what a viewer sends to the command that runs for it alone. In a session, that is a stream which the client
//! opens; over HTTP, bodies that name the view's session.

use std::{
    collections::HashMap,
    fmt, io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{
    FutureExt, Stream, StreamExt,
    future::{self, BoxFuture},
};
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use http_body::Body as _;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time::{sleep, timeout},
};

use super::{App, Problem, asked::Query, authorize::Decided, publish};
use crate::{
    admission::Refusal,
    feed::{Account, Feed, Input, Viewer},
    units::{many, were},
};

/// What the answer to a view calls its session, and what a request names that sends input to it.
pub(super) const SESSION: HeaderName = HeaderName::from_static("h3cast-session");

/// The inputs of views over HTTP, by the ids of their sessions. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Inputs(Arc<Mutex<HashMap<String, Arc<OpenInput>>>>);

impl Inputs {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<OpenInput>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session for the input of a viewer, if its source takes any.
    pub(super) fn open(&self, viewer: &mut Viewer, feed: &Feed, decided: &Decided) -> Option<InputSession> {
        let input = OpenInput::of(viewer, feed, decided)?;
        let mut id = [0; 16];
        // Without randomness there is no session that only this viewer could name.
        SystemRandom::new().fill(&mut id).ok()?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        self.all().insert(id.clone(), Arc::new(input));
        Some(InputSession { inputs: self.clone(), id })
    }

    fn find(&self, id: &HeaderValue, feed: &Feed, decided: &Decided) -> Option<Arc<OpenInput>> {
        let found = self.all().get(id.to_str().ok()?).cloned()?;
        // What one token has opened is not for the bearer of another one's.
        let owner = owner(decided);
        let is_theirs = found.owner.is_none() || owner.is_none() || found.owner == owner;
        (*found.feed == *feed.name() && is_theirs).then_some(found)
    }
}

/// A view over HTTP that can be sent input, until this is dropped.
pub(super) struct InputSession {
    inputs: Inputs,
    id: String,
}

impl InputSession {
    /// Tells the viewer what its session is called.
    pub(super) fn say(&self, response: &mut Response) {
        if let Ok(mut id) = HeaderValue::from_str(&self.id) {
            id.set_sensitive(true);
            response.headers_mut().insert(SESSION, id);
        }
    }
}

impl Drop for InputSession {
    fn drop(&mut self) {
        self.inputs.all().remove(&self.id);
    }
}

/// Whom a token names, and what says so.
type Owner = (&'static str, String);

fn owner(decided: &Decided) -> Option<Owner> {
    decided.access().named_by().map(|(token, name)| (token, name.to_owned()))
}

/// The input of one viewer's source, for the one that sends; `None` once it is closed.
type Shared = Arc<AsyncMutex<Option<Input>>>;

/// The right to send, which one has at a time, or a place in the queue for it.
pub(super) struct Claim(BoxFuture<'static, OwnedMutexGuard<Option<Input>>>);

/// How long a claim waits for the one before it. A client that breaks off one stream and opens another may send both in
/// one packet: the first one's task may not have seen that yet.
const QUEUED: Duration = Duration::from_millis(100);

/// The input of one viewer's source.
pub(super) struct OpenInput {
    feed: String,
    owner: Option<Owner>,
    input: Shared,
}

impl fmt::Debug for OpenInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenInput").field("feed", &self.feed).finish_non_exhaustive()
    }
}

/// Why input was not taken to its end.
enum Broken {
    /// The command has ended, or does not read any more.
    Over,
    /// Nothing has come in time.
    Silent,
    /// The client's right to send has ended.
    Expired,
    TooLong,
    /// The client stopped.
    Read,
}

impl OpenInput {
    pub(super) fn of(viewer: &mut Viewer, feed: &Feed, decided: &Decided) -> Option<Self> {
        let input = Arc::new(AsyncMutex::new(Some(viewer.take_input()?)));
        Some(Self { feed: feed.name().to_owned(), owner: owner(decided), input })
    }

    /// There is nothing to send to.
    pub(super) fn over() -> Problem {
        Problem::new(StatusCode::GONE, "the command has ended".into())
    }

    /// Claims it for one request or stream, after those that have claimed it before.
    pub(super) fn claim(&self) -> Claim {
        let claimed = match self.input.clone().try_lock_owned() {
            Ok(open) => return Claim(future::ready(open).boxed()),
            Err(_) => self.input.clone().lock_owned(),
        };
        // Polled here, it has its place in the queue, whichever task runs first.
        let mut claimed = claimed.boxed();
        Claim(match (&mut claimed).now_or_never() {
            Some(open) => future::ready(open).boxed(),
            None => claimed,
        })
    }

    /// Sends pieces as they come, to their end, which with `close` is that of the input. The first one is waited for
    /// no longer than `wait`, unless that is zero. Gives what was sent.
    pub(super) async fn send(
        &self,
        app: &App,
        account: &Account,
        decided: &Decided,
        Claim(claimed): Claim,
        pieces: impl Stream<Item = io::Result<Bytes>>,
        (close, wait): (bool, Duration),
    ) -> Result<Value, Problem> {
        let mut open = timeout(QUEUED, claimed).await.map_err(|_| {
            let text = "something else is sending input to this session: send one after the other";
            Problem::new(StatusCode::CONFLICT, text.into())
        })?;
        let Some(input) = open.as_mut() else {
            return Err(Problem::new(StatusCode::GONE, "the input of this session has been closed".into()));
        };
        let mut sent = 0;
        let limit = app.publications.longest().unwrap_or(u64::MAX);
        let done = tokio::select! {
            biased;
            () = decided.until_ended() => Err(Broken::Expired),
            done = write(input, pieces, (limit, wait), &mut sent) => done,
        };
        if matches!(done, Err(Broken::Over)) || (close && done.is_ok()) {
            *open = None;
        }
        let Err(broken) = done else { return Ok(json!({ "feed": self.feed, "bytes": sent })) };
        let (status, why) = match broken {
            Broken::Over => (StatusCode::GONE, "the command has ended or closed its input".to_owned()),
            Broken::Silent => {
                app.refused(Refusal::PublishWait, account);
                (StatusCode::REQUEST_TIMEOUT, "nothing was sent for too long".into())
            }
            Broken::Expired => (StatusCode::UNAUTHORIZED, decided.expiry().into()),
            Broken::TooLong => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("one request may send at most {} of input", many(limit, "byte")),
            ),
            Broken::Read => (StatusCode::BAD_REQUEST, "the body broke off".into()),
        };
        Err(Problem::new(status, format!("{why}: {} to the command", were(sent, "sent"))))
    }
}

async fn write(
    input: &mut Input,
    pieces: impl Stream<Item = io::Result<Bytes>>,
    (limit, wait): (u64, Duration),
    sent: &mut u64,
) -> Result<(), Broken> {
    let mut pieces = pin!(pieces);
    let mut silent = pin!(sleep(wait));
    let mut waits = !wait.is_zero();
    let mut left = limit;
    loop {
        let piece = tokio::select! {
            biased;
            () = input.over() => return Err(Broken::Over),
            piece = pieces.next() => piece,
            () = &mut silent, if waits => return Err(Broken::Silent),
        };
        let Some(piece) = piece else { return Ok(()) };
        let mut piece = piece.map_err(|_| Broken::Read)?;
        waits &= piece.is_empty();
        left = left.checked_sub(piece.len() as u64).ok_or(Broken::TooLong)?;
        // Waits for as long as the command does not read.
        while !piece.is_empty() {
            *sent += input.write_buf(&mut piece).await.map_err(|_| Broken::Over)? as u64;
        }
        input.flush().await.map_err(|_| Broken::Over)?;
    }
}

/// POST and PUT to a feed that takes input: the body goes to the session that its head names. With `?end`, the input
/// ends with it.
pub(super) async fn answer(
    app: &App,
    request: &Parts,
    body: Body,
    (feed, account, decided): (&Feed, &Account, &Decided),
) -> Result<Response, Problem> {
    app.require_own_page(request)?;
    let close = Query::of(&request.uri)?.end.unwrap_or_default();
    let headers = &request.headers;
    publish::require_whole(headers)?;
    if headers.contains_key("idempotency-key") || headers.contains_key("upload-offset") {
        let text = "input has no Idempotency-Key and no Upload-Offset: a command gets each body once";
        return Err(Problem::bad(text.into()));
    }
    let Some(id) = headers.get(SESSION) else {
        let text = "this feed takes input for the session of one viewer: send the `h3cast-session` that the answer to its GET has";
        return Err(Problem::bad(text.into()));
    };
    let Some(open) = app.inputs.find(id, feed, decided) else {
        let text = "there is no such session of this feed: its viewer has left, or the command has ended";
        return Err(Problem::new(StatusCode::NOT_FOUND, text.into()));
    };
    if app.publications.longest().is_some_and(|limit| body.size_hint().lower() > limit) {
        return Err(app.publications.too_long(0));
    }
    let _place = app.publications.place(account)?;
    let pieces = body.into_data_stream().map(|piece| piece.map_err(io::Error::other));
    let sent = open.send(app, account, decided, open.claim(), pieces, (close, app.publications.wait())).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(sent)).into_response())
}
