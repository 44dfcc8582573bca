//! Refusals for now, as an `EventSource` can bear them.

use axum::{
    body::{Body, to_bytes},
    response::Response,
};
use http::{HeaderValue, Method, StatusCode, header, request::Parts};

/// The longest refusal that is passed on, in bytes.
const LONGEST: usize = 4096;
/// How long a client should wait that is not told, in seconds.
const WAIT: u64 = 5;
/// The longest wait that a client is told, in seconds.
const LONGEST_WAIT: u64 = 3600;

/// Whether it is a refusal that may not last.
pub(super) fn is_for_now(response: &Response) -> bool {
    matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// Whether a request is of an `EventSource`, which reads nothing else.
pub(super) fn is_of_event_source(request: &Parts) -> bool {
    request.method == Method::GET
        && request.headers.get(header::ACCEPT).is_some_and(|accepted| accepted == "text/event-stream")
}

/// An `EventSource` gives up for good at any status but 200 (WHATWG HTML §9.2.3), as if there were no server, and comes
/// back when a response of that status ends. So a refusal for now becomes an event that says so, and when to come back.
pub(super) async fn told_as_event(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let wait = head.headers.remove(header::RETRY_AFTER);
    let wait = wait.and_then(|wait| wait.to_str().ok()?.parse::<u64>().ok()).unwrap_or(WAIT).min(LONGEST_WAIT);
    let problem = to_bytes(body, LONGEST).await.unwrap_or_default();
    // A problem is one line of JSON.
    let problem = String::from_utf8_lossy(&problem).replace(['\r', '\n'], " ");
    head.status = StatusCode::OK;
    for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::ETAG] {
        head.headers.remove(name);
    }
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let text = format!("retry: {}\nevent: refused\ndata: {problem}\n\n", wait * 1000);
    Response::from_parts(head, Body::from(text))
}
