//! The routes of the `h3cast` program: feeds at `/stream`, what the page must know at `/info`, and
//! the page itself.

mod accept;
mod asked;
mod authorize;
mod entry;
#[cfg(feature = "cli")]
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) mod estate;
mod file;
mod generated;
mod guard;
mod handle;
mod host;
mod info;
mod input;
mod local;
mod lookup;
mod memory;
mod metrics;
mod numbers;
mod overview;
mod page;
mod problem;
mod publish;
mod quotas;
mod refused;
mod route;
mod session;
mod status;
mod stored;
mod view;
mod viewing;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, SystemTime},
};

use axum::{Router, middleware};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::util::{MapRequestLayer, MapResponseLayer};
use tower_http::catch_panic::CatchPanicLayer;

#[doc(hidden)]
pub use self::route::paths;
pub use self::{
    entry::{Entry, EntryKind},
    handle::AppHandle,
    overview::StatusPage,
    page::Page,
    quotas::Quotas,
};
use self::{
    input::Inputs,
    numbers::{Added, Sample},
    problem::Problem,
    publish::Publications,
    route::{Route, named},
    viewing::Viewing,
};
use crate::{
    admission::{Counters, Refusal},
    auth::{Access, Authorize, Decider},
    counts::Counts,
    feed::{Budget, Family, Feed, Feeds},
    identity::Identity,
    origin::Origins,
    path, resource,
    server::ServerBuilder,
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
    /// Who may read and write; without one, everyone may, and publish with the token that is set.
    decider: Option<Decider>,
    /// What everyone may do then.
    open: Access,
    renewal: Option<String>,
    identity: Option<Identity>,
    origins: Arc<RwLock<Origins>>,
    page: Page,
    status_page: StatusPage,
    coalesce: Duration,
    stopping: CancellationToken,
    admission: Option<Counters>,
    counts: Option<Counts>,
    commands: Option<Commands>,
    budget: Option<Budget>,
    descriptors: Option<memory::Descriptors>,
    added: Vec<Added>,
    on_entry: Option<entry::OnEntry>,
    viewing: Viewing,
    inputs: Inputs,
    metrics: Arc<generated::Texts>,
    /// Whose turn it is to write an answer about all feeds.
    writing: Arc<Semaphore>,
    started: SystemTime,
    #[cfg(feature = "acme")]
    challenges: Option<crate::acme::Tokens>,
    routes: Router,
}

/// When the program was started: the first call tells.
pub(crate) fn started() -> SystemTime {
    static STARTED: std::sync::LazyLock<SystemTime> = std::sync::LazyLock::new(SystemTime::now);
    *STARTED
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
            decider: None,
            open: Access::everything(),
            renewal: None,
            identity: None,
            origins: Arc::default(),
            page: Page::default(),
            status_page: StatusPage::default(),
            coalesce: Duration::ZERO,
            stopping: CancellationToken::new(),
            admission: None,
            counts: None,
            commands: None,
            budget: None,
            descriptors: None,
            added: Vec::new(),
            on_entry: None,
            viewing: Viewing::default(),
            inputs: Inputs::default(),
            metrics: Arc::default(),
            writing: Arc::new(Semaphore::new(1)),
            started: started(),
            #[cfg(feature = "acme")]
            challenges: None,
            routes: Router::new(),
        }
    }

    /// Origins (`https://example.org`) whose pages may read the feeds, in addition to pages of the same host
    /// and of this machine.
    #[must_use]
    pub fn allow_origins(mut self, origins: Origins) -> Self {
        self.origins = Arc::new(RwLock::new(origins));
        self
    }

    /// Asks this about every request and every session: who may read and write what, and until when. By default
    /// every client that reaches the server may read all feeds. The [`auth`](crate::auth) module has what is public
    /// all the same, and [`Tokens`](crate::auth::Tokens).
    #[must_use]
    pub fn authorize(mut self, authorize: impl Authorize) -> Self {
        self.decider = Some(Decider::new(authorize));
        self
    }

    /// Where pages get a new token when theirs ends: a path of the same origin, as `/login/token`, that is your
    /// own. Pages send it a POST with their cookies; it answers with the token as text, or as JSON
    /// (`{"token":"…"}`). Without one, the page asks its user for a token.
    #[must_use]
    pub fn renewal(mut self, path: impl Into<Option<String>>) -> Self {
        self.renewal = path.into();
        self
    }

    /// Publishers must send this token: as `Authorization: Bearer TOKEN`, or a session as `?token=TOKEN`. By
    /// default, every client that reaches the server may write its writable feeds, except pages of other
    /// origins. With [`authorize`](Self::authorize) it is one more token, which lets its client publish to every
    /// feed.
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

    /// Charges the feeds to a budget: near its limit new viewers are refused with 503, and the slowest ones are
    /// cut, which can resume where they were. It must be [observed](Budget::observe) every now and then. `/metrics`
    /// then shows it.
    #[must_use]
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.feeds.all().iter().for_each(|feed| feed.charge_to(budget));
        self.budget = Some(budget.clone());
        self
    }

    /// Has `take` asked before a viewer comes that needs file descriptors of its own, with how many: for a feed that is
    /// a file, or starts a command for each viewer. When it answers `false`, the viewer is refused with 503 (and
    /// counted as [`Refusal::Descriptors`]), and others find a descriptor for
    /// their connection.
    #[must_use]
    pub fn descriptors(mut self, take: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        self.descriptors = Some(memory::Descriptors(Arc::new(take)));
        self
    }

    /// Adds a number to `/metrics`: its name there, what it means, and how to have it.
    #[must_use]
    pub fn gauge(
        self,
        name: &'static str,
        help: &'static str,
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        self.add(name, help, move || Sample::Gauge(value()))
    }

    /// Adds a number that only grows to `/metrics`: its name there, which ends with `_total`, what it means, and how to
    /// have it.
    ///
    /// # Panics
    ///
    /// If the name does not end with `_total`.
    #[must_use]
    pub fn counter(
        self,
        name: &'static str,
        help: &'static str,
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        assert!(name.ends_with("_total"), "{name}: the name of a counter ends with _total");
        self.add(name, help, move || Sample::Counter(value()))
    }

    /// The same for each value of a label.
    ///
    /// # Panics
    ///
    /// If the name does not end with `_total`.
    #[must_use]
    pub fn counters(
        self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl Fn() -> Vec<(&'static str, f64)> + Send + Sync + 'static,
    ) -> Self {
        assert!(name.ends_with("_total"), "{name}: the name of a counter ends with _total");
        self.add(name, help, move || Sample::Counters(label, values()))
    }

    /// Adds a distribution to `/metrics`: its name there, what it means, and how to have it: the upper bound of each
    /// bucket with how many values are in it and in none before, the last one being [`f64::INFINITY`]; and the sum of all
    /// values.
    #[must_use]
    pub fn histogram(
        self,
        name: &'static str,
        help: &'static str,
        values: impl Fn() -> (Vec<(f64, u64)>, f64) + Send + Sync + 'static,
    ) -> Self {
        self.add(name, help, move || {
            let (buckets, sum) = values();
            Sample::Histogram(buckets, sum)
        })
    }

    fn add(
        mut self,
        name: &'static str,
        help: &'static str,
        sample: impl Fn() -> Sample + Send + Sync + 'static,
    ) -> Self {
        self.added.push(Added { name, help, sample: Arc::new(sample) });
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

    /// Shows a page at `/status` of what matters now, to those who may see it: feeds, viewers, rates, connections,
    /// refusals, the certificate, memory. Its numbers are at `/status/data` as JSON. By default there is none.
    ///
    /// ```
    /// use h3cast::app::StatusPage;
    ///
    /// # fn doc(app: h3cast::App) {
    /// let app = app.status_page(StatusPage::Loopback);
    /// # }
    /// ```
    #[must_use]
    pub fn status_page(mut self, to: StatusPage) -> Self {
        self.status_page = to;
        self
    }

    /// Batches small chunks for up to that long into one packet. By default a chunk leaves at once.
    #[must_use]
    pub fn coalesce(mut self, time: Duration) -> Self {
        self.coalesce = time;
        self
    }

    /// What changes it while it is served. Take it when all is set: the app that later calls of the setters give is
    /// another one.
    #[must_use]
    pub fn handle(&self) -> AppHandle {
        AppHandle::of(self)
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
        self.publications.stopping(stopping.clone());
        self.stopping = stopping;
        self
    }

    /// Shows in `/metrics` how many of these commands run.
    #[must_use]
    pub fn commands(mut self, commands: Commands) -> Self {
        self.commands = Some(commands);
        self
    }

    /// Answers the HTTP-01 challenges of a certificate authority from these tokens, under any name: see
    /// [`Acme::tokens`](crate::acme::Acme::tokens).
    #[cfg(feature = "acme")]
    #[must_use]
    pub fn challenges(mut self, tokens: crate::acme::Tokens) -> Self {
        self.challenges = Some(tokens);
        self
    }

    /// Adds routes of your own, under the same rules as the app's: who may ask, and which pages may read the
    /// response. They must not overlap with the app's, and have no fallback. With [`authorize`](Self::authorize),
    /// they get requests of clients that may read or write something, with their [`Access`] as an extension, by
    /// which they decide the rest. Preflights of CORS, which have no credentials, are answered for them.
    #[must_use]
    pub fn routes(mut self, routes: Router) -> Self {
        self.routes = routes;
        self
    }

    /// Makes a server answer with this app. Which pages may open sessions, also those of the server's own handlers,
    /// is decided by the app, that is by [`allow_origins`](Self::allow_origins), and not by
    /// [`ServerBuilder::origins`], whether that is set before or after. `/metrics` then also shows what the server
    /// has admitted and refused. It, `/healthz`, `/readyz` and the [status page](Self::status_page), if there is one,
    /// are its [`ServerBuilder::status_paths`].
    #[must_use]
    pub fn install(mut self, server: ServerBuilder) -> ServerBuilder {
        self.publications.count_in(server.admission());
        self.admission = Some(server.admission().clone());
        self.counts = Some(server.counts().clone());
        let status = [Route::Healthz, Route::Readyz, Route::Metrics].map(|route| route.path().to_owned());
        let page = overview::paths().filter(|_| self.status_page != StatusPage::Off);
        self.watch(server).status_paths(status.into_iter().chain(page)).http_service(self.router())
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
        let route = |router: Router<_>, at: &Route| router.route(at.path(), at.handler());
        let is_there = |at: &&Route| !at.is_of_status_page() || self.status_page != StatusPage::Off;
        let there = || Route::ALL.iter().filter(is_there);
        let of = |kind: fn(&Route) -> bool| there().filter(move |at| kind(at)).fold(Router::new(), route);
        let feeds = of(Route::is_feed).layer(MapResponseLayer::new(named(resource::FEED)));
        let status = of(|at| !at.is_feed()).layer(MapResponseLayer::new(named(resource::STATUS)));
        let own = match &self.decider {
            Some(_) => self.routes.clone().layer(middleware::from_fn_with_state(app.clone(), authorize::own)),
            None => self.routes.clone(),
        };
        let routes = self
            .page
            .routes()
            .layer(MapResponseLayer::new(named(resource::PAGE)))
            .merge(feeds)
            .merge(status)
            .method_not_allowed_fallback(page::method_not_allowed)
            .with_state(app.clone())
            .merge(own);
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
    fn refused(&self, reason: Refusal, client: impl fmt::Display) {
        if let Some(admission) = &self.admission {
            admission.refused(reason, client);
        }
    }

    fn origins(&self) -> RwLockReadGuard<'_, Origins> {
        self.origins.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a page of `origin` may read what is served as `host`, and publish there. `is_ours` when that name is
    /// known to be this server's.
    fn allows(&self, origin: &str, host: &str, is_ours: bool) -> bool {
        self.origins().allow(origin, if is_ours { host } else { "" })
    }

    /// Whether a name was given to this server: to be allowed, or in its certificate.
    fn names(&self, host: &str) -> bool {
        self.origins().names_host(host)
            || self.identity.as_ref().is_some_and(|identity| identity.current().is_for(host))
    }
}
