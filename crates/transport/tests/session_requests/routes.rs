//! Sessions as routes of an axum router.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::any,
};
use h3cast_transport::webtransport::SessionRequest;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use crate::{
    layers::{secret, tell},
    peer::{Peer, soon},
};

/// Tells what it was asked with.
async fn greet(State(word): State<&'static str>, Path(name): Path<String>, request: SessionRequest) -> Response {
    let text = format!("{word} {name}, {}", request.uri().path());
    request.header(HeaderName::from_static("x-of-route"), HeaderValue::from_static("1")).on_session(|s| tell(s, text))
}

async fn trace(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert("set-cookie", HeaderValue::from_static("id=1"));
    headers.insert("keep-alive", HeaderValue::from_static("timeout=1"));
    response
}

/// Cuts off requests that are not answered at once.
async fn hurry(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(Duration::from_millis(300), next.run(request)).await;
    answered.unwrap_or_else(|_| StatusCode::GATEWAY_TIMEOUT.into_response())
}

/// Hides what it protects.
async fn hide(request: Request, next: Next) -> Response {
    match request.headers().contains_key("x-friend") {
        true => next.run(request).await,
        false => StatusCode::NOT_FOUND.into_response(),
    }
}

fn app() -> Router {
    let hidden = Router::new().route("/hidden", any(secret)).layer(from_fn(hide));
    let greetings = Router::new().route("/greet/{name}", any(greet)).with_state("hello");
    Router::new()
        .nest("/api", greetings)
        .merge(hidden)
        .route("/late", any(async |_: SessionRequest| std::future::pending::<()>().await))
        .route("/none", any(async |_: SessionRequest| "nothing"))
        .route("/twice", any(async |_: SessionRequest, _: SessionRequest| ()))
        .route("/rejects", any(async |request: SessionRequest| request.reject(StatusCode::CONFLICT)))
        .route(
            "/made",
            any(async |request: SessionRequest| {
                (StatusCode::CREATED, request.on_session(|session| tell(session, "made".into())))
            }),
        )
        .route(
            "/refused",
            any(async |request: SessionRequest| {
                (StatusCode::PAYMENT_REQUIRED, request.on_session(|session| tell(session, "no".into())))
            }),
        )
        .layer(from_fn(trace))
        .layer(from_fn(hurry))
}

#[tokio::test]
async fn a_route_opens_sessions_with_its_path_state_and_layers() {
    let peer = Peer::start(|server| server.http_service(app())).await;
    assert_eq!(peer.read("/api/greet/ann?x", &[]).await, "hello ann, /api/greet/ann");
    assert_eq!(peer.read("/made", &[]).await, "made");
    for (path, status) in
        [("/late", 504), ("/none", 500), ("/twice", 500), ("/rejects", 409), ("/refused", 402), ("/nowhere", 404)]
    {
        assert_eq!(peer.status(path, &[]).await, status, "{path}");
    }
    assert_eq!(peer.status("/hidden", &[]).await, 404);
    assert_eq!(peer.read("/hidden", &[("x-friend", "1")]).await, "secret");
}

#[tokio::test]
async fn what_layers_add_to_the_answer_is_sent() {
    use h3cast_transport::client::ClientError;
    let peer = Peer::start(|server| server.http_service(app())).await;
    // The client does not show the headers of a session that opens: those of a refusal are written by the same code.
    let uri = format!("https://{}/refused", peer.tls).parse().unwrap();
    let refused = soon("an answer", peer.connection.webtransport(&uri, Default::default(), &[])).await;
    let Err(ClientError::Refused { headers, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(headers["set-cookie"], "id=1");
    assert!(!headers.contains_key("keep-alive"), "{headers:?}");
}

/// The time-out of a layer is for the answer.
#[tokio::test]
async fn a_session_outlives_the_time_out_of_requests() {
    let peer = Peer::start(|server| server.http_service(app())).await;
    let session = peer.ask("/api/greet/ann", &[]).await.unwrap();
    // What has been asked for later has been cut off meanwhile.
    assert_eq!(peer.status("/late", &[]).await, 504);
    let mut stream = soon("a stream", session.accept_uni()).await.unwrap();
    assert!(soon("its text", stream.read_bytes(usize::MAX)).await.unwrap().is_some());
    assert!(session.open_uni().await.is_ok(), "it is still open");
}

const NOT_ASKED: &str = "open a WebTransport session here, which needs HTTP/3: this is GET over HTTP/";

#[tokio::test]
async fn other_requests_learn_what_is_needed() {
    let peer = Peer::start(|server| server.http_service(app())).await;
    let uri = format!("https://{}/none", peer.tls).parse().unwrap();
    let mut response = soon("an answer", peer.connection.get(&uri)).await.unwrap();
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
    let text = soon("its text", response.body.next()).await.unwrap().unwrap();
    assert_eq!(text, format!("{NOT_ASKED}3.0\n"));

    let mut plain = tokio::net::TcpStream::connect(&peer.http).await.unwrap();
    plain.write_all(b"GET /none HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    soon("an answer", plain.read_to_string(&mut text)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains(&format!("{NOT_ASKED}1.1\n")), "{text}");

    // The same router by itself, as under `axum::serve`.
    let request = Request::get("/none").body(Body::empty()).unwrap();
    let response = app().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(to_bytes(response.into_body(), 1000).await.unwrap(), format!("{NOT_ASKED}1.1\n"));
}
