//! What an app serves where it has no route: the page that is built in, one of its user's, or none.

use axum::{Router, body::Body, extract::OriginalUri, http::Request, response::Response};
use h3cast::{App, app::Page, source::demo};
use http::{Method, StatusCode, header};
use include_dir::{Dir, DirEntry, File};
use tower::ServiceExt;
use tower_http::services::ServeDir;

/// What `include_dir!` gives, without a folder to embed.
static FILES: Dir<'_> = Dir::new(
    "",
    &[
        DirEntry::File(File::new("index.html", b"<!doctype html>mine")),
        DirEntry::File(File::new(".env", b"secret")),
        DirEntry::Dir(Dir::new("js", &[DirEntry::File(File::new("js/a.mjs", b"export {}"))])),
    ],
);

fn router(page: Page) -> Router {
    App::without_identity([demo::feed("default", 1, Default::default())]).page(page).router()
}

async fn ask(router: &Router, method: Method, path: &str) -> (StatusCode, Response) {
    let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    (response.status(), response)
}

async fn text(response: Response) -> String {
    String::from_utf8(axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

/// A page of everyone's, and who set what.
async fn page(router: &Router, path: &str, policy: bool) -> String {
    let (status, response) = ask(router, Method::GET, path).await;
    assert_eq!(status, 200, "{path}");
    let headers = response.headers();
    for name in ["content-security-policy", "referrer-policy", "cross-origin-opener-policy"] {
        assert_eq!(headers.contains_key(name), policy, "{path}: {name}");
    }
    assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
    assert_eq!(headers["h3cast-resource"], "page", "{path}");
    text(response).await
}

async fn has_its_routes(router: &Router) {
    for path in ["/info", "/feeds", "/healthz", "/stream"] {
        assert_eq!(ask(router, Method::GET, path).await.0, 200, "{path}");
    }
    assert_eq!(ask(router, Method::DELETE, "/stream").await.0, 405);
}

#[tokio::test]
async fn the_page_that_is_built_in() {
    let router = router(Page::default());
    assert!(page(&router, "/", true).await.contains("h3cast"));
    page(&router, "/js/home.mjs", true).await;
    has_its_routes(&router).await;
}

#[tokio::test]
async fn files_in_the_program() {
    let router = router(Page::files(&FILES));
    assert_eq!(page(&router, "/", false).await, "<!doctype html>mine");
    assert_eq!(page(&router, "/index.html", false).await, "<!doctype html>mine");
    assert_eq!(page(&router, "/js/a.mjs", false).await, "export {}");
    for path in ["/.env", "/style.css", "/js", "/js/../index.html", "/%ff"] {
        assert_eq!(ask(&router, Method::GET, path).await.0, 404, "{path}");
    }
    let (_, response) = ask(&router, Method::GET, "/").await;
    let tag = response.headers()[header::ETAG].clone();
    let request = Request::builder().uri("/").header(header::HOST, "localhost").header(header::IF_NONE_MATCH, tag);
    let again = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(again.status(), 304);
    has_its_routes(&router).await;
}

#[tokio::test]
async fn a_folder() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("index.html"), "<!doctype html>folder").unwrap();
    let router = router(Page::folder(dir.path()));
    assert_eq!(page(&router, "/", false).await, "<!doctype html>folder");
    std::fs::write(dir.path().join("index.html"), "<!doctype html>new").unwrap();
    assert_eq!(page(&router, "/", false).await, "<!doctype html>new");
    has_its_routes(&router).await;
}

#[tokio::test]
async fn a_service() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("index.html"), "<!doctype html>served").unwrap();
    let served = router(Page::service(ServeDir::new(dir.path())));
    assert_eq!(page(&served, "/", false).await, "<!doctype html>served");
    assert_eq!(ask(&served, Method::GET, "/none").await.0, 404);
    has_its_routes(&served).await;

    let all = Router::new().fallback(async |OriginalUri(original): OriginalUri, request: Request<Body>| {
        format!("{} {} of {}", request.method(), request.uri(), original)
    });
    let served = router(Page::service(all));
    has_its_routes(&served).await;
    for path in ["/", "/a?b"] {
        let (status, response) = ask(&served, Method::POST, path).await;
        assert_eq!((status, text(response).await), (StatusCode::OK, format!("POST {path} of {path}")));
        // It has no session, so that handlers of the server are asked.
        assert_eq!(ask(&served, Method::CONNECT, path).await.0, 405);
    }
    let nested = Router::new().nest("/live", served);
    assert_eq!(page(&nested, "/live", false).await, "GET / of /live");
    assert_eq!(page(&nested, "/live/a?b", false).await, "GET /a?b of /live/a?b");
    assert_eq!(ask(&nested, Method::GET, "/live/info").await.0, 200);
}

#[tokio::test]
async fn none() {
    let none = router(Page::none());
    for path in ["/", "/index.html", "/js/home.mjs"] {
        let (status, response) = ask(&none, Method::GET, path).await;
        assert_eq!(status, 404, "{path}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert!(text(response).await.contains(&format!("there is nothing at {path}")));
    }
    has_its_routes(&none).await;
    let nested = Router::new().nest("/live", none);
    for path in ["/live", "/live/a"] {
        let (status, response) = ask(&nested, Method::GET, path).await;
        let body = text(response).await;
        assert!(status == 404 && body.contains(&format!("there is nothing at {path}\"")), "{status} {body}");
    }
}
