//! A file as it is stored, sent in pieces, whole or in part (RFC 9110 §13 and §14).

use std::{
    fs::{File, Metadata},
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
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
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeek, ReadBuf};
use tower::ServiceExt;
use tower_http::services::{ServeDir, fs::Backend};

use super::Problem;
use crate::{
    content,
    feed::Counted,
    source::{self, file::Pieces},
};

/// A file that an answer is made of. It is opened once, by whoever needs its bytes first.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    path: Arc<Path>,
    opened: Arc<OnceLock<(Arc<File>, Metadata)>>,
}

impl Stored {
    pub(super) fn at(path: Arc<Path>) -> Self {
        Self { path, opened: Arc::default() }
    }

    /// The file, and what is known of it.
    async fn open(&self) -> io::Result<&(Arc<File>, Metadata)> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        // It may have become a pipe since it was looked at, which is never waited for.
        let opened = source::file::file(&self.path).await?;
        Ok(self.opened.get_or_init(|| (Arc::new(opened.file), opened.metadata)))
    }

    /// What is known of it, which needs no right to read it.
    async fn metadata(&self) -> io::Result<Metadata> {
        match self.opened.get() {
            Some((_, metadata)) => Ok(metadata.clone()),
            None => tokio::fs::metadata(&self.path).await,
        }
    }

    /// Its length, and its first bytes, which tell what it is.
    pub(super) async fn head(&self) -> io::Result<(u64, Vec<u8>)> {
        let (file, metadata) = self.open().await?;
        // To be told of its end takes a thread that may wait. Where nothing is known of its length, it may have bytes.
        let most = match metadata.len() {
            0 => content::HEAD as u64,
            len => len.min(content::HEAD as u64),
        };
        // Else it grows from 32 bytes on, with a read each.
        let mut head = Vec::with_capacity(most as usize);
        Pieces::new(file.clone(), 0).take(most).read_to_end(&mut head).await?;
        Ok((metadata.len(), head))
    }
}

/// A file in the place of any path, and from where on it is sent; nothing if it was not opened.
#[derive(Debug, Clone)]
struct ThatFile(Stored, Arc<OnceLock<AtomicU64>>);

impl ThatFile {
    fn pieces(&self) -> Option<Pieces> {
        let at = self.1.get()?.load(Ordering::Relaxed);
        Some(Pieces::new(self.0.opened.get()?.0.clone(), at))
    }
}

impl Backend for ThatFile {
    type File = OpenFile;
    type Metadata = FileVersion;
    type OpenFuture = BoxFuture<'static, io::Result<OpenFile>>;
    type MetadataFuture = BoxFuture<'static, io::Result<FileVersion>>;

    fn open(&self, _: PathBuf) -> Self::OpenFuture {
        let Self(stored, at) = self.clone();
        Box::pin(async move {
            let metadata = stored.open().await?.1.clone();
            at.get_or_init(AtomicU64::default);
            Ok(OpenFile(metadata, at))
        })
    }

    fn metadata(&self, _: PathBuf) -> Self::MetadataFuture {
        let stored = self.0.clone();
        Box::pin(async move { Ok(FileVersion(stored.metadata().await?)) })
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

/// What an answer's head is made of. Its bytes are not read by this, but as [`Pieces`].
struct OpenFile(Metadata, Arc<OnceLock<AtomicU64>>);

impl OpenFile {
    fn at(&self) -> &AtomicU64 {
        self.1.get_or_init(AtomicU64::default)
    }
}

impl AsyncRead for OpenFile {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl AsyncSeek for OpenFile {
    fn start_seek(self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        // To where a range begins.
        let io::SeekFrom::Start(at) = position else { return Err(io::ErrorKind::Unsupported.into()) };
        self.at().store(at, Ordering::Relaxed);
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.at().load(Ordering::Relaxed)))
    }
}

impl tower_http::services::fs::File for OpenFile {
    type Metadata = FileVersion;
    type MetadataFuture<'a> = std::future::Ready<io::Result<FileVersion>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        std::future::ready(Ok(FileVersion(self.0.clone())))
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
    file: &Stored,
    request: &Parts,
    counted: impl FnOnce() -> Option<Counted>,
) -> Result<Response, String> {
    let range = range(request);
    let (mut response, mut pieces) = ask(file, request, range).await?;
    if let Some(wanted) = request.headers.get(header::IF_RANGE)
        && range.is_some()
    {
        // RFC 9110 §13.1.5: another version of the file comes whole. A weak tag is none that says so.
        let same =
            [header::ETAG, header::LAST_MODIFIED].iter().any(|name| response.headers().get(name) == Some(wanted));
        if !same {
            (response, pieces) = ask(file, request, None).await?;
        }
    }
    let sends = matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT);
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut response = response.map(|()| match pieces {
        Some(pieces) if sends && request.method == Method::GET => {
            Body::new(Exact { left: length.unwrap_or_default(), pieces, viewer: counted() })
        }
        // Not a body of no bytes, whose length would be told as that of the file.
        _ => Body::from_stream(futures_util::stream::empty::<io::Result<Bytes>>()),
    });
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

/// The head of the answer, and what it sends if that is the file.
async fn ask(
    file: &Stored,
    request: &Parts,
    range: Option<&HeaderValue>,
) -> Result<(Response<()>, Option<Pieces>), String> {
    let mut of_file = Request::new(Body::empty());
    *of_file.method_mut() = request.method.clone();
    for name in &CONDITIONS {
        if let Some(value) = request.headers.get(name) {
            of_file.headers_mut().insert(name, value.clone());
        }
    }
    if let Some(range) = range {
        let size = file.metadata().await.map_err(|error| error.to_string())?.len();
        let last = range.to_str().ok().and_then(|range| range.strip_prefix("bytes=-")?.parse::<u64>().ok());
        // So many last bytes as there are not: all of them (RFC 9110 §14.1.2).
        if last.is_none_or(|last| last <= size) {
            of_file.headers_mut().insert(header::RANGE, range.clone());
        }
    }
    let file = ThatFile(file.clone(), Arc::default());
    let dir = ServeDir::with_backend("/", file.clone()).append_index_html_on_directories(false);
    let Ok(response) = dir.oneshot(of_file).await;
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => Err(response.status().to_string()),
        _ => Ok((response.map(drop), file.pieces())),
    }
}

/// A body of as many bytes as its head says, though the file grows meanwhile; it fails when the file
/// has become shorter.
struct Exact {
    left: u64,
    pieces: Pieces,
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
        let Poll::Ready(read) = this.pieces.poll_piece(this.left, cx) else {
            if let Some(viewer) = &this.viewer {
                viewer.waits();
            }
            return Poll::Pending;
        };
        Poll::Ready(Some(match read {
            Ok(data) if data.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(data) => {
                this.left -= data.len() as u64;
                Ok(Frame::data(match &this.viewer {
                    Some(viewer) => viewer.give(data),
                    None => data,
                }))
            }
            Err(error) => Err(error),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
