//! The routes of the `h3cast` program: feeds at `/stream`, what the page must know at `/info`, and
//! the page itself.

mod file;
mod guard;
mod problem;
mod publish;
mod session;
mod status;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Extension, Query, Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::debug;

use self::{problem::Problem, publish::Publications};
use crate::{
    browser,
    chunk::BadCursor,
    feed::{self, Family, Feed, Feeds, From, Viewer},
    format::{self, Format, Framing, Writer},
    http3::{TakenStream, Takeover},
    identity::Identity,
    origin::{Origins, split_authority},
    page, resource,
    server::{ServerBuilder, Via},
};

/// The feeds of a server and how they are shown.
#[derive(Debug, Clone)]
pub struct App {
    feeds: Feeds,
    publications: Publications,
    identity: Identity,
    origins: Origins,
    static_dir: Option<PathBuf>,
    coalesce: Duration,
    stopping: CancellationToken,
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
    /// With what right a session publishes: pages cannot give its request a header.
    token: Option<String>,
    /// Where what a session publishes is cut.
    chunk: Option<publish::Cut>,
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

/// What somebody wants to view.
struct Asked {
    feed: Feed,
    from: Option<From>,
    limit: Option<u64>,
    format: Format,
    /// The query names the format, which is then that one and no other.
    format_named: bool,
    delivery: Delivery,
    token: Option<String>,
    chunk: Option<publish::Cut>,
}

impl App {
    /// An app with these feeds; `identity` is that of its server.
    #[must_use]
    pub fn new(feeds: impl IntoIterator<Item = Feed>, identity: Identity) -> Self {
        Self {
            feeds: feeds.into_iter().collect(),
            publications: Publications::default(),
            identity,
            origins: Origins::default(),
            static_dir: None,
            coalesce: Duration::ZERO,
            stopping: CancellationToken::new(),
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

    /// Who publishes must give this token: as `Authorization: Bearer TOKEN`, or a session as
    /// `?token=TOKEN`. Without it, everyone who reaches the server may write its writable feeds,
    /// save pages of other origins.
    #[must_use]
    pub fn publish_token(mut self, token: Option<&str>) -> Self {
        self.publications.token(token);
        self
    }

    /// The longest body that one request may publish, in bytes.
    #[must_use]
    pub fn publish_limit(mut self, bytes: Option<u64>) -> Self {
        self.publications.limit(bytes);
        self
    }

    /// Serves the page from a folder, read anew at each request, instead of the embedded one.
    #[must_use]
    pub fn static_dir(mut self, dir: Option<PathBuf>) -> Self {
        self.static_dir = dir;
        self
    }

    /// Lets each chunk wait that long for others, to leave in one packet with them. The default is
    /// not at all.
    #[must_use]
    pub fn coalesce(mut self, time: Duration) -> Self {
        self.coalesce = time;
        self
    }

    /// Adds feeds that are there when somebody asks for them.
    #[must_use]
    pub fn family(mut self, family: Arc<dyn Family>) -> Self {
        self.feeds.add_family(family);
        self
    }

    /// Once `stopping` is cancelled, `/readyz` answers with 503, so that load balancers send nobody new.
    #[must_use]
    pub fn stopping(mut self, stopping: CancellationToken) -> Self {
        self.stopping = stopping;
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
        let feeds = Router::new()
            .route("/stream", get(stream).post(publish::answer).put(publish::answer))
            .route("/stream/{name}", get(stream).post(publish::answer).put(publish::answer))
            .layer(middleware::map_response(named(resource::FEED)));
        let status = Router::new()
            .route("/info", get(info))
            .route("/feeds", get(status::feeds))
            .route("/metrics", get(status::metrics))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(status::ready))
            .layer(middleware::map_response(named(resource::STATUS)));
        let routes = Router::new()
            .route("/", get(page_file))
            .fallback(page_file)
            .layer(middleware::map_response(named(resource::PAGE)))
            .merge(feeds)
            .merge(status)
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(self.clone())
            .merge(self.routes.clone());
        // Around the router, not around each route: what is allowed is known there.
        Router::new()
            .fallback_service(routes)
            // A handler that panics is this server's failure (500), and no reason to cut the client off.
            .layer(CatchPanicLayer::new())
            .layer(middleware::from_fn_with_state(self, guard::guard))
    }

    /// Whether a page of `origin` may read what is served as `host`, and publish there.
    fn allows(&self, origin: &str, host: &str) -> bool {
        // A page elsewhere can make its own name point here, and be of the same host then. The
        // certificate is in the way of that, unless the browser was told to take ours for every name.
        let ours = self.origins.names_host(host) || self.identity.current().is_for(host);
        self.origins.allow(origin, if ours { host } else { "" })
    }

    /// The feed at that path.
    async fn feed(&self, path: &str) -> Result<Feed, Problem> {
        let name = match path {
            "/stream" => feed::DEFAULT,
            path => path
                .strip_prefix("/stream/")
                .filter(|name| !name.is_empty())
                .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "feeds are at /stream and /stream/NAME".into()))?,
        };
        let found = self.feeds.get(name).await;
        found.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?.ok_or_else(|| {
            const SHOWN: usize = 20;
            let mut names: Vec<_> = self.feeds.names().take(SHOWN).collect();
            if self.feeds.names().nth(SHOWN).is_some() {
                names.push("… (/feeds has all)");
            }
            Problem::new(StatusCode::NOT_FOUND, format!("there is no feed `{name}`: there is {}", names.join(", ")))
        })
    }

    /// What a request wants to view, by its URI and its headers.
    async fn asked(&self, uri: &Uri, headers: &HeaderMap) -> Result<Asked, Problem> {
        let feed = self.feed(uri.path()).await?;
        let Query(query) = Query::<ViewQuery>::try_from_uri(uri).map_err(|error| Problem::bad(error.body_text()))?;
        let accepts = |media_type: &str| {
            headers
                .get_all(header::ACCEPT)
                .iter()
                .filter_map(|accept| accept.to_str().ok())
                .any(|accept| accept.split(',').any(|kind| kind.trim().starts_with(media_type)))
        };
        // An `EventSource` asks by headers, and reconnects by another one.
        let last_event = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
        let format = query.format.unwrap_or_else(|| match last_event {
            Some(_) => Format::Sse,
            // `h3cast get` asks so: a server that does not know the type answers as to anyone.
            None if accepts(format::FRAMES) => Format::Frames,
            None if accepts("text/event-stream") => Format::Sse,
            None => Format::Raw,
        });
        let from = match last_event.or(query.from.as_deref()) {
            None => None,
            Some("start") => Some(From::Start),
            Some("now") => Some(From::Now),
            Some(cursor) => {
                Some(From::After(cursor.parse().map_err(|error: BadCursor| Problem::bad(error.to_string()))?))
            }
        };
        Ok(Asked {
            feed,
            from,
            limit: query.limit,
            format,
            format_named: query.format.is_some(),
            delivery: query.delivery,
            token: query.token,
            chunk: query.chunk,
        })
    }
}

impl Asked {
    fn view(&self) -> Result<Viewer, Problem> {
        let viewer = self.feed.view(self.from.unwrap_or_default(), self.limit);
        if self.format == Format::Raw
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
        Ok(viewer)
    }

    /// The file, when all of it is wanted as it is. Who merely prefers frames gets the file too: parts
    /// of it can be asked for later.
    fn file(&self) -> Option<&std::path::Path> {
        let plain = match self.format {
            Format::Raw => true,
            Format::Frames => !self.format_named,
            Format::Sse => false,
        };
        let whole = plain && self.limit.is_none() && !matches!(self.from, Some(From::After(_)));
        self.feed.file().filter(|_| whole)
    }
}

/// Names what an answer is of.
fn named<B>(resource: &'static str) -> impl Fn(Response<B>) -> std::future::Ready<Response<B>> + Clone {
    move |mut response| {
        response.headers_mut().insert(resource::HEADER, HeaderValue::from_static(resource));
        std::future::ready(response)
    }
}

async fn stream(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (request, _) = request.into_parts();
    let asked = app.asked(&request.uri, &request.headers).await?;
    if asked.delivery == Delivery::Datagrams {
        let text = "a response cannot bring datagrams: open a WebTransport session at the same URL";
        return Err(Problem::bad(text.into()));
    }
    if asked.token.is_some() || asked.chunk.is_some() {
        let text = "`token` and `chunk` are for sessions that publish: a viewer needs neither";
        return Err(Problem::bad(text.into()));
    }
    if let Some(path) = asked.file() {
        return file::answer(&asked.feed, path, &request).await;
    }
    let viewer = asked.view()?;
    let headers = [
        (header::CONTENT_TYPE, asked.format.content_type()),
        (header::CACHE_CONTROL, "no-store"),
        // What has gone by cannot be asked for again in bytes.
        (header::ACCEPT_RANGES, "none"),
        // Proxies that gather a response before they send it on are asked not to.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    // A HEAD makes no viewer run; asking for the feed is enough to know that it is there.
    if request.method == Method::HEAD {
        return Ok(headers.into_response());
    }
    let writer = |framing| Writer::new(viewer, asked.format, framing).coalesce(app.coalesce);
    let takeover = request.extensions.get::<Takeover>().cloned();
    Ok(match takeover {
        Some(takeover) => {
            let (parts, _) = headers.into_response().into_parts();
            takeover.respond(Response::from_parts(parts, ()), {
                let writer = writer(Framing::Data);
                move |stream| view(writer, stream)
            })
        }
        None => (headers, Body::from_stream(writer(Framing::Plain).into_stream())).into_response(),
    })
}

/// Writes a feed as the DATA frames of a response, several at once to a viewer that is behind. The
/// stream is reset when the feed breaks off, or dropped with this future when the viewer goes.
async fn view(mut writer: Writer, mut stream: TakenStream) {
    let mut buffers = Vec::new();
    loop {
        match writer.next(&mut buffers).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(cut) => return debug!(%cut, "a response breaks off"),
        }
        if stream.write_frames(&mut buffers).await.is_err() {
            return;
        }
        buffers.clear();
    }
    // An error means that the viewer has gone.
    let _ = stream.finish().await;
}

async fn info(State(app): State<Arc<App>>, Extension(via): Extension<Via>, request: Request) -> Response {
    let base = format!("https://{}:{}", host_of(&request), via.tls_port);
    let url = |feed: &Feed| match feed.name() {
        feed::DEFAULT => format!("{base}/stream"),
        name => format!("{base}/stream/{name}"),
    };
    let feeds: Vec<_> = app
        .feeds
        .all()
        .iter()
        .map(|feed| json!({ "name": feed.name(), "url": url(feed), "kind": feed.kind() }))
        .collect();
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

async fn page_file(State(app): State<Arc<App>>, Extension(via): Extension<Via>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ([(header::ALLOW, ALLOWED)], method_not_allowed().await).into_response();
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

/// The router adds what is allowed where it was asked.
async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "that method is not allowed here".into())
}

const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
