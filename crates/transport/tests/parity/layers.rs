//! Takeover under layers that see, change, read or replace the body of a response.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{StatusCode, header},
    middleware::map_response,
    response::Response,
    routing::get,
};
use futures_util::stream;
use h3cast_transport::{TakenStream, Takeover};
use http_body_util::BodyExt;
use tower_http::{
    compression::CompressionLayer,
    map_response_body::MapResponseBodyLayer,
    timeout::{ResponseBodyTimeoutLayer, TimeoutLayer},
    trace::TraceLayer,
};

use crate::{
    cases::{Case, case},
    peers::{Answer, Ours},
};

const TEXT: &str = "what the handler writes, long enough to be worth compressing";

async fn write(mut stream: TakenStream) {
    stream.write_bytes(TEXT.into()).await.unwrap();
    stream.finish().await.unwrap();
}

fn head() -> Response<()> {
    Response::builder().header(header::CONTENT_TYPE, "text/plain").body(()).unwrap()
}

/// `/` takes over and nothing else; `/or` has a body as well.
fn router() -> Router {
    let body = || Body::from_stream(stream::iter([Ok::<_, std::io::Error>(TEXT)]));
    Router::new()
        .route("/", get(async |takeover: Takeover| takeover.respond(head(), write)))
        .route("/or", get(async move |takeover: Takeover| takeover.respond_or(head(), write, body)))
}

async fn ask(router: Router, path: &'static str) -> Answer {
    ask_by("GET", router, path).await
}

async fn ask_by(method: &str, router: Router, path: &'static str) -> Answer {
    let case: Case = case("takeover", method, path).header("accept-encoding", "gzip");
    let ours = Ours::start(router).await;
    let connection = ours.h3().await;
    let answer = connection.ask(&case).await;
    // Another request is answered: what went wrong is a matter of one response.
    assert_eq!(connection.ask(&case).await.status, answer.status);
    answer
}

fn is_whole(answer: &Answer) {
    assert_eq!((answer.status, answer.cut), (200, false), "{answer:?}");
    assert_eq!(answer.body, TEXT.as_bytes(), "{answer:?}");
    assert_eq!(answer.header("content-encoding"), None, "{answer:?}");
}

fn is_refused(answer: &Answer) {
    assert_eq!((answer.status, answer.cut), (500, false), "{answer:?}");
    assert_eq!(answer.header("content-encoding"), None, "{answer:?}");
    let body = String::from_utf8_lossy(&answer.body);
    assert!(body.contains("layer"), "{body}");
}

#[tokio::test]
async fn layers_that_only_look_let_a_takeover_pass() {
    for path in ["/", "/or"] {
        is_whole(&ask(router(), path).await);
        is_whole(&ask(router().layer(TraceLayer::new_for_http()), path).await);
        let timeout = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_secs(30));
        is_whole(&ask(router().layer(timeout), path).await);
        is_whole(&ask(router().layer(ResponseBodyTimeoutLayer::new(Duration::from_secs(30))), path).await);
        let streamed = MapResponseBodyLayer::new(|body: Body| Body::from_stream(body.into_data_stream()));
        is_whole(&ask(router().layer(streamed), path).await);
        // It knows of no extension.
        let rebuilt = map_response(async |response: Response| {
            let mut new = Response::new(response.into_body());
            new.headers_mut().insert("x-new", "1".parse().unwrap());
            new
        });
        let answer = ask(router().layer(rebuilt), path).await;
        is_whole(&answer);
        assert!(answer.header("x-new").is_some());
    }
}

#[tokio::test]
async fn compression_has_the_body_or_refuses_the_takeover() {
    let compressed = || router().layer(CompressionLayer::new());
    is_refused(&ask(compressed(), "/").await);
    let answer = ask(compressed(), "/or").await;
    assert_eq!((answer.status, answer.cut), (200, false), "{answer:?}");
    assert_eq!(answer.header("content-encoding").unwrap(), "gzip");
    assert_eq!(gunzip(&answer.body), TEXT.as_bytes());
    let head = ask_by("HEAD", compressed(), "/or").await;
    assert_eq!((head.status, head.cut, head.body.len()), (200, false, 0), "{head:?}");
}

#[tokio::test]
async fn layers_that_change_or_read_the_body_have_it_or_refuse_the_takeover() {
    let upper = |bytes: Bytes| Bytes::from(bytes.to_ascii_uppercase());
    let louder = move || {
        let layer =
            MapResponseBodyLayer::new(move |body: Body| Body::new(body.map_frame(move |frame| frame.map_data(upper))));
        router().layer(layer)
    };
    is_refused(&ask(louder(), "/").await);
    assert_eq!(ask(louder(), "/or").await.body, TEXT.to_ascii_uppercase().into_bytes());

    // One that leaves empty pieces alone.
    let some = move |bytes: Bytes| if bytes.is_empty() { bytes } else { upper(bytes) };
    let some = MapResponseBodyLayer::new(move |body: Body| Body::new(body.map_frame(move |f| f.map_data(some))));
    for path in ["/", "/or"] {
        is_refused(&ask(router().layer(some.clone()), path).await);
    }

    // Before and after what the handler gives.
    let around = |first: &'static str, last: &'static str| {
        MapResponseBodyLayer::new(move |body: Body| {
            let pieces = |text: &'static str| stream::iter((!text.is_empty()).then(|| Ok(Bytes::from(text))));
            Body::from_stream(futures_util::StreamExt::chain(
                futures_util::StreamExt::chain(pieces(first), body.into_data_stream()),
                pieces(last),
            ))
        })
    };
    is_refused(&ask(router().layer(around("before ", "")), "/").await);
    let before = ask(router().layer(around("before ", "")), "/or").await;
    assert_eq!(before.body, format!("before {TEXT}").into_bytes(), "{before:?}");
    for path in ["/", "/or"] {
        is_refused(&ask(router().layer(around("", " after")), path).await);
    }

    // The whole of it, for a length or a digest.
    let collected = || {
        router().layer(map_response(async |response: Response| {
            let (head, body) = response.into_parts();
            match body.collect().await {
                Ok(body) => Response::from_parts(head, Body::from(body.to_bytes())),
                Err(error) => {
                    let mut response = Response::new(Body::from(format!("a layer has read: {error}")));
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    response
                }
            }
        }))
    };
    is_refused(&ask(collected(), "/").await);
    let answer = ask(collected(), "/or").await;
    is_whole(&answer);
    assert_eq!(answer.header("content-length").unwrap(), &TEXT.len().to_string());
}

#[tokio::test]
async fn a_layer_may_put_another_body_in_its_place() {
    for path in ["/", "/or"] {
        let page = MapResponseBodyLayer::new(|_: Body| Body::from("another page"));
        let answer = ask(router().layer(page), path).await;
        assert_eq!((answer.status, answer.body.as_slice(), answer.cut), (200, &b"another page"[..], false));
        assert_eq!(answer.header("content-length").unwrap(), "12");
    }
}

#[tokio::test]
async fn responses_without_content_have_no_takeover() {
    let empty = |status: StatusCode| {
        let work = async |_: TakenStream| panic!("there is nothing to write");
        get(async move |takeover: Takeover| {
            let mut head = head();
            *head.status_mut() = status;
            takeover.respond(head, work)
        })
    };
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::EARLY_HINTS] {
        let answer = ask(Router::new().route("/", empty(status)), "/").await;
        let expected = if status.is_informational() { StatusCode::INTERNAL_SERVER_ERROR } else { status };
        assert_eq!((answer.status, answer.cut, answer.body.len()), (expected.as_u16(), false, 0), "{answer:?}");
    }
    let answer = ask_by("HEAD", Router::new().route("/", empty(StatusCode::OK)), "/").await;
    assert_eq!((answer.status, answer.cut, answer.body.len()), (200, false, 0), "{answer:?}");
}

/// A body that counts how many of its kind there are, as layers do for what is in flight.
#[tokio::test]
async fn the_body_stays_as_long_as_the_work() {
    static THERE: AtomicUsize = AtomicUsize::new(0);
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            THERE.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let counted = MapResponseBodyLayer::new(|body: Body| {
        THERE.fetch_add(1, Ordering::SeqCst);
        let counted = Arc::new(Counted);
        Body::new(body.map_frame(move |frame| {
            let _ = &counted;
            frame
        }))
    });
    let seen = async |takeover: Takeover| {
        takeover.respond(head(), async |mut stream: TakenStream| {
            stream.write_bytes(THERE.load(Ordering::SeqCst).to_string().into()).await.unwrap();
            stream.finish().await.unwrap();
        })
    };
    let answer = ask(Router::new().route("/", get(seen)).layer(counted), "/").await;
    assert_eq!(answer.body, b"1");
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut read).unwrap();
    read
}
