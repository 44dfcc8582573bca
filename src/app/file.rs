//! A feed that is a file, read as a file: any part of it can be asked for (RFC 9110 §14).

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header, request::Parts};
use http_body::{Frame, SizeHint};
use mime_guess::mime;
use tower::ServiceExt;
use tower_http::services::ServeFile;
use tracing::warn;

use super::Problem;
use crate::feed::{Counted, Feed};

type FileBody = tower_http::services::fs::ServeFileSystemResponseBody;

/// The headers that a file's answer depends on.
const CONDITIONS: [HeaderName; 5] =
    [header::RANGE, header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE];

pub(super) async fn answer(feed: &Feed, path: &Path, request: &Parts) -> Result<Response, Problem> {
    let mut response = ask(feed, path, request, true).await?;
    if let Some(wanted) = request.headers.get(header::IF_RANGE)
        && request.headers.contains_key(header::RANGE)
    {
        // RFC 9110 §13.1.5: another version of the file comes whole. A weak tag is none that says so.
        let same =
            [header::ETAG, header::LAST_MODIFIED].iter().any(|name| response.headers().get(name) == Some(wanted));
        if !same {
            response = ask(feed, path, request, false).await?;
        }
    }
    let viewer = (request.method == Method::GET).then(|| feed.count_viewer());
    let mut response = response.map(|body| Body::new(Exact { left: None, body, viewer }.with_length()));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

async fn ask(feed: &Feed, path: &Path, request: &Parts, ranged: bool) -> Result<Response<FileBody>, Problem> {
    let mut of_file = Request::new(Body::empty());
    *of_file.method_mut() = request.method.clone();
    for name in CONDITIONS.iter().filter(|name| ranged || **name != header::RANGE) {
        if let Some(value) = request.headers.get(name) {
            of_file.headers_mut().insert(name, value.clone());
        }
    }
    let file = ServeFile::new_with_mime(path, &mime::TEXT_PLAIN_UTF_8);
    let unreadable = |why: &dyn std::fmt::Display| {
        warn!(feed = feed.name(), %why, "cannot read a feed's file");
        Problem::new(StatusCode::NOT_FOUND, format!("the file of the feed `{}` cannot be read now", feed.name()))
    };
    let response = file.oneshot(of_file).await.map_err(|error| unreadable(&error))?;
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => Err(unreadable(&response.status())),
        _ => Ok(response),
    }
}

/// A body that fails when it is shorter than it said: the file shrank while it was read.
struct Exact {
    left: Option<u64>,
    body: FileBody,
    viewer: Option<Counted>,
}

impl Exact {
    fn with_length(mut self) -> Self {
        self.left = http_body::Body::size_hint(&self.body).exact();
        self
    }
}

impl http_body::Body for Exact {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        Poll::Ready(match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let size = frame.data_ref().map_or(0, Bytes::len);
                this.left = this.left.map(|left| left.saturating_sub(size as u64));
                if let Some(viewer) = &this.viewer {
                    viewer.count(size);
                }
                Some(Ok(frame))
            }
            None if this.left.is_some_and(|left| left > 0) => {
                this.left = None;
                Some(Err(io::ErrorKind::UnexpectedEof.into()))
            }
            end => end,
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
