//! What an application may answer, right and wrong.

use std::{collections::HashMap, convert::Infallible, io};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::{any, get, post},
};
use futures_util::{StreamExt, stream};
use h3cast_transport::Interim;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

/// A body of unknown length.
fn streamed(pieces: &'static [&'static str]) -> Body {
    Body::from_stream(stream::iter(pieces).map(|piece| Ok::<_, Infallible>(*piece)))
}

fn with_trailers(trailers: HeaderMap) -> Body {
    let frames = [Frame::data(Bytes::from("before the trailers")), Frame::trailers(trailers)];
    Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>))))
}

fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let field =
        |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    fields.iter().map(field).collect()
}

/// Fields that speak of one connection.
fn forbidden(name: &str) -> HeaderMap {
    match name {
        "named" => fields(&[("connection", "x-one, X-Two"), ("x-one", "1"), ("x-two", "2"), ("x-three", "3")]),
        "connection" => fields(&[("connection", "keep-alive")]),
        "keep-alive" => fields(&[("keep-alive", "timeout=5")]),
        "proxy-connection" => fields(&[("proxy-connection", "keep-alive")]),
        "te" => fields(&[("te", "trailers")]),
        "transfer-encoding" => fields(&[("transfer-encoding", "chunked")]),
        "upgrade" => fields(&[("upgrade", "websocket")]),
        _ => HeaderMap::new(),
    }
}

/// A response of that status, with a body or what looks like one.
async fn status(Path((status, with)): Path<(u16, String)>) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let body = match with.as_str() {
        "body" => Body::from("a body"),
        "stream" => streamed(&["a ", "body"]),
        _ => Body::empty(),
    };
    let mut response = (status, [("x-status", "seen")], body).into_response();
    if with == "length" {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("6"));
    }
    response
}

/// A body that is not as long as its head says.
async fn length(Path((said, given)): Path<(String, String)>) -> Response {
    let body = match given.as_str() {
        "sized" => Body::from("12345"),
        "streamed" => streamed(&["12", "345"]),
        _ => Body::empty(),
    };
    let said: Vec<_> = said.split('+').map(|said| HeaderValue::from_str(said).unwrap()).collect();
    let mut response = Response::new(body);
    for said in said {
        response.headers_mut().append(header::CONTENT_LENGTH, said);
    }
    response
}

/// A response that is open until `/release` is asked for.
fn held() -> Router {
    let (release, _) = tokio::sync::broadcast::channel::<()>(1);
    let released = release.clone();
    let held = async move || {
        let mut released = released.subscribe();
        let rest = stream::once(async move {
            let _ = released.recv().await;
            Ok::<_, Infallible>("released")
        });
        Body::from_stream(stream::once(async { Ok("held ") }).chain(rest))
    };
    let release = async move || {
        let _ = release.send(());
    };
    Router::new().route("/held", get(held)).route("/release", get(release))
}

/// 103 before the answer, where that is possible.
async fn hints(interim: Interim) -> &'static str {
    let link = fields(&[("link", "</style.css>; rel=preload; as=style"), ("keep-alive", "timeout=5")]);
    let _ = interim.send(StatusCode::EARLY_HINTS, link);
    "after hints"
}

async fn echo(request: Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = Response::new(Body::new(request.into_body()));
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-sum"));
    response
}

/// What a handler sees of a request.
async fn seen(request: Request) -> String {
    use std::fmt::Write;
    let (head, body) = request.into_parts();
    let mut text = format!("{} {}\n", head.method, head.uri);
    let mut names: Vec<_> = head.headers.keys().collect();
    names.sort_by_key(|name| name.as_str());
    for name in names {
        let values: Vec<_> = head.headers.get_all(name).iter().collect();
        let _ = writeln!(text, "{name}: {values:?}");
    }
    let hint = http_body::Body::size_hint(&body);
    // Elsewhere it depends on how much has arrived.
    if head.uri.path() == "/seen" {
        let _ = writeln!(
            text,
            "{} to {:?} bytes, ended: {}",
            hint.lower(),
            hint.upper(),
            http_body::Body::is_end_stream(&body)
        );
    }
    match body.collect().await {
        Ok(body) => {
            let trailers = body.trailers().cloned();
            let _ = writeln!(text, "{:?} {trailers:?}", body.to_bytes());
        }
        Err(_) => text.push_str("broken off\n"),
    }
    text
}

/// Reads one piece of a body, and no more.
async fn begun(mut body: Body) -> &'static str {
    match body.frame().await {
        Some(Ok(_)) => "begun",
        _ => "nothing came",
    }
}

/// Answers in part, drops the body of the request, and answers the rest.
async fn dropped(body: Body) -> Body {
    let first = stream::once(async { Ok::<_, Infallible>("held, ") });
    let rest = stream::once(async move {
        drop(body);
        Ok("dropped")
    });
    Body::from_stream(first.chain(rest))
}

async fn pieces(Path(which): Path<String>) -> Body {
    match which.as_str() {
        "empty" => streamed(&["", "one ", "", "", "two", ""]),
        "none" => streamed(&["", ""]),
        "trailers" => {
            let frames = [Ok::<_, Infallible>(Frame::<Bytes>::trailers(fields(&[("x-sum", "1")])))];
            Body::new(StreamBody::new(stream::iter(frames)))
        }
        _ => Body::from_stream(stream::iter([Err::<Bytes, _>(io::Error::other("as it is meant to"))])),
    }
}

async fn many() -> HeaderMap {
    let name = |number| HeaderName::try_from(format!("x-{number}")).unwrap();
    (0..300).map(|number| (name(number), HeaderValue::from(number))).collect()
}

/// Takes away what a router says by itself.
async fn unsaid(mut response: Response) -> Response {
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response
}

pub(crate) fn router() -> Router {
    let trailers = async |Path(name): Path<String>| {
        let mut trailers = forbidden(&name);
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        ([(header::TRAILER, "x-sum")], with_trailers(trailers))
    };
    let failing = async || {
        let pieces = [Ok("some"), Err(io::Error::other("as it is meant to"))];
        Body::from_stream(stream::iter(pieces))
    };
    let panicking = async || {
        let pieces = stream::iter(0..5).map(|n| match n {
            3 => panic!("as it is meant to"),
            _ => Ok::<_, Infallible>("some"),
        });
        Body::from_stream(pieces)
    };
    Router::new()
        .route("/", get(async || "hello\n"))
        .route("/empty", get(async || ()))
        .route("/stream", get(async || streamed(&["one ", "two ", "three"])))
        .route("/echo", any(echo))
        .route("/json", post(async |Json(text): Json<Vec<u32>>| Json(text.len())))
        .route("/text", post(async |text: String| text))
        .route("/query", get(async |Query(query): Query<HashMap<String, String>>| format!("{:?}", query.get("a"))))
        .route("/path/{*rest}", get(async |Path(rest): Path<String>| rest))
        .route("/redirect", get(async || Redirect::to("/elsewhere")))
        .route(
            "/cookies",
            get(async || [("set-cookie", "a=1"), ("set-cookie", "b=2")].map(|(n, v)| (n, v)).into_response()),
        )
        .route("/seen", any(seen))
        .route("/read", any(seen))
        .route("/unread", post(async || "not read"))
        .route("/begun", post(begun))
        .route("/dropped", post(dropped))
        .route("/pieces/{which}", get(pieces))
        .route("/many", get(many))
        .route("/bytes", get(async || [("x-bytes", HeaderValue::from_bytes(b"\x80\xff \xc3\x28").unwrap())]))
        .route("/dated", get(async || [("date", "Thu, 01 Jan 1970 00:00:00 GMT")]))
        .route("/latin", get(async || [("x-latin", HeaderValue::from_bytes(b"caf\xe9").unwrap())]))
        .route("/large-head", get(async || [("x-large", "x".repeat(6000))]))
        .route("/large", get(async || "0123456789".repeat(30_000)))
        .route("/forbidden/{name}", get(async |Path(name): Path<String>| (forbidden(&name), "a body")))
        .route("/trailers/{name}", get(trailers))
        .route("/status/{status}/{with}", get(status))
        .route("/length/{said}/{given}", get(length))
        .route("/failing", get(failing))
        .route("/panicking", get(panicking))
        .route("/hints", get(hints))
        .merge(held())
        .route("/panic", get(async || -> &'static str { panic!("as it is meant to") }))
        .merge(Router::new().route("/unsaid", get(async || "sized")).layer(axum::middleware::map_response(unsaid)))
        .route(
            "/collected",
            post(async |body: Body| {
                body.collect().await.map(|body| body.to_bytes().len().to_string()).map_err(|_| StatusCode::BAD_REQUEST)
            }),
        )
}
