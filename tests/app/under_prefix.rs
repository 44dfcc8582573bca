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
use http::{HeaderMap, HeaderValue, Request as Head, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
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
        for (path, text) in [
            ("/live/stream/%ff", "feeds are at /live/stream and /live/stream/NAME"),
            ("/live/none", "there is nothing at /live/none"),
        ] {
            assert!(ask(path).await.contains(text), "{path}");
        }
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

#[tokio::test]
async fn any_prefix_is_in_the_urls() {
    let server = TestServer::start(|builder, identity| {
        let app = App::new([feed("default"), feed("a")], identity).router();
        builder.http_service(Router::new().nest("/a+b/(c)/%C3%BC", app.clone()).nest_service("/{tenant}/live", app))
    })
    .await;
    let address = server.http.strip_prefix("http://").unwrap();
    for (prefix, in_command) in
        [("/a+b/(c)/%C3%BC", "/a+b/%28c%29/%C3%BC"), ("/$(id)'&/live", "/%24%28id%29%27%26/live")]
    {
        let info = plain(address, &format!("GET {prefix}/info HTTP/1.1\r\n\r\n")).await;
        let info: serde_json::Value = serde_json::from_str(info.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(info["feeds"][1]["url"], format!("{}{prefix}/stream", server.base));
        assert_eq!(info["feeds"][0]["url"], format!("{}{prefix}/stream/a", server.base));
        assert_eq!(info["webtransport"]["url"], format!("{}{prefix}/stream", server.base));
        let command = info["chrome"].as_str().unwrap();
        assert!(command.ends_with(&format!(" {}{in_command}/", server.base)), "{command}");
        // What is given out is there.
        let url = info["webtransport"]["url"].as_str().unwrap().parse().unwrap();
        let connection = server.connect().await;
        let session = soon("a session", connection.webtransport(&url, HeaderMap::new(), &[])).await.unwrap();
        soon("its stream", session.accept_uni()).await.unwrap();
    }
}

#[tokio::test]
async fn plain_axum_over_http2() {
    let written = Feed::writable("w", 1 << 20, Lag::Skip);
    let app = App::without_identity([feed("default"), written]).router();
    let listener = tokio::net::TcpListener::bind("localhost:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, Router::new().nest("/live", app)).await.unwrap() });
    let stream = TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let connected = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (mut client, connection) = soon("a connection", connected).await.unwrap();
    tokio::spawn(connection);
    let mut ask = async |method: &str, path: &str, body: &'static str| {
        let uri = format!("http://localhost:{}/live{path}", address.port());
        let request = Head::builder().method(method).uri(uri).body(Full::<bytes::Bytes>::new(body.into())).unwrap();
        let response: http::Response<hyper::body::Incoming> =
            soon("an answer", client.send_request(request)).await.unwrap();
        assert_eq!((response.version(), response.status()), (Version::HTTP_2, StatusCode::OK), "{method} {path}");
        let body = soon("the body", response.into_body().collect()).await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    };
    let info = ask("GET", "/info", "").await;
    assert!(info.contains(&format!("\"http://localhost:{}/live/stream\"", address.port())), "{info}");
    assert!(!info.contains("webtransport"), "{info}");
    assert!(ask("POST", "/stream/w", "hi").await.contains("\"bytes\":2"));
    assert_eq!(ask("GET", "/stream/w?from=start&limit=1", "").await, "hi");
    assert!(ask("GET", "/stream", "").await.contains("data chunk #1"));
    assert!(ask("GET", "/index.html", "").await.contains("<!doctype html>"));
}
