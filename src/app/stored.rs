//! A file as it is stored, sent in pieces, whole or in part (RFC 9110 §13 and §14).

use std::{
    fs::Metadata,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header, request::Parts};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower::ServiceExt;
use tower_http::services::{ServeDir, fs::Backend};

use super::Problem;
use crate::{feed::Counted, source};

type FileBody = tower_http::services::fs::ServeFileSystemResponseBody;

/// A file, in the place of any path.
#[derive(Debug, Clone)]
struct ThatFile(Arc<Path>);

impl Backend for ThatFile {
    type File = OpenFile;
    type Metadata = FileVersion;
    type OpenFuture = BoxFuture<'static, io::Result<OpenFile>>;
    type MetadataFuture = BoxFuture<'static, io::Result<FileVersion>>;

    fn open(&self, _: PathBuf) -> Self::OpenFuture {
        let path = self.0.clone();
        // It may have become a pipe since it was looked at, which is never waited for.
        Box::pin(async move { Ok(OpenFile(source::file::file(&path).await?)) })
    }

    fn metadata(&self, _: PathBuf) -> Self::MetadataFuture {
        let path = self.0.clone();
        Box::pin(async move { Ok(FileVersion(tokio::fs::metadata(path).await?)) })
    }
}

/// What tells one version of a file from another: its `ETag` and `Last-Modified` are made of this.
struct FileVersion(Metadata);

impl tower_http::services::fs::Metadata for FileVersion {
    fn is_dir(&self) -> bool {
        self.0.is_dir()
    }

    /// When it was last changed, by the system's own note. Many tools set the other time (`touch -d`,
    /// `rsync -t`, package managers), so that a download could be resumed in the middle of another version.
    fn modified(&self) -> io::Result<SystemTime> {
        let modified = self.0.modified()?;
        #[cfg(unix)]
        {
            use std::{os::unix::fs::MetadataExt, time::Duration};
            let seconds = u64::try_from(self.0.ctime()).unwrap_or_default();
            let nanoseconds = u32::try_from(self.0.ctime_nsec()).unwrap_or_default();
            Ok(modified.max(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)))
        }
        #[cfg(not(unix))]
        Ok(modified)
    }

    fn len(&self) -> u64 {
        self.0.len()
    }
}

/// As [`TokioFile`](tower_http::services::fs::TokioFile), which cannot be made of a file.
struct OpenFile(tokio::fs::File);

impl AsyncRead for OpenFile {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncSeek for OpenFile {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.0).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.0).poll_complete(cx)
    }
}

impl tower_http::services::fs::File for OpenFile {
    type Metadata = FileVersion;
    type MetadataFuture<'a> = BoxFuture<'a, io::Result<FileVersion>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        Box::pin(async { Ok(FileVersion(self.0.metadata().await?)) })
    }
}

/// The headers that a file's answer depends on, beside `Range`.
const CONDITIONS: [HeaderName; 4] =
    [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE];

/// Whether an answer has bytes of the file.
pub(super) fn has_bytes(response: &Response) -> bool {
    matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT)
}

/// Answers GET and HEAD with a file, without its type. `counted` is who reads it, if that is counted. HEAD and what the
/// client has already (304) read nothing of it here.
///
/// # Errors
///
/// Why it cannot be read.
pub(super) async fn answer(
    path: &Arc<Path>,
    request: &Parts,
    counted: impl FnOnce() -> Option<Counted>,
) -> Result<Response, String> {
    let range = range(request);
    let mut response = ask(path, request, range).await?;
    if let Some(wanted) = request.headers.get(header::IF_RANGE)
        && range.is_some()
    {
        // RFC 9110 §13.1.5: another version of the file comes whole. A weak tag is none that says so.
        let same =
            [header::ETAG, header::LAST_MODIFIED].iter().any(|name| response.headers().get(name) == Some(wanted));
        if !same {
            response = ask(path, request, None).await?;
        }
    }
    let sends = matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT);
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut response = match sends && request.method == Method::GET {
        true => {
            let viewer = counted();
            response.map(|body| Body::new(Exact { left: length.unwrap_or_default(), body, viewer }))
        }
        // Not a body of no bytes, whose length would be told as that of the file.
        false => response.map(|_| Body::from_stream(futures_util::stream::empty::<io::Result<Bytes>>())),
    };
    if response.status().is_client_error() {
        let text = match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => "the range begins after the end of the file",
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
    // ServeDir's guess.
    if sends {
        headers.remove(header::CONTENT_TYPE);
    }
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

async fn ask(path: &Arc<Path>, request: &Parts, range: Option<&HeaderValue>) -> Result<Response<FileBody>, String> {
    let mut of_file = Request::new(Body::empty());
    *of_file.method_mut() = request.method.clone();
    for name in &CONDITIONS {
        if let Some(value) = request.headers.get(name) {
            of_file.headers_mut().insert(name, value.clone());
        }
    }
    if let Some(range) = range {
        let size = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?.len();
        let last = range.to_str().ok().and_then(|range| range.strip_prefix("bytes=-")?.parse::<u64>().ok());
        // So many last bytes as there are not: all of them (RFC 9110 §14.1.2).
        if last.is_none_or(|last| last <= size) {
            of_file.headers_mut().insert(header::RANGE, range.clone());
        }
    }
    let file = ServeDir::with_backend("/", ThatFile(path.clone())).append_index_html_on_directories(false);
    let Ok(response) = file.oneshot(of_file).await;
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => Err(response.status().to_string()),
        _ => Ok(response),
    }
}

/// A body of as many bytes as its head says, though the file grows meanwhile; it fails when the file
/// has become shorter.
struct Exact {
    left: u64,
    body: FileBody,
    viewer: Option<Counted>,
}

impl http_body::Body for Exact {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        if this.viewer.as_ref().is_some_and(Counted::is_cut) {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        if this.viewer.as_ref().is_some_and(|viewer| viewer.poll_room(cx).is_pending()) {
            return Poll::Pending;
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if let Some(viewer) = &this.viewer {
                viewer.waits();
            }
            return Poll::Pending;
        };
        Poll::Ready(Some(match frame {
            Some(Ok(frame)) => {
                let mut data = frame.into_data().unwrap_or_default();
                data.truncate(usize::try_from(this.left).unwrap_or(usize::MAX));
                this.left -= data.len() as u64;
                Ok(Frame::data(match &this.viewer {
                    Some(viewer) => viewer.give(data),
                    None => data,
                }))
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
