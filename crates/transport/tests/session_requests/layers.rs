//! A layer around the service sees the CONNECT of each session, whoever answers it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use h3cast_transport::webtransport::{Session, SessionRequest};
use http::{HeaderValue, Method, StatusCode, header};

use crate::peer::Peer;

/// Sends `text` and waits for the client to close.
pub(crate) async fn tell(session: Session, text: String) {
    let mut stream = session.open_uni().await.unwrap();
    stream.write_bytes(text.into()).await.unwrap();
    stream.finish().unwrap();
    session.closed().await;
}

pub(crate) async fn secret(request: SessionRequest) {
    if let Ok(session) = request.accept().await {
        tell(session, "secret".into()).await;
    }
}

/// Lets those in that bear the token; answers others as they ask.
async fn bearer(request: Request, next: Next) -> Response {
    if request.headers().get(header::AUTHORIZATION).is_some_and(|token| token == "Bearer t") {
        return next.run(request).await;
    }
    let asked = request.headers().get("x-refuse").and_then(|status| status.to_str().ok()?.parse().ok());
    let mut response = (asked.unwrap_or(StatusCode::UNAUTHORIZED), "who are you?").into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

const TOKEN: (&str, &str) = ("authorization", "Bearer t");

#[tokio::test]
async fn a_bearer_layer_covers_handlers_of_the_server() {
    let app = Router::new().route("/page", get(async || "page")).layer(from_fn(bearer));
    let peer =
        Peer::start(|server| server.http_service(app).webtransport("/page", secret).webtransport_fallback(secret))
            .await;
    for path in ["/page", "/elsewhere"] {
        let (status, headers) = peer.ask(path, &[]).await.unwrap_err();
        assert_eq!(
            (status, &headers["www-authenticate"]),
            (StatusCode::UNAUTHORIZED, &HeaderValue::from_static("Bearer"))
        );
        for refused in ["302", "403", "429", "503"] {
            assert_eq!(peer.status(path, &[("x-refuse", refused)]).await.to_string(), refused, "{path}");
        }
        assert_eq!(peer.read(path, &[TOKEN]).await, "secret", "{path}");
    }
}

/// A layer that is not asked to pass a request on has had its say, whatever it says.
#[tokio::test]
async fn an_answer_of_success_opens_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let service = tower::service_fn(move |request: Request| {
        count.fetch_add(1, Ordering::Relaxed);
        assert_eq!((request.method(), request.uri().path()), (&Method::CONNECT, "/login"));
        std::future::ready(Ok(Response::new("log in first".to_owned())))
    });
    let peer = Peer::start(|server| server.http_service(service).webtransport_fallback(secret)).await;
    assert_eq!(peer.status("/login", &[]).await, 500);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the service is asked once");
}

#[tokio::test]
async fn without_a_service_handlers_answer() {
    let peer = Peer::start(|server| server.webtransport("/secret", secret)).await;
    assert_eq!(peer.read("/secret", &[]).await, "secret");
    assert_eq!(peer.status("/other", &[]).await, 404);
}

/// Wants the token for one path alone.
async fn bearer_for_page(request: Request, next: Next) -> Response {
    match request.uri().path() {
        "/page" => bearer(request, next).await,
        _ => next.run(request).await,
    }
}

#[tokio::test]
async fn a_layer_sees_the_path_that_finds_the_handler() {
    let app = Router::new().layer(from_fn(bearer_for_page));
    let peer = Peer::start(|server| server.http_service(app).webtransport("/page", secret)).await;
    for path in ["/page", "/%70age", "/p%61g%65?x"] {
        assert_eq!(peer.status(path, &[]).await, 401, "{path}");
        assert_eq!(peer.read(path, &[TOKEN]).await, "secret", "{path}");
    }
}
