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
    page(&router, "/js/page/home.mjs", true).await;
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

#[cfg(unix)]
#[tokio::test]
async fn what_is_no_file_of_a_folder_is_not_served_and_not_waited_for() {
    use std::{
        ffi::OsStr,
        os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
        process::Command,
    };

    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page");
    std::fs::create_dir_all(page.join("sub")).unwrap();
    for (name, text) in [("a.txt", "here"), ("a.txt.gz", "a compressed copy"), ("sub/b.txt", "below")] {
        std::fs::write(page.join(name), text).unwrap();
    }
    std::fs::write(dir.path().join("secret.txt"), "outside").unwrap();
    std::fs::write(page.join(OsStr::from_bytes(b"\xff.txt")), "no name in UTF-8").unwrap();
    std::fs::write(page.join("line\nbreak \"quoted\".txt"), "odd").unwrap();
    assert!(Command::new("mkfifo").arg(page.join("pipe")).status().unwrap().success());
    let _socket = UnixListener::bind(page.join("socket")).unwrap();
    for (link, to) in [
        ("zero", "/dev/zero"),
        ("in", "sub/b.txt"),
        ("to-pipe", "pipe"),
        ("nowhere", "gone"),
        ("round", "round"),
        ("up", ".."),
    ] {
        symlink(to, page.join(link)).unwrap();
    }
    let router = router(Page::folder(&page));
    // More than the threads on which files are opened: one that waited would be missed.
    let pipes = (0..600).map(|_| ask(&router, Method::GET, "/pipe"));
    assert!(futures_util::future::join_all(pipes).await.iter().all(|(status, _)| *status == 404));
    let long = format!("/{}", "x".repeat(5000));
    for path in [
        "/to-pipe",
        "/socket",
        "/zero",
        "/nowhere",
        "/round",
        "/up/secret.txt",
        "/up",
        "/sub",
        "/sub/",
        "/a.txt/",
        "/a.txt/b",
        "/%ff.txt",
        "/%EF%BF%BD.txt",
        &long,
    ] {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(ask(&router, method, path).await.0, 404, "{path}");
        }
    }
    for (path, expected) in [("/a.txt", "here"), ("/in", "below"), ("/line%0Abreak%20%22quoted%22.txt", "odd")] {
        let (status, response) = ask(&router, Method::GET, path).await;
        assert_eq!((status, response.headers().get(header::CONTENT_ENCODING)), (StatusCode::OK, None), "{path}");
        assert_eq!(text(response).await, expected, "{path}");
    }
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
    for path in ["/", "/index.html", "/js/page/home.mjs"] {
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
