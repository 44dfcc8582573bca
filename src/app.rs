//! The routes of the `h3cast` program: feeds at `/stream`, what the page must know at `/info`, and
//! the page itself.

mod session;

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Extension, Query, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::json;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::debug;

use crate::{
    browser,
    chunk::BadCursor,
    feed::{self, End, Feed, Feeds, From, Viewer},
    format::{self, Format},
    identity::Identity,
    origin::{Origins, is_loopback, split_authority},
    page,
    server::{ServerBuilder, Via},
};

/// The feeds of a server and how they are shown.
#[derive(Debug, Clone)]
pub struct App {
    feeds: Feeds,
    identity: Identity,
    origins: Origins,
    static_dir: Option<PathBuf>,
    routes: Router,
}

/// How to view a feed: the query of `GET` and `CONNECT /stream`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ViewQuery {
    /// End cleanly after that many chunks.
    limit: Option<u64>,
    /// How the feed is written.
    format: Option<Format>,
    /// Where to begin: `start`, `now`, or behind a cursor.
    from: Option<String>,
    /// How a session brings the chunks.
    #[serde(default)]
    delivery: Delivery,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Delivery {
    /// On one stream.
    #[default]
    Stream,
    /// One datagram each.
    Datagrams,
}

/// A feed as somebody wants it.
struct View {
    viewer: Viewer,
    format: Format,
    delivery: Delivery,
}

impl App {
    /// An app with these feeds; `identity` is that of its server.
    #[must_use]
    pub fn new(feeds: impl IntoIterator<Item = Feed>, identity: Identity) -> Self {
        Self {
            feeds: feeds.into_iter().collect(),
            identity,
            origins: Origins::default(),
            static_dir: None,
            routes: Router::new(),
        }
    }

    /// Origins (`https://example.org`) whose pages may read the feeds, beside pages of the same
    /// host and of this machine.
    #[must_use]
    pub fn allow_origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// Serves the page from a folder, read anew at each request, instead of the embedded one.
    #[must_use]
    pub fn static_dir(mut self, dir: Option<PathBuf>) -> Self {
        self.static_dir = dir;
        self
    }

    /// Adds routes of your own. What holds for the app's holds for them: who may ask, and which
    /// pages may read the answer. They must not overlap with the app's, and have no fallback.
    #[must_use]
    pub fn routes(mut self, routes: Router) -> Self {
        self.routes = routes;
        self
    }

    /// Makes a server answer with this app.
    #[must_use]
    pub fn install(self, server: ServerBuilder) -> ServerBuilder {
        let app = Arc::new(self);
        let router = app.clone().router();
        server.http_service(router).webtransport_fallback(move |request| session::answer(app.clone(), request))
    }

    /// The routes, for any version of HTTP.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/stream", get(stream))
            .route("/stream/{name}", get(stream))
            .route("/info", get(info))
            .route("/feeds", get(feeds))
            .route("/healthz", get(async || "ok\n"))
            .route("/", get(page_file))
            .fallback(page_file)
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(self.clone())
            .merge(self.routes.clone())
            // A handler that panics is this server's failure (500), and no reason to cut the client off.
            .layer(CatchPanicLayer::new())
            .layer(middleware::from_fn_with_state(self, guard))
    }

    fn find(&self, name: &str) -> Result<&Feed, Problem> {
        self.feeds.get(name).ok_or_else(|| {
            let names: Vec<_> = self.feeds.iter().map(Feed::name).collect();
            Problem::new(StatusCode::NOT_FOUND, format!("there is no feed `{name}`: there is {}", names.join(", ")))
        })
    }

    /// The view that a request asks for, by its URI and its headers.
    fn view(&self, uri: &Uri, headers: &HeaderMap) -> Result<View, Problem> {
        let bad = |text: String| Problem::new(StatusCode::BAD_REQUEST, text);
        let name = match uri.path() {
            "/stream" => feed::DEFAULT,
            path => path
                .strip_prefix("/stream/")
                .filter(|name| !name.is_empty())
                .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "feeds are at /stream and /stream/NAME".into()))?,
        };
        let Query(query) = Query::<ViewQuery>::try_from_uri(uri).map_err(|error| bad(error.body_text()))?;
        // An `EventSource` asks by headers, and comes again by another one.
        let wants_events = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|accept| accept.to_str().ok())
            .any(|accept| accept.split(',').any(|kind| kind.trim().starts_with("text/event-stream")));
        let last_event = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
        let format =
            query.format.unwrap_or(if wants_events || last_event.is_some() { Format::Sse } else { Format::Raw });
        let from = match last_event.or(query.from.as_deref()) {
            None => From::default(),
            Some("start") => From::Start,
            Some("now") => From::Now,
            Some(cursor) => From::After(cursor.parse().map_err(|error: BadCursor| bad(error.to_string()))?),
        };
        let viewer = self.find(name)?.view(from, query.limit);
        if format == Format::Raw
            && let Some(gap) = viewer.gap()
        {
            // Better told now than by a stream that breaks off at once.
            let text = match gap.restarted {
                true => {
                    "the feed was started again since, and `raw` cannot tell: ask from=start, or another format".into()
                }
                false => format!(
                    "{} chunks since are gone, and `raw` cannot tell: ask from=start, or another format",
                    gap.missing
                ),
            };
            return Err(Problem::new(StatusCode::GONE, text));
        }
        Ok(View { viewer, format, delivery: query.delivery })
    }
}

async fn stream(
    State(app): State<Arc<App>>,
    uri: Uri,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let View { viewer, format, delivery } = app.view(&uri, &headers)?;
    if delivery == Delivery::Datagrams {
        let text = "a response cannot bring datagrams: open a WebTransport session at the same URL";
        return Err(Problem::new(StatusCode::BAD_REQUEST, text.into()));
    }
    // A HEAD makes no viewer run; asking for the feed is enough to know that it is there.
    let body = match method {
        Method::HEAD => Body::empty(),
        _ => Body::from_stream(format::write(viewer, format)),
    };
    let headers = [
        (header::CONTENT_TYPE, format.content_type()),
        (header::CACHE_CONTROL, "no-store"),
        // What has gone by cannot be asked for again in bytes.
        (header::ACCEPT_RANGES, "none"),
        // Proxies that gather a response before they send it on are asked not to.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body).into_response())
}

async fn info(State(app): State<Arc<App>>, Extension(via): Extension<Via>, request: Request) -> Response {
    let base = format!("https://{}:{}", host_of(&request), via.tls_port);
    let url = |feed: &Feed| match feed.name() {
        feed::DEFAULT => format!("{base}/stream"),
        name => format!("{base}/stream/{name}"),
    };
    let feeds: Vec<_> =
        app.feeds.iter().map(|feed| json!({ "name": feed.name(), "url": url(feed), "kind": feed.kind() })).collect();
    let hashes: Vec<_> =
        app.identity.hashes().iter().map(|hash| json!({ "algorithm": "sha-256", "value": hash.base64() })).collect();
    let chrome = browser::chrome_command(&format!("{base}/"), &app.identity.current().spki_hash());
    let info = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "feeds": feeds,
        "webtransport": { "url": format!("{base}/stream"), "certificateHashes": hashes },
        "http3": { "url": format!("{base}/") },
        "chrome": chrome,
    });
    ([(header::CACHE_CONTROL, "no-store")], Json(info)).into_response()
}

async fn feeds(State(app): State<Arc<App>>) -> Response {
    let feeds: Vec<_> = app
        .feeds
        .iter()
        .map(|feed| {
            let status = feed.status();
            let (state, error) = match &status.end {
                None => ("open", None),
                Some(End::Clean) => ("ended", None),
                Some(End::Failed(error)) => ("failed", Some(error.to_string())),
            };
            json!({
                "name": feed.name(),
                "kind": feed.kind(),
                "state": state,
                "error": error,
                "viewers": status.viewers,
                "chunks": status.chunks,
                "bytes": status.bytes,
                "kept_bytes": status.kept_bytes,
                "skipped": status.skipped,
                "oldest": status.oldest.map(|cursor| cursor.to_string()),
            })
        })
        .collect();
    ([(header::CACHE_CONTROL, "no-store")], Json(json!({ "feeds": feeds }))).into_response()
}

async fn page_file(State(app): State<Arc<App>>, Extension(via): Extension<Via>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed().await;
    }
    let path = match request.uri().path() {
        "/" => "index.html",
        path => path.trim_start_matches('/'),
    };
    let file = match &app.static_dir {
        Some(dir) => page::from_folder(dir, path).await,
        None => page::embedded(path),
    };
    let Some(file) = file else {
        return Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", request.uri().path()))
            .into_response();
    };
    let connect = format!("https://{}:{}", host_of(&request), via.tls_port);
    file.respond(request.headers(), &connect)
}

/// The host by which the client reached us, as it stands in a URL.
fn host_of(request: &Request) -> &str {
    authority_of(request).and_then(split_authority).map_or("localhost", |(host, _)| host)
}

/// `:authority` of HTTP/2 and 3, or `Host`.
fn authority_of(request: &Request) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(header::HOST)?.to_str().ok(),
    }
}

async fn method_not_allowed() -> Response {
    let mut response =
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and OPTIONS are allowed here".into())
            .into_response();
    response.headers_mut().insert(header::ALLOW, ALLOWED);
    response
}

const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// What holds for every route: who may ask, which pages may read the answer, and what a browser
/// must not make of it.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Infallible> {
    let via = request.extensions().get::<Via>().copied();
    let named = authority_of(&request).and_then(split_authority).map(|(host, _)| host);
    let ours = named.is_some_and(|host| is_loopback(host) || app.origins.names_host(host));
    let host = host_of(&request).to_owned();
    if via.is_some_and(|via| !via.tls) && !ours {
        // A page elsewhere that makes its own name point at this machine (DNS rebinding) would
        // otherwise read everything here as its own.
        let text =
            "plain HTTP is served to this machine only, under its own name: open http://localhost instead".into();
        return Ok(Problem::new(StatusCode::MISDIRECTED_REQUEST, text).into_response());
    }
    debug!(version = ?request.version(), method = %request.method(), path = request.uri().path(), "request");
    let origin = request.headers().get(header::ORIGIN).cloned();
    let foreign = origin.is_some();
    let allowed = origin.filter(|origin| origin.to_str().is_ok_and(|origin| app.origins.allow(origin, &host)));
    if foreign && allowed.is_none() && !request.method().is_safe() {
        // Browsers send simple cross-origin POSTs without asking first.
        let text = "pages of that origin may not do this here: --allow-origin names those that may";
        return Ok(Problem::new(StatusCode::FORBIDDEN, text.into()).into_response());
    }
    let preflight = (*request.method() == Method::OPTIONS).then(|| request.headers().clone());
    let mut response = next.run(request).await;
    if let Some(preflight) = preflight
        && response.status() == StatusCode::METHOD_NOT_ALLOWED
    {
        // What is refused is OPTIONS itself, and the refusal says what is allowed.
        response = options(&preflight, response.headers().get(header::ALLOW));
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        // Lets the page see which protocol carried the response.
        headers.insert("timing-allow-origin", origin);
    }
    Ok(response)
}

/// OPTIONS, and with it the preflight of CORS (Fetch §4.8).
fn options(request: &HeaderMap, allowed: Option<&HeaderValue>) -> Response {
    let methods = allowed.and_then(|allowed| allowed.to_str().ok()).unwrap_or("GET, HEAD");
    let listed = methods.split(',').map(str::trim).filter(|method| *method != "OPTIONS");
    let methods = listed.chain(["OPTIONS"]).collect::<Vec<_>>().join(", ");
    let methods = HeaderValue::from_str(&methods).unwrap_or(HeaderValue::from_static("GET, HEAD, OPTIONS"));
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, methods.clone());
    if request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        if let Some(names) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
    }
    response
}

/// An error as RFC 9457 writes it.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, detail: String) -> Self {
        Self { status, detail }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let headers = [(header::CONTENT_TYPE, "application/problem+json"), (header::CACHE_CONTROL, "no-store")];
        (self.status, headers, body.to_string()).into_response()
    }
}
