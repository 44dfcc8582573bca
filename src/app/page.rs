//! The page of an app: what it serves at every path that is none of its routes.

use std::{
    convert::Infallible,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use http::{HeaderValue, Method, StatusCode, header, request::Parts};
use include_dir::Dir;
use tower::{Service, ServiceExt};

use super::{
    App, Problem, authorize,
    host::{self, base_of},
    memory, overview,
    stored::{self, Stored},
};
use crate::{
    content,
    feed::Counted,
    page::{Files, PageFile, in_folder},
    path,
};

/// What an [`App`] serves at every path that is none of its routes. The default is the page that is built in.
///
/// That page comes with a `Content-Security-Policy` under which it loads nothing from elsewhere and talks to this
/// server only, `Referrer-Policy: no-referrer` and `Cross-Origin-Opener-Policy: same-origin`. A page of your own
/// comes without these three, since what it needs is not known here; a layer around the router can set them. What
/// holds for every route of an app holds for any page: `X-Content-Type-Options: nosniff`, and the rules about
/// [origins](App::allow_origins).
///
/// ```
/// use h3cast::app::Page;
/// use tower_http::services::ServeDir;
///
/// static FILES: include_dir::Dir<'_> = include_dir::include_dir!("$CARGO_MANIFEST_DIR/static");
///
/// # fn doc(app: h3cast::App) {
/// let app = app.page(Page::files(&FILES)); // or
/// let app = app.page(Page::service(ServeDir::new("static")));
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Page(Kind);

#[derive(Clone, Default)]
enum Kind {
    #[default]
    BuiltIn,
    Folder(PathBuf),
    Files(Arc<Files>),
    Service(Router),
    None,
}

impl Page {
    /// The page that is built in.
    #[must_use]
    pub fn built_in() -> Self {
        Self(Kind::BuiltIn)
    }

    /// The files of a folder, read again for each request, in pieces as the client takes them, whole or in part
    /// (`Range`); `index.html` is the one at `/`. Nothing outside of it is served, and no name that begins with a dot,
    /// except `.well-known`; neither are pipes and devices, nor what links lead to outside of it. A file that becomes
    /// shorter while it is sent breaks off; one that is replaced or removed is sent as it was.
    ///
    /// The type goes by the name. For text the first 16 KiB are read as well, for HEAD too, since its charset is known
    /// by them alone. Nothing is compressed, and compressed copies beside a file (`page.js.br`) are files like others:
    /// [`service`](Self::service) with tower-http's `ServeDir` has them chosen.
    #[must_use]
    pub fn folder(dir: impl Into<PathBuf>) -> Self {
        Self(Kind::Folder(dir.into()))
    }

    /// Files in the program itself, as [`include_dir!`](include_dir::include_dir) embeds them (version 0.7), with
    /// entity tags, and text as gzip to clients that take it; `index.html` is the one at `/`. Names that begin with a dot
    /// are not served, except `.well-known`.
    #[must_use]
    pub fn files(dir: &'static Dir<'static>) -> Self {
        Self(Kind::Files(Arc::new(Files::of(dir))))
    }

    /// A tower service, such as tower-http's `ServeDir`, or an axum `Router`. It gets every method except CONNECT,
    /// which asks for a session, and paths without the prefix that the app may be under.
    #[must_use]
    pub fn service<S>(service: S) -> Self
    where
        S: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        Self(Kind::Service(Router::new().fallback_service(service)))
    }

    /// No page: these paths answer with 404.
    #[must_use]
    pub fn none() -> Self {
        Self(Kind::None)
    }

    /// Its routes. A service has no route of its own for `/`, so that it sees every method there.
    pub(super) fn routes(&self) -> Router<Arc<App>> {
        match self.0 {
            Kind::Service(_) => Router::new().fallback(answer),
            _ => Router::new().route("/", get(answer)).fallback(answer),
        }
    }

    /// The file in the program at a path without its first slash.
    fn file(&self, path: &str) -> Option<PageFile> {
        let path = if path.is_empty() { INDEX } else { path };
        match &self.0 {
            // The status page is elsewhere, for those who may see it.
            Kind::BuiltIn => PageFile::built_in(path).filter(|_| path != overview::PAGE),
            Kind::Files(files) => files.get(path),
            Kind::Folder(_) | Kind::Service(_) | Kind::None => None,
        }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::BuiltIn => f.write_str("Page::built_in"),
            Kind::Folder(dir) => f.debug_tuple("Page::folder").field(dir).finish(),
            Kind::Files(_) => f.write_str("Page::files"),
            Kind::Service(_) => f.write_str("Page::service"),
            Kind::None => f.write_str("Page::none"),
        }
    }
}

async fn answer(State(app): State<Arc<App>>, request: Request) -> Response {
    if let Kind::Service(service) = &app.page.0
        && *request.method() != Method::CONNECT
    {
        let Ok(response) = service.clone().oneshot(request).await;
        return response;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ([(header::ALLOW, ALLOWED)], method_not_allowed(State(app), request).await).into_response();
    }
    if let Some(to) = host::page_under(&request).filter(|_| !matches!(app.page.0, Kind::None)) {
        return Redirect::permanent(&to).into_response();
    }
    let nothing = |at: &str| Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {at}")).into_response();
    let path = path::decoded(request.uri().path());
    let Some(path) = path.as_deref().map(|path| path.trim_start_matches('/')) else {
        return nothing(host::original(&request));
    };
    if let Kind::Folder(dir) = &app.page.0 {
        let path = PathBuf::from(if path.is_empty() { INDEX } else { path });
        let (at, (request, _)) = (host::original(&request).to_owned(), request.into_parts());
        let Some(file) = in_folder(dir, &path).await else { return nothing(&at) };
        let size = tokio::fs::metadata(&file).await.map_or(0, |file| file.len());
        let _reserved = match app.admit_reader(size, &request.extensions) {
            Ok(reserved) => reserved,
            Err(short) => return short.into_response(),
        };
        let counted = || app.reader(size);
        return stored(&path, file.into(), &request, counted).await.unwrap_or_else(|why| {
            Problem::new(StatusCode::NOT_FOUND, format!("{at} cannot be read now: {why}")).into_response()
        });
    }
    let Some(file) = app.page.file(path) else { return nothing(host::original(&request)) };
    let connect = base_of(&request);
    file.respond(request.headers(), &connect)
}

/// A user's file. Its first bytes are read to tell its type, for HEAD too, unless its name alone does, or the client has
/// it already.
async fn stored(
    name: &Path,
    file: Arc<Path>,
    request: &Parts,
    counted: impl FnOnce() -> Option<Counted>,
) -> Result<Response, String> {
    // What cuts it.
    let mut head = Response::default();
    let counted = || {
        let counted = counted()?;
        counted.on_cut(memory::cutting(request.version, &request.extensions, &mut head));
        Some(counted)
    };
    let file = Stored::at(file);
    let mut response = stored::answer(&file, request, counted).await?;
    response.extensions_mut().extend(std::mem::take(head.extensions_mut()));
    if stored::has_bytes(&response) {
        let kind = match content::by_name(name) {
            Some(kind) => kind.to_owned(),
            None => content::media_type(name, &file.head().await.map_err(|error| error.to_string())?.1),
        };
        if let Ok(kind) = HeaderValue::from_str(&kind) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
    }
    Ok(response)
}

/// The router adds what is allowed where it was asked.
///
/// A session that no route opens is what the server's own handlers may open: they are asked when this is refused,
/// and take it for allowed. It is for clients that may do something here, at whatever path.
pub(super) async fn method_not_allowed(State(app): State<Arc<App>>, request: Request) -> Problem {
    if app.decider.is_some() && authorize::asks_for_session(request.method()) {
        let (parts, _) = request.into_parts();
        if let Err(problem) = app.some_right(&parts).await {
            return problem;
        }
    }
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "that method is not allowed here".into())
}

/// The file at `/`.
const INDEX: &str = "index.html";
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
