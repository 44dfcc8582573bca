//! A feed that is a file, read as a file: any part of it can be asked for (RFC 9110 §14).

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header, request::Parts};
use http_body::{Frame, SizeHint};
use mime_guess::mime;
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::Problem;
use crate::feed::{Counted, Feed, FeedError};

type FileBody = tower_http::services::fs::ServeFileSystemResponseBody;

/// The headers that a file's answer depends on, beside `Range`.
const CONDITIONS: [HeaderName; 4] =
    [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE];

pub(super) async fn answer(feed: &Feed, path: &Path, request: &Parts) -> Result<Response, Problem> {
    let range = range(request);
    let mut response = ask(feed, path, request, range).await?;
    if let Some(wanted) = request.headers.get(header::IF_RANGE)
        && range.is_some()
    {
        // RFC 9110 §13.1.5: another version of the file comes whole. A weak tag is none that says so.
        let same =
            [header::ETAG, header::LAST_MODIFIED].iter().any(|name| response.headers().get(name) == Some(wanted));
        if !same {
            response = ask(feed, path, request, None).await?;
        }
    }
    let has_bytes = matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT);
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut response = match has_bytes && request.method == Method::GET {
        true => response
            .map(|body| Body::new(Exact { left: length.unwrap_or_default(), body, viewer: feed.count_viewer() })),
        // Not a body of no bytes, whose length would be told as that of the file.
        false => response.map(|_| Body::from_stream(futures_util::stream::empty::<io::Result<Bytes>>())),
    };
    if response.status().is_client_error() {
        let text = match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => "the range begins behind the end of the file",
            _ => "the file is not the one that the request is for",
        };
        let problem = Problem::new(response.status(), text.into()).into_response();
        let headers = std::mem::take(response.headers_mut());
        response = problem;
        response.headers_mut().extend(headers.into_iter().filter(|(name, _)| {
            // What is sent is the problem, not the file.
            !name.as_ref().is_some_and(|name| [header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name))
        }));
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

/// The range that is asked for, if it is one: others are as if they were not there (RFC 9110 §14.2).
fn range(request: &Parts) -> Option<&HeaderValue> {
    let value = request.headers.get(header::RANGE).filter(|_| request.method == Method::GET)?;
    let (first, last) = value.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let valid = match (number(first), number(last)) {
        (Some(first), Some(last)) => first <= last,
        (Some(_), None) => last.is_empty(),
        (None, Some(last)) => first.is_empty() && last > 0,
        (None, None) => false,
    };
    valid.then_some(value)
}

async fn ask(
    feed: &Feed,
    path: &Path,
    request: &Parts,
    range: Option<&HeaderValue>,
) -> Result<Response<FileBody>, Problem> {
    let mut of_file = Request::new(Body::empty());
    *of_file.method_mut() = request.method.clone();
    for name in &CONDITIONS {
        if let Some(value) = request.headers.get(name) {
            of_file.headers_mut().insert(name, value.clone());
        }
    }
    let unreadable = |why: &dyn std::fmt::Display| {
        feed.failed_for_viewer(&FeedError(format!("cannot read {}: {why}", path.display())));
        Problem::new(StatusCode::NOT_FOUND, format!("the file of the feed `{}` cannot be read now", feed.name()))
    };
    if let Some(range) = range {
        let size = tokio::fs::metadata(path).await.map_err(|error| unreadable(&error))?.len();
        let last = range.to_str().ok().and_then(|range| range.strip_prefix("bytes=-")?.parse::<u64>().ok());
        // So many last bytes as there are not: all of them (RFC 9110 §14.1.2).
        if last.is_none_or(|last| last <= size) {
            of_file.headers_mut().insert(header::RANGE, range.clone());
        }
    }
    let file = ServeFile::new_with_mime(path, &mime::TEXT_PLAIN_UTF_8);
    let response = file.oneshot(of_file).await.map_err(|error| unreadable(&error))?;
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => Err(unreadable(&response.status())),
        _ => Ok(response),
    }
}

/// A body of as many bytes as its head says, though the file grows meanwhile; it fails when the file
/// has become shorter.
struct Exact {
    left: u64,
    body: FileBody,
    viewer: Counted,
}

impl http_body::Body for Exact {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let mut data = frame.into_data().unwrap_or_default();
                data.truncate(usize::try_from(this.left).unwrap_or(usize::MAX));
                this.left -= data.len() as u64;
                this.viewer.count(data.len());
                Ok(Frame::data(data))
            }
            Some(Err(error)) => Err(error),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
