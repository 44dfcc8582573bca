//! What a response may say, whatever the version of HTTP that carries it.
//!
//! hyper has these rules for its own versions, and differs between them; here they hold for all, before
//! hyper or h3 sees a response.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum_core::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use tracing::{Span, warn};

use crate::admission::Refusal;

/// Fields that speak of a connection, and have no place in HTTP/2 and HTTP/3 (RFC 9110 §7.6.1, RFC 9113
/// §8.2.2, RFC 9114 §4.2). `te` is for requests.
const OF_A_CONNECTION: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The body of a response was not as long as its head said. It breaks off.
#[derive(Debug, thiserror::Error)]
#[error("the response's content-length is {said}, and its body has {}", match given {
    Some(given) => format!("{given} bytes"),
    None => "more bytes".to_owned(),
})]
pub(crate) struct WrongLength {
    said: u64,
    /// `None` for more than was said.
    given: Option<u64>,
}

impl WrongLength {
    pub(crate) fn too_long(said: u64) -> Self {
        Self { said, given: None }
    }

    pub(crate) fn too_short(said: u64, left: u64) -> Self {
        Self { said, given: Some(said - left) }
    }
}

/// Answers that a client has too much open.
pub(crate) fn too_many(reason: Refusal) -> Response<String> {
    let detail = format!("{} (limit: {})", reason.reason(), reason.as_str());
    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, &detail);
    // In seconds.
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Answers a request on a connection that is kept for the server's status.
#[cfg(feature = "tcp")]
pub(crate) fn full() -> Response<String> {
    let detail = "the server has no room for this connection and answers only status requests: try again later";
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

/// Answers a request whose trusted proxy says something that cannot be understood.
pub(crate) fn misforwarded() -> Response<String> {
    let detail =
        "what the proxy states about this request (Forwarded, X-Forwarded-...) is malformed: see the server's log";
    problem(StatusCode::BAD_REQUEST, detail)
}

/// An error as RFC 9457 writes it, for what no service is asked.
pub(crate) fn problem(status: StatusCode, detail: &str) -> Response<String> {
    let (title, number) = (status.canonical_reason().unwrap_or("Error"), status.as_u16());
    let detail = escaped(detail);
    let problem = format!(r#"{{"type":"about:blank","title":"{title}","status":{number},"detail":"{detail}"}}"#);
    let mut response = Response::new(problem);
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "application/problem+json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A text as it stands between the quotes of a string in JSON (RFC 8259 §7).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => escaped.extend(['\\', c]),
            c if c < ' ' => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Makes a response one that may be sent over `version` to a request with `method`.
pub(crate) fn checked(version: Version, method: &Method, response: Response<Body>) -> Response<Checked> {
    let (mut head, mut body) = response.into_parts();
    let opens_tunnel = (head.status == StatusCode::SWITCHING_PROTOCOLS && version < Version::HTTP_2)
        || (*method == Method::CONNECT && head.status.is_success());
    if head.status.is_informational() && !opens_tunnel {
        warn!(status = %head.status, "a handler's final response has an interim status: answering 500");
        (head, body) = Response::new(Body::empty()).into_parts();
        head.status = StatusCode::INTERNAL_SERVER_ERROR;
    }
    head.version = version;
    let named = if version >= Version::HTTP_2 { strip(&mut head.headers) } else { Vec::new() };
    let mut checked = Checked { named, strips: version >= Version::HTTP_2, ..body.into() };
    if opens_tunnel {
        return Response::from_parts(head, checked);
    }
    let mut length = said(&mut head.headers);
    if has_no_content(head.status) {
        // That of a 304 is the length of what is not sent, unless a router has said 0 of an empty body.
        let of_nothing = length == Some(0) && *method != Method::HEAD;
        if head.status == StatusCode::NO_CONTENT || of_nothing {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        if version >= Version::HTTP_2 || head.status == StatusCode::NO_CONTENT {
            // Over HTTP/1.1, hyper leaves it out by itself.
            checked.body = Body::empty();
        }
        return Response::from_parts(head, checked);
    }
    if length.is_none() && !http_body::Body::is_end_stream(&checked.body) {
        length = http_body::Body::size_hint(&checked.body).exact();
        if let Some(length) = length {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    if *method != Method::HEAD {
        (checked.length, checked.left) = (length, length);
    } else if length.is_some() {
        checked.body = Body::empty();
    }
    Response::from_parts(head, checked)
}

/// Makes an interim response one that may be sent over HTTP/3 (RFC 9114 §4.2, RFC 9110 §8.6).
pub(crate) fn checked_interim(mut response: Response<()>) -> Response<()> {
    strip(response.headers_mut());
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response
}

/// RFC 9110 §15.3.5, §15.4.5.
pub(crate) fn has_no_content(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The length that a head says, if it says one only.
fn said(headers: &mut HeaderMap) -> Option<u64> {
    let values: Vec<_> = headers.get_all(header::CONTENT_LENGTH).iter().collect();
    let (first, more) = values.split_first()?;
    let text = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = text.and_then(|text| text.parse().ok()).filter(|_| more.iter().all(|value| value == first));
    let (first, more) = ((*first).clone(), !more.is_empty());
    if length.is_none() {
        warn!(?first, "a handler's response has an invalid content-length, or several: omitting it");
        headers.remove(header::CONTENT_LENGTH);
    } else if more {
        headers.insert(header::CONTENT_LENGTH, first);
    }
    length
}

/// Takes out what speaks of the connection; gives the names that `connection` adds to those.
fn strip(headers: &mut HeaderMap) -> Vec<HeaderName> {
    let mut named = Vec::new();
    if headers.contains_key(header::CONNECTION) {
        let listed = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
        named = listed.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    }
    remove(headers, &named);
    named
}

fn remove(headers: &mut HeaderMap, named: &[HeaderName]) {
    for name in OF_A_CONNECTION.iter().chain(named) {
        headers.remove(name);
    }
}

/// A response's body that is as long as its head says, or breaks off.
#[derive(Debug)]
pub(crate) struct Checked {
    body: Body,
    length: Option<u64>,
    /// What must still come of that.
    left: Option<u64>,
    /// Fields that `connection` names.
    named: Vec<HeaderName>,
    /// Whether trailers must not speak of the connection.
    strips: bool,
    /// Whose body it is, for the log.
    span: Span,
}

impl From<Body> for Checked {
    /// One of which nothing is said.
    fn from(body: Body) -> Self {
        Self { body, length: None, left: None, named: Vec::new(), strips: false, span: Span::current() }
    }
}

impl Checked {
    /// How long it has to be, in bytes, if the head says so.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    fn failed(&mut self, error: WrongLength) -> Poll<Option<Result<Frame<Bytes>, axum_core::Error>>> {
        self.span.in_scope(|| warn!("{error}"));
        (self.body, self.left) = (Body::empty(), None);
        Poll::Ready(Some(Err(axum_core::Error::new(error))))
    }
}

impl http_body::Body for Checked {
    type Data = Bytes;
    type Error = axum_core::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum_core::Error>>> {
        let mut frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => Some(frame),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => None,
        };
        let (said, data) = (self.length.unwrap_or_default(), frame.as_ref().and_then(Frame::data_ref));
        match (self.left, data.map(|data| data.len() as u64)) {
            (None, _) => {}
            (Some(left), Some(len)) => match left.checked_sub(len) {
                Some(left) => self.left = Some(left),
                None => return self.failed(WrongLength::too_long(said)),
            },
            (Some(0), None) => {}
            (Some(left), None) => return self.failed(WrongLength::too_short(said, left)),
        }
        if self.strips
            && let Some(trailers) = frame.as_mut().and_then(Frame::trailers_mut)
        {
            strip(trailers);
            remove(trailers, &self.named);
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.left.unwrap_or_default() == 0 && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(|| self.body.size_hint(), SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client has sent stands in some of them: a path, the name of a coding.
    #[test]
    fn a_problem_may_say_anything() {
        let escapes =
            r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"\"a\\b\" \u000a\u001b\u0000 é 漢"}"#;
        assert_eq!(problem(StatusCode::BAD_REQUEST, "\"a\\b\" \n\u{1b}\0 é 漢").body(), escapes);
    }
}
