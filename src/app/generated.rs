//! Answers that are generated for each request and held until they are taken: charged, and cut when memory is short.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use http_body::{Frame, SizeHint};
use serde::Serialize;
use serde_json::Value;
use tokio::{task::yield_now, time::Instant};

use super::{App, memory};
use crate::feed::{Budget, Charge, Counted, Feed};

/// Smaller ones, in bytes, are part of what a request costs anyway.
const SMALL: usize = 4 << 10;
/// What is handed to the transport at once, in bytes.
const PIECE: usize = 16 << 10;

/// After so many feeds others may run: a few hundred microseconds.
const TURN: usize = 128;
/// Of one kind of answer so many may be held before requests share one.
const MANY: usize = 8;
/// For how long an answer is shared.
const FRESH: Duration = Duration::from_secs(1);

/// An answer of JSON, which is not stored by clients. It is charged to the app's budget while it is held, and cut when
/// its client takes nothing and memory is short.
pub(super) fn json(app: &App, request: &Parts, value: &Value) -> Response {
    respond_json(app, request, value.to_string())
}

/// An answer of JSON with `feeds`, of each of which `about` tells in `each` bytes or so, and the members of the object
/// `more`. A large one is refused when memory is short, before it is written. Between feeds it lets others run:
/// thousands take milliseconds. One is written at a time, so that those before it are charged when it is its turn.
pub(super) async fn feeds<T: Serialize>(
    app: &App,
    request: &Parts,
    feeds: &[Feed],
    each: usize,
    about: impl Fn(&Feed) -> T,
    more: Value,
) -> Response {
    // It is never closed.
    let _turn = app.writing.acquire().await;
    let expected = feeds.len() * each;
    if let Err(short) = app.admit_answer(expected as u64, &request.extensions) {
        return short.into_response();
    }
    let mut charge = app.budget.as_ref().map(|budget| budget.charge(expected as u64));
    let more = more.to_string();
    let mut text = Vec::with_capacity(expected + more.len());
    text.extend_from_slice(br#"{"feeds":["#);
    for (at, feed) in feeds.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        if at % TURN == TURN - 1 {
            if let Some(charge) = &mut charge {
                charge.set(text.capacity() as u64);
            }
            yield_now().await;
        }
        // Of what has no maps whose keys are not texts, in memory, it cannot fail.
        let _ = serde_json::to_writer(&mut text, &about(feed));
    }
    text.push(b']');
    match more.strip_prefix('{').filter(|rest| *rest != "}") {
        Some(rest) => {
            text.push(b',');
            text.extend_from_slice(rest.as_bytes());
        }
        None => text.push(b'}'),
    }
    text.shrink_to_fit();
    // From here on it is charged as an answer that is held.
    drop(charge);
    respond_json(app, request, text)
}

fn respond_json(app: &App, request: &Parts, text: impl Into<Bytes>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    let text = text.into();
    let charge = text.len();
    respond(app, request, named(headers), text, charge, None)
}

/// An answer that is the same for every client and is never refused, since it is needed when memory is short. What many
/// clients do not take is held once for each second, and not once for each.
pub(super) fn shared<const N: usize>(
    app: &App,
    request: &Parts,
    headers: [(HeaderName, &'static str); N],
    text: Arc<Text>,
) -> Response {
    respond(app, request, named(headers), text.bytes.clone(), 0, Some(text))
}

fn named<const N: usize>(headers: [(HeaderName, &'static str); N]) -> HeaderMap {
    headers.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect()
}

fn respond(
    app: &App,
    request: &Parts,
    headers: HeaderMap,
    text: Bytes,
    charge: usize,
    shared: Option<Arc<Text>>,
) -> Response {
    let mut response = Response::default();
    *response.headers_mut() = headers;
    // Of HEAD only the length is sent.
    let budget = app.budget.as_ref().filter(|_| text.len() > SMALL && request.method != Method::HEAD);
    *response.body_mut() = match budget.map(|budget| budget.answer(charge as u64)) {
        Some(counted) => {
            counted.on_cut(memory::cutting(request.version, &request.extensions, &mut response));
            Body::new(Pieces { left: text, counted, _shared: shared })
        }
        None => Body::from(text),
    };
    response
}

/// The texts of one kind of answer that are held for clients.
#[derive(Debug, Default)]
pub(super) struct Texts(Mutex<Vec<Weak<Text>>>);

/// A text that other requests may get too.
#[derive(Debug)]
pub(super) struct Text {
    format: &'static str,
    bytes: Bytes,
    written: Instant,
    /// For as long as any of them holds it.
    _charge: Option<Charge>,
}

impl Texts {
    /// One in this format: written now, unless many are held.
    pub(super) fn get(
        &self,
        budget: Option<&Budget>,
        format: &'static str,
        write: impl FnOnce() -> String,
    ) -> Arc<Text> {
        let held = self.held();
        let newest = held.iter().rev().filter_map(Weak::upgrade).find(|text| text.format == format);
        if held.len() >= MANY
            && let Some(text) = newest.filter(|text| text.written.elapsed() < FRESH)
        {
            return text;
        }
        drop(held);
        let bytes = Bytes::from(write());
        let charge = budget.map(|budget| budget.charge(bytes.len() as u64));
        let text = Arc::new(Text { format, bytes, written: Instant::now(), _charge: charge });
        self.held().push(Arc::downgrade(&text));
        text
    }

    fn held(&self) -> MutexGuard<'_, Vec<Weak<Text>>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|text| text.strong_count() > 0);
        held
    }
}

/// An answer that is sent piece by piece.
struct Pieces {
    left: Bytes,
    counted: Counted,
    _shared: Option<Arc<Text>>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.left.is_empty() {
            return Poll::Ready(None);
        }
        if this.counted.is_cut() {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        let piece = this.left.split_to(this.left.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(this.counted.give(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use http::StatusCode;
    use http_body::Body as _;
    use tower::ServiceExt;

    use super::*;
    use crate::feed::Lag;

    const LIMIT: u64 = 10_000_000;

    fn app(budget: &Budget) -> App {
        let feeds = (0..300).map(|number| Feed::live(&format!("a-feed-of-many-{number:03}"), 1000, Lag::Skip).0);
        App::without_identity(feeds).budget(budget)
    }

    async fn get(app: &App, path: &str) -> Response {
        let request = Request::get(path).header(header::HOST, "localhost").body(Body::empty()).unwrap();
        app.clone().router().oneshot(request).await.unwrap()
    }

    async fn taken(response: Response) -> usize {
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().len()
    }

    #[tokio::test]
    async fn an_answer_is_charged_until_it_is_taken() {
        for path in ["/info", "/feeds", "/metrics"] {
            let budget = Budget::new(LIMIT);
            let app = app(&budget);
            let before = budget.charged();
            let response = get(&app, path).await;
            let length = response.body().size_hint().exact().unwrap();
            let charged = budget.charged() - before;
            assert!(length > 20_000 && charged >= length && charged < length + 1000, "{path}: {charged} of {length}");
            assert_eq!(taken(response).await as u64, length);
            assert_eq!(budget.charged(), before, "{path}");
        }
    }

    #[tokio::test]
    async fn answers_that_are_not_taken_hold_no_more_than_there_is_memory_for() {
        for path in ["/info", "/feeds"] {
            let budget = Budget::new(LIMIT);
            let app = app(&budget);
            let mut held = Vec::new();
            let refused = loop {
                let response = get(&app, path).await;
                match response.status() {
                    StatusCode::OK => held.push(response),
                    status => break status,
                }
                assert!(held.len() < 1000, "{path}: nothing is refused");
            };
            assert_eq!(refused, StatusCode::SERVICE_UNAVAILABLE);
            assert!(budget.charged() < LIMIT);
        }
    }

    /// Each lets the others run while it is written.
    #[tokio::test]
    async fn nor_do_those_that_are_asked_for_at_once() {
        for path in ["/info", "/feeds"] {
            let budget = Budget::new(LIMIT);
            let app = app(&budget);
            let all = futures_util::future::join_all((0..1000).map(|_| get(&app, path))).await;
            let (held, refused): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|response| response.status() == StatusCode::OK);
            assert!(refused.iter().all(|response| response.status() == StatusCode::SERVICE_UNAVAILABLE));
            let length: u64 = held.iter().map(|response| response.body().size_hint().exact().unwrap()).sum();
            assert!(!refused.is_empty() && length < LIMIT && budget.charged() < LIMIT, "{path}: {length} bytes");
        }
    }

    /// On a runtime of one thread, which a listing that is written at once would have for itself.
    #[tokio::test]
    async fn others_are_served_while_many_feeds_are_listed() {
        const FEEDS: usize = 10_000;
        let feeds = (0..FEEDS).map(|number| Feed::live(&format!("feed-{number}"), 1000, Lag::Skip).0);
        let app = App::without_identity(feeds);
        let others = app.clone().router();
        for path in ["/info", "/feeds"] {
            let lists = app.clone();
            let listing = tokio::spawn(async move { get(&lists, path).await });
            let mut served = 0;
            while !listing.is_finished() {
                let request = Request::get("/healthz").header(header::HOST, "localhost").body(Body::empty()).unwrap();
                assert_eq!(others.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
                served += 1;
                yield_now().await;
            }
            assert!(served >= FEEDS / TURN, "{path}: {served} others were served");
            let text = axum::body::to_bytes(listing.await.unwrap().into_body(), usize::MAX).await.unwrap();
            let listed: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(listed["feeds"].as_array().unwrap().len(), FEEDS, "{path}");
        }
    }

    /// All within one moment, however long the requests take.
    #[tokio::test(start_paused = true)]
    async fn what_monitors_read_is_held_once_for_many() {
        let budget = Budget::new(LIMIT);
        let app = app(&budget);
        let mut held = Vec::new();
        for _ in 0..1000 {
            held.push(get(&app, "/metrics").await);
            assert_eq!(held.last().unwrap().status(), StatusCode::OK);
        }
        let length = held[0].body().size_hint().exact().unwrap();
        let all = budget.charged();
        assert!(all >= 8 * length && all < 10 * length + 1_000_000, "{all} of {length}");
        // The one for which it was written is done; others still hold it.
        drop(held.drain(..500));
        assert!(budget.charged() >= length, "{} of {length}", budget.charged());
        drop(held);
        // Nothing of it is kept, and the next one is new.
        let before = budget.charged();
        let text = axum::body::to_bytes(get(&app, "/metrics").await.into_body(), usize::MAX).await.unwrap();
        assert!(std::str::from_utf8(&text).unwrap().contains("h3cast_feed_viewers"));
        assert_eq!(budget.charged(), before);
    }
}
