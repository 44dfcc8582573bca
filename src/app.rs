//! The routes of the `h3cast` program: feeds at `/stream`, what the page must know at `/info`, and
//! the page itself.

mod accept;
mod asked;
mod file;
mod guard;
mod host;
mod page;
mod problem;
mod publish;
mod quotas;
mod session;
mod status;

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::util::{MapRequestLayer, MapResponseLayer};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::debug;

use h3cast_proto::frame;

use self::{
    asked::Delivery,
    host::{base_of, for_shell, prefix_of},
    problem::Problem,
    publish::Publications,
    quotas::account,
};
pub use self::{page::Page, quotas::Quotas};
use crate::{
    admission::{Counters, Refusal},
    browser,
    feed::{self, Account, Family, Feed, Feeds},
    format::{Format, Framing, PREFIX_TYPE, Writer},
    http3::{TakenStream, Takeover},
    identity::{Fingerprint, Identity},
    origin::Origins,
    path, resource,
    server::{ServerBuilder, Via},
    source::command::Commands,
};

/// The feeds of a server and how they are shown.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use h3cast::{
///     App, Identity, Server,
///     feed::{Feed, Lag},
/// };
///
/// let identity = Identity::localhost()?;
/// let (feed, publisher) = Feed::live("default", 1_000_000, Lag::Skip);
/// let app = App::new([feed], identity.clone());
/// let server = app.install(Server::builder(identity)).build().await?;
/// publisher.publish("hello".into()).await?;
/// server.serve().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct App {
    feeds: Feeds,
    publications: Publications,
    identity: Option<Identity>,
    origins: Origins,
    page: Page,
    coalesce: Duration,
    stopping: CancellationToken,
    admission: Option<Counters>,
    commands: Option<Commands>,
    routes: Router,
}

impl App {
    /// An app with these feeds; `identity` is that of its server.
    #[must_use]
    pub fn new(feeds: impl IntoIterator<Item = Feed>, identity: Identity) -> Self {
        Self { identity: Some(identity), ..Self::without_identity(feeds) }
    }

    /// An app with these feeds for another server than [`Server`](crate::Server), as `axum::serve`. Which names are
    /// that server's own is not known, so that pages of it that publish need
    /// [`allow_origins`](Self::allow_origins), unless it is reached as `localhost`.
    #[must_use]
    pub fn without_identity(feeds: impl IntoIterator<Item = Feed>) -> Self {
        Self {
            feeds: feeds.into_iter().collect(),
            publications: Publications::default(),
            identity: None,
            origins: Origins::default(),
            page: Page::default(),
            coalesce: Duration::ZERO,
            stopping: CancellationToken::new(),
            admission: None,
            commands: None,
            routes: Router::new(),
        }
    }

    /// Origins (`https://example.org`) whose pages may read the feeds, in addition to pages of the same host
    /// and of this machine.
    #[must_use]
    pub fn allow_origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// Publishers must send this token: as `Authorization: Bearer TOKEN`, or a session as `?token=TOKEN`. By
    /// default, every client that reaches the server may write its writable feeds, except pages of other
    /// origins.
    #[must_use]
    pub fn publish_token<'a>(mut self, token: impl Into<Option<&'a str>>) -> Self {
        self.publications.token(token.into());
        self
    }

    /// The longest body that one request may publish, in bytes. By default there is no limit.
    #[must_use]
    pub fn publish_limit(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.publications.limit(bytes.into());
        self
    }

    /// How much clients may publish at once, in all and each.
    #[must_use]
    pub fn quotas(mut self, quotas: Quotas) -> Self {
        self.publications.quotas(&quotas);
        self
    }

    /// What is served where the app has no route, instead of the page that is built in.
    #[must_use]
    pub fn page(mut self, page: Page) -> Self {
        self.page = page;
        self
    }

    /// Serves the page from a folder, as [`Page::folder`] does; `None` is the page that is built in.
    #[must_use]
    pub fn static_dir(self, dir: impl Into<Option<PathBuf>>) -> Self {
        self.page(dir.into().map_or_else(Page::built_in, Page::folder))
    }

    /// Batches small chunks for up to that long into one packet. By default a chunk leaves at once.
    #[must_use]
    pub fn coalesce(mut self, time: Duration) -> Self {
        self.coalesce = time;
        self
    }

    /// Adds feeds that are created when a client asks for them.
    #[must_use]
    pub fn family(mut self, family: Arc<dyn Family>) -> Self {
        self.feeds.add_family(family);
        self
    }

    /// Once `stopping` is cancelled, `/readyz` answers with 503, so that load balancers send no new clients.
    #[must_use]
    pub fn stopping(mut self, stopping: CancellationToken) -> Self {
        self.stopping = stopping;
        self
    }

    /// Shows in `/metrics` how many of these commands run.
    #[must_use]
    pub fn commands(mut self, commands: Commands) -> Self {
        self.commands = Some(commands);
        self
    }

    /// Adds routes of your own, under the same rules as the app's: who may ask, and which pages may read the
    /// response. They must not overlap with the app's, and have no fallback.
    #[must_use]
    pub fn routes(mut self, routes: Router) -> Self {
        self.routes = routes;
        self
    }

    /// Makes a server answer with this app. Which pages may open sessions, also those of the server's own handlers,
    /// is decided by the app, that is by [`allow_origins`](Self::allow_origins), and not by
    /// [`ServerBuilder::origins`], whether that is set before or after. `/metrics` then also shows what the server
    /// has admitted and refused.
    #[must_use]
    pub fn install(mut self, server: ServerBuilder) -> ServerBuilder {
        self.publications.count_in(server.admission());
        self.admission = Some(server.admission().clone());
        server.http_service(self.router())
    }

    /// The routes, for any version of HTTP, with their WebTransport sessions. They work under a prefix as
    /// well, and layers around them decide about requests and sessions alike:
    ///
    /// ```
    /// # fn doc(app: h3cast::App) -> axum::Router {
    /// axum::Router::new().nest("/live", app.router())
    /// # }
    /// ```
    ///
    /// A prefix with a parameter, `/{tenant}`, needs axum's `nest_service`. `/info` has the prefix as the client
    /// writes it. Without a [`Server`](crate::Server), as under `axum::serve`, there is no HTTP/3, and `/info` and
    /// the page say so.
    pub fn router(&self) -> Router {
        let app = Arc::new(self.clone());
        let feed = || get(view).post(publish::answer).put(publish::answer).connect(session::open);
        let feeds = Router::new()
            .route("/stream", feed())
            .route("/stream/{name}", feed())
            .layer(MapResponseLayer::new(named(resource::FEED)));
        let status = Router::new()
            .route("/info", get(info))
            .route("/feeds", get(status::feeds))
            .route("/metrics", get(status::metrics))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(status::ready))
            .layer(MapResponseLayer::new(named(resource::STATUS)));
        let routes = self
            .page
            .routes()
            .layer(MapResponseLayer::new(named(resource::PAGE)))
            .merge(feeds)
            .merge(status)
            .method_not_allowed_fallback(page::method_not_allowed)
            .with_state(app.clone())
            .merge(self.routes.clone());
        // Around the router, not around each route: what is allowed is known there. In one call of
        // `layer`: axum boxes what each call adds, and for every request clones each box with all those in it.
        Router::new().fallback_service(routes).layer((
            middleware::from_fn_with_state(app, guard::guard),
            MapRequestLayer::new(path::normalized),
            // A handler that panics is this server's failure (500), and no reason to cut the client off.
            CatchPanicLayer::new(),
        ))
    }

    /// Counts a refusal.
    fn refused(&self, reason: Refusal, account: &Account) {
        if let Some(admission) = &self.admission {
            admission.refused(reason, account);
        }
    }

    /// Whether a page of `origin` may read what is served as `host`, and publish there.
    fn allows(&self, origin: &str, host: &str) -> bool {
        // A page elsewhere can make its own name point here, and be of the same host then. The
        // certificate is in the way of that, unless the browser was told to take ours for every name.
        let ours = self.origins.names_host(host)
            || self.identity.as_ref().is_some_and(|identity| identity.current().is_for(host));
        self.origins.allow(origin, if ours { host } else { "" })
    }

    /// The feed at that path, which may have any of its letters percent-encoded; `prefix` is where the app is.
    async fn feed(&self, path: &str, prefix: &str) -> Result<Feed, Problem> {
        let path = path::normal(path);
        let nowhere = || {
            let text = format!("feeds are at {prefix}/stream and {prefix}/stream/NAME");
            Problem::new(StatusCode::NOT_FOUND, text)
        };
        let name = match path.as_ref() {
            "/stream" => feed::DEFAULT.into(),
            path => {
                let name = path.strip_prefix("/stream/").filter(|name| !name.is_empty()).ok_or_else(nowhere)?;
                path::decoded(name).ok_or_else(nowhere)?
            }
        };
        let name = name.as_ref();
        let found = self.feeds.get(name).await;
        found.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?.ok_or_else(|| {
            const SHOWN: usize = 20;
            let mut names: Vec<_> = self.feeds.names().take(SHOWN).collect();
            let more = format!("… ({prefix}/feeds has all)");
            if self.feeds.names().nth(SHOWN).is_some() {
                names.push(&more);
            }
            Problem::new(StatusCode::NOT_FOUND, format!("there is no feed `{name}`: there is {}", names.join(", ")))
        })
    }
}

/// Names what an answer is of.
fn named<B>(resource: &'static str) -> impl Fn(Response<B>) -> Response<B> + Clone {
    move |mut response| {
        response.headers_mut().insert(resource::HEADER, HeaderValue::from_static(resource));
        response
    }
}

async fn view(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (request, _) = request.into_parts();
    let asked = app.asked(&request.uri, &request.headers, &request.extensions).await?;
    if asked.delivery == Delivery::Datagrams {
        let text = "a response cannot bring datagrams: open a WebTransport session at the same URL";
        return Err(Problem::bad(text.into()));
    }
    if asked.token.is_some() || asked.chunk.is_some() {
        let text = "`token` and `chunk` are for sessions that publish: a viewer needs neither";
        return Err(Problem::bad(text.into()));
    }
    asked.may_start(&app, &request.extensions)?;
    if let Some(path) = asked.file()
        && let Some(response) = file::answer(&asked.feed, path, &request).await?
    {
        return Ok(response);
    }
    if asked.is_over() {
        return Ok((StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "no-store")]).into_response());
    }
    let content = match asked.feed.file() {
        Some(path) if asked.format == Format::Raw => Some(file::content(&asked.feed, path).await?),
        _ => None,
    };
    let head = request.method == Method::HEAD;
    // A viewer of an on-demand feed runs its source; of a live one it only tells whether chunks are gone.
    let viewer =
        (!head || asked.feed.kind() == "live").then(|| asked.view(&app, &account(&request.extensions))).transpose()?;
    let headers = [
        (header::CONTENT_TYPE, asked.format.content_type()),
        (header::CACHE_CONTROL, "no-store"),
        // What has gone by cannot be asked for again in bytes.
        (header::ACCEPT_RANGES, "none"),
        // Proxies that gather a response before they send it on are asked not to.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let mut response = headers.into_response();
    if let Some(content) = content {
        content.say(response.headers_mut());
    }
    let Some(viewer) = viewer.filter(|_| !head) else {
        // Not a body of no bytes, whose length would be sent as that of the feed (RFC 9110 §8.6).
        return Ok(response.map(|_| Body::from_stream(stream::empty::<Result<Bytes, Infallible>>())));
    };
    let (format, coalesce) = (asked.format, app.coalesce);
    let writer = move |viewer, framing| Writer::new(viewer, format, framing).coalesce(coalesce);
    let body = move |viewer| Body::from_stream(writer(viewer, Framing::Plain).into_stream());
    let takeover = request.extensions.get::<Takeover>().cloned();
    Ok(match takeover {
        Some(takeover) => {
            // For one of the two.
            let viewer = Arc::new(Mutex::new(Some(viewer)));
            let shared = viewer.clone();
            let take = |viewer: &Mutex<Option<_>>| viewer.lock().unwrap_or_else(PoisonError::into_inner).take();
            let written = async move |stream| {
                if let Some(viewer) = take(&viewer) {
                    write(writer(viewer, Framing::Prefixed), stream).await;
                }
            };
            // Under a layer that compresses, say.
            takeover.respond_or(response.map(|_| ()), written, move || take(&shared).map_or_else(Body::empty, body))
        }
        None => response.map(|_| body(viewer)),
    })
}

// The prefix that feeds encode with their chunks is the header of a DATA frame.
const _: () = assert!(PREFIX_TYPE == frame::DATA);

/// Writes a feed as the DATA frames of a response, several at once to a viewer that is behind. The
/// stream is reset when the feed breaks off and the viewer has what there was, or dropped with this
/// future when the viewer goes.
async fn write(mut writer: Writer, mut stream: TakenStream) {
    let mut buffers = Vec::new();
    loop {
        match writer.next(&mut buffers).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(cut) => {
                debug!(%cut, "a response breaks off");
                return stream.abort().await;
            }
        }
        if stream.write_frames(&mut buffers).await.is_err() {
            return;
        }
        buffers.clear();
    }
    // An error means that the viewer has gone.
    let _ = stream.finish().await;
}

async fn info(State(app): State<Arc<App>>, request: Request) -> Response {
    let (origin, prefix) = (base_of(&request), prefix_of(request.extensions()));
    let base = format!("{origin}{prefix}");
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
    let mut info = json!({ "version": env!("CARGO_PKG_VERSION"), "feeds": feeds });
    // Another server than ours has no HTTP/3.
    if let Some(identity) = app.identity.as_ref().filter(|_| request.extensions().get::<Via>().is_some()) {
        let hash = |hash: &Fingerprint| json!({ "algorithm": "sha-256", "value": hash.base64() });
        let hashes: Vec<_> = identity.hashes().iter().map(hash).collect();
        let chrome =
            browser::chrome_command(&format!("{origin}{}/", for_shell(prefix)), &identity.current().spki_hash());
        info["webtransport"] = json!({ "url": format!("{base}/stream"), "certificateHashes": hashes });
        info["http3"] = json!({ "url": format!("{base}/") });
        info["chrome"] = json!(chrome);
    }
    ([(header::CACHE_CONTROL, "no-store")], Json(info)).into_response()
}
