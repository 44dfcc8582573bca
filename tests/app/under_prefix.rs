//! The app's routes as a part of another router: under a prefix, behind its layers, and under plain axum.

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use h3cast::{
    App,
    feed::{Feed, Lag},
    source::demo,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{TestServer, soon};

fn feed(name: &str) -> Feed {
    demo::feed(name, 2, std::time::Duration::ZERO)
}

/// The status, the head and the body of a request over HTTP/1.1.
async fn plain(address: &str, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = request.replacen("\r\n", "\r\nhost: localhost\r\nconnection: close\r\n", 1);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    soon("an answer", stream.read_to_string(&mut text)).await.unwrap();
    text
}

async fn bearer(request: Request, next: Next) -> Response {
    match request.headers().get(header::AUTHORIZATION).is_some_and(|token| token == "Bearer t") {
        true => next.run(request).await,
        false => StatusCode::UNAUTHORIZED.into_response(),
    }
}

#[tokio::test]
async fn feeds_and_sessions_work_under_a_prefix_and_its_layers() {
    for nested_as_service in [false, true] {
        let server = TestServer::start(|builder, identity| {
            let app = App::new([feed("default"), feed("a")], identity).router();
            let router = match nested_as_service {
                true => Router::new().nest_service("/live", app),
                false => Router::new().nest("/live", app),
            };
            builder.http_service(router.layer(from_fn(bearer)))
        })
        .await;
        let address = server.http.strip_prefix("http://").unwrap();
        let ask =
            async |path: &str| plain(address, &format!("GET {path} HTTP/1.1\r\nauthorization: Bearer t\r\n\r\n")).await;
        let info = ask("/live/info").await;
        for url in ["/live/stream\"", "/live/stream/a\"", "/live/\""] {
            assert!(info.contains(&format!("\"{}{url}", server.base)), "{info}");
        }
        assert!(ask("/live/stream/a").await.contains("data chunk #"), "a feed");
        let page = ask("/live").await;
        assert!(page.starts_with("HTTP/1.1 308 ") && page.contains("location: ./live/index.html\r\n"), "{page}");
        assert!(ask("/live/index.html").await.starts_with("HTTP/1.1 200 "));
        assert!(plain(address, "GET /live/info HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 401 "));

        let connection = server.connect().await;
        for path in ["/live/stream", "/live/stream/a"] {
            let uri = server.uri(path);
            let refused = soon("an answer", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap_err();
            assert!(refused.to_string().contains("401"), "{refused}");
            let token = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer t"))]);
            let session = soon("a session", connection.webtransport(&uri, token, &[])).await.unwrap();
            let mut stream = soon("its stream", session.accept_uni()).await.unwrap();
            assert!(soon("its chunks", stream.read_bytes(usize::MAX)).await.unwrap().is_some());
        }
    }
}

#[tokio::test]
async fn under_plain_axum_there_is_no_http3() {
    let written = Feed::writable("w", 1 << 20, Lag::Skip);
    let app = App::without_identity([feed("default"), written]).router();
    let listener = tokio::net::TcpListener::bind("localhost:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async { axum::serve(listener, Router::new().nest("/live", app)).await.unwrap() });
    let info = plain(&address, "GET /live/info HTTP/1.1\r\n\r\n").await;
    assert!(info.contains("\"http://localhost/live/stream\""), "{info}");
    for absent in ["webtransport", "http3", "chrome", "alt-svc"] {
        assert!(!info.contains(absent), "{info}");
    }
    let post = "POST /live/stream/w HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi";
    assert!(plain(&address, post).await.contains("\"bytes\":2"));
    assert!(plain(&address, "GET /live/stream/w?from=start&limit=1 HTTP/1.1\r\n\r\n").await.contains("hi"));
    assert!(plain(&address, "GET /live/stream HTTP/1.1\r\n\r\n").await.contains("data chunk #"));
    assert!(plain(&address, "GET /live/index.html HTTP/1.1\r\n\r\n").await.contains("<!doctype html>"));
}
